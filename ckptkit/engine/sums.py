"""Every checksum of a checkpoint, compared about as fast as memory allows.

Whatever tensors claim, overlaps included, every byte of a shard is read and summed once: the
places where a tensor starts or ends, and a regular grid, cut a shard into *segments*. Threads sum
the segments of one grid cell at a time, while its bytes are in the cache. A tensor that is one
segment has its checksum then; others have theirs joined from those of their segments.
"""

from __future__ import annotations

import errno
import itertools
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ckptkit import _native
from ckptkit.engine.crew import Scratch, each
from ckptkit.engine.findings import Finding, Problem, mismatch, problems_of
from ckptkit.errors import ConflictError, CorruptError, UnsupportedError
from ckptkit.model import TensorSpec
from ckptkit.storage.digest import digest
from ckptkit.storage.virtual import real_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from ckptkit.catalog import Catalog
    from ckptkit.columns import Columns
    from ckptkit.formats import Member
    from ckptkit.storage.disk import Sources

    Int64s = NDArray[np.int64]
    Progress = Callable[[int, int], object]

CELL: Final = 2 << 20
"""Bytes of a shard that one thread reads and sums at a time."""

STREAMS: Final = 256
"""String tensors that one thread takes at a time."""


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
    # Whatever tensors are in such a file are in its members, and summed with these.
    within = {member.path for member in members if member.algorithm == "crc32c"}
    for number, rows, parsed in _by_shard(columns):
        path = columns.files[number]
        if real_path(path) in within:
            continue
        shards.append(_Shard(columns, sources, path, rows[~parsed]))
        texts += _texts(columns, sources, path, rows[parsed])
    jobs: list[_Shard | _Texts] = [*shards, *texts]
    total = sum(job.nbytes for job in jobs) + sum(member.size for member in members)
    _do([*texts, *shards, *archived], total, progress)
    found = [(job.path, finding) for job in jobs for finding in job.findings()]
    checked = sum(job.checked for job in jobs) + sum(member.size for member in members)
    problems = [problem for one in archived for problem in one.problems()]
    return [*problems_of(catalog, found), *problems], checked


class Summed(NamedTuple):
    """The checksums that rows have.

    Attributes:
        found: By row, for those that have one.
        broken: What is wrong with the others, by row.
    """

    found: dict[int, int]
    broken: dict[int, str]


def sum_rows(
    columns: Columns, rows: Int64s, sources: Sources, progress: Progress | None = None
) -> Summed:
    """Return the checksums of rows as they are in the files, whatever the index says.

    Bytes that the device does not give are as good as missing.

    Args:
        columns: The rows of a checkpoint.
        rows: Which of them; their files are there.
        sources: Opens files.
        progress: Called with bytes done and bytes in all.
    """
    jobs: list[_Shard | _Texts] = []
    for number, some, parsed in _by_shard(columns, rows):
        path = columns.files[number]
        jobs.append(_Shard(columns, sources, path, some[~parsed], patient=True))
        jobs += _texts(columns, sources, path, some[parsed], patient=True)
    _do(jobs, sum(job.nbytes for job in jobs), progress)
    found: dict[int, int] = {}
    broken: dict[int, str] = {}
    for job in jobs:
        sums, wrong = job.results()
        found.update(sums)
        broken.update(wrong)
    return Summed(found, broken)


def _do(jobs: Sequence[_Shard | _Texts | _Member], total: int, progress: Progress | None) -> None:
    """Have threads do all cells of some jobs."""
    done = 0

    def tick(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress is not None:
            progress(done, total)

    each(itertools.chain.from_iterable(job.cells() for job in jobs), CELL, tick)


def _by_shard(
    columns: Columns, rows: Int64s | None = None
) -> Iterator[tuple[int, Int64s, NDArray[np.bool_]]]:
    """Yield every shard with its rows, by offset, and which of these are streams of elements."""
    if not len(columns) or not columns.summed:
        return
    stored = rows
    if stored is None:
        stored = np.flatnonzero((np.asarray(columns.flags) & columns.SLICED) == 0)
    shard = np.asarray(columns.shard)[stored]
    order = np.lexsort((np.asarray(columns.offset)[stored], shard))
    stored, shard = stored[order], shard[order]
    names = columns.dtype_names.items()
    codes = [code for code, name in names if TensorSpec(name, ()).algorithm != "crc32c"]
    parsed = np.isin(np.asarray(columns.dtype)[stored], codes)
    numbers = [*columns.files]
    ends = (np.searchsorted(shard, numbers, side).tolist() for side in ("left", "right"))
    for number, low, high in zip(numbers, *ends, strict=True):
        yield number, stored[low:high], parsed[low:high]


class _Shard:
    """The tensors of one shard whose checksum is over their bytes as they are.

    Attributes:
        path: The file.
        checked: Bytes of its tensors.
        nbytes: Bytes that will be read: fewer, where tensors share some.
    """

    def __init__(
        self,
        columns: Columns,
        sources: Sources,
        path: str,
        rows: Int64s,
        *,
        patient: bool = False,
    ) -> None:
        """Cut the shard into segments; a patient one goes on where the device fails to read."""
        self.path = path
        self._patient = patient
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
        except OSError as error:
            if error.errno != errno.EIO or not self._patient:
                raise
            if high - low > 1:
                for at in range(low, high):
                    self._sum(scratch, at, at + 1)
            else:
                self._lost[low] = True
            return nbytes
        sums = _native.crc32c_segments(part, self._edges[low + 1 : high + 1] - start)
        self._sums[low:high] = np.frombuffer(sums, np.uint32)
        return nbytes

    def findings(self) -> Iterator[Finding]:
        """Yield the rows whose checksum differs, once all cells are done."""
        found, missing = self._joined(), self._missing()
        for at in np.flatnonzero((found != self._wanted) | missing).tolist():
            start, end = int(self._start[at]), int(self._end[at])
            text = mismatch(start, end, int(self._wanted[at]), int(found[at]))
            if missing[at]:
                text = f"bytes {start} to {end} are beyond the end of the file"
            yield Finding(int(self._rows[at]), start, text, missing=bool(missing[at]))

    def results(self) -> tuple[dict[int, int], dict[int, str]]:
        """Return the checksums of rows, and what is wrong with those that have none."""
        found, missing = self._joined(), self._missing()
        rows = self._rows
        sums = dict(zip(rows[~missing].tolist(), found[~missing].tolist(), strict=True))
        length = self._sources.file(self.path).size if missing.any() else 0
        broken = {}
        for at in np.flatnonzero(missing).tolist():
            start, end = int(self._start[at]), int(self._end[at])
            what = "are beyond the end of the file" if end > length else "cannot be read"
            broken[int(rows[at])] = f"bytes {start} to {end} {what}"
        return sums, broken

    def _missing(self) -> NDArray[np.bool_]:
        """Tell of every row whether some of its bytes are not there."""
        lost = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._lost)])
        missing: NDArray[np.bool_] = lost[self._last] > lost[self._first]
        return missing

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


def _texts(
    columns: Columns, sources: Sources, path: str, rows: Int64s, *, patient: bool = False
) -> Iterator[_Texts]:
    for at in range(0, len(rows), STREAMS):
        some = rows[at : at + STREAMS].tolist()
        yield _Texts(columns, sources, path, some, patient=patient)


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
        crc = _native.crc32c if self._member.algorithm == "crc32c" else _native.crc32
        self._sums[start] = crc(part), part.nbytes
        return part.nbytes

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong, once all cells are done."""
        member, found = self._member, 0
        plain = member.algorithm == "crc32c"
        combine = _native.crc32c_combine if plain else _native.crc32_combine
        for _, (value, nbytes) in sorted(self._sums.items()):
            found = combine(found, value, nbytes)
        if found != member.checksum:
            text = f"member {member.name!r}: CRC-32 is {found:08x}, the archive says"
            if plain:
                text = f"{member.name}: CRC-32C is {found:08x}, the file says"
            text = f"{text} {member.checksum:08x}; {member.otherwise}"
            yield Problem(member.path, member.tensor, member.offset, text)


class _Texts:
    """String and variant tensors of one shard, which are parsed as they are summed.

    Attributes:
        path: The file.
        checked: Bytes of the tensors that were compared so far.
        nbytes: Bytes that will be read.
    """

    def __init__(
        self,
        columns: Columns,
        sources: Sources,
        path: str,
        rows: list[int],
        *,
        patient: bool = False,
    ) -> None:
        """Hold the rows; where the device fails to read one, a patient one goes on."""
        self.path = path
        self._patient = patient
        self._sums: dict[int, int] = {}
        self._columns = columns
        self._sources = sources
        self._rows = rows
        self._found: list[Finding] = []
        self.checked = 0
        self.nbytes = sum(columns.size[row] for row in rows)

    def cells(self) -> Iterator[Callable[[Scratch], int]]:
        """Yield the only job; it takes a buffer of ``CELL`` bytes and returns the bytes it did."""
        yield self._check

    def _check(self, scratch: Scratch) -> int:
        for row in self._rows:
            start = self._columns.offset[row]
            try:
                self._check_row(row, scratch)
                self.checked += self._columns.size[row]
            except UnsupportedError as error:
                self._found.append(Finding(row, start, error.message, "warning"))
            except ConflictError as error:
                self._found.append(Finding(row, error.offset or 0, error.message, missing=True))
            except CorruptError as error:
                self._found.append(Finding(row, start + (error.offset or 0), error.message))
            except OSError as error:
                if error.errno != errno.EIO or not self._patient:
                    raise
                self._found.append(Finding(row, start, "its bytes cannot be read"))
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
        self._sums[row] = found = stream.value()
        if found != columns.checksum[row]:
            text = mismatch(start, end, columns.checksum[row], found)
            self._found.append(Finding(row, start, text))

    def results(self) -> tuple[dict[int, int], dict[int, str]]:
        """Return the checksums of rows, and what is wrong with those that have none."""
        wrong = {one.row: one.message for one in self._found if one.row not in self._sums}
        return self._sums, wrong

    def findings(self) -> Iterable[Finding]:
        """Return what is wrong, once everything was checked."""
        return self._found
