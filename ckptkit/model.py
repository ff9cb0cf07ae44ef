"""The values that everything else speaks in: specs, extents, regions, tensors, catalogs.

Frozen, picklable, without I/O. NumPy is not imported here, so that listing a checkpoint stays
cheap; the columns of a large catalog are buffers that NumPy can wrap without a copy.
"""

from __future__ import annotations

import math
from collections.abc import ItemsView, Mapping, Sequence, ValuesView
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from types import EllipsisType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeVar, cast

from ckptkit import _native
from ckptkit.errors import EditError, TensorNotFoundError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ckptkit.kernels import Kernel

Algorithm = Literal["crc32c", "crc32", "crc32c-strings", "crc32c-variants"]
"""What a checksum is over: the stored bytes, or the elements that they encode."""

Kind = Literal["float", "complex", "int", "uint", "bool", "string", "variant", "opaque"]

_T = TypeVar("_T")

MAX_BYTES: Final = 2**63 - 1
"""No tensor is larger than a signed 64-bit count of bytes can say."""


@dataclass(frozen=True, slots=True)
class DType:
    """How elements of one type are stored.

    Attributes:
        name: The name that NumPy, ml_dtypes or TensorFlow give it.
        kind: What family of values it holds.
        itemsize: Stored bytes per element, or None where elements differ in length.
        bits: Significant bits per element; fewer than ``8 * itemsize`` for int4 and the like.
    """

    name: str
    kind: Kind
    itemsize: int | None
    bits: int = 0


def _dtypes() -> dict[str, DType]:
    rows: list[tuple[str, Kind, int | None, int]] = [
        *((f"float{8 * n}", "float", n, 8 * n) for n in (2, 4, 8)),
        ("bfloat16", "float", 2, 16),
        *(
            (f"float8_{v}", "float", 1, 8)
            for v in ("e5m2", "e4m3fn", "e4m3fnuz", "e4m3b11fnuz", "e5m2fnuz")
        ),
        ("float4_e2m1fn", "float", 1, 4),
        *((f"int{8 * n}", "int", n, 8 * n) for n in (1, 2, 4, 8)),
        *((f"uint{8 * n}", "uint", n, 8 * n) for n in (1, 2, 4, 8)),
        *((f"int{n}", "int", 1, n) for n in (2, 4)),
        *((f"uint{n}", "uint", 1, n) for n in (2, 4)),
        *((f"qint{8 * n}", "int", n, 8 * n) for n in (1, 2, 4)),
        *((f"quint{8 * n}", "uint", n, 8 * n) for n in (1, 2)),
        ("bool", "bool", 1, 1),
        ("complex64", "complex", 8, 64),
        ("complex128", "complex", 16, 128),
        ("string", "string", None, 0),
        ("variant", "variant", None, 0),
        ("resource", "opaque", None, 0),
    ]
    return {row[0]: DType(*row) for row in rows}


DTYPES: Final[Mapping[str, DType]] = _dtypes()
"""Every dtype by name."""

_ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "string": "crc32c-strings",
    "variant": "crc32c-variants",
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The dtype (by name) and the shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def kind(self) -> Kind:
        """The family of values."""
        found = DTYPES.get(self.dtype)
        return found.kind if found is not None else "opaque"

    @property
    def algorithm(self) -> Algorithm:
        """The checksum that goes with such values in a TensorFlow checkpoint."""
        return _ALGORITHMS.get(self.kind, "crc32c")

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Stored bytes per element.

        Raises:
            UnsupportedError: Elements of this dtype have no fixed size.
        """
        found = DTYPES.get(self.dtype)
        if found is None or found.itemsize is None:
            msg = f"elements of dtype {self.dtype} have no fixed size"
            raise UnsupportedError(msg)
        return found.itemsize

    @property
    def nbytes(self) -> int:
        """Stored bytes of the whole tensor.

        Raises:
            UnsupportedError: The dtype has no fixed size, or the product overflows 63 bits.
        """
        size = self.count * self.itemsize
        if size > MAX_BYTES:
            msg = f"{self} would take {size} bytes, more than a file can hold"
            raise UnsupportedError(msg)
        return size

    def __str__(self) -> str:
        """Return ``float32[3, 4]``."""
        return f"{self.dtype}{list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a checkpoint is.

    Attributes:
        path: What its files have in common: the file, or the prefix of a bundle.
        folder: The folder that is the checkpoint as a whole (a SavedModel), if one is.
    """

    path: str
    folder: str | None = None

    def __str__(self) -> str:
        """Return the path that a user would give."""
        return self.folder or self.path


@dataclass(frozen=True, slots=True)
class Extent:
    """A contiguous byte range of one file."""

    path: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Checksum:
    """A checksum as plain number (never masked) over the piece that carries it."""

    algorithm: Algorithm
    value: int

    def __str__(self) -> str:
        """Return ``crc32c:89abcdef``."""
        return f"{self.algorithm}:{self.value:08x}"


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

    def slices(self, origin: tuple[int, ...] | None = None) -> tuple[slice, ...]:
        """Return the box as NumPy slices, relative to ``origin``."""
        base = origin or (0,) * len(self.start)
        return tuple(
            slice(a - o, a - o + n) for a, n, o in zip(self.start, self.shape, base, strict=True)
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


@dataclass(frozen=True, slots=True)
class Piece:
    """A stored part of a tensor.

    Attributes:
        box: Which part of the tensor it holds, in C order.
        extent: Where the bytes are.
        checksum: The checksum over them, where the format has one.
        entry: The index bytes that describe the piece, carried verbatim.
    """

    box: Box
    extent: Extent
    checksum: Checksum | None = None
    entry: bytes = b""


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes that lie in files: one piece, or several that tile the tensor."""

    pieces: tuple[Piece, ...]
    byteorder: Literal["little", "big"] = "little"


@dataclass(frozen=True, slots=True)
class Derived:
    """Values that a kernel computes from other tensors, block by block.

    Attributes:
        kernel: What is computed.
        parents: Its inputs; the first one is the tensor that is edited, if it existed.
        region: Which elements the kernel computes; the first parent gives the others.
    """

    kernel: Kernel
    parents: tuple[Tensor, ...] = ()
    region: Region | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """A spec, and where its values come from.

    Attributes:
        parts: How the tensor is to be stored when it is derived: the boxes of its pieces,
            or nothing for one piece.
        entry: The index bytes that describe the whole tensor, carried verbatim.
    """

    spec: TensorSpec
    source: Stored | Derived
    parts: tuple[Box, ...] = ()
    entry: bytes = b""

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes of the pieces, at least one."""
        if isinstance(self.source, Stored):
            return tuple(piece.box for piece in self.source.pieces)
        return self.parts or (Box.whole(self.spec.shape),)

    @property
    def stored_bytes(self) -> int:
        """Bytes that the values take, as they are stored or will be."""
        if isinstance(self.source, Stored):
            return sum(piece.extent.length for piece in self.source.pieces)
        return self.spec.nbytes

    def derive(
        self,
        kernel: Kernel,
        parents: tuple[Tensor, ...],
        *,
        spec: TensorSpec | None = None,
        region: Region | None = None,
    ) -> Tensor:
        """Return this tensor with values computed by ``kernel``, stored the same way."""
        new = spec or self.spec
        boxes = self.boxes
        parts = boxes if new.shape == self.spec.shape and len(boxes) > 1 else ()
        return Tensor(new, Derived(kernel, parents, region), parts, self.entry)


@lru_cache(maxsize=4096)
def _spec(dtype: str, shape: tuple[int, ...]) -> TensorSpec:
    # The tensors of a checkpoint have few shapes; rows of one shape share the value.
    return TensorSpec(dtype, shape)


@lru_cache(maxsize=64)
def _algorithm(dtype: str | None) -> Algorithm:
    return TensorSpec(dtype or "", ()).algorithm


def _empty(kind: Literal["i", "q", "I", "B"]) -> memoryview:
    return memoryview(b"").cast(kind)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The stored entries of a checkpoint, one row each, as arrays without objects.

    Attributes:
        dtype_names: What the numbers in ``dtype`` mean.
        files: File of each shard number, for the shards that rows use.
        dtype: int32 codes.
        dims, dim_ends: int64, all dimensions in one run, and where each row's dimensions end.
        shard, offset, size: int32, int64, int64: where the bytes are.
        checksum: uint32 CRC-32C of the bytes of a row.
        flags: uint8: bit ``SLICED`` for tensors that are stored in slices.
        entries, entry_bounds: the index bytes of all rows in one run; int64, one more than there
            are rows: where each row's bytes begin, and where the last row's end.
        parts: For the rows that are tensors in slices: the box and the row of every slice.
        byteorder: Of the machine that wrote the data.
        shards: Number of data files, used or not.
    """

    SLICED: ClassVar = 1

    dtype_names: Mapping[int, str] = field(default_factory=dict)
    files: Mapping[int, str] = field(default_factory=dict)
    dtype: memoryview = field(default_factory=lambda: _empty("i"))
    dims: memoryview = field(default_factory=lambda: _empty("q"))
    dim_ends: memoryview = field(default_factory=lambda: _empty("q"))
    shard: memoryview = field(default_factory=lambda: _empty("i"))
    offset: memoryview = field(default_factory=lambda: _empty("q"))
    size: memoryview = field(default_factory=lambda: _empty("q"))
    checksum: memoryview = field(default_factory=lambda: _empty("I"))
    flags: memoryview = field(default_factory=lambda: _empty("B"))
    entries: bytes = b""
    entry_bounds: memoryview = field(default_factory=lambda: memoryview(bytes(8)).cast("q"))
    parts: Mapping[int, tuple[tuple[Box, int], ...]] = field(default_factory=dict)
    byteorder: Literal["little", "big"] = "little"
    shards: int = 1

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.dtype)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the buffers as bytes."""
        values = (getattr(self, name) for name in self.__slots__)
        return _restore_columns, tuple(
            (value.format, bytes(value)) if isinstance(value, memoryview) else value
            for value in values
        )

    def shape(self, row: int) -> tuple[int, ...]:
        """Return the shape of a row."""
        return tuple(self.dims[self.dim_ends[row - 1] if row else 0 : self.dim_ends[row]])

    def specs(self) -> tuple[list[str], list[tuple[int, ...]]]:
        """Return the dtypes and the shapes of all rows."""
        names = {code: self.dtype_names.get(code, f"dtype {code}") for code in set(self.dtype)}
        dtypes = list(map(names.__getitem__, self.dtype))
        return dtypes, _native.shapes_decode(self.dims, self.dim_ends)

    def spec(self, row: int) -> TensorSpec:
        """Return dtype and shape of a row."""
        code = self.dtype[row]
        return _spec(self.dtype_names.get(code) or f"dtype {code}", self.shape(row))

    def entry(self, row: int) -> bytes:
        """Return the index bytes of a row."""
        return self.entries[self.entry_bounds[row] : self.entry_bounds[row + 1]]

    def piece(self, row: int, box: Box) -> Piece:
        """Return the stored bytes of a row as a piece of a tensor."""
        extent = Extent(self.files[self.shard[row]], self.offset[row], self.size[row])
        checksum = Checksum(_algorithm(self.dtype_names.get(self.dtype[row])), self.checksum[row])
        return Piece(box, extent, checksum, self.entry(row))

    def with_parts(self, parts: Mapping[int, tuple[tuple[Box, int], ...]]) -> Columns:
        """Return the columns with what is known about slices."""
        return replace(self, parts=parts)

    def tensor(self, row: int) -> Tensor:
        """Return a row, with its slices joined, as a tensor."""
        spec = self.spec(row)
        slices = self.parts.get(row)
        if slices is None:
            stored = Stored((self.piece(row, Box.whole(spec.shape)),), self.byteorder)
            return Tensor(spec, stored, entry=stored.pieces[0].entry)
        pieces = tuple(self.piece(at, box) for box, at in slices)
        return Tensor(spec, Stored(pieces, self.byteorder), entry=self.entry(row))


def _restore_columns(*values: Any) -> Columns:
    restored: list[Any] = [
        memoryview(value[1]).cast(value[0]) if isinstance(value, tuple) else value
        for value in values
    ]
    return Columns(*restored)


class ByName(Mapping[str, _T]):
    """Something about every tensor of a catalog, by name.

    A list beside the names: to go through it takes no dictionary, which for a million names takes
    longer to fill than the index takes to read.
    """

    __slots__ = ("_catalog", "_values")

    def __init__(self, catalog: Catalog, values: list[_T]) -> None:
        """Hold values in the order of the names."""
        self._catalog = catalog
        self._values = values

    def __getitem__(self, name: str) -> _T:
        """Return the value of a name.

        Raises:
            TensorNotFoundError: There is no such tensor.
        """
        return self._values[self._catalog.position(name)]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._catalog.names)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._values)

    def values(self) -> ValuesView[_T]:
        """Return the values, in the order of the names."""
        return _Values(self)

    def items(self) -> ItemsView[str, _T]:
        """Return names and values."""
        return _Items(self)

    def listed(self) -> list[_T]:
        """Return the values as they are held; do not change the list."""
        return self._values


class _Values(ValuesView[_T]):
    """Goes through the list itself, not through the names and back."""

    _mapping: ByName[_T]

    def __iter__(self) -> Iterator[_T]:
        return iter(self._mapping.listed())


class _Items(ItemsView[str, _T]):
    """Goes through names and values side by side."""

    _mapping: ByName[_T]

    def __iter__(self) -> Iterator[tuple[str, _T]]:
        return zip(self._mapping, self._mapping.listed(), strict=True)


class Catalog(Mapping[str, Tensor]):
    """What a checkpoint holds: an immutable ordered mapping from names to tensors.

    Names and the columns behind them are arrays; ``Tensor`` objects are made on access.
    Edits make a new catalog that shares what they leave alone.

    Attributes:
        names: Names of the tensors, in the order of the index.
        rows: For every name its row in ``columns``, -1 for a new tensor.
        columns: The stored entries.
        changed: Tensors that are not, or not only, a row; they go before the row.
        attachments: Bytes of the index that are about no single tensor, by role.
    """

    __slots__ = ("__dict__", "attachments", "changed", "columns", "names", "rows")

    def __init__(
        self,
        names: Sequence[str],
        rows: Sequence[int],
        columns: Columns,
        changed: Mapping[str, Tensor] | None = None,
        attachments: Mapping[str, bytes] | None = None,
    ) -> None:
        """Hold the parts; nothing is copied."""
        self.names = names
        self.rows = rows
        self.columns = columns
        self.changed: Mapping[str, Tensor] = changed or {}
        self.attachments: Mapping[str, bytes] = attachments or {}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Catalog:
        """Return a catalog of tensors that no checkpoint holds yet."""
        return cls(tuple(tensors), (-1,) * len(tensors), Columns(), tensors)

    @cached_property
    def _position(self) -> dict[str, int]:
        return dict(zip(self.names, range(len(self.names)), strict=True))

    def position(self, name: str) -> int:
        """Return at which place in ``names`` a name is.

        Raises:
            TensorNotFoundError: There is no such tensor.
        """
        try:
            return self._position[name]
        except KeyError:
            raise TensorNotFoundError.among(name, self.names) from None

    def row(self, name: str) -> int:
        """Return the row of a name in ``columns``, -1 for a new tensor.

        Raises:
            TensorNotFoundError: There is no such tensor.
        """
        return self.rows[self.position(name)]

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor.

        Raises:
            TensorNotFoundError: There is no such tensor.
        """
        found = self.changed.get(name)
        return found if found is not None else self.columns.tensor(self.row(name))

    def spec(self, name: str) -> TensorSpec:
        """Return dtype and shape of a tensor, without making the tensor.

        Raises:
            TensorNotFoundError: There is no such tensor.
        """
        found = self.changed.get(name)
        return found.spec if found is not None else self.columns.spec(self.row(name))

    def dtypes(self) -> Mapping[str, str]:
        """Return the dtype of every tensor by name."""
        changed = ((name, tensor.spec.dtype) for name, tensor in self.changed.items())
        return self._by_name(self.columns.specs()[0], changed)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of every tensor by name."""
        changed = ((name, tensor.spec.shape) for name, tensor in self.changed.items())
        return self._by_name(self.columns.specs()[1], changed)

    def specs(self) -> Iterator[tuple[str, TensorSpec]]:
        """Iterate over names with dtypes and shapes."""
        values = zip(self.dtypes().values(), self.shapes().values(), strict=True)
        return ((name, TensorSpec(*spec)) for name, spec in zip(self.names, values, strict=True))

    def _by_name(self, of_row: list[_T], changed: Iterable[tuple[str, _T]]) -> Mapping[str, _T]:
        rows = self.rows
        values = of_row
        if rows != range(len(of_row)):
            # A new tensor has no row; its value is among the changed ones.
            values = [of_row[row] if row >= 0 else cast("_T", None) for row in rows]
        for name, value in changed:
            values[self.position(name)] = value
        return ByName(self, values)

    def __contains__(self, name: object) -> bool:
        """Tell whether there is such a tensor."""
        return name in self._position

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.names)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self.names)

    def replace(
        self,
        *,
        names: Sequence[str] | None = None,
        rows: Sequence[int] | None = None,
        changed: Mapping[str, Tensor] | None = None,
    ) -> Catalog:
        """Return a catalog with some parts replaced."""
        result = Catalog(
            self.names if names is None else names,
            self.rows if rows is None else rows,
            self.columns,
            self.changed if changed is None else changed,
            self.attachments,
        )
        if names is None and "_position" in self.__dict__:
            result.__dict__["_position"] = self._position
        return result
