"""Laying the payloads of one save over the data files of another one of the same model.

Numbers take as many bytes as their shapes say. Strings do not, but say their lengths themselves,
with a checksum of these, which tells where they end, and confirms where they begin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from ckptkit import _native
from ckptkit.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ckptkit.columns import Columns
    from ckptkit.formats.tensorflow.salvage.outline import Outline
    from ckptkit.storage.disk import File, Sources

CHUNK: Final = 1 << 20
NONE: Final = -1
"""The size of strings where there are none."""

_STORED: Final = 4
_LONGEST: Final = 10


class Place(NamedTuple):
    """Where the payload of a row of an outline lies in the files of another save.

    Attributes:
        row: The row.
        shard, offset, size: The place, in bytes.
        proven: A checksum in the data says so: that of the lengths of strings.
    """

    row: int
    shard: int
    offset: int
    size: int
    proven: bool


class Known(NamedTuple):
    """Where a payload lies for certain."""

    shard: int
    offset: int
    size: int


@dataclass(slots=True)
class Tiling:
    """What came of laying an outline over data files.

    Attributes:
        places: The places in the shards that agree.
        shards: Shards that agree, to the byte.
        refused: Where other shards first disagree: the shard, the byte, the tensor, and why.
    """

    places: list[Place] = field(default_factory=list)
    shards: set[int] = field(default_factory=set)
    refused: dict[int, tuple[int, str | None, str]] = field(default_factory=dict)


class _Disagrees(Exception):  # noqa: N818  it is no error, but an answer
    def __init__(self, offset: int, key: str | None, message: str) -> None:
        super().__init__(message)
        self.place = (offset, key, message)


def tile(
    outline: Outline,
    files: Mapping[int, str],
    lengths: Mapping[int, int],
    known: Mapping[str, Known],
    sources: Sources,
    *,
    big_endian: bool,
) -> Tiling:
    """Lay an outline over data files.

    Args:
        outline: The payloads of another save, in order.
        files: Path of each shard that is there.
        lengths: Its length.
        known: Where payloads lie for certain, by key; an outline that contradicts it is refused.
        sources: Opens files.
        big_endian: Byte order of the machine that wrote the data.
    """
    layer = _Layer(outline, files, lengths, known, sources, big_endian)
    return layer.placed() if outline.placed else layer.in_order()


@dataclass(frozen=True, eq=False)
class _Layer:
    """Walks through data files, one payload after the other; see :func:`tile`."""

    outline: Outline
    files: Mapping[int, str]
    lengths: Mapping[int, int]
    known: Mapping[str, Known]
    sources: Sources
    big_endian: bool

    @property
    def columns(self) -> Columns:
        """The records of the outline."""
        return self.outline.bundle.columns

    @cached_property
    def others(self) -> Mapping[tuple[int, int], int]:
        """How long payloads are that the outline does not have, by shard and offset."""
        own = set(self.outline.keys)
        return {
            (at.shard, at.offset): at.size
            for key, at in self.known.items()
            if key not in own and at.size
        }

    def placed(self) -> Tiling:
        """Lay the payloads of every shard over the shard of the same number."""
        found = Tiling()
        items: dict[int, list[int]] = {}
        for at, row in enumerate(self.outline.rows):
            items.setdefault(self.columns.shard[row], []).append(at)
        for shard in sorted({*items, *self.lengths}):
            if shard not in self.lengths:
                continue
            try:
                places = list(self._shard(shard, items.get(shard, [])))
            except _Disagrees as answer:
                found.refused[shard] = answer.place
            else:
                found.places += places
                found.shards.add(shard)
        return found

    def _shard(self, shard: int, items: Sequence[int]) -> Iterator[Place]:
        gaps = _Gaps(
            self.columns.offset, self.columns.size, [self.outline.rows[at] for at in items]
        )
        end = 0
        for at in items:
            row, key = self.outline.rows[at], self.outline.keys[at]
            start = gaps.start(row, end)
            while (shard, start) in self.others and self.columns.size[row]:
                start = gaps.start(row, start + self.others[shard, start])
            place = self._place(row, key, shard, start)
            end = place.offset + place.size
            yield place
        while (shard, end) in self.others:
            end += self.others[shard, end]
        length = self.lengths[shard]
        if length not in {end, gaps.aligned(end)}:
            msg = f"the sizes end at byte {end}, the shard has {length} bytes"
            raise _Disagrees(end, None, msg)

    def in_order(self) -> Tiling:
        """Lay payloads over all shards in turn, each of which they have to fill."""
        found, end = Tiling(), 0
        shards = iter(sorted(self.lengths))
        shard = next(shards, None)
        try:
            for row, key in zip(self.outline.rows, self.outline.keys, strict=True):
                fixed = self._fixed(row)
                while shard is not None and end == self.lengths[shard] and fixed != 0:
                    found.shards.add(shard)
                    shard, end = next(shards, None), 0
                if shard is None:
                    where = max(self.lengths, default=0)
                    msg = "the shards end before the sizes do"
                    found.refused[where] = (self.lengths.get(where, 0), key, msg)
                    return found
                place = self._place(row, key, shard, end)
                end = place.offset + place.size
                found.places.append(place)
        except _Disagrees as answer:
            found.refused[shard or 0] = answer.place
            return found
        for rest in [*([] if shard is None else [shard]), *shards]:
            if end != self.lengths[rest]:
                msg = f"the sizes end at byte {end}, the shard has {self.lengths[rest]} bytes"
                found.refused[rest] = (end, None, msg)
                return found
            found.shards.add(rest)
            end = 0
        return found

    def _fixed(self, row: int) -> int | None:
        spec = self.columns.spec(row)
        return None if spec.kind in {"string", "variant"} else spec.nbytes

    def _place(self, row: int, key: str, shard: int, start: int) -> Place:
        known = self.known.get(key)
        if known is not None:
            fixed = self._fixed(row)
            same = (known.shard, known.offset) == (shard, start) or not known.size
            if not same or fixed not in {None, known.size}:
                msg = f"the index says byte {known.offset} of shard {known.shard}"
                raise _Disagrees(start, key, msg)
            return Place(row, shard, start, known.size, proven=False)
        size, proven = self._fixed(row), False
        room = self.lengths[shard] - start
        if size is None:
            size, proven = self._variable(row, key, shard, start, room)
        if size > room:
            msg = f"it takes {size} bytes, and {max(room, 0)} are left in the shard"
            raise _Disagrees(start, key, msg)
        return Place(row, shard, start, size, proven)

    def _variable(self, row: int, key: str, shard: int, start: int, room: int) -> tuple[int, bool]:
        spec = self.columns.spec(row)
        if spec.kind == "variant":
            # Its checksum is compared later, with that of all its bytes.
            return self.columns.size[row], False
        file = self.sources.file(self.files[shard])
        try:
            size = strings_size(file, start, room, spec.count, big_endian=self.big_endian)
        except ConflictError:
            size = NONE
        if size == NONE:
            msg = f"no {spec.count} strings start here: their lengths and its checksum disagree"
            raise _Disagrees(start, key, msg)
        return size, True


class _Gaps:
    """The bytes between payloads: alignment, or whatever lies between them in the outline."""

    def __init__(self, offset: memoryview, size: memoryview, rows: Sequence[int]) -> None:
        self._alignment = 1
        self._gap: dict[int, int] = {}
        end, common, widest = 0, 0, 0
        for row in rows:
            gap = offset[row] - end if size[row] else 0
            self._gap[row] = max(gap, 0)
            widest = max(widest, gap)
            if size[row]:
                common = math.gcd(common, offset[row])
                end = max(end, offset[row] + size[row])
        regular = common > widest and all(
            offset[row] == self._up(last, common) for row, last in _before(offset, size, rows)
        )
        if widest and regular:
            self._alignment = common
            self._gap.clear()

    @staticmethod
    def _up(value: int, alignment: int) -> int:
        return -(-value // alignment) * alignment

    def aligned(self, end: int) -> int:
        """Return where the next payload would start."""
        return self._up(end, self._alignment)

    def start(self, row: int, end: int) -> int:
        """Return where a payload starts, after one that ends at a byte."""
        return self.aligned(end) + self._gap.get(row, 0)


def _before(offset: memoryview, size: memoryview, rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the rows that have bytes, each with the end of the one before."""
    end = 0
    for row in rows:
        if size[row]:
            yield row, end
            end = offset[row] + size[row]


def strings_size(file: File, start: int, room: int, count: int, *, big_endian: bool) -> int:
    """Return how many bytes a string tensor takes that starts at a byte; ``NONE`` if none does.

    Args:
        file: The shard.
        start: The byte.
        room: How many bytes there are from there on.
        count: Number of strings.
        big_endian: Byte order of the machine that wrote the data.
    """
    # Every string takes a byte for its length at least.
    if count + _STORED > room:
        return NONE
    left, crc, at, payload = count, 0, start, 0
    stop = start + room
    while left:
        part = file.read(at, min(CHUNK, stop - at))
        try:
            used, parsed, more, crc = _native.strings_scan(part, left, crc, big_endian)
        except _native.DecodeError:
            return NONE
        if not used:
            return NONE
        at, left, payload = at + used, left - parsed, payload + more
        if left + _STORED + payload > stop - at:
            return NONE
    if at + _STORED > stop:
        return NONE
    stored = int.from_bytes(file.read(at, _STORED), "big" if big_endian else "little")
    size = at + _STORED + payload - start
    return size if stored == _native.crc32c_mask(crc) and size <= room else NONE
