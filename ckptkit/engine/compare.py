"""Comparing two checkpoints: by what their indexes say first, by bytes only where that is needed.

Where both sides are plain rows of an index, dtypes, shapes and checksums are compared column by
column; only tensors for which that does not settle it are looked at one by one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from ckptkit.engine.blocks import cut
from ckptkit.engine.read import read_box, read_tensor
from ckptkit.model import DTYPES, Stored
from ckptkit.region import Box
from ckptkit.storage.disk import Sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from ckptkit.catalog import Catalog
    from ckptkit.checkpoint import Checkpoint
    from ckptkit.columns import Columns
    from ckptkit.model import Tensor, TensorSpec

    Array = NDArray[Any]
    Int64s = NDArray[np.int64]
    Bools = NDArray[np.bool_]
    Progress = Callable[[int, int], object]

ELEMENTS: Final = 1 << 20
"""Elements of a tensor that are compared at a time."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something in which two checkpoints differ.

    Attributes:
        name: The tensor.
        kind: What differs.
        a, b: What each side has: dtype and shape, or just that of them which differs, or a
            checksum.
        max_abs: The largest absolute difference of two elements. A NaN is equal to a NaN, and
            infinitely far from everything else.
        max_rel: The largest such difference relative to the larger of the two elements.
        count: How many elements differ. It can be 0: -0.0 equals 0.0, and has other bytes.
    """

    name: str
    kind: Literal["only_in_a", "only_in_b", "dtype", "shape", "values"]
    a: str | None
    b: str | None
    max_abs: float | None = None
    max_rel: float | None = None
    count: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name; an infinity, for which JSON has no number, as ``"inf"``."""
        fields = asdict(self)
        infinite = {key: "inf" for key in ("max_abs", "max_rel") if fields[key] == math.inf}
        return {**fields, **infinite}


def compare(
    a: Checkpoint, b: Checkpoint, *, values: bool, progress: Progress | None = None
) -> Iterator[Difference]:
    """Compare names, dtypes, shapes and values of two checkpoints.

    Args:
        a: A checkpoint.
        b: Another one.
        values: Say by how much values differ, which reads those that do: block by block, but
            for strings, which are read tensor by tensor.
        progress: Called with bytes done and bytes in all, of those that are read.

    Yields:
        What only one side has, then the differences of what both have, in the order of ``a``.

    Raises:
        CorruptError: A tensor that must be read cannot be.
    """
    at_a, at_b = _matched(a.catalog, b.catalog)
    yield from _alone(a.catalog, at_a, "only_in_a")
    yield from _alone(b.catalog, at_b, "only_in_b")
    unlike = _unlike(a.catalog, b.catalog, at_a, at_b)
    names = [a.catalog.names[at] for at in at_a[unlike].tolist()]
    sides = _Side(a), _Side(b)
    try:
        yield from _each(names, sides, progress, values=values)
    finally:
        for side in sides:
            side.sources.close()


def _matched(a: Catalog, b: Catalog) -> tuple[Int64s, Int64s]:
    """Return the positions of the names that both have, on either side, in the order of ``a``."""
    if a.names == b.names:
        everything = np.arange(len(a), dtype=np.int64)
        return everything, everything
    places = dict(zip(b.names, range(len(b)), strict=True))
    found = np.fromiter((places.get(name, -1) for name in a.names), np.int64, len(a))
    at_a = np.flatnonzero(found >= 0)
    return at_a, found[at_a]


def _alone(
    catalog: Catalog, matched: Int64s, kind: Literal["only_in_a", "only_in_b"]
) -> Iterator[Difference]:
    rest = np.ones(len(catalog), bool)
    rest[matched] = False
    for at in np.flatnonzero(rest).tolist():
        name = catalog.names[at]
        spec = str(catalog.spec(name))
        only_in_a = kind == "only_in_a"
        yield Difference(name, kind, spec if only_in_a else None, None if only_in_a else spec)


def _unlike(a: Catalog, b: Catalog, at_a: Int64s, at_b: Int64s) -> Bools:
    """Tell of each pair of tensors whether their index entries leave open that they differ."""
    one, other = a.columns, b.columns
    comparable = one.dtype_names == other.dtype_names and one.byteorder == other.byteorder
    comparable = comparable and one.summed and other.summed
    if not comparable or not len(at_a):
        return np.ones(len(at_a), bool)
    plain = _plain(a, at_a) & _plain(b, at_b)
    row_a, row_b = (np.asarray(c.rows, np.int64)[at] for c, at in ((a, at_a), (b, at_b)))
    row_a, row_b = row_a[plain], row_b[plain]
    same = np.ones(len(row_a), bool)
    for field in ("dtype", "size", "checksum"):
        same &= np.asarray(getattr(one, field))[row_a] == np.asarray(getattr(other, field))[row_b]
    same &= _same_shapes(one, other, row_a, row_b)
    for columns, row in ((one, row_a), (other, row_b)):
        same &= (np.asarray(columns.flags)[row] & columns.UNSUMMED) == 0
    unlike = np.ones(len(at_a), bool)
    unlike[plain] = ~same
    return unlike


def _plain(catalog: Catalog, at: Int64s) -> Bools:
    """Tell which tensors are one row of the columns, no more and no less."""
    plain = catalog.plain()
    if catalog.bulk is not None:
        plain &= catalog.bulk.number < 0
    return plain[at]


def _same_shapes(a: Columns, b: Columns, row_a: Int64s, row_b: Int64s) -> Bools:
    (start_a, rank), (start_b, other_rank) = _dims_of(a, row_a), _dims_of(b, row_b)
    same: Bools = rank == other_rank
    dims_a, dims_b = np.asarray(a.dims), np.asarray(b.dims)
    for axis in range(int(rank.max(initial=0))):
        at = np.flatnonzero(same & (rank > axis))
        same[at] = dims_a[start_a[at] + axis] == dims_b[start_b[at] + axis]
    return same


def _dims_of(columns: Columns, rows: Int64s) -> tuple[Int64s, Int64s]:
    """Return where the dimensions of rows start, and how many each has."""
    bounds = np.concatenate([np.zeros(1, np.int64), np.asarray(columns.dim_ends)])
    return bounds[rows], bounds[rows + 1] - bounds[rows]


class _Side:
    """One of two checkpoints, with its own open files."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Open nothing yet."""
        self.catalog = checkpoint.catalog
        self.sources = Sources()
        self._decode = checkpoint.writer.decode

    def read_box(self, tensor: Tensor, box: Box) -> Array:
        """Return some numbers."""
        return read_box(self.sources, tensor, box)

    def read_elements(self, name: str, tensor: Tensor) -> Array:
        """Return all strings or variants."""
        return read_tensor(self.sources, name, tensor, self._decode)


_Sides = tuple[_Side, _Side]


def _each(
    names: list[str], sides: _Sides, progress: Progress | None, *, values: bool
) -> Iterator[Difference]:
    """Look at pairs of tensors one by one."""

    def pairs() -> Iterator[tuple[str, Tensor, Tensor]]:
        for name in names:
            yield name, sides[0].catalog[name], sides[1].catalog[name]

    total = 0
    if progress is not None:
        total = sum(_bytes_read(one, other, values=values) for _, one, other in pairs())
    done = 0
    for name, one, other in pairs():
        yield from _differences(name, one, other, sides, values=values)
        if progress is not None:
            done += _bytes_read(one, other, values=values)
            progress(done, total)


def _must_read(a: Tensor, b: Tensor, *, values: bool) -> bool:
    """Tell whether two tensors that can be compared must be read for that."""
    if a.spec.shape != b.spec.shape or not _commensurable(a.spec, b.spec):
        return False
    same = a.spec == b.spec and _same_checksums(a, b)
    return same is None or (values and not same)


def _bytes_read(a: Tensor, b: Tensor, *, values: bool) -> int:
    return a.stored_bytes + b.stored_bytes if _must_read(a, b, values=values) else 0


def _differences(
    name: str, a: Tensor, b: Tensor, sides: _Sides, *, values: bool
) -> Iterator[Difference]:
    spec, other = a.spec, b.spec
    meter = None
    if _must_read(a, b, values=values):
        meter = _measure(name, a, b, sides, to_the_end=values)
    numbers = meter.reading() if meter is not None and values else ()
    if spec.shape != other.shape:
        yield Difference(name, "shape", str(list(spec.shape)), str(list(other.shape)))
    if spec.dtype != other.dtype:
        yield Difference(name, "dtype", spec.dtype, other.dtype, *numbers)
    if spec != other:
        return
    same = _same_checksums(a, b)
    if same is None and meter is not None:
        same = meter.identical
    if not same:
        yield Difference(name, "values", _checksum(a), _checksum(b), *numbers)


def _same_checksums(a: Tensor, b: Tensor) -> bool | None:
    """Compare two tensors of one dtype and shape by checksums; None where these cannot tell."""
    one, other = a.source, b.source
    if not isinstance(one, Stored) or not isinstance(other, Stored):
        return None
    if one.byteorder != other.byteorder or a.boxes != b.boxes:
        return None
    pairs = list(zip(one.pieces, other.pieces, strict=True))
    if any(
        p.checksum is None or q.checksum is None or p.checksum.algorithm != q.checksum.algorithm
        for p, q in pairs
    ):
        return None
    return all(p.checksum == q.checksum and p.extent.length == q.extent.length for p, q in pairs)


def _checksum(tensor: Tensor) -> str:
    """Return what a difference of values shows of a tensor."""
    pieces = tensor.source.pieces if isinstance(tensor.source, Stored) else ()
    if len(pieces) != 1:
        return f"{len(pieces)} slices"
    return "no checksum" if pieces[0].checksum is None else str(pieces[0].checksum)


def _commensurable(a: TensorSpec, b: TensorSpec) -> bool:
    """Tell whether elements of two dtypes can be compared."""
    if {a.kind, b.kind} & {"string", "variant"}:
        return a.dtype == b.dtype
    return "opaque" not in {a.kind, b.kind}


def _measure(
    name: str, a: Tensor, b: Tensor, sides: _Sides, *, to_the_end: bool
) -> _Numbers | _Elements:
    """Compare the elements of two tensors, or just find out whether they differ."""
    if a.spec.kind in {"string", "variant"}:
        return _Elements(
            *(side.read_elements(name, t) for side, t in zip(sides, (a, b), strict=True))
        )
    meter = _Numbers(a.spec, b.spec)
    for box in cut(Box.whole(a.spec.shape), 1, ELEMENTS):
        meter.add(sides[0].read_box(a, box), sides[1].read_box(b, box))
        if not (to_the_end or meter.identical):
            break
    return meter


class _Elements:
    """How many strings differ."""

    def __init__(self, one: Array, other: Array) -> None:
        """Compare them."""
        self._count = int(np.count_nonzero(one != other))

    @property
    def identical(self) -> bool:
        """Whether all are equal."""
        return not self._count

    def reading(self) -> tuple[None, None, int]:
        """Return the last three fields of a difference."""
        return None, None, self._count


class _Numbers:
    """How far numbers are apart.

    Attributes:
        identical: No bit differed so far.
    """

    def __init__(self, a: TensorSpec, b: TensorSpec) -> None:
        """Choose an arithmetic that holds the numbers of both dtypes."""
        self.identical = a.dtype == b.dtype
        self._max_abs = 0.0
        self._max_rel = 0.0
        self._count = 0
        wide = any(t.kind in {"int", "uint"} and DTYPES[t.dtype].bits > 53 for t in (a, b))
        real: type[np.generic] = np.longdouble if wide else np.float64
        of_complex: type[np.generic] = np.clongdouble if wide else np.complex128
        self._wide = of_complex if "complex" in {a.kind, b.kind} else real

    def add(self, x: Array, y: Array) -> None:
        """Take the next elements of both."""
        x, y = x.reshape(-1), y.reshape(-1)
        if self.identical:
            self.identical = np.array_equal(x.view(np.uint8), y.view(np.uint8))
            if self.identical:
                return
        x, y = x.astype(self._wide), y.astype(self._wide)
        differ = (x != y) & ~(np.isnan(x) & np.isnan(y))
        x, y = x[differ], y[differ]
        self._count += len(x)
        if not len(x):
            return
        with np.errstate(all="ignore"):
            apart = np.abs(x - y)
            relative = apart / np.maximum(np.abs(x), np.abs(y))
        for numbers in (apart, relative):
            numbers[np.isnan(numbers)] = np.inf
        self._max_abs = max(self._max_abs, float(apart.max()))
        self._max_rel = max(self._max_rel, float(relative.max()))

    def reading(self) -> tuple[float, float, int]:
        """Return the last three fields of a difference."""
        return self._max_abs, self._max_rel, self._count
