"""How the payloads of a save lie: which tensors, in which order, where; not what is in them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ckptkit import _native
from ckptkit.columns import Columns, Place, Rows
from ckptkit.errors import CorruptError
from ckptkit.formats.tensorflow.dtypes import CODES, MAX_RANK, NAMES
from ckptkit.formats.tensorflow.salvage.bundle import Bundle, slice_name
from ckptkit.formats.tensorflow.slices import box_of, extents_of, tiling_fault
from ckptkit.model import DTYPES
from ckptkit.region import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptkit.formats.tensorflow.slices import Extents

MAX_BYTES: Final = 1 << 30
"""A longer table is none."""

PIECE: Final = 1 << 20
"""Bytes of it that are read at a time."""

_LINE: Final = re.compile(r"(\S.*?)\s+(\S+)\s+\[([\d,\s]*)\]\s*")
_SUM: Final = re.compile(r"crc32c(?:-\w+)?:([0-9a-f]{8})")


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """What lies where in a save.

    Attributes:
        bundle: Records of it.
        rows: Those that have bytes, in the order of the bytes.
        keys: The key of each of these rows.
        placed: Records say where they are; else only their order is known.
        source: Where this is from, for messages.
        values: The values are there as well: it is a donor, not a table.
    """

    bundle: Bundle
    rows: tuple[int, ...]
    keys: tuple[str, ...]
    placed: bool
    source: str
    values: bool


def outline_of(bundle: Bundle) -> Outline:
    """Return how the payloads of a bundle lie."""
    columns = bundle.columns
    key = {row: key for key, row in bundle.rows.items()}

    def place(row: int) -> tuple[int, int, int, int]:
        return columns.shard[row], columns.offset[row], columns.size[row], row

    rows = tuple(sorted(bundle.stored(), key=place))
    return Outline(bundle, rows, tuple(map(key.__getitem__, rows)), True, bundle.prefix, True)


class _Entry(NamedTuple):
    """A tensor of a table, or a slice of one."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    shard: int = 0
    offset: int = 0
    size: int = 0
    checksum: int | None = None
    slices: tuple[Extents, ...] = ()


def read_sizes(path: str) -> Outline:
    """Read a table of sizes: lines ``name dtype [shape]``, or what ``ckptkit ls --json`` prints.

    Lines are in the order of the payloads, through all shards; a table in JSON says where they are.

    Raises:
        CorruptError: It is no such table.
        OSError: It cannot be read.
    """
    # What a shell gives for the output of a command has no length that could be asked for.
    content = bytearray()
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            content += piece
            if len(content) > MAX_BYTES:
                msg = f"a table of sizes has at most {MAX_BYTES} bytes"
                raise CorruptError(msg, path=path)
    text = content.decode("utf-8", "surrogateescape")
    placed = text.lstrip().startswith("{")
    entries = list(_from_json(text, path) if placed else _from_lines(text, path))
    if not entries:
        msg = "the table of sizes is empty; expected lines of name dtype [shape]"
        raise CorruptError(msg, path=path)
    bundle = _bundle(path, entries)
    if not placed:
        rows = tuple(range(len(entries)))
        return Outline(
            bundle, rows, tuple(entry.key for entry in entries), placed, path, values=False
        )
    found = outline_of(bundle)
    return Outline(bundle, found.rows, found.keys, placed, path, values=False)


def _from_lines(text: str, path: str) -> Iterator[_Entry]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        dims = [] if found is None else found[3].replace(",", " ").split()
        shape = [int(dim) for dim in dims if len(dim) < 20]
        if found is None or len(shape) != len(dims):
            msg = f"line {number} is {line[:80]!r}, expected name dtype [shape]"
            raise CorruptError(msg, path=path)
        yield _checked(_Entry(found[1], found[2], tuple(shape)), path)


def _from_json(text: str, path: str) -> Iterator[_Entry]:
    try:
        tensors = json.loads(text)["tensors"]
        for tensor in tensors:
            yield from _entries(tensor, path)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, CorruptError):
            raise
        what = f"nothing is called {error}" if isinstance(error, KeyError) else error
        msg = f"expected what ckptkit ls --json prints: {what}"
        raise CorruptError(msg, path=path) from None


def _entries(tensor: dict[str, Any], path: str) -> Iterator[_Entry]:
    name, dtype, shape = str(tensor["name"]), str(tensor["dtype"]), _numbers(tensor["shape"])
    pieces = tensor.get("pieces")
    if not pieces:
        yield _checked(_placed(name, dtype, shape, tensor), path)
        return
    slices, boxes = [], []
    for piece in pieces:
        start, extent = _numbers(piece["start"]), _numbers(piece["extent"])
        if not len(start) == len(extent) == len(shape):
            msg = "a slice has other axes than the tensor"
            raise CorruptError(msg, path=path, tensor=name)
        boxes.append(Box(start, extent))
        extents = extents_of(boxes[-1], shape)
        slices.append(extents)
        yield _checked(_placed(slice_name(name, extents), dtype, extent, piece), path)
    fault = tiling_fault(shape, boxes)
    if fault is not None:
        raise CorruptError(fault, path=path, tensor=name)
    yield _checked(_Entry(name, dtype, shape, slices=tuple(slices)), path)


def _placed(key: str, dtype: str, shape: tuple[int, ...], place: dict[str, Any]) -> _Entry:
    found = _SUM.fullmatch(place.get("checksum") or "")
    checksum = int(found[1], 16) if found else None
    shard, offset, size = _numbers([place["shard"], place["offset"], place["nbytes"]])
    return _Entry(key, dtype, shape, shard, offset, size, checksum)


def _numbers(values: Sequence[object]) -> tuple[int, ...]:
    if not all(type(value) is int and 0 <= value < 1 << 62 for value in values):
        msg = f"{str(values)[:80]} are no sizes"
        raise ValueError(msg)
    return tuple(values)  # type: ignore[arg-type]


def _checked(entry: _Entry, path: str) -> _Entry:
    if entry.dtype not in CODES or DTYPES[entry.dtype].kind == "opaque":
        msg = f"there is no dtype {entry.dtype!r}"
        raise CorruptError(msg, path=path, tensor=entry.key)
    count = math.prod(max(dim, 1) for dim in entry.shape)
    if len(entry.shape) > MAX_RANK or count >= 1 << 59 or not entry.key or entry.shard >= 1 << 31:
        msg = f"{entry.dtype}{list(entry.shape)} is more than a tensor can be, or without a name"
        raise CorruptError(msg, path=path, tensor=entry.key)
    return entry


def _bundle(path: str, entries: Sequence[_Entry]) -> Bundle:
    """Return entries as the records that they would be."""
    rows: dict[str, int] = {}
    for row, entry in enumerate(entries):
        if rows.setdefault(entry.key, row) != row:
            msg = "the table has this tensor twice"
            raise CorruptError(msg, path=path, tensor=entry.key)
    parts = {
        rows[entry.key]: tuple(
            (box_of(extents, entry.shape), slice_name(entry.key, extents))
            for extents in entry.slices
        )
        for entry in entries
        if entry.slices
    }
    held = Rows()
    for one in entries:
        code = CODES[one.dtype]
        place = Place(one.shard, one.offset, _size(one), one.checksum or 0)
        if one.slices:
            whole = _native.entry_slices_encode(code, one.shape, one.slices)
            held.add(code, one.shape, place._replace(flags=Columns.SLICED), whole)
        else:
            held.add(code, one.shape, place, _native.entry_encode(code, one.shape))
    shards = max(one.shard for one in entries) + 1
    columns = replace(held.columns(NAMES, {}), shards=shards)
    hidden = frozenset(rows[key] for one in parts.values() for _, key in one)
    summed = all(one.checksum is not None for one in entries if not one.slices)
    return Bundle(path, columns, rows, range(len(entries)), parts, hidden, summed=summed)


def _size(entry: _Entry) -> int:
    itemsize = DTYPES[entry.dtype].itemsize
    if entry.slices:
        return 0
    return entry.size if itemsize is None else math.prod(entry.shape) * itemsize
