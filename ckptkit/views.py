"""Kernels that compute nothing: the same elements at other places, in bounded memory.

Each says which boxes of its inputs make up a box of its output; a tensor is never held whole.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ckptkit.errors import EditError
from ckptkit.kernels import Need, OnHost, broadcast, broadcasts
from ckptkit.lowering import numpy_dtype
from ckptkit.model import Derived, Stored, TensorSpec
from ckptkit.region import Box, Region

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from ckptkit.kernels import Get, Run
    from ckptkit.model import Tensor

    Places = np.ndarray[Any, np.dtype[np.int64]]

NEAR: Final = 16 << 10
"""Bytes between rows that are read along with them: another call would take longer."""

WINDOW: Final = 1 << 20
"""Elements that are read at a time to take rows of them."""


class Part(NamedTuple):
    """A piece of a box of the output, and where it comes from.

    Attributes:
        number, box: The input, and what of it.
        target: Where in the box of the output it goes.
        flat: ``target`` counts elements in C order.
        take: What of the input's box is taken; all of it if None.
    """

    number: int
    box: Box
    target: tuple[slice | Places, ...]
    flat: bool = False
    take: tuple[slice | Places, ...] | None = None


def axis_of(axis: int, rank: int) -> int:
    """Return an axis counted from the front.

    Raises:
        EditError: There is no such axis.
    """
    if not -rank <= axis < rank:
        msg = f"there is no axis {axis} in {rank} axes"
        raise EditError(msg)
    return axis % rank


class View(OnHost):
    """What all views share: they carry elements over, on the host."""

    def parts(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Part]:
        """Yield what makes up a box of the output."""
        raise NotImplementedError

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec of the result.

        Raises:
            EditError: The inputs do not go with the view.
        """
        raise NotImplementedError

    def turn(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the values of a part the way they lie in the output."""
        return values

    def blank(
        self, box: Box, given: Sequence[TensorSpec], dtype: np.dtype[Any]
    ) -> np.ndarray[Any, Any]:
        """Return memory for a box of the output."""
        import numpy as np

        del given
        return np.empty(box.shape, dtype)

    def needs(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Need]:
        """Yield the boxes of the inputs that hold a box of the output."""
        for part in self.parts(box, given):
            yield Need(part.number, part.box)

    def compute(
        self, box: Box, given: Sequence[TensorSpec], get: Get, run: Run
    ) -> np.ndarray[Any, Any]:
        """Bring the parts together."""
        del run
        out = self.blank(box, given, numpy_dtype(self.output(given).dtype))
        line = out.reshape(-1)
        for part in self.parts(box, given) if box.count else ():
            values = get(part.number, part.box)
            if part.take is not None:
                values = values[part.take]
            if part.flat:
                line[part.target[0]] = values.reshape(-1)
            else:
                # The ellipsis makes a view, also of an array of rank 0.
                out[(*part.target, ...)] = self.turn(values)
        return out


def _all(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in shape)


@dataclass(frozen=True, slots=True)
class Transpose(View):
    """Axes in another order, as ``numpy.transpose`` gives them."""

    axes: tuple[int, ...]

    @property
    def label(self) -> str:
        """Return ``transpose [1, 0]``."""
        return f"transpose {list(self.axes)}"

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec with its axes in order.

        Raises:
            EditError: The axes are not those of the input, each once.
        """
        (spec,) = given
        if sorted(self.axes) != list(range(len(spec.shape))):
            msg = f"{list(self.axes)} are not the axes of {spec}, each once"
            raise EditError(msg)
        return TensorSpec(spec.dtype, tuple(spec.shape[axis] for axis in self.axes))

    def parts(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Part]:
        """Yield the box of the input that the box is when turned."""
        del given
        inverse = [self.axes.index(axis) for axis in range(len(self.axes))]
        start = tuple(box.start[axis] for axis in inverse)
        shape = tuple(box.shape[axis] for axis in inverse)
        yield Part(0, Box(start, shape), _all(box.shape))

    def turn(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the values turned."""
        return values.transpose(self.axes)


@dataclass(frozen=True, slots=True)
class Reshape(View):
    """Another shape for the elements in their C order."""

    shape: tuple[int, ...]

    @property
    def label(self) -> str:
        """Return ``reshape [6, 2]``."""
        return f"reshape {list(self.shape)}"

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec of that shape.

        Raises:
            EditError: It has another number of elements.
        """
        (spec,) = given
        if math.prod(self.shape) != spec.count:
            shape = list(self.shape)
            msg = f"{spec} has {spec.count} elements, the shape {shape} takes another number"
            raise EditError(msg)
        return TensorSpec(spec.dtype, self.shape)

    def parts(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Part]:
        """Yield boxes of the input that hold runs of the box, in order."""
        at = 0
        for start, length in _runs(self.shape, box):
            for piece in flat_boxes(given[0].shape, start, start + length):
                yield Part(0, piece, (slice(at, at + piece.count),), flat=True)
                at += piece.count


def shaped(shape: Sequence[int], count: int) -> tuple[int, ...]:
    """Return a shape with what ``-1`` stands for.

    Raises:
        EditError: It does not go with a number of elements.
    """
    known = math.prod(size for size in shape if size != -1)
    if list(shape).count(-1) > 1 or any(size < -1 for size in shape):
        msg = f"{list(shape)} is no shape: sizes are not below 0, and one of them may be -1"
        raise EditError(msg)
    if -1 not in shape:
        return tuple(shape)
    if not known or count % known:
        msg = f"{count} elements do not go into the shape {list(shape)}"
        raise EditError(msg)
    return tuple(count // known if size == -1 else size for size in shape)


def _runs(shape: tuple[int, ...], box: Box) -> Iterator[tuple[int, int]]:
    """Yield the runs of a box in its array, in C order: first element, and how many."""
    if not box.count:
        return
    axis, width = len(shape), 1
    while axis:
        axis -= 1
        width *= box.shape[axis]
        if box.shape[axis] != shape[axis]:
            break
    inner = math.prod(shape[axis + 1 :])
    first = box.start[axis] * inner if shape else 0
    strides = [math.prod(shape[a + 1 :]) for a in range(axis)]
    ranges = [range(box.start[a], box.start[a] + box.shape[a]) for a in range(axis)]
    for outer in itertools.product(*ranges):
        yield first + sum(n * stride for n, stride in zip(outer, strides, strict=True)), width


def flat_boxes(shape: tuple[int, ...], start: int, stop: int) -> Iterator[Box]:
    """Yield boxes of an array that together are a run of its elements, in order."""
    if stop <= start:
        return
    if not shape:
        yield Box((), ())
        return
    inner = math.prod(shape[1:])
    low, into = divmod(start, inner)
    high, past = divmod(stop, inner)
    rest = shape[1:]

    def within(row: int, a: int, b: int) -> Iterator[Box]:
        for box in flat_boxes(rest, a, b):
            yield Box((row, *box.start), (1, *box.shape))

    if low == high:
        yield from within(low, into, past)
        return
    if into:
        yield from within(low, into, inner)
        low += 1
    if low < high:
        yield Box((low, *(0 for _ in rest)), (high - low, *rest))
    if past:
        yield from within(high, 0, past)


@dataclass(frozen=True, slots=True)
class Slice(View):
    """A region of a tensor."""

    region: Region

    @property
    def label(self) -> str:
        """Return the region."""
        return f"slice {self.region}"

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec of the region.

        Raises:
            EditError: The region does not fit.
        """
        (spec,) = given
        return TensorSpec(spec.dtype, self.region.resolve(spec.shape).shape)

    def parts(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Part]:
        """Yield the box of the input that goes around what is taken."""
        selection = self.region.resolve(given[0].shape)
        kept = iter(zip(box.start, box.shape, strict=True))
        start, shape, take = [], [], []
        for first, step, keep in zip(selection.start, selection.step, selection.kept, strict=True):
            low, count = next(kept) if keep else (0, 1)
            start.append(first + low * step)
            shape.append((count - 1) * step + 1)
            take.append(slice(None, None, step))
        yield Part(0, Box(tuple(start), tuple(shape)), (slice(0, box.count),), True, tuple(take))


def _lying(number: int, size: int, begin: int, axis: int, box: Box) -> Iterator[Part]:
    """Yield what of a box comes from an input that lies ``begin`` elements along an axis."""
    first = box.start[axis]
    low, high = max(first, begin), min(first + box.shape[axis], begin + size)
    if low < high:
        target = list(_all(box.shape))
        target[axis] = slice(low - first, high - first)
        yield Part(number, box.along(axis, low - begin, high - low), tuple(target))


@dataclass(frozen=True, slots=True)
class Concat(View):
    """Tensors joined along an axis."""

    axis: int

    @property
    def label(self) -> str:
        """Return ``concat axis 0``."""
        return f"concat axis {self.axis}"

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec of what is joined.

        Raises:
            EditError: The inputs differ in more than the size of the axis.
        """
        first, axis = given[0], axis_of(self.axis, len(given[0].shape))
        total = 0
        for spec in given:
            rest = (*spec.shape[:axis], *spec.shape[axis + 1 :])
            if spec.dtype != first.dtype or rest != (*first.shape[:axis], *first.shape[axis + 1 :]):
                msg = f"{first} and {spec} differ in more than axis {axis}, and cannot be joined"
                raise EditError(msg)
            total += spec.shape[axis]
        return TensorSpec(first.dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :]))

    def parts(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Part]:
        """Yield what of each input lies in the box."""
        axis, begin = axis_of(self.axis, len(box.shape)), 0
        for number, spec in enumerate(given):
            yield from _lying(number, spec.shape[axis], begin, axis, box)
            begin += spec.shape[axis]


@dataclass(frozen=True, slots=True)
class Take(View):
    """Chosen rows of an axis, in the order given."""

    indices: tuple[int, ...]
    axis: int

    @property
    def label(self) -> str:
        """Return ``take 3 rows of axis 0``."""
        return f"take {len(self.indices)} of axis {self.axis}"

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec of what is taken.

        Raises:
            EditError: There is no such row.
        """
        (spec,) = given
        axis = axis_of(self.axis, len(spec.shape))
        size = spec.shape[axis]
        for index in self.indices:
            if not -size <= index < size:
                msg = f"index {index} is outside axis {axis} of {spec}"
                raise EditError(msg)
        shape = (*spec.shape[:axis], len(self.indices), *spec.shape[axis + 1 :])
        return TensorSpec(spec.dtype, shape)

    def parts(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Part]:
        """Yield a part for rows that lie near one another, in whatever order they are wanted."""
        import numpy as np

        axis = axis_of(self.axis, len(box.shape))
        first, count = box.start[axis], box.shape[axis]
        wanted = np.array(self.indices[first : first + count], np.int64) % given[0].shape[axis]
        places = np.argsort(wanted, kind="stable")
        rows = wanted[places]
        row = math.prod(box.shape[axis + 1 :]) * given[0].itemsize
        gaps = np.flatnonzero(np.diff(rows) > max(NEAR // max(row, 1), 1)) + 1
        most = max(WINDOW // max(box.count // max(count, 1), 1), 1)
        low = 0
        while low < count:
            near = gaps[np.searchsorted(gaps, low, "right") :][:1].tolist() or [count]
            high = min(near[0], int(np.searchsorted(rows, rows[low] + most)))
            begin, size = int(rows[low]), int(rows[high - 1] - rows[low]) + 1
            around = _all(box.shape)[:axis]
            target = (*around, _run_or_places(places[low:high]))
            take = (*around, _run_or_places(rows[low:high] - begin))
            yield Part(0, box.along(axis, begin, size), target, take=take)
            low = high


def _run_or_places(places: Places) -> slice | Places:
    """Return places as a slice, if they follow one another."""
    first, count = int(places[0]), len(places)
    steps = places[1:] - places[:-1]
    return slice(first, first + count) if (steps == 1).all() else places


@dataclass(frozen=True, slots=True)
class Pad(View):
    """A value before and after the elements of an axis."""

    before: int
    after: int
    axis: int
    value: complex

    @property
    def label(self) -> str:
        """Return ``pad [1, 2] of axis 0``."""
        return f"pad [{self.before}, {self.after}] of axis {self.axis}"

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec of the longer tensor.

        Raises:
            EditError: It would not be longer.
        """
        (spec,) = given
        axis = axis_of(self.axis, len(spec.shape))
        if min(self.before, self.after) < 0:
            msg = "padding is not below 0; to cut, write a[REGION]"
            raise EditError(msg)
        size = self.before + spec.shape[axis] + self.after
        return TensorSpec(spec.dtype, (*spec.shape[:axis], size, *spec.shape[axis + 1 :]))

    def blank(
        self, box: Box, given: Sequence[TensorSpec], dtype: np.dtype[Any]
    ) -> np.ndarray[Any, Any]:
        """Return memory that is filled already."""
        import numpy as np

        del given
        return np.full(box.shape, np.asarray(self.value).astype(dtype), dtype)

    def parts(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Part]:
        """Yield what of the box is not padding."""
        axis = axis_of(self.axis, len(box.shape))
        yield from _lying(0, given[0].shape[axis], self.before, axis, box)


@dataclass(frozen=True, slots=True)
class Expand(View):
    """A tensor broadcast to a shape."""

    shape: tuple[int, ...]

    @property
    def label(self) -> str:
        """Return ``expand [4, 3]``."""
        return f"expand {list(self.shape)}"

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec of that shape.

        Raises:
            EditError: The input does not broadcast to it.
        """
        (spec,) = given
        if not broadcasts(spec.shape, self.shape):
            msg = f"{spec} does not broadcast to {list(self.shape)}"
            raise EditError(msg)
        return TensorSpec(spec.dtype, self.shape)

    def parts(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Part]:
        """Yield what of the input broadcasts to the box."""
        yield Part(0, broadcast(given[0].shape, box), _all(box.shape))


@dataclass(frozen=True, slots=True)
class Regroup(View):
    """The same elements where they are, to be stored in other pieces."""

    @property
    def label(self) -> str:
        """Return ``copy``."""
        return "copy"

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec as it is."""
        return given[0]

    def parts(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Part]:
        """Yield the box itself."""
        del given
        yield Part(0, box, _all(box.shape))


def regrouped(tensor: Tensor, boxes: tuple[Box, ...]) -> Tensor:
    """Return a tensor that is to be stored in other pieces."""
    parts = boxes if len(boxes) > 1 else ()
    if isinstance(tensor.source, Stored):
        tensor = replace(tensor, source=Derived(Regroup(), (tensor,)))
    return replace(tensor, parts=parts)


def turned(view: View, rank: int) -> int | None:
    """Return which axis of the output was the last one of the input, if it no longer is that.

    A box that is contiguous in one of them is scattered in the other.
    """
    if isinstance(view, Transpose) and rank and view.axes[-1] != rank - 1:
        return view.axes.index(rank - 1)
    return None
