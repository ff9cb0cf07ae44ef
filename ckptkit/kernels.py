"""What a derived tensor computes, block by block, on any backend.

A kernel says which boxes of its inputs a box of its output needs, and computes one from the other.
It never sees a file: the engine hands the inputs over, whatever they come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from ckptkit.errors import EditError
from ckptkit.expressions import (
    OPS,
    Apply,
    Call,
    Convert,
    Current,
    Expr,
    Number,
    inputs,
    leaves,
    walk,
)
from ckptkit.lowering import evaluate, lower, numpy_dtype, working_dtype
from ckptkit.model import TensorSpec
from ckptkit.region import Box

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from ckptkit.lowering import Ops

Granularity = Literal["element", "row", "tensor"]
"""What a kernel has to see at least: one element, whole rows (along axis 0), or everything."""


class Need(NamedTuple):
    """A box of an input, by its number, that a box of the output needs."""

    number: int
    box: Box


class Block(Protocol):
    """What a device runs: a function of blocks. Kernels are such, and chains of kernels."""

    def block(self, ops: Ops, given: Sequence[Any], /) -> Any:
        """Compute a block from blocks; it may be smaller than it stands for, and broadcast."""


class Get(Protocol):
    """Hands over a box of an input."""

    def __call__(self, number: int, box: Box, /) -> np.ndarray[Any, Any]:
        """Return the values, as an array on the host."""


class Run(Protocol):
    """Runs a block function on some device."""

    def __call__(
        self, function: Any, given: Sequence[np.ndarray[Any, Any] | None], dtype: str, /
    ) -> np.ndarray[Any, Any]:
        """Return what the function gives for host arrays, as a host array of a dtype."""


class Kernel(Protocol):
    """What a derived tensor computes; kernels are frozen and can be pickled."""

    @property
    def elementwise(self) -> bool:
        """Each element of the output depends on the same element of the inputs alone."""

    @property
    def aligned(self) -> bool:
        """A block of the output needs the same block of the first input, and no more of it."""

    @property
    def granularity(self) -> Granularity:
        """What blocks have to hold."""

    @property
    def uses_current(self) -> bool:
        """Whether the values of the first input matter; if not, it is given as None."""

    @property
    def callable_kernel(self) -> bool:
        """Whether it calls a function of the user, which wants tensors of TensorFlow."""

    @property
    def inexact(self) -> tuple[str, ...]:
        """What in it devices may round differently."""

    @property
    def label(self) -> str:
        """What it does, in a few characters."""

    def block(self, ops: Ops, given: Sequence[Any], /) -> Any:
        """Compute a block from blocks, if that is how it goes about it."""

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec of the result.

        Raises:
            EditError: The inputs do not go with the kernel, or not with one another.
        """

    def needs(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Need]:
        """Yield what of the inputs a box of the output needs."""

    def compute(
        self, box: Box, given: Sequence[TensorSpec], get: Get, run: Run
    ) -> np.ndarray[Any, Any]:
        """Return a box of the output; it may be smaller than it stands for, and broadcast."""


def broadcast(shape: tuple[int, ...], box: Box) -> Box:
    """Return the part of an array that a box of what it is broadcast to needs."""
    skip = len(box.shape) - len(shape)
    return Box(
        tuple(0 if n == 1 else a for n, a in zip(shape, box.start[skip:], strict=True)),
        tuple(1 if n == 1 else m for n, m in zip(shape, box.shape[skip:], strict=True)),
    )


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Tell whether an array of a shape can stand for one of another."""
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(size in {1, wide} for size, wide in pairs)


def broadcast_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    """Return the shape that arrays have together, None if they do not go together."""
    rank = max(map(len, shapes), default=0)
    whole = [1] * rank
    for shape in shapes:
        for axis, size in enumerate(shape, start=rank - len(shape)):
            if size != 1:
                if whole[axis] not in {1, size}:
                    return None
                whole[axis] = size
    return tuple(whole)


def crop(values: np.ndarray[Any, Any], where: Sequence[slice]) -> np.ndarray[Any, Any]:
    """Return a view of a part of an array, also of one of rank 0."""
    index: Any = (*where, ...)
    found: np.ndarray[Any, Any] = values[index]
    return found


class OnHost:
    """What kernels share that never go to a device: they see axes, and move or count elements."""

    elementwise: ClassVar = False
    aligned: ClassVar = False
    granularity: ClassVar[Granularity] = "element"
    callable_kernel: ClassVar = False
    uses_current: ClassVar = True
    inexact: ClassVar[tuple[str, ...]] = ()

    def block(self, ops: Ops, given: Sequence[Any], /) -> Any:
        """Refuse: nothing hands such a kernel to a device."""
        raise NotImplementedError


class Blockwise:
    """A kernel that computes a block from the blocks of its inputs that broadcast to it."""

    aligned: ClassVar = True

    @property
    def uses_current(self) -> bool:
        """Whether the values of the first input matter."""
        return True

    def needs(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Need]:
        """Yield the blocks that lie, or broadcast, where the box is."""
        for number, spec in enumerate(given):
            if number or self.uses_current:
                yield Need(number, broadcast(spec.shape, box))

    def compute(
        self, box: Box, given: Sequence[TensorSpec], get: Get, run: Run
    ) -> np.ndarray[Any, Any]:
        """Run the block function on the device."""
        found: list[np.ndarray[Any, Any] | None] = [None] * len(given)
        for number, at in self.needs(box, given):
            found[number] = get(number, at)
        return run(self, found, self.output(given).dtype)

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec of the result."""
        raise NotImplementedError

    def block(self, ops: Ops, given: Sequence[Any], /) -> Any:
        """Compute a block."""
        raise NotImplementedError


@dataclass(frozen=True)
class Expression(Blockwise):
    """An expression over the current tensor and others, which broadcast to it.

    Attributes:
        expr: What is computed.
        dtype: The dtype of the result.
        shape: The shape of the result, where it is not that of the first input.
    """

    expr: Expr
    dtype: str
    shape: tuple[int, ...] | None = None
    elementwise: ClassVar = True
    granularity: ClassVar[Granularity] = "element"
    callable_kernel: ClassVar = False

    @cached_property
    def uses_current(self) -> bool:
        """Whether ``x`` occurs."""
        return any(isinstance(leaf, Current) for leaf in leaves(self.expr))

    @property
    def inexact(self) -> tuple[str, ...]:
        """The operations in it whose last bits depend on the backend."""
        return tuple(dict.fromkeys(_inexact(self.expr)))

    @property
    def label(self) -> str:
        """The expression, or ``cast DTYPE``."""
        if isinstance(self.expr, Current):
            return "copy"
        plain = self.expr == Convert(Current(), self.dtype)
        return f"cast {self.dtype}" if plain else str(self.expr)

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the shape of the first input with the dtype of the result."""
        shape = given[0].shape if self.shape is None else self.shape
        for leaf, spec in zip(inputs(self.expr), given[1:], strict=True):
            if not broadcasts(spec.shape, shape):
                msg = f"shape {list(spec.shape)} of {leaf} does not broadcast to {list(shape)}"
                raise EditError(msg)
        lower(self.expr, self.dtype, tuple(spec.dtype for spec in given))
        return TensorSpec(self.dtype, shape)

    def block(self, ops: Ops, given: Sequence[Any], /) -> Any:
        """Compute a block."""
        takes = tuple("unknown" if part is None else str(part.dtype.name) for part in given)
        return evaluate(lower(self.expr, self.dtype, takes), ops, given)


def makes_shape(expr: Expr) -> bool:
    """Tell whether an expression has a shape of its own, which its tensor takes."""
    return any(isinstance(leaf, Apply) for leaf in leaves(expr))


def _inexact(expr: Expr) -> Iterator[str]:
    for part in walk(expr):
        # A power with the literal exponent 2 becomes a square.
        if isinstance(part, Call) and not OPS[part.op].exact and not _squares(part):
            yield part.op


def _squares(call: Call) -> bool:
    return call.op == "power" and call.args[1] in {Number(2), Number(2.0)}


@dataclass(frozen=True, slots=True)
class MapFunction(Blockwise):
    """A function of the user, called with one block after another.

    By element, it sees blocks of the rank of the tensor, cut at places that depend on memory, not
    on the tensor; by row, blocks of whole rows along axis 0; by tensor, all of it.

    Attributes:
        fn: From a block, and those of further tensors, to a block of the same shape.
        dtype: The dtype that it returns; that of the tensor if None.
        granularity: What it has to see at a time.
        shape: The shape of the result, where it sees all and gives something else.
    """

    fn: Callable[..., Any]
    dtype: str | None = None
    granularity: Granularity = "element"
    shape: tuple[int, ...] | None = None
    elementwise: ClassVar = False
    callable_kernel: ClassVar = True

    @property
    def inexact(self) -> tuple[str, ...]:
        """The function itself: nobody knows what it does."""
        return (self.label,)

    @property
    def aligned(self) -> bool:  # type: ignore[override]
        """Whether it gives what has the shape that it gets."""
        return self.shape is None

    @property
    def label(self) -> str:
        """Return ``map NAME``."""
        return f"map {getattr(self.fn, '__name__', type(self.fn).__name__)}"

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec of the tensor, with the dtype that the function returns."""
        for spec in given:
            working_dtype(spec.dtype)
        first = given[0]
        for spec in given[1:]:
            if self.granularity != "tensor" and not broadcasts(spec.shape, first.shape):
                msg = f"shape {list(spec.shape)} does not broadcast to {list(first.shape)}"
                raise EditError(msg)
        shape = first.shape if self.shape is None else self.shape
        return TensorSpec(self.dtype or first.dtype, shape)

    def needs(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Need]:
        """Yield all of every input, or the rows or blocks that lie where the box is."""
        around = self._around(box, given[0].shape)
        for number, spec in enumerate(given):
            whole = self.granularity == "tensor"
            yield Need(number, Box.whole(spec.shape) if whole else broadcast(spec.shape, around))

    def _around(self, box: Box, shape: tuple[int, ...]) -> Box:
        if self.granularity != "row" or not shape:
            return box
        return Box((box.start[0], *(0 for _ in shape[1:])), (box.shape[0], *shape[1:]))

    def compute(
        self, box: Box, given: Sequence[TensorSpec], get: Get, run: Run
    ) -> np.ndarray[Any, Any]:
        """Run the function on the device; of more than the box, return the box."""
        made = Blockwise.compute(self, box, given, get, run)
        whole = self.output(given).shape
        self.check(
            made.shape, whole if self.granularity == "tensor" else self._around(box, whole).shape
        )
        if made.shape == box.shape:
            return made
        if self.granularity == "row":
            return crop(made, (slice(None), *box.slices()[1:]))
        return crop(made, box.slices())

    def check(self, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
        """Refuse a result of another shape: what is traced may not know its shape before.

        Raises:
            EditError: It has another one.
        """
        if found != expected:
            msg = f"{self.label}: expected shape {list(expected)}, the function gave {list(found)}"
            raise EditError(msg)

    def block(self, ops: Ops, given: Sequence[Any], /) -> Any:
        """Call the function and check what it returns.

        Raises:
            EditError: The function returned another shape or dtype, or no array at all.
        """
        del ops
        result = self.fn(*given)
        first = given[0]
        shape = _shape(first) if self.shape is None else self.shape
        wanted = TensorSpec(self.dtype or str(first.dtype.name), shape)
        if not (hasattr(result, "dtype") and hasattr(result, "shape")):
            msg = f"{self.label}: expected {wanted}, the function returned {type(result).__name__}"
            raise EditError(msg)
        found = TensorSpec(str(getattr(result.dtype, "name", result.dtype)), _shape(result))
        if found.dtype != wanted.dtype or not _agree(found.shape, wanted.shape):
            msg = f"{self.label}: expected {wanted}, the function returned {found}"
            raise EditError(msg)
        return result


def _shape(value: Any) -> tuple[int, ...]:
    """Return a shape; while TensorFlow traces, unknown sizes are -1, an unknown rank is (-1,)."""
    if getattr(value.shape, "rank", 0) is None:
        return (-1,)
    return tuple(-1 if size is None else int(size) for size in value.shape)


def _agree(found: tuple[int, ...], given: tuple[int, ...]) -> bool:
    if found == (-1,):
        return True
    pairs = zip(found, given, strict=False)
    return len(found) == len(given) and all(a == b or -1 in {a, b} for a, b in pairs)


@dataclass(frozen=True, slots=True)
class Constant:
    """Values that are given.

    Attributes:
        spec: Their dtype and shape.
        payload: The elements as they are stored: C order, little-endian.
        elements: The elements, where they differ in length.
    """

    spec: TensorSpec
    payload: bytes | memoryview = b""
    elements: tuple[bytes, ...] = ()
    elementwise: ClassVar = False
    aligned: ClassVar = False
    granularity: ClassVar[Granularity] = "element"
    callable_kernel: ClassVar = False
    uses_current: ClassVar = False
    inexact: ClassVar[tuple[str, ...]] = ()

    @property
    def label(self) -> str:
        """Return ``constant float32[3]``."""
        return f"constant {self.spec}"

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec, whatever the inputs are."""
        del given
        return self.spec

    def needs(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Need]:
        """Need nothing."""
        del box, given
        return iter(())

    def compute(
        self, box: Box, given: Sequence[TensorSpec], get: Get, run: Run
    ) -> np.ndarray[Any, Any]:
        """Return a box of the values."""
        del given, get, run
        return crop(self.array(), box.slices())

    def block(self, ops: Ops, given: Sequence[Any], /) -> Any:
        """Return all values."""
        del ops, given
        return self.array()

    def array(self) -> np.ndarray[Any, Any]:
        """Return the values; text as bytes."""
        import numpy as np

        dtype = numpy_dtype(self.spec.dtype)
        if self.spec.kind in {"string", "variant"}:
            filled = np.empty(len(self.elements), dtype)
            filled[:] = self.elements
            return filled.reshape(self.spec.shape)
        return np.frombuffer(self.payload, dtype).reshape(self.spec.shape)
