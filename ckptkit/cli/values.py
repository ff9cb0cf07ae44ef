"""Values for showing: all of them, the corners, or figures about them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from ckptkit.errors import EditError
from ckptkit.model import DTYPES
from ckptkit.region import Region, Selection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ckptkit.checkpoint import StoredTensor

    Array = NDArray[Any]

EDGE: Final = 3
"""Elements shown at either end of a long axis, as NumPy does."""

BLOCK: Final = 8 << 20
"""Stored bytes that are read at a time for statistics."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A stored tensor and the part of it that is to be shown.

    Attributes:
        tensor: The tensor.
        region: The part; None for all of it.
        selection: The region, fitted to the shape.
    """

    tensor: StoredTensor
    region: Region | None
    selection: Selection

    @classmethod
    def of(cls, tensor: StoredTensor, region: Region | None) -> Self:
        """Choose a region of a tensor.

        Raises:
            EditError: The region does not fit the shape.
        """
        return cls(tensor, region, (region or Region()).resolve(tensor.shape))

    @property
    def count(self) -> int:
        """Number of chosen elements."""
        return self.selection.size

    def everything(self) -> object:
        """Return all values as nested lists; a tensor that is read whole is verified."""
        return _lists(self.tensor.read(self.region))

    def preview(self, limit: int) -> str:
        """Return the values as text, or only the corners if there are more than ``limit``."""
        if self.count <= limit or not DTYPES[self.tensor.dtype].itemsize:
            whole = self.tensor.read(self.region)
            return np.array2string(whole, threshold=limit, separator=", ")
        corners = self._corners()
        # A long axis holds one element more than is shown, so NumPy writes dots in its place.
        return np.array2string(corners, threshold=0, edgeitems=EDGE, separator=", ")

    def _corners(self) -> Array:
        spots = [_ends(n) for n in self.selection.count]
        shape = [min(n, 2 * EDGE + 1) for n in self.selection.count]
        result: Array | None = None
        for corner in product(*spots):
            part = _narrow(self.selection, corner)
            values = self.tensor.read(Region(part.slices()))
            if result is None:
                result = np.zeros(shape, values.dtype)
            result[tuple(slice(0, n) if a == 0 else slice(-n, None) for a, n in corner)] = values
        kept = tuple(slice(None) if keep else 0 for keep in self.selection.kept)
        return np.asarray(result)[kept]

    def stats(self) -> dict[str, Any]:
        """Return figures about the values, computed in float64, block by block.

        Minimum, maximum, mean and standard deviation are over the finite values.

        Raises:
            EditError: The values are not real numbers.
        """
        if self.tensor.spec.kind not in {"float", "int", "uint", "bool"}:
            msg = f"statistics need real numbers, not {self.tensor.dtype}"
            raise EditError(msg, tensor=self.tensor.name)
        summary = _Summary()
        for part in _blocks(self.selection, max(1, BLOCK // self.tensor.spec.itemsize)):
            summary.add(self.tensor.read(Region(part.slices())))
        return summary.figures()


@dataclass(slots=True)
class _Summary:
    """Figures of all blocks so far; means and squares are merged as Chan et al. (1979) do."""

    count: int = 0
    nan: int = 0
    inf: int = 0
    zeros: int = 0
    finite: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, block: Array) -> None:
        """Take a block into account."""
        values = block.astype(np.float64).reshape(-1)
        finite = values[np.isfinite(values)]
        nan = int(np.isnan(values).sum())
        self.count += values.size
        self.nan += nan
        self.inf += values.size - finite.size - nan
        self.zeros += int(values.size - np.count_nonzero(values))
        if finite.size:
            self._merge(finite)

    def _merge(self, finite: NDArray[np.float64]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(finite.mean())
            squares = float(np.square(finite - mean).sum())
        total = self.finite + finite.size
        apart = mean - self.mean
        self.squares += squares + apart * apart * self.finite * finite.size / total
        self.mean += apart * finite.size / total
        self.finite = total
        self.low = min(self.low, float(finite.min()))
        self.high = max(self.high, float(finite.max()))

    def figures(self) -> dict[str, Any]:
        """Return the figures; None where no value is finite."""
        known = self.finite > 0
        return {
            "count": self.count,
            "min": self.low if known else None,
            "max": self.high if known else None,
            "mean": self.mean if known else None,
            "std": math.sqrt(self.squares / self.finite) if known else None,
            "nan": self.nan,
            "inf": self.inf,
            "zeros": self.zeros,
        }


def _ends(size: int) -> list[tuple[int, int]]:
    """Return start and length of what is shown of an axis."""
    return [(0, size)] if size <= 2 * EDGE else [(0, EDGE), (size - EDGE, EDGE)]


def _narrow(whole: Selection, ranges: tuple[tuple[int, int], ...]) -> Selection:
    """Return part of a selection: along each axis a start and a count, in its own elements."""
    start = tuple(
        first + step * a
        for first, step, (a, _) in zip(whole.start, whole.step, ranges, strict=True)
    )
    return Selection(start, whole.step, tuple(n for _, n in ranges), whole.kept)


def _blocks(whole: Selection, limit: int) -> Iterator[Selection]:
    """Cut a selection into parts of at most ``limit`` elements, in C order."""
    if whole.size <= limit:
        yield whole
        return
    axis = next(at for at, n in enumerate(whole.count) if n > 1)
    half = whole.count[axis] // 2
    for a, n in ((0, half), (half, whole.count[axis] - half)):
        ranges = tuple((a, n) if at == axis else (0, m) for at, m in enumerate(whole.count))
        yield from _blocks(_narrow(whole, ranges), limit)


def _lists(values: Array) -> object:
    """Return nested lists of what JSON knows; small floats and integers become Python's own."""
    if values.dtype.kind == "V":
        name = values.dtype.name
        values = values.astype(np.int64 if "int" in name else np.float64)
    return values.tolist()
