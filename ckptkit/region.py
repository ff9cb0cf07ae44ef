"""Parts of an array: dense boxes, and what one writes between brackets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from types import EllipsisType

from ckptkit.errors import EditError


@dataclass(frozen=True, slots=True)
class Box:
    """A dense block of a tensor: the first index and the extent along every axis."""

    start: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    @lru_cache(maxsize=4096)
    def whole(cls, shape: tuple[int, ...]) -> Box:
        """Return the box that is all of ``shape``."""
        return cls((0,) * len(shape), shape)

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def stop(self) -> tuple[int, ...]:
        """One past the last index along every axis."""
        return tuple(a + n for a, n in zip(self.start, self.shape, strict=True))

    def __str__(self) -> str:
        """Return ``[0:2, 3:7]``."""
        pairs = zip(self.start, self.stop, strict=True)
        return f"[{', '.join(f'{first}:{last}' for first, last in pairs)}]"

    def slices(self, origin: tuple[int, ...] | None = None) -> tuple[slice, ...]:
        """Return the box as NumPy slices, relative to ``origin``."""
        base = origin or (0,) * len(self.start)
        return tuple(
            slice(a - o, a - o + n) for a, n, o in zip(self.start, self.shape, base, strict=True)
        )

    def along(self, axis: int, start: int, size: int) -> Box:
        """Return the box with another start and extent along one axis."""
        return Box(
            (*self.start[:axis], start, *self.start[axis + 1 :]),
            (*self.shape[:axis], size, *self.shape[axis + 1 :]),
        )

    def intersect(self, other: Box) -> Box | None:
        """Return the common part, or None where there is none."""
        start = tuple(map(max, self.start, other.start))
        stop = tuple(map(min, self.stop, other.stop))
        if any(b <= a for a, b in zip(start, stop, strict=True)):
            return None
        return Box(start, tuple(b - a for a, b in zip(start, stop, strict=True)))


@dataclass(frozen=True, slots=True)
class Selection:
    """A region resolved against a shape: per axis a start, a step > 0 and a count.

    Attributes:
        kept: False for the axes that an integer picked, which the selected array lacks.
    """

    start: tuple[int, ...]
    step: tuple[int, ...]
    count: tuple[int, ...]
    kept: tuple[bool, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the selected array."""
        return tuple(n for n, keep in zip(self.count, self.kept, strict=True) if keep)

    @property
    def size(self) -> int:
        """Number of selected elements."""
        return math.prod(self.count)

    def within(self, box: Box) -> Selection | None:
        """Return the part that lies in ``box``, in coordinates of the box, or None."""
        start, count = [], []
        for a, step, n, low, size in zip(
            self.start, self.step, self.count, box.start, box.shape, strict=True
        ):
            skip = max(0, -(-(low - a) // step))
            first = a + skip * step
            held = min(n - skip, -(-(low + size - first) // step))
            if held <= 0:
                return None
            start.append(first - low)
            count.append(held)
        return Selection(tuple(start), self.step, tuple(count), self.kept)

    def slices(self) -> tuple[slice, ...]:
        """Return NumPy slices that keep every axis."""
        return tuple(
            slice(a, a + (n - 1) * step + 1 if n else a, step)
            for a, step, n in zip(self.start, self.step, self.count, strict=True)
        )

    def index(self) -> tuple[int | slice, ...]:
        """Return the NumPy index, which drops the axes that an integer picked."""
        return tuple(
            part if keep else part.start
            for part, keep in zip(self.slices(), self.kept, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Region:
    """A basic selection: integers, slices with a positive step, at most one ellipsis."""

    items: tuple[int | slice | EllipsisType, ...] = ()

    @classmethod
    def of(cls, index: object) -> Region:
        """Make a region from what ``tensor[index]`` hands over.

        Raises:
            EditError: The index holds something else than integers, slices and ``...``.
        """
        items = index if isinstance(index, tuple) else (index,)
        checked: list[int | slice | EllipsisType] = []
        for item in items:
            if isinstance(item, slice | EllipsisType):
                checked.append(item)
            elif hasattr(item, "__index__") and not isinstance(item, bool):
                checked.append(item.__index__())
            else:
                msg = f"a region takes integers, slices and '...', not {item!r}"
                raise EditError(msg)
        return cls(tuple(checked))

    def resolve(self, shape: tuple[int, ...]) -> Selection:
        """Fit the region to a shape, as NumPy would.

        Raises:
            EditError: Too many axes, an index out of range, or a step that is not positive.
        """
        rows = [
            _resolve_axis(item, size, axis, self)
            for axis, (item, size) in enumerate(zip(self._expand(shape), shape, strict=True))
        ]
        columns = tuple(zip(*rows, strict=True)) or ((), (), (), ())
        return Selection(*columns)

    def _expand(self, shape: tuple[int, ...]) -> tuple[int | slice, ...]:
        given = [item for item in self.items if not isinstance(item, EllipsisType)]
        if len(self.items) - len(given) > 1:
            msg = f"region {self} has more than one '...'"
            raise EditError(msg)
        missing = len(shape) - len(given)
        if missing < 0:
            msg = f"region {self} has {len(given)} axes, the shape {list(shape)} has {len(shape)}"
            raise EditError(msg)
        at = self.items.index(...) if ... in self.items else len(given)
        return (*given[:at], *[slice(None)] * missing, *given[at:])

    def __hash__(self) -> int:
        """Hash the text: slices have no hash before Python 3.12."""
        return hash(str(self))

    def __str__(self) -> str:
        """Return the region as it is written between brackets."""
        return "[" + ", ".join(map(_item_text, self.items)) + "]"


def _resolve_axis(
    item: int | slice, size: int, axis: int, region: Region
) -> tuple[int, int, int, bool]:
    if isinstance(item, slice):
        if item.step is not None and item.step <= 0:
            msg = f"region {region}: the step of axis {axis} is {item.step}, not above 0"
            raise EditError(msg)
        start, stop, step = item.indices(size)
        return start, step, len(range(start, stop, step)), True
    if not -size <= item < size:
        msg = f"region {region}: index {item} is outside axis {axis}, which has {size} elements"
        raise EditError(msg)
    return item % size, 1, 1, False


def _item_text(item: int | slice | EllipsisType) -> str:
    if isinstance(item, slice):
        bounds = ["" if part is None else str(part) for part in (item.start, item.stop)]
        return ":".join(bounds if item.step is None else [*bounds, str(item.step)])
    return "..." if isinstance(item, EllipsisType) else str(item)
