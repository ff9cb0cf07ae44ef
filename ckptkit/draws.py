"""Kernels that need no input: where an element is, and random numbers by where it is.

Random numbers come from a counter-based generator: that of an element follows from the seed, the
name of the tensor, and the number of the element, whatever blocks it is computed in, and where.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ckptkit import _native
from ckptkit.kernels import OnHost
from ckptkit.lowering import numpy_dtype
from ckptkit.model import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from ckptkit.kernels import Get, Need, Run
    from ckptkit.region import Box, Selection


@dataclass(frozen=True, slots=True)
class Place:
    """Where the elements of a block are in their tensor: all of it, or a region.

    Attributes:
        shape: Of the tensor.
        region: The part of it that is computed.
    """

    shape: tuple[int, ...]
    region: Selection

    def along(self, axis: int, box: Box) -> range:
        """Return the indices along an axis of the tensor that a box of the region has."""
        first, step = self.region.start[axis], self.region.step[axis]
        if not self.region.kept[axis]:
            return range(first, first + 1)
        at = sum(self.region.kept[:axis])
        low = first + box.start[at] * step
        return range(low, low + box.shape[at] * step, step)

    def runs(self, box: Box) -> tuple[list[int], int, int]:
        """Return the elements of a box, in C order, as runs: their starts, length, and step."""
        width, step, base = 1, 1, 0
        outer: list[list[int]] = []
        for axis in reversed(range(len(self.shape))):
            stride = math.prod(self.shape[axis + 1 :])
            along = [index * stride for index in self.along(axis, box)]
            apart = along[1] - along[0] if len(along) > 1 else 0
            joins = len(along) == 1 or width == 1 or apart == width * step
            if outer or not joins:
                outer.insert(0, along)
                continue
            base += along[0]
            if len(along) > 1:
                step = apart if width == 1 else step
                width *= len(along)
        return [base + sum(offsets) for offsets in itertools.product(*outer)], width, step


class _Made(OnHost):
    """What kernels without inputs share."""

    uses_current: ClassVar = False

    def needs(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Need]:
        """Need nothing."""
        del box, given
        return iter(())


@dataclass(frozen=True, slots=True)
class Indices(_Made):
    """The index of every element along an axis, as int64 that broadcasts to the tensor.

    Attributes:
        axis: The axis of the tensor, from the front.
        place: Where the elements are.
    """

    axis: int
    place: Place

    @property
    def label(self) -> str:
        """Return ``index(0)``."""
        return f"index({self.axis})"

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec: as long as the region along that axis, 1 along the others."""
        del given
        region = self.place.region
        shape = tuple(
            count if axis == self.axis else 1
            for axis, (count, keep) in enumerate(zip(region.count, region.kept, strict=True))
            if keep
        )
        return TensorSpec("int64", shape)

    def compute(
        self, box: Box, given: Sequence[TensorSpec], get: Get, run: Run
    ) -> np.ndarray[Any, Any]:
        """Count."""
        import numpy as np

        del given, get, run
        return np.array(self.place.along(self.axis, box), np.int64).reshape(box.shape)


@dataclass(frozen=True, slots=True)
class Random(_Made):
    """Random numbers, one for every element.

    Attributes:
        kind: ``normal``, ``uniform``, or ``bits``.
        dtype: float32 or float64; uint32 for bits.
        key: What the seed comes to, 64 bits.
        stream: What the name of the tensor comes to, 64 bits.
        place: Where the elements are.
    """

    kind: str
    dtype: str
    key: int
    stream: int
    place: Place

    @property
    def label(self) -> str:
        """Return ``normal()``."""
        return f"{self.kind}()"

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec of the region."""
        del given
        return TensorSpec(self.dtype, self.place.region.shape)

    def compute(
        self, box: Box, given: Sequence[TensorSpec], get: Get, run: Run
    ) -> np.ndarray[Any, Any]:
        """Draw the numbers of a box."""
        import numpy as np

        del given, get, run
        starts, width, step = self.place.runs(box)
        raw = _native.philox(
            self.kind, self.dtype, self.key, self.stream, np.array(starts, np.int64), width, step
        )
        return np.frombuffer(raw, numpy_dtype(self.dtype)).reshape(box.shape)
