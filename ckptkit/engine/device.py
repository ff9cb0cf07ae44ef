"""Where kernels run: NumPy, or TensorFlow on a processor or a GPU.

The only engine file that imports tensorflow, and only when it is needed. Arrays go in and come out
without a copy where TensorFlow allows it: in through DLPack, with types that DLPack does not know
as integers of the same width, and out as the memory that the operation filled.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import math
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from ckptkit.engine.exact import uses
from ckptkit.engine.operations import TensorFlowOps
from ckptkit.engine.program import Chain
from ckptkit.engine.read import ALIGNMENT, aligned
from ckptkit.errors import EditError
from ckptkit.expressions import operations
from ckptkit.kernels import Expression, MapFunction
from ckptkit.lowering import NumpyOps, numpy_dtype
from ckptkit.model import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ckptkit.engine.work import Work
    from ckptkit.kernels import Block
    from ckptkit.model import TensorSpec

    Array = NDArray[Any]
    Specs = tuple[tuple[str, tuple[int | None, ...]] | None, ...]

DeviceName = str
"""``auto``, ``numpy``, ``cpu``, ``cpu:1``, ``gpu``, ``gpu:0``, ..."""

WORTH_IMPORTING: Final = 32 << 30
"""Bytes times operations beyond the first from which TensorFlow on a processor is chosen.

NumPy goes through memory once for every operation, TensorFlow on all cores at a time. A single
operation is bound by files and memory, and NumPy is quicker; each further one cost it a tenth of
a second more per GiB on 2 cores, and importing TensorFlow takes about 3 seconds.
"""

TRACES_KEPT: Final = 256
"""Traced built-in functions that are kept from run to run: TensorFlow lets go of none entirely."""

_TRACED: Final[dict[tuple[Any, ...], Callable[..., Any]]] = {}
"""Them, the one that was used last at the end."""

_TRACING: Final = threading.Lock()

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
    kernels = [kernel for kernel, _ in uses(work)]
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


def device_from(name: DeviceName) -> Device:
    """Return a device by name.

    Raises:
        EditError: There is no such device, or TensorFlow is not installed.
    """
    return NumpyDevice() if name == "numpy" else TensorFlowDevice(name, logical_devices(name))


def logical_devices(name: DeviceName) -> list[str]:
    """Return what TensorFlow calls the devices that a name stands for: ``cpu`` for all of them.

    Raises:
        EditError: There is no such device, or TensorFlow is not installed.
    """
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
    return found


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


class TensorFlowDevice:
    """TensorFlow's devices of one kind; every thread keeps to one of them.

    A function is traced once for each set of dtypes and ranks: shapes are left open, so that the
    last chunk of a tensor, shorter than the others, does not trace again. Only one that sees whole
    tensors is told their shapes. What is too much for the memory of a GPU is computed in halves,
    and from then on not tried again at that size.
    """

    def __init__(self, name: str, devices: Sequence[str]) -> None:
        """Use the logical devices of these names."""
        self.name = name
        self._tf = import_tensorflow()
        self._ops = TensorFlowOps(self._tf, gpu=name.startswith("gpu"))
        self._devices = devices
        # Processes of a pool, of which each has a thread or two, do not all begin with the first.
        self._next = itertools.count(os.getpid())
        self._local = threading.local()
        self._lock = threading.Lock()
        self._traced: dict[tuple[Any, ...], Any] = {}
        self._most: dict[tuple[Any, ...], int] = {}
        self.traces = 0

    def run(self, function: Block, inputs: Sequence[Array | None], dtype: str) -> Array:
        """Run a function on this thread's device, in parts if its memory does not suffice.

        Raises:
            EditError: The function gives something else than it said, or takes more memory than
                there is and cannot be cut.
        """
        made = self._attempt(function, inputs, dtype)
        if made is None:
            out = np.empty(_shape(inputs), numpy_dtype(dtype))
            self._run_halves(function, inputs, out, dtype)
            return out
        return made

    def _run_halves(
        self, function: Block, inputs: Sequence[Array | None], out: Array, dtype: str
    ) -> None:
        for part, place in _halves(inputs, out):
            made = self._attempt(function, part, dtype)
            if made is None:
                self._run_halves(function, part, place, dtype)
            else:
                place[...] = made

    def _attempt(self, function: Block, inputs: Sequence[Array | None], dtype: str) -> Array | None:
        """Return what a function gives; None where it takes more memory than the device has."""
        specs = tuple(
            None if part is None else (part.dtype.name, _sizes(function, part.shape))
            for part in inputs
        )
        key = (_Same(function), specs, dtype)
        shape = _shape(inputs) if _may_be_cut(function) else ()
        size = math.prod(shape)
        if size > self._most.get(key, size):
            return None
        try:
            return self._run_whole(function, inputs, dtype, key)
        except (self._tf.errors.ResourceExhaustedError, self._tf.errors.InternalError) as error:
            if not self._lacks_memory(error):
                raise
            if size <= 1 or not _can_be_cut(function, shape):
                label = getattr(function, "label", "a chain of operations")
                given = ", ".join(str(list(part.shape)) for part in inputs if part is not None)
                msg = (
                    f"device {self.name}: the memory does not suffice for {label} on {given}, which"
                    " cannot be computed in smaller parts: give less --memory, which makes chunks"
                    " smaller, or --device cpu"
                )
                raise EditError(msg) from error
        # Outside of the handler: the error holds the tensors that are in the way.
        with self._lock:
            self._most[key] = min(self._most.get(key, size), (size + 1) // 2)
        return None

    def _lacks_memory(self, error: Exception) -> bool:
        # What has no room for its inputs is told so by another class of errors.
        exhausted = isinstance(error, self._tf.errors.ResourceExhaustedError)
        return exhausted or "Dst tensor is not initialized" in str(error)

    def _run_whole(
        self,
        function: Block,
        inputs: Sequence[Array | None],
        dtype: str,
        key: tuple[Any, ...],
    ) -> Array:
        present = [part for part in inputs if part is not None]
        if not all(_goes_in(part.dtype.name) for part in present) or not _goes_in(dtype):
            return self._run_narrow(function, inputs, dtype)
        traced = self._trace(function, key)
        tf = self._tf
        tensors = []
        for part in present:
            raw = _aligned(np.asarray(part, order="C").view(_carrier(part.dtype.name)))
            tensors.append(tf.experimental.dlpack.from_dlpack(raw.__dlpack__()))
        with tf.device(self._device()):
            result = traced(*tensors)
        if "GPU" in result.device:
            with tf.device("CPU:0"):
                result = tf.identity(result)
        return np.asarray(memoryview(result)).view(numpy_dtype(dtype))

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

    def trace(self, function: Block, given: Sequence[TensorSpec], dtype: str) -> None:
        """Trace a function and run it on nothing.

        Raises:
            EditError: It gives something else than it said, as far as tracing tells.
        """
        if all(_goes_in(spec.dtype) for spec in given) and _goes_in(dtype):
            specs = tuple((spec.dtype, _sizes(function, spec.shape)) for spec in given)
            self._trace(function, (_Same(function), specs, dtype))

    def _trace(self, function: Block, key: tuple[Any, ...]) -> Any:
        _, specs, dtype = key
        if getattr(function, "callable_kernel", False):
            with self._lock:
                if key not in self._traced:
                    self._traced[key] = self._concrete(function, specs, dtype)
                return self._traced[key]
        with _TRACING:
            call = _TRACED.pop(key, None) or self._as_written(function, specs, dtype)
            _TRACED[key] = call
            if len(_TRACED) > TRACES_KEPT:
                del _TRACED[next(iter(_TRACED))]
        return call

    def _concrete(self, function: Block, specs: Specs, dtype: str) -> Any:
        tf = self._tf
        signature = [
            tf.TensorSpec(sizes, _carrier(name).name)
            for name, sizes in (spec for spec in specs if spec is not None)
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

    def _as_written(self, function: Block, specs: Specs, dtype: str) -> Callable[..., Any]:
        """Trace a function that is to give the bits of NumPy.

        One that is called itself is first made faster: ``x / 3`` becomes ``x * (1 / 3)``.
        """
        tf, concrete = self._tf, self._concrete(function, specs, dtype)
        gives = [output.dtype for output in concrete.outputs]
        config = tf.compat.v1.ConfigProto()
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        plain = config.SerializeToString()

        def call(*carried: Any) -> Any:
            return tf.raw_ops.StatefulPartitionedCall(
                args=[*carried, *concrete.captured_inputs],
                Tout=gives,
                f=concrete,
                config_proto=plain,
            )[0]

        return call


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


def _may_be_cut(function: Block) -> bool:
    """Tell whether the parts of a result are what a function gives for parts of its inputs."""
    if isinstance(function, MapFunction):
        return function.granularity != "tensor"
    return isinstance(function, Chain) or bool(getattr(function, "elementwise", False))


def _can_be_cut(function: Block, shape: tuple[int, ...]) -> bool:
    """Tell whether there is a place to cut: rows stay whole for a function that wants them so."""
    rows = isinstance(function, MapFunction) and function.granularity == "row"
    return shape[0] > 1 if rows else True


def _shape(inputs: Sequence[Array | None]) -> tuple[int, ...]:
    return np.broadcast_shapes(*(part.shape for part in inputs if part is not None))


def _halves(
    inputs: Sequence[Array | None], out: Array
) -> Iterator[tuple[list[Array | None], Array]]:
    """Cut blocks, and the place of their result, along the first axis that can be cut.

    An input that is broadcast along this axis goes into both halves as it is.
    """
    axis = next(axis for axis, length in enumerate(out.shape) if length > 1)
    length, behind = out.shape[axis], out.ndim - axis
    for half in (slice(0, (length + 1) // 2), slice((length + 1) // 2, length)):
        parts = [
            part
            if part is None or part.ndim < behind or part.shape[-behind] == 1
            else part[(..., half, *(slice(None),) * (behind - 1))]
            for part in inputs
        ]
        yield parts, out[(..., half, *(slice(None),) * (behind - 1))]


def _sizes(function: Block, shape: tuple[int, ...]) -> tuple[int | None, ...]:
    """Return the sizes that a function is traced for; those of blocks are left open."""
    whole = getattr(function, "granularity", "element") == "tensor"
    return shape if whole else (None,) * len(shape)


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
