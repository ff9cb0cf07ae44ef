"""Every checksum of a checkpoint, compared about as fast as memory allows.

Whatever tensors claim, overlaps included, every byte of a shard is read and summed once: the
places where a tensor starts or ends, and a regular grid, cut a shard into *segments*. Threads sum
the segments of one grid cell at a time, while its bytes are in the cache. A tensor that is one
segment has its checksum then; others have theirs joined from those of their segments.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from ckptkit import _native
from ckptkit.engine.crew import Scratch, each
from ckptkit.errors import (
    CkptError,
    ConflictError,
    CorruptError,
    UnsupportedError,
)
from ckptkit.model import TensorSpec
from ckptkit.region import Region
from ckptkit.storage.digest import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from ckptkit.catalog import Catalog
    from ckptkit.columns import Columns
    from ckptkit.formats import Member
    from ckptkit.region import Box
    from ckptkit.storage.disk import Sources

    Int64s = NDArray[np.int64]
    Severity = Literal["error", "warning"]
    Progress = Callable[[int, int], object]

CELL: Final = 2 << 20
"""Bytes of a shard that one thread reads and sums at a time."""

STREAMS: Final = 256
"""String tensors that one thread takes at a time."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        path: The file.
        tensor: The tensor, if it is about one.
        offset: Byte offset in the file, if it is about one place.
        message: What was expected and what was found.
        severity: A warning is about something that readers accept, an error about what they do
            not, or should not.
    """

    path: str
    tensor: str | None
    offset: int | None
    message: str
    severity: Severity = "error"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the line that an error about it would print."""
        return str(CkptError(self.message, path=self.path, tensor=self.tensor, offset=self.offset))


class _Finding(NamedTuple):
    """What is wrong with a row of the columns, before it is known whose row that is."""

    row: int
    offset: int
    message: str
    severity: Severity = "error"


def compare_sums(
    catalog: Catalog, members: Sequence[Member], sources: Sources, progress: Progress | None
) -> tuple[list[Problem], int]:
    """Compare every checksum; return what differs, and the bytes that were compared.

    Args:
        catalog: The tensors.
        members: What has a checksum besides tensors.
        sources: Opens files.
        progress: Called with bytes done and bytes in all.
    """
    columns = catalog.columns
    archived = [_Member(member, sources) for member in members]
    shards: list[_Shard] = []
    texts: list[_Texts] = []
    for number, rows, parsed in _by_shard(columns):
        path = columns.files[number]
        shards.append(_Shard(columns, sources, path, rows[~parsed]))
        texts += _texts(columns, sources, path, rows[parsed])
    jobs: list[_Shard | _Texts] = [*shards, *texts]
    total = sum(job.nbytes for job in jobs) + sum(member.size for member in members)
    done = 0

    def tick(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress is not None:
            progress(done, total)

    whole: list[_Shard | _Member] = [*shards, *archived]
    cells = itertools.chain.from_iterable(job.cells() for job in whole)
    each(itertools.chain((text.check for text in texts), cells), CELL, tick)
    found = [(job.path, finding) for job in jobs for finding in job.findings()]
    checked = sum(job.checked for job in jobs) + sum(member.size for member in members)
    problems = [problem for one in archived for problem in one.problems()]
    return [*_name(catalog, found), *problems], checked


def _by_shard(columns: Columns) -> Iterator[tuple[int, Int64s, NDArray[np.bool_]]]:
    """Yield every shard with its rows, by offset, and which of these are streams of elements."""
    if not len(columns) or not columns.summed:
        return
    stored = np.flatnonzero((np.asarray(columns.flags) & columns.SLICED) == 0)
    shard = np.asarray(columns.shard)[stored]
    order = np.lexsort((np.asarray(columns.offset)[stored], shard))
    stored, shard = stored[order], shard[order]
    names = columns.dtype_names.items()
    codes = [code for code, name in names if TensorSpec(name, ()).algorithm != "crc32c"]
    parsed = np.isin(np.asarray(columns.dtype)[stored], codes)
    for number in columns.files:
        low, high = np.searchsorted(shard, [number, number + 1]).tolist()
        yield number, stored[low:high], parsed[low:high]


class _Shard:
    """The tensors of one shard whose checksum is over their bytes as they are.

    Attributes:
        path: The file.
        checked: Bytes of its tensors.
        nbytes: Bytes that will be read: fewer, where tensors share some.
    """

    def __init__(self, columns: Columns, sources: Sources, path: str, rows: Int64s) -> None:
        """Cut the shard into segments."""
        self.path = path
        self._sources = sources
        self._rows = rows
        self._start = np.asarray(columns.offset)[rows]
        size = np.asarray(columns.size)[rows]
        self._end = self._start + size
        self._wanted = np.asarray(columns.checksum)[rows]
        self.checked = int(size.sum())
        used = size > 0
        self._edges = _edges(self._start[used], self._end[used])
        count = max(len(self._edges) - 1, 0)
        self._sums = np.zeros(count, np.uint32)
        self._lost = np.zeros(count, bool)
        self._first = np.where(used, np.searchsorted(self._edges, self._start), 0)
        self._last = np.where(used, np.searchsorted(self._edges, self._end), 0)
        claimed = np.flatnonzero(_covered(self._first, self._last, count))
        cell = self._edges[claimed] // CELL
        breaks = np.flatnonzero((np.diff(cell) != 0) | (np.diff(claimed) != 1))
        self._low = claimed[np.concatenate([[0], breaks + 1])] if len(claimed) else claimed
        self._high = claimed[np.concatenate([breaks, [-1]])] + 1 if len(claimed) else claimed
        self.nbytes = int((self._edges[self._high] - self._edges[self._low]).sum())

    def cells(self) -> Iterator[Callable[[Scratch], int]]:
        """Yield the jobs; each takes a buffer of ``CELL`` bytes and returns the bytes it did."""
        for low, high in zip(self._low.tolist(), self._high.tolist(), strict=True):
            yield partial(self._sum, low=low, high=high)

    def _sum(self, scratch: Scratch, low: int, high: int) -> int:
        """Sum neighbouring segments of one cell."""
        start, nbytes = int(self._edges[low]), int(self._edges[high] - self._edges[low])
        part = scratch[:nbytes]
        try:
            self._sources.file(self.path).read_into(part, start)
        except ConflictError:
            length = self._sources.file(self.path).size
            whole = int(np.searchsorted(self._edges, length, "right")) - 1
            self._lost[max(whole, low) : high] = True
            if low < whole < high:
                self._sum(scratch, low, whole)
            return nbytes
        sums = _native.crc32c_segments(part, self._edges[low + 1 : high + 1] - start)
        self._sums[low:high] = np.frombuffer(sums, np.uint32)
        return nbytes

    def findings(self) -> Iterator[_Finding]:
        """Yield the rows whose checksum differs, once all cells are done."""
        found = self._joined()
        lost = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._lost)])
        missing = lost[self._last] > lost[self._first]
        for at in np.flatnonzero((found != self._wanted) | missing).tolist():
            start, end = int(self._start[at]), int(self._end[at])
            text = _mismatch(start, end, int(self._wanted[at]), int(found[at]))
            if missing[at]:
                text = f"bytes {start} to {end} are beyond the end of the file"
            yield _Finding(int(self._rows[at]), start, text)

    def _joined(self) -> NDArray[np.uint32]:
        """Return the checksum of every row.

        With P(x) the checksum of all segments before x, that of the bytes from a to b is
        P(b) xor P(a) shifted by b - a, which is right whatever comes before a.
        """
        first, last = self._first, self._last
        found = np.zeros(len(first), np.uint32)
        one = last - first == 1
        found[one] = self._sums[first[one]]
        many = np.flatnonzero(last - first > 1)
        lengths = np.diff(self._edges)
        before = np.zeros(len(self._edges), np.uint32)
        value = 0
        for at in np.flatnonzero(_covered(first[many], last[many], len(self._sums))).tolist():
            before[at] = value
            value = _native.crc32c_combine(value, int(self._sums[at]), int(lengths[at]))
            before[at + 1] = value
        for at in many.tolist():
            nbytes = int(self._end[at] - self._start[at])
            ahead = _native.crc32c_combine(int(before[first[at]]), 0, nbytes)
            found[at] = int(before[last[at]]) ^ ahead
        return found


def _edges(start: Int64s, end: Int64s) -> Int64s:
    """Return where segments start or end, in order: with tensors, and on the grid."""
    low, high = int(start.min(initial=0)), int(end.max(initial=0))
    grid = np.arange(low // CELL + 1, -(-high // CELL)) * CELL
    edges = np.sort(np.concatenate([start, end, grid]))
    distinct: Int64s = edges[np.diff(edges, prepend=-1) > 0]
    return distinct


def _covered(first: Int64s, last: Int64s, count: int) -> NDArray[np.bool_]:
    """Tell of each of ``count`` segments whether it is in one of the ranges of segments."""
    depth = np.bincount(first, minlength=count + 1) - np.bincount(last, minlength=count + 1)
    return np.cumsum(depth)[:count] > 0


def _mismatch(start: int, end: int, wanted: int, found: int) -> str:
    return f"checksum of bytes {start} to {end}: expected {wanted:08x}, found {found:08x}"


def _texts(columns: Columns, sources: Sources, path: str, rows: Int64s) -> Iterator[_Texts]:
    for at in range(0, len(rows), STREAMS):
        yield _Texts(columns, sources, path, rows[at : at + STREAMS].tolist())


class _Member:
    """A member of an archive, which has a checksum as a whole."""

    def __init__(self, member: Member, sources: Sources) -> None:
        """Hold it."""
        self._member = member
        self._sources = sources
        self._sums: dict[int, tuple[int, int]] = {}

    def cells(self) -> Iterator[Callable[[Scratch], int]]:
        """Yield the jobs; each takes a buffer of ``CELL`` bytes and returns the bytes it did."""
        for start in range(0, self._member.size, CELL):
            yield partial(self._sum, start=start)

    def _sum(self, scratch: Scratch, start: int) -> int:
        part = scratch[: min(CELL, self._member.size - start)]
        self._sources.file(self._member.path).read_into(part, self._member.offset + start)
        self._sums[start] = _native.crc32(part), part.nbytes
        return part.nbytes

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong, once all cells are done."""
        member, found = self._member, 0
        for _, (value, nbytes) in sorted(self._sums.items()):
            found = _native.crc32_combine(found, value, nbytes)
        if found != member.checksum:
            text = f"member {member.name!r}: CRC-32 is {found:08x}, the archive says"
            text = f"{text} {member.checksum:08x}; {member.otherwise}"
            yield Problem(member.path, None, member.offset, text)


class _Texts:
    """String and variant tensors of one shard, which are parsed as they are summed.

    Attributes:
        path: The file.
        checked: Bytes of the tensors that were compared so far.
        nbytes: Bytes that will be read.
    """

    def __init__(self, columns: Columns, sources: Sources, path: str, rows: list[int]) -> None:
        """Hold the rows."""
        self.path = path
        self._columns = columns
        self._sources = sources
        self._rows = rows
        self._found: list[_Finding] = []
        self.checked = 0
        self.nbytes = sum(columns.size[row] for row in rows)

    def check(self, scratch: Scratch) -> int:
        """Compare the checksums of all rows; return the bytes that were read."""
        for row in self._rows:
            start = self._columns.offset[row]
            try:
                self._check_row(row, scratch)
                self.checked += self._columns.size[row]
            except UnsupportedError as error:
                self._found.append(_Finding(row, start, error.message, "warning"))
            except ConflictError as error:
                self._found.append(_Finding(row, error.offset or 0, error.message))
            except CorruptError as error:
                self._found.append(_Finding(row, start + (error.offset or 0), error.message))
        return self.nbytes

    def _check_row(self, row: int, scratch: Scratch) -> None:
        columns = self._columns
        spec, start = columns.spec(row), columns.offset[row]
        end = start + columns.size[row]
        stream = digest(spec.algorithm, spec.count, columns.byteorder)
        for at in range(start, end, CELL):
            part = scratch[: min(CELL, end - at)]
            self._sources.file(self.path).read_into(part, at)
            stream.update(part)
        found = stream.value()
        if found != columns.checksum[row]:
            text = _mismatch(start, end, columns.checksum[row], found)
            self._found.append(_Finding(row, start, text))

    def findings(self) -> Iterable[_Finding]:
        """Return what is wrong, once everything was checked."""
        return self._found


def _name(catalog: Catalog, found: list[tuple[str, _Finding]]) -> list[Problem]:
    """Say which tensor, and which slice of it, each finding is about."""
    if not found:
        return []
    wanted = {finding.row for _, finding in found}
    owners: dict[int, tuple[str, Box | None]] = {}
    parts = catalog.columns.parts
    for name, row in zip(catalog.names, catalog.rows, strict=True):
        if row in wanted:
            owners[row] = name, None
        for box, at in parts.get(row, ()):
            if at in wanted:
                owners[at] = name, box
    problems = []
    for path, finding in found:
        name, slice_ = owners[finding.row]
        where = "" if slice_ is None else f"slice {_text(slice_)}: "
        text = where + finding.message
        problems.append(Problem(path, name, finding.offset, text, finding.severity))
    return problems


def _text(box: Box) -> str:
    return str(Region(box.slices()))
