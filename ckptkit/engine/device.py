"""Where kernels run: NumPy, or TensorFlow on a processor or a GPU.

The only engine file that imports tensorflow, and only when it is needed. Arrays go in and come out
without a copy where TensorFlow allows it: in through DLPack, with types that DLPack does not know
as integers of the same width, and out as the memory that the operation filled.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from ckptkit.engine.read import ALIGNMENT, aligned
from ckptkit.errors import EditError
from ckptkit.expressions import OPS, operations
from ckptkit.kernels import Expression, Kernel, NumpyOps, numpy_dtype
from ckptkit.model import DTYPES, Derived

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ckptkit.engine.program import Block
    from ckptkit.engine.work import Work
    from ckptkit.model import Tensor

    Array = NDArray[Any]

DeviceName = str
"""``auto``, ``numpy``, ``cpu``, ``cpu:1``, ``gpu``, ``gpu:0``, ..."""

WORTH_IMPORTING: Final = 32 << 30
"""Bytes times operations beyond the first from which TensorFlow on a processor is chosen.

NumPy goes through memory once for every operation, TensorFlow on all cores at a time. A single
operation is bound by files and memory, and NumPy is quicker; each further one cost it a tenth of
a second more per GiB on 2 cores, and importing TensorFlow takes about 3 seconds.
"""

_GPU_FILES: Final = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


class Device(Protocol):
    """Runs block functions on host arrays."""

    name: str

    def run(self, function: Block, inputs: Sequence[Array | None], dtype: str) -> Array:
        """Return what a function gives for some blocks, as a host array of a dtype.

        The array may share memory with an input.

        Raises:
            EditError: The function gives something else than it said.
        """


class NumpyDevice:
    """Plain NumPy: the reference, and the quickest where little is computed."""

    name = "numpy"

    def run(self, function: Block, inputs: Sequence[Array | None], dtype: str) -> Array:
        """Run a function on arrays."""
        return np.asarray(function.block(NumpyOps(), inputs), numpy_dtype(dtype))


def choose(name: DeviceName, work: Work) -> str | None:
    """Return the device for some work; None where nothing is computed.

    ``auto`` takes the GPU where TensorFlow sees one, TensorFlow on the processor where a user's
    function asks for its tensors or the bytes pay for importing it, else NumPy.

    Raises:
        EditError: There is no such device, or it takes what is not installed.
    """
    kernels = list(_kernels(work))
    if not kernels:
        return None
    if name != "auto":
        return name
    has_tensorflow = importlib.util.find_spec("tensorflow") is not None
    if any(kernel.callable_kernel for kernel in kernels) and not has_tensorflow:
        msg = (
            "a function is mapped, which gets TensorFlow tensors, and tensorflow is not installed:"
            " pip install 'ckptkit[tensorflow]', or device=\"numpy\" to get NumPy arrays"
        )
        raise EditError(msg)
    if not has_tensorflow:
        return "numpy"
    may_have_gpu = any(map(os.path.exists, _GPU_FILES))
    if may_have_gpu and import_tensorflow().config.list_logical_devices("GPU"):
        return "gpu"
    built_in = [kernel for kernel in kernels if isinstance(kernel, Expression)]
    passes = max((operations(kernel.expr) for kernel in built_in), default=0)
    pays = work.bytes_computed * (passes - 1) >= WORTH_IMPORTING
    return "cpu" if pays or any(kernel.callable_kernel for kernel in kernels) else "numpy"


def _kernels(work: Work) -> Iterator[Kernel]:
    for flat in work.flats:
        yield from _chain_kernels(flat.chain.root)
    for boxed in work.boxes:
        yield from _tensor_kernels(boxed.tensor)
    for region in work.regions:
        for layer in region.layers:
            yield layer.kernel
            for other in layer.others:
                yield from _tensor_kernels(other)


def _chain_kernels(node: Any) -> Iterator[Kernel]:
    if isinstance(node, tuple):
        kernel, parents = node
        yield kernel
        for parent in parents:
            yield from _chain_kernels(parent)


def _tensor_kernels(tensor: Tensor) -> Iterator[Kernel]:
    if isinstance(tensor.source, Derived):
        yield tensor.source.kernel
        for parent in tensor.source.parents:
            yield from _tensor_kernels(parent)


def device_from(name: DeviceName) -> Device:
    """Return a device by name.

    Raises:
        EditError: There is no such device, or TensorFlow is not installed.
    """
    if name == "numpy":
        return NumpyDevice()
    kind, colon, number = name.partition(":")
    if kind not in {"cpu", "gpu"} or bool(colon) != number.isdecimal():
        msg = f"unknown device {name!r}; there are auto, numpy, cpu, gpu, and gpu:1 and so on"
        raise EditError(msg)
    devices = import_tensorflow().config.list_logical_devices(kind.upper())
    found = [device.name for device in devices]
    if number:
        found = found[int(number) : int(number) + 1]
    if not found:
        msg = f"TensorFlow sees no device {name!r}"
        raise EditError(msg)
    return TensorFlowDevice(name, found)


def import_tensorflow() -> Any:
    """Import TensorFlow without what its C++ code has to say about machine and build.

    Raises:
        EditError: It is not installed.
    """
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _hushed():
            import tensorflow as tf

            for gpu in tf.config.list_physical_devices("GPU"):
                # By default TensorFlow takes all memory of a GPU that others may be using.
                tf.config.experimental.set_memory_growth(gpu, enable=True)
            tf.config.list_logical_devices()
    except ImportError:
        msg = "this needs tensorflow: pip install 'ckptkit[tensorflow]'"
        raise EditError(msg) from None
    return tf


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keep what C++ code says from standard error: it speaks before it can be told not to."""
    sys.stderr.flush()
    voice, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(voice, 2)
        os.close(voice)
        os.close(nowhere)


class TensorFlowOps:
    """The operations of the expression language as TensorFlow's."""

    def __init__(self, tf: Any) -> None:
        """Bind the operations."""
        self._tf = tf
        math = tf.math
        named = {
            "divide": tf.divide,
            "where": tf.where,
            "mod": math.floormod,
            "floor_divide": math.floordiv,
            "power": tf.pow,
            "round": tf.round,
            "isnan": math.is_nan,
            "isinf": math.is_inf,
            "isfinite": math.is_finite,
        }
        self._functions: dict[str, Callable[..., Any]] = {
            op: named.get(op) or getattr(math, op) for op in OPS if op in named or hasattr(math, op)
        }

    def call(self, op: str, args: Sequence[Any]) -> Any:
        """Apply an operation."""
        return self._functions[op](*args)

    def cast(self, value: Any, dtype: str) -> Any:
        """Convert as ``tf.cast`` does."""
        return self._tf.cast(value, dtype)

    def constant(self, value: complex, dtype: str) -> Any:
        """Make a tensor of rank 0."""
        return self._tf.constant(value, dtype)


class TensorFlowDevice:
    """TensorFlow's devices of one kind; every thread keeps to one of them.

    A function is traced once for each set of dtypes and ranks: shapes are left open, so that the
    last chunk of a tensor, shorter than the others, does not trace again.
    """

    def __init__(self, name: str, devices: Sequence[str]) -> None:
        """Use the logical devices of these names."""
        self.name = name
        self._tf = import_tensorflow()
        self._ops = TensorFlowOps(self._tf)
        self._devices = devices
        self._next = itertools.count()
        self._local = threading.local()
        self._lock = threading.Lock()
        self._traced: dict[tuple[Any, ...], Any] = {}
        self.traces = 0

    def run(self, function: Block, inputs: Sequence[Array | None], dtype: str) -> Array:
        """Run a function on this thread's device."""
        present = [part for part in inputs if part is not None]
        if not all(_goes_in(part.dtype.name) for part in present) or not _goes_in(dtype):
            return self._run_narrow(function, inputs, dtype)
        traced = self._trace(function, inputs, dtype)
        tf = self._tf
        tensors = []
        for part in present:
            raw = _aligned(np.asarray(part, order="C").view(_carrier(part.dtype.name)))
            tensors.append(tf.experimental.dlpack.from_dlpack(raw.__dlpack__()))
        with tf.device(self._device()):
            result = traced(*tensors)
        host = result if "GPU" not in result.device else result.cpu()
        return np.asarray(memoryview(host)).view(numpy_dtype(dtype))

    def _run_narrow(self, function: Block, inputs: Sequence[Array | None], dtype: str) -> Array:
        """Run on types for which TensorFlow has few kernels, often not even conversions."""
        if not getattr(function, "callable_kernel", False):
            return NumpyDevice().run(function, inputs, dtype)
        with self._tf.device(self._device()):
            given = [None if part is None else self._tf.constant(part) for part in inputs]
            return np.asarray(function.block(self._ops, given).numpy())

    def _device(self) -> str:
        found: str | None = getattr(self._local, "device", None)
        if found is None:
            found = self._devices[next(self._next) % len(self._devices)]
            self._local.device = found
        return found

    def _trace(self, function: Block, inputs: Sequence[Array | None], dtype: str) -> Any:
        specs = tuple(None if part is None else (part.dtype.name, part.ndim) for part in inputs)
        key = (_Same(function), specs, dtype)
        with self._lock:
            found = self._traced.get(key)
            if found is None:
                found = self._traced[key] = self._traceable(function, specs, dtype)
        return found

    def _traceable(
        self, function: Block, specs: tuple[tuple[str, int] | None, ...], dtype: str
    ) -> Any:
        tf = self._tf
        signature = [
            tf.TensorSpec([None] * rank, _carrier(name).name)
            for name, rank in (spec for spec in specs if spec is not None)
        ]

        def traced(*carried: Any) -> Any:
            self.traces += 1
            left = iter(carried)
            arrays = [None if spec is None else _restore(tf, next(left), spec[0]) for spec in specs]
            result = function.block(self._ops, arrays)
            if result.dtype.name != dtype:
                msg = f"a kernel gave {result.dtype.name} where {dtype} was expected"
                raise EditError(msg)
            carrier = _carrier(dtype).name
            return result if carrier == dtype else tf.bitcast(result, carrier)

        return tf.function(
            traced, input_signature=signature, autograph=False
        ).get_concrete_function()


class _Same:
    """A function as a key: equal ones share a trace, also those that came by way of pickle.

    A function of the user may have no hash; then it is the same as itself alone.
    """

    __slots__ = ("_function", "_hash")

    def __init__(self, function: Block) -> None:
        self._function = function
        try:
            self._hash: int | None = hash(function)
        except TypeError:
            self._hash = None

    def __hash__(self) -> int:
        return id(self._function) if self._hash is None else self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same) or self._function is other._function:
            return isinstance(other, _Same)
        return None not in {self._hash, other._hash} and self._function == other._function


def _goes_in(dtype: str) -> bool:
    return (DTYPES[dtype].bits >= 8 or dtype == "bool") and not dtype.startswith("float8")


def _carrier(dtype: str) -> np.dtype[Any]:
    """Return the dtype under which values cross: itself, or an integer that is as wide."""
    return np.dtype("uint16") if dtype in {"bfloat16", "float16"} else numpy_dtype(dtype)


def _aligned(values: Array) -> Array:
    """Return values at an address that TensorFlow takes; at any other its kernels abort."""
    if values.ctypes.data % ALIGNMENT == 0 and values.flags.writeable:
        return values
    copy = aligned(values.nbytes).view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def _restore(tf: Any, carried: Any, dtype: str) -> Any:
    return carried if carried.dtype.name == dtype else tf.bitcast(carried, dtype)
