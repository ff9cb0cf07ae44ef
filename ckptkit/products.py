"""Kernels that see more than one element at a time: products, groups, and rounding by chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ckptkit.errors import EditError
from ckptkit.kernels import Blockwise, Need, crop
from ckptkit.lowering import KindError, integer_range, numpy_dtype, promote, working_dtype
from ckptkit.model import DTYPES, TensorSpec
from ckptkit.region import Box
from ckptkit.views import axis_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from ckptkit.kernels import Get, Granularity, Run
    from ckptkit.lowering import Ops

    Array = np.ndarray[Any, Any]

INNER: Final = 4096
"""Elements of the inner axis of a product that are taken at a time, in this order."""

PIECE: Final = 1 << 16
"""Elements that are rounded at a time: much is computed on the way, in float64."""

STRIP: Final = 1 << 20
"""Elements of a matrix that are taken at a time: with many rows or columns that is less inner."""


@dataclass(frozen=True, slots=True)
class MatMul(Blockwise):
    """The product of two matrices, by blocks of rows and columns.

    The inner axis is summed piece by piece: in memory are only strips of both matrices.
    """

    elementwise: ClassVar = False
    aligned: ClassVar = False
    granularity: ClassVar[Granularity] = "element"
    callable_kernel: ClassVar = False
    inexact: ClassVar[tuple[str, ...]] = ("matmul",)
    label: ClassVar = "matmul"

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec of the product.

        Raises:
            EditError: They are no matrices that go together.
        """
        first, second = given
        if len(first.shape) != 2 or len(second.shape) != 2 or first.shape[1] != second.shape[0]:
            msg = f"{first} @ {second}: expected matrices, the columns of one the rows of the other"
            raise EditError(msg)
        dtype = promote(working_dtype(first.dtype), working_dtype(second.dtype))
        if DTYPES[dtype].kind == "bool":
            msg = f"a product is not defined for {first.dtype}"
            raise KindError(msg)
        return TensorSpec(dtype, (first.shape[0], second.shape[1]))

    def needs(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Need]:
        """Yield strips of rows and of columns."""
        (rows, columns), (m, n), inner = box.start, box.shape, given[0].shape[1]
        step = max(min(INNER, STRIP // max(m, n, 1)), 1)
        for low in range(0, inner, step):
            size = min(step, inner - low)
            yield Need(0, Box((rows, low), (m, size)))
            yield Need(1, Box((low, columns), (size, n)))

    def compute(self, box: Box, given: Sequence[TensorSpec], get: Get, run: Run) -> Array:
        """Multiply strips on the device, and add them up."""
        import numpy as np

        dtype = self.output(given).dtype
        total: Array | None = None
        needs = self.needs(box, given)
        for first, second in zip(needs, needs, strict=True):
            part = run(self, [get(*first), get(*second)], dtype)
            total = np.array(part) if total is None else np.add(total, part, out=total)
        return np.zeros(box.shape, numpy_dtype(dtype)) if total is None else total

    def block(self, ops: Ops, given: Sequence[Any], /) -> Any:
        """Multiply two strips."""
        names = [str(part.dtype.name) for part in given]
        dtype = promote(*map(working_dtype, names))
        return ops.call("matmul", [ops.cast(part, dtype) for part in given])


@dataclass(frozen=True, slots=True)
class Sparsify(Blockwise):
    """Of every group of elements along an axis the largest magnitudes stay, the others become 0.

    Of equal ones the first stay; NaN counts as the largest.

    Attributes:
        keep: How many stay.
        group: Of how many.
        axis: Along which axis.
    """

    keep: int
    group: int
    axis: int = -1
    elementwise: ClassVar = False
    aligned: ClassVar = False
    granularity: ClassVar[Granularity] = "element"
    callable_kernel: ClassVar = False
    inexact: ClassVar[tuple[str, ...]] = ()

    @property
    def label(self) -> str:
        """Return ``sparsify 2:4 axis -1``."""
        return f"sparsify {self.keep}:{self.group} axis {self.axis}"

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec as it is.

        Raises:
            EditError: The axis is not made of whole groups.
        """
        (spec,) = given
        if DTYPES[working_dtype(spec.dtype)].kind not in {"float", "int", "uint"}:
            msg = f"magnitudes are not defined for {spec.dtype}"
            raise KindError(msg)
        if not 0 <= self.keep <= self.group or self.group < 1:
            msg = f"{self.keep} of every {self.group} cannot be kept"
            raise EditError(msg)
        axis = axis_of(self.axis, len(spec.shape))
        if spec.shape[axis] % self.group:
            msg = f"axis {axis} of {spec} is not made of whole groups of {self.group}"
            raise EditError(msg)
        return spec

    def needs(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Need]:
        """Yield the box with whole groups."""
        del given
        yield Need(0, self._whole(box))

    def _whole(self, box: Box) -> Box:
        axis = axis_of(self.axis, len(box.shape))
        low = box.start[axis] // self.group * self.group
        high = -(-(box.start[axis] + box.shape[axis]) // self.group) * self.group
        return box.along(axis, low, high - low)

    def compute(self, box: Box, given: Sequence[TensorSpec], get: Get, run: Run) -> Array:
        """Choose within each group, on the host."""
        import numpy as np

        del given, run
        whole, axis = self._whole(box), axis_of(self.axis, len(box.shape))
        values = np.moveaxis(get(0, whole), axis, -1)
        groups = np.ascontiguousarray(values).reshape(-1, self.group)
        kept = np.where(_places(groups) < self.keep, groups, groups.dtype.type(0))
        turned = np.moveaxis(kept.reshape(values.shape), -1, axis)
        return crop(turned, box.slices(whole.start))


def _places(groups: Array) -> Array:
    """Return the place of every element in its row when the row is sorted by magnitude."""
    import numpy as np

    working = groups.astype(numpy_dtype(working_dtype(groups.dtype.name)), copy=False)
    # The least integer has no magnitude of its own dtype.
    sizes = np.abs(working.astype(np.float64) if working.dtype.kind in "iu" else working).T
    sizes = np.ascontiguousarray(np.where(np.isnan(sizes), np.inf, sizes))
    places = np.zeros(sizes.shape, np.uint16)
    for at, size in enumerate(sizes):
        for other in range(len(sizes)):
            if other != at:
                places[at] += sizes[other] >= size if other < at else sizes[other] > size
    return places.T


@dataclass(frozen=True, slots=True)
class Stochastic(Blockwise):
    """Conversion that rounds up or down by chance, in proportion to how near either is.

    The second input is 32 random bits for every element.

    Attributes:
        dtype: The dtype of the result.
    """

    dtype: str
    elementwise: ClassVar = False
    granularity: ClassVar[Granularity] = "element"
    callable_kernel: ClassVar = False
    inexact: ClassVar[tuple[str, ...]] = ()

    @property
    def label(self) -> str:
        """Return ``stochastic bfloat16``."""
        return f"stochastic {self.dtype}"

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec with the dtype of the result.

        Raises:
            KindError: No float becomes such a dtype by rounding.
        """
        source, target = (DTYPES[working_dtype(d)].kind for d in (given[0].dtype, self.dtype))
        if source != "float" or target not in {"float", "int", "uint"}:
            msg = f"{given[0].dtype} does not become {self.dtype} by rounding"
            raise KindError(msg)
        return TensorSpec(self.dtype, given[0].shape)

    def compute(self, box: Box, given: Sequence[TensorSpec], get: Get, run: Run) -> Array:
        """Round, on the host."""
        import numpy as np

        del run
        found = [get(need.number, need.box) for need in self.needs(box, given)]
        values = np.ascontiguousarray(np.broadcast_to(found[0], box.shape)).reshape(-1)
        bits = found[1].reshape(-1)
        out = np.empty(values.shape, numpy_dtype(self.dtype))
        for low in range(0, values.size, PIECE):
            piece = slice(low, low + PIECE)
            out[piece] = self._rounded(values[piece], bits[piece])
        return out.reshape(box.shape)

    def _rounded(self, values: Array, bits: Array) -> Array:
        import numpy as np

        chance = (bits.astype(np.float64) + 0.5) * 2.0**-32
        with np.errstate(all="ignore"):
            if DTYPES[self.dtype].kind == "float":
                return _to_float(values, chance, numpy_dtype(self.dtype))
            return _to_integer(values.astype(np.float64), chance, self.dtype)


def _to_integer(values: Array, chance: Array, dtype: str) -> Array:
    """Round down or up; what is out of range becomes the nearest limit, NaN 0."""
    import numpy as np

    low, high = integer_range(dtype)
    # A sum of value and chance would round itself where the value is large.
    floor = np.floor(values)
    floor += chance < values - floor
    inside = (floor >= float(low)) & (floor < float(high + 1))
    whole = np.where(inside, floor, 0).astype(numpy_dtype(working_dtype(dtype)))
    whole[floor >= float(high + 1)] = high
    whole[floor < float(low)] = low
    return whole.astype(numpy_dtype(dtype))


def _to_float(values: Array, chance: Array, dtype: np.dtype[Any]) -> Array:
    """Round to one of the two neighbours in a narrower dtype."""
    import numpy as np

    wide = values.astype(np.float64)
    near = values.astype(dtype)
    back = near.astype(np.float64)
    unsigned = np.dtype(f"u{dtype.itemsize}")
    bits = near.view(unsigned)
    # The neighbour on the other side of the value: one step away from zero, or towards it.
    away = np.abs(back) < np.abs(wide)
    step = np.where(away, 1, -1).astype(np.int8).astype(unsigned)
    other = np.where(back == wide, near.view(unsigned), bits + step).view(dtype)
    far = other.astype(np.float64)
    usable = (back != wide) & np.isfinite(back) & np.isfinite(far) & np.isfinite(wide)
    share = np.where(usable, (wide - back) / np.where(usable, far - back, 1.0), 0.0)
    return np.where(usable & (chance < share), other, near).astype(dtype)
