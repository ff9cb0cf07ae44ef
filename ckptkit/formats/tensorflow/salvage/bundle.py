"""What can be read of a bundle whose index is damaged, or of a sound one, in the same form."""

from __future__ import annotations

import os
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ckptkit import _native
from ckptkit.columns import Columns
from ckptkit.errors import CorruptError, UnsupportedError
from ckptkit.formats.tensorflow.dtypes import ITEMSIZES, NAMES
from ckptkit.formats.tensorflow.paths import INDEX, shard_path
from ckptkit.formats.tensorflow.salvage.paths import check_index_file, shards_on_disk
from ckptkit.formats.tensorflow.scan import (
    BIG_ENDIAN,
    BUNDLE_VERSION,
    DECODED_SLACK,
    bytes_on_disk,
    check_entries,
    columns_of,
)
from ckptkit.formats.tensorflow.slices import described, tiling_fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ckptkit.formats.tensorflow.slices import Extents
    from ckptkit.model import TensorSpec
    from ckptkit.region import Box

    Parts = tuple[tuple[Box, str], ...]

MALFORMED: Final = 8
"""Flag of a record that does not parse."""

HEADER: Final = ""

UNPARSED: Final = "not all of it parses"
"""What the native function says of a block that its checksum does not explain."""


class Damage(NamedTuple):
    """A range of an index that is damaged.

    Attributes:
        start, end: Its bytes.
        state: ``repaired``, ``doubtful``, ``lost``, or ``directory``: no record is in it.
        message: What is wrong.
        after, before: The last key of a sound block before it and the first one behind, between
            which keys may be lost; None at either end.
    """

    start: int
    end: int
    state: str
    message: str
    after: str | None
    before: str | None


class LeftOut(NamedTuple):
    """A record that was read, and says what cannot be.

    Attributes:
        key: The key.
        message: What is wrong with it.
    """

    key: str
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A bundle as far as it could be read.

    Attributes:
        prefix: Where it is.
        columns: All records; which rows say something is in ``rows``. Files are those that exist.
        rows: The row of every key that can be used; the first one where there are several.
        trusted: Rows whose block has a checksum that holds.
        parts: For the rows that are tensors in slices: the box and the key of every slice; such a
            key may be lost.
        slices: Rows that are slices of a tensor.
        orphans: Rows of slices whose tensor is lost, by its name.
        lengths: Length of every shard that is there, in bytes.
        header: The header, None if it is lost.
        damage: Damaged ranges of the index.
        gaps: Between which keys some may be lost, in order and apart from one another.
        left_out: Records that cannot be used.
        notes: What else is worth saying.
        missing: There is no index.
        summed: Rows have checksums.
    """

    prefix: str
    columns: Columns
    rows: Mapping[str, int]
    trusted: frozenset[int] | range = field(default_factory=frozenset)
    parts: Mapping[int, Parts] = field(default_factory=dict)
    slices: frozenset[int] = frozenset()
    orphans: Mapping[str, Sequence[int]] = field(default_factory=dict)
    lengths: Mapping[int, int] = field(default_factory=dict)
    header: bytes | None = None
    damage: tuple[Damage, ...] = ()
    gaps: tuple[Gap, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    missing: bool = False
    summed: bool = True

    @property
    def index(self) -> str:
        """Path of the index."""
        return self.prefix + INDEX

    def names(self) -> Iterator[str]:
        """Iterate over the names of tensors: those of slices are none."""
        orphans = {row for rows in self.orphans.values() for row in rows}
        hidden = self.slices | orphans
        return (key for key, row in self.rows.items() if row not in hidden)

    def stored(self) -> list[int]:
        """Return the rows that have bytes of their own: tensors, and slices of some."""
        flags = self.columns.flags
        return [row for row in self.rows.values() if not flags[row] & Columns.SLICED]

    def spec(self, key: str) -> TensorSpec | None:
        """Return dtype and shape of a key, None if it is not there."""
        row = self.rows.get(key)
        return None if row is None else self.columns.spec(row)

    def lost_within(self, key: str) -> bool:
        """Tell whether a key may be one that was lost."""
        at = bisect_left(self.gaps, (True, _bytes(key)), key=_start)
        before = self.gaps[at - 1][1] if at else ""
        return before is None or _bytes(key) < _bytes(before)


Gap = tuple[str | None, str | None]
"""Two keys between which some may be lost; None at either end."""


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _start(gap: Gap) -> tuple[bool, bytes]:
    return gap[0] is not None, _bytes(gap[0] or "")


def _rises(gap: Gap) -> bool:
    return gap[0] is None or gap[1] is None or _bytes(gap[0]) < _bytes(gap[1])


def _end(gap: Gap) -> tuple[bool, bytes]:
    return gap[1] is None, _bytes(gap[1] or "")


def merged(gaps: Iterable[Gap]) -> Iterator[Gap]:
    """Yield gaps in the order of keys, joined where they overlap.

    Where the keys around one do not rise, nothing tells which ones were between them.
    """
    found: Gap | None = None
    for gap in sorted({gap if _rises(gap) else (None, None) for gap in gaps}, key=_start):
        if found is None:
            found = gap
        elif found[1] is None or gap[0] is None or _bytes(gap[0]) < _bytes(found[1]):
            found = found[0], max(found, gap, key=_end)[1]
        else:
            yield found
            found = gap
    if found is not None:
        yield found


def read_bundle(prefix: str) -> Bundle:
    """Read what there is of a bundle; only the index is read, and the lengths of the shards.

    Raises:
        UnsupportedError: It asks for a reader that does not exist yet.
        CorruptError: The index is no file.
    """
    path = prefix + INDEX
    check_index_file(path)
    families = shards_on_disk(prefix)
    if not os.path.exists(path):
        return _without_index(prefix, families)
    with open(path, "rb") as file:
        content = file.read()
    limit = len(content) + bytes_on_disk(prefix) + DECODED_SLACK
    found = _native.table_salvage(content, limit)
    return _Reader(prefix, families, *found).bundle()


def _without_index(prefix: str, families: Mapping[int, Mapping[int, str]]) -> Bundle:
    count, files, notes = _family(families, None)
    columns = Columns(NAMES, files, shards=count)
    return Bundle(
        prefix,
        columns,
        {},
        lengths=_lengths(files),
        gaps=((None, None),),
        notes=(f"there is no index: {os.path.basename(prefix)}{INDEX}", *notes),
        missing=True,
    )


def _family(
    families: Mapping[int, Mapping[int, str]], claimed: int | None
) -> tuple[int, Mapping[int, str], list[str]]:
    """Choose among data files that are said to be of so many: count, files, and notes."""
    if claimed is not None:
        return claimed, families.get(claimed, {}), []
    if not families:
        return 1, {}, []
    most = max(families, key=lambda count: (len(families[count]), -count))
    notes = []
    if len(families) > 1:
        kinds = ", ".join(f"{len(files)} of {count}" for count, files in sorted(families.items()))
        notes.append(f"there are data files of several saves ({kinds}); those of {most} are used")
    return most, families[most], notes


def _lengths(files: Mapping[int, str]) -> dict[int, int]:
    return {number: os.path.getsize(path) for number, path in files.items()}


class _Reader:
    """Turns the records of a salvaged table into a bundle."""

    def __init__(
        self,
        prefix: str,
        families: Mapping[int, Mapping[int, str]],
        keys: bytes,
        key_ends: bytes,
        values: bytes,
        value_ends: bytes,
        regions: bytes,
        damage: Sequence[tuple[int, int, str, str]],
        complete: bool,  # noqa: FBT001  a part of what the native function returns
    ) -> None:
        self.prefix = prefix
        self.families = families
        self.keys = _native.names_decode(keys, key_ends)
        self.key_bytes = keys
        self.values = values
        self.value_ends = memoryview(value_ends).cast("q")
        self.region = np.frombuffer(regions, np.int64)
        self.damage = damage
        self.complete = complete
        states = np.array([state in {"good", "repaired"} for _, _, state, _ in damage], bool)
        self.trusted = states[self.region] if len(self.region) else np.zeros(0, bool)
        self.left_out: list[LeftOut] = []
        self.notes: list[str] = []

    def bundle(self) -> Bundle:
        header, shards, big = self._header()
        count, files, notes = _family(self.families, shards)
        self.notes += notes
        if header is None:
            self.notes.append(
                f"the header is lost; going by the names of files there are {count} shards,"
                " and the values are taken for little-endian"
            )
        columns = self._columns(count, {n: files[n] for n in files if n < count}, big=big)
        rows = self._rows(columns, count)
        parts = dict(self._parts(columns, rows))
        keys = {key for one in parts.values() for _, key in one}
        slices = frozenset(rows[key] for key in keys if key in rows)
        damage = tuple(self._damage())
        gaps = tuple(merged(self._gaps(damage)))
        found = Bundle(
            self.prefix,
            columns,
            rows,
            frozenset(np.flatnonzero(self.trusted).tolist()),
            parts,
            slices,
            lengths=_lengths(columns.files),
            header=header,
            damage=damage,
            gaps=gaps,
            left_out=tuple(self.left_out),
            notes=tuple(self.notes),
        )
        orphans = self._orphans(found) if gaps or self.left_out else {}
        return replace(found, orphans=orphans)

    def _value(self, row: int) -> bytes:
        return self.values[self.value_ends[row - 1] if row else 0 : self.value_ends[row]]

    def _header(self) -> tuple[bytes | None, int | None, bool]:
        """Return the header, the number of shards that it says, and whether data is big-endian."""
        for row in (row for row, key in enumerate(self.keys) if key == HEADER):
            try:
                shards, endianness, producer, oldest, bad = _native.header_decode(self._value(row))
            except _native.DecodeError:
                continue
            sound = shards >= 1 and producer >= 0
            if self.trusted[row] and sound:
                if oldest > BUNDLE_VERSION or BUNDLE_VERSION in bad:
                    msg = f"the bundle asks for a reader of version {oldest} or later"
                    raise UnsupportedError(msg, path=self.prefix + INDEX)
                return self._value(row), shards, endianness == BIG_ENDIAN
            if sound and shards in self.families and endianness in {0, BIG_ENDIAN}:
                self.notes.append("the header is in a damaged block, and agrees with the files")
                return self._value(row), shards, endianness == BIG_ENDIAN
        return None, None, False

    def _columns(self, count: int, files: Mapping[int, str], *, big: bool) -> Columns:
        found, malformed = _native.entries_salvage(self.values, self.value_ends)
        for row, message in malformed:
            self._leave_out(row, f"its record does not parse: {message}")
        bounds = memoryview(bytes(8) + bytes(self.value_ends)).cast("q")
        return replace(columns_of(found, self.values, bounds, count, big_endian=big), files=files)

    def _leave_out(self, row: int, message: str) -> None:
        # What does not make sense in a damaged block need not have been a record at all.
        if self.trusted[row] and self.keys[row] != HEADER:
            self.left_out.append(LeftOut(self.keys[row], message))

    def _rows(self, columns: Columns, count: int) -> dict[str, int]:
        """Return the row of every key that can be used: the first one of a sound block."""
        impossible = dict(check_entries(columns, (), len(columns)))
        dtype, shard = np.asarray(columns.dtype), np.asarray(columns.shard)
        known = np.array([*(size != 0 for size in ITEMSIZES), False])
        unknown = ~known[np.clip(dtype, 0, len(ITEMSIZES))]
        flags = np.asarray(columns.flags)
        end = np.asarray(columns.offset).astype(np.uint64) + np.asarray(columns.size)
        sliced = (flags & Columns.SLICED) != 0
        outside = ~sliced & ((shard >= count) | (end > np.iinfo(np.int64).max))
        usable = (flags & MALFORMED) == 0
        for row in np.flatnonzero(usable & (unknown | outside)).tolist():
            what = f"dtype {dtype[row]}" if unknown[row] else f"shard {shard[row]} of {count}"
            impossible.setdefault(row, f"its record says {what}, which cannot be")
        for row, message in sorted(impossible.items()):
            if usable[row]:
                usable[row] = False
                self._leave_out(row, message)
        rows: dict[str, int] = {}
        twice = 0
        for some in (self.trusted & usable, ~self.trusted & usable):
            for row in np.flatnonzero(some).tolist():
                key = self.keys[row]
                if key != HEADER and rows.setdefault(key, row) != row:
                    twice += bool(self.trusted[row])
        if twice:
            self.notes.append(f"{twice} keys are there twice; the first one counts")
        return rows

    def _parts(self, columns: Columns, rows: dict[str, int]) -> Iterator[tuple[int, Parts]]:
        """Yield the slices of partitioned tensors; others whose slices cannot be go."""
        for key, row in list(rows.items()):
            # What was to be a slice of another tensor may be gone by now.
            if not columns.flags[row] & Columns.SLICED or key not in rows:
                continue
            try:
                yield row, self._parts_of(columns, rows, key, row)
            except CorruptError as error:
                del rows[key]
                self._leave_out(row, error.message)

    def _parts_of(self, columns: Columns, rows: dict[str, int], key: str, row: int) -> Parts:
        slices = [*described(columns, row)]
        fault = tiling_fault(columns.shape(row), [box for _, box in slices])
        if fault is not None:
            raise CorruptError(fault)
        parts = []
        for extents, box in slices:
            name = slice_name(key, extents)
            at = rows.get(name)
            if at is not None and (
                columns.dtype[at] != columns.dtype[row]
                or columns.shape(at) != box.shape
                or columns.flags[at] & Columns.SLICED
            ):
                self._leave_out(at, "it is a slice, and not of the tensor that it is named after")
                del rows[name]
            parts.append((box, name))
        return tuple(parts)

    def _orphans(self, found: Bundle) -> dict[str, list[int]]:
        orphans: dict[str, list[int]] = {}
        for key, row in found.rows.items():
            if key.startswith("\0") and row not in found.slices:
                try:
                    name, _ = _native.slice_key_decode(_bytes(key))
                except _native.DecodeError:
                    continue
                orphans.setdefault(name.decode("utf-8", "surrogateescape"), []).append(row)
        return orphans

    def _damage(self) -> Iterator[Damage]:
        """Yield what is damaged, with the keys of sound blocks around it."""
        first: dict[int, str] = {}
        last: dict[int, str] = {}
        for row in np.flatnonzero(self.trusted).tolist():
            number = int(self.region[row])
            first.setdefault(number, self.keys[row])
            last[number] = self.keys[row]
        sound = np.array(sorted(first), np.int64)
        for number, (start, end, state, message) in enumerate(self.damage):
            if state == "good" and not message:
                continue
            low, high = np.searchsorted(sound, [number, number + 1]).tolist()
            after = last[int(sound[low - 1])] if low else None
            before = first[int(sound[high])] if high < len(sound) else None
            yield Damage(start, end, state, message, after, before)

    def _gaps(self, damage: Sequence[Damage]) -> Iterator[Gap]:
        for one in damage:
            # Of a sound block, or one that was put right, something did not parse.
            if one.state in {"doubtful", "lost"} or one.message == UNPARSED:
                yield one.after, one.before
        if not self.complete:
            trusted = np.flatnonzero(self.trusted)
            yield (self.keys[int(trusted[-1])] if len(trusted) else None), None


def slice_name(name: str, extents: Extents) -> str:
    """Return the key of a slice of a tensor, as all keys here are written."""
    return _native.slice_key(_bytes(name), extents).decode("utf-8", "surrogateescape")


def shard_name(bundle: Bundle, shard: int) -> str:
    """Return the path that a shard has, whether it is there or not."""
    return bundle.columns.files.get(shard) or shard_path(
        bundle.prefix, shard, bundle.columns.shards
    )
