"""Values in a protobuf message, read as if they were stored as they are.

Packed varints, values in several runs, and strings have a *virtual path*: the path of the file, the
byte range that holds them all, and what they are. What is opened by it holds the elements, dense,
little-endian; of strings what a TensorFlow bundle stores. Before the first byte is given, the range
is compared with its checksum, and gone through once to note every so many elements where they are;
from then on any part is read from near to where it starts, in bounded memory.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from ckptkit import _native
from ckptkit.errors import ConflictError, CorruptError
from ckptkit.storage.readonly import VirtualFile
from ckptkit.storage.virtual import SEPARATOR, virtual_path

if TYPE_CHECKING:
    from collections.abc import Buffer, Iterator

    from ckptkit.storage.disk import Disk, File

Form = Literal["int", "uint", "bool", "raw", "string"]
"""What elements are: varints of three kinds, bytes as they are, or strings."""

WINDOW: Final = 256 << 10
"""Bytes of a message that are read at a time."""

STRIDE: Final = 1 << 16
"""Varints between two whose place is noted."""

STRING_TAG: Final = 0x42
"""What each string starts with: field 8, of bytes."""

_LONGEST: Final = 10


class Packed(NamedTuple):
    """Where values are in a file, and what they are.

    Attributes:
        form: What elements are.
        width: Bytes of an element as it is given; 1 for bytes as they are, and for strings.
        elements: How many there are.
        start, length: The byte range that holds them all.
        checksum: CRC-32C of that range.
        runs: Offset and length of each run of values; none for strings.
    """

    form: Form
    width: int
    elements: int
    start: int
    length: int
    checksum: int
    runs: tuple[tuple[int, int], ...] = ()

    def path(self, file: str, tensor: str) -> str:
        """Return the virtual path of the values, which are a tensor's."""
        runs = ",".join(f"{start}:{length}" for start, length in self.runs)
        numbers = (self.width, self.elements, self.start, self.length, self.checksum)
        return virtual_path(file, "packed", self.form, *map(str, numbers), runs, tensor)

    @classmethod
    def parse(cls, text: str) -> tuple[Packed, str]:
        """Return what the end of a virtual path says, and the tensor."""
        form, *numbers, runs, tensor = text.split(SEPARATOR, 7)
        pairs = (run.split(":") for run in runs.split(",") if run)
        width, elements, start, length, checksum = map(int, numbers)
        found = tuple((int(a), int(b)) for a, b in pairs)
        return cls(form, width, elements, start, length, checksum, found), tensor  # type: ignore[arg-type]


def open_packed(disk: Disk, file: str, rest: str) -> PackedFile:
    """Open values by the parts of their virtual path, for reading; nothing is read yet."""
    packed, tensor = Packed.parse(rest)
    kind = StringsFile if packed.form == "string" else NumbersFile
    return kind(disk, file, packed, tensor)


class StringSpans(NamedTuple):
    """Where the strings of a message are.

    Attributes:
        starts, lengths: int64 of each, in bytes of the file.
        end: Where what follows the last one starts.
    """

    starts: array[int]
    lengths: array[int]
    end: int


def string_spans(file: File, start: int, end: int) -> StringSpans:
    """Find the strings that follow one another from a byte of a file on.

    Raises:
        CorruptError: One of them passes ``end``, or is malformed.
    """
    starts, lengths = array("q"), array("q")
    at = start
    while at < end:
        window = file.read(at, min(WINDOW, end - at))
        try:
            after, found = _native.fields_scan(window, STRING_TAG, len(window))
        except _native.DecodeError as error:
            raise CorruptError(error.message, path=file.path, offset=at + error.offset) from None
        pairs = memoryview(found).cast("q")
        if not pairs:
            break
        starts.extend(at + offset for offset in pairs[::2])
        lengths.extend(pairs[1::2])
        at += after
    if at > end:
        msg = f"a string ends {at - end} bytes behind the end of its message"
        raise CorruptError(msg, path=file.path, offset=at)
    return StringSpans(starts, lengths, at)


def sum_of(file: File, start: int, length: int) -> int:
    """Return the CRC-32C of a byte range of a file, read piece by piece."""
    found = 0
    for at in range(start, start + length, WINDOW):
        found = _native.crc32c(file.read(at, min(WINDOW, start + length - at)), found)
    return found


class PackedFile(VirtualFile):
    """Values of a tensor as a file that is only read. Safe from many threads."""

    __slots__ = ("__weakref__", "_held", "_lock", "_packed", "_ready")

    def __init__(self, disk: Disk, path: str, packed: Packed, tensor: str) -> None:
        """Open it; use :func:`open_packed`."""
        super().__init__(disk, path, tensor)
        self._packed = packed
        self._lock = threading.Lock()
        self._ready = False
        self._held = disk.open(path)

    def prepare(self) -> None:
        """Compare the values with their checksum, and find out where they are; once.

        Raises:
            CorruptError: They are damaged, or others than there should be.
            ConflictError: The file ends before they do.
        """
        with self._lock:
            if self._ready:
                return
            packed = self._packed
            found = sum_of(self._held, packed.start, packed.length)
            if found != packed.checksum:
                text = f"checksum of bytes {packed.start} to {packed.start + packed.length}"
                msg = f"{text}, by that of its block: expected {packed.checksum:08x}"
                self._corrupt(f"{msg}, found {found:08x}", packed.start)
            self._index()
            self._ready = True

    def _index(self) -> None:
        """Find out where values are."""
        raise NotImplementedError

    def _fill(self, view: memoryview, offset: int) -> None:
        """Fill a buffer that is not empty from a byte offset; both are within bounds."""
        raise NotImplementedError

    def read_into(self, buffer: Buffer, offset: int) -> None:
        """Fill a buffer from a byte offset.

        Raises:
            ConflictError: The values end before the buffer is full, or their file does.
            CorruptError: They are damaged.
        """
        view = memoryview(buffer).cast("B")
        self.prepare()
        self._check_range(offset, offset + len(view))
        if len(view):
            self._fill(view, offset)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._held.close()

    def __del__(self) -> None:
        """Close the file with its last user."""
        with suppress(AttributeError):  # it never was opened
            self.close()


class _Run(NamedTuple):
    """A run of values.

    Attributes:
        start, end: Where it is, in bytes of the file.
        first, last: The number of its first element, and one past that of its last.
        marks: Where every ``STRIDE``-th of its elements is.
    """

    start: int
    end: int
    first: int
    last: int
    marks: array[int]


class NumbersFile(PackedFile):
    """Numbers: varints, or bytes as they are."""

    __slots__ = ("_runs",)

    @property
    def size(self) -> int:
        """Bytes of all elements."""
        return self._packed.elements * self._packed.width

    def _index(self) -> None:
        runs: list[_Run] = []
        first = 0
        for start, length in self._packed.runs:
            count, marks = length, array("q")
            if self._packed.form != "raw":
                count, marks = self._marks(start, start + length)
            runs.append(_Run(start, start + length, first, first + count, marks))
            first += count
        if first != self._packed.elements:
            msg = f"it has {first} values, its shape takes {self._packed.elements}"
            self._corrupt(msg, self._packed.start)
        self._runs = runs

    def _marks(self, start: int, end: int) -> tuple[int, array[int]]:
        """Return the number of varints in a byte range, and where some of them are."""
        at, count, marks = start, 0, array("q")
        while at < end:
            window = memoryview(self._held.read(at, min(WINDOW, end - at)))
            used = 0
            while used < len(window):
                if len(marks) * STRIDE == count:
                    marks.append(at + used)
                taken, skipped = self._skip(window[used:], STRIDE - count % STRIDE, at + used)
                if not skipped:
                    break
                used += taken
                count += skipped
            if not used:
                self._corrupt("its last value is cut off", at)
            at += used
        return count, marks

    def _skip(self, window: memoryview, limit: int, at: int) -> tuple[int, int]:
        try:
            return _native.varints_skip(window, limit)
        except _native.DecodeError as error:
            self._corrupt(error.message, at + error.offset)

    def _fill(self, view: memoryview, offset: int) -> None:
        width = self._packed.width
        low, high = offset // width, -(-(offset + len(view)) // width)
        for run in self._runs:
            first, last = max(low, run.first), min(high, run.last)
            if first >= last:
                continue
            parts = self._raw if self._packed.form == "raw" else self._decoded
            position = first * width - offset
            for part in parts(run, first - run.first, last - run.first):
                # Elements at the ends may be wanted in part.
                skip = max(-position, 0)
                take = min(len(part), len(view) - position)
                view[position + skip : position + take] = part[skip:take]
                position += len(part)

    def _raw(self, run: _Run, first: int, last: int) -> Iterator[bytes | bytearray]:
        for at in range(run.start + first, run.start + last, WINDOW):
            yield self._held.read(at, min(WINDOW, run.start + last - at))

    def _decoded(self, run: _Run, first: int, last: int) -> Iterator[bytes | bytearray]:
        """Yield elements of a run, by their numbers in it, piece by piece."""
        form, width = self._packed.form, self._packed.width
        at, skip, wanted = run.marks[first // STRIDE], first % STRIDE, last - first
        while wanted:
            nbytes = min(WINDOW, run.end - at, (skip + wanted) * _LONGEST)
            window = memoryview(self._held.read(at, nbytes))
            used, skipped = self._skip(window, skip, at) if skip else (0, 0)
            skip -= skipped
            found = b""
            if not skip:
                try:
                    more, found = _native.varints_decode(window[used:], wanted, form, width)
                except _native.DecodeError as error:
                    text = f"a value is none of its dtype: {error.message}"
                    self._corrupt(text, at + used + error.offset)
                used += more
            if not used:
                msg = "the values end here; the file changed since it was looked at"
                raise ConflictError(msg, path=self.path, tensor=self._tensor, offset=at)
            at += used
            wanted -= len(found) // width
            yield found


class StringsFile(PackedFile):
    """Strings, as a bundle stores them: all lengths, their checksum, all bytes."""

    __slots__ = ("_ends", "_header", "_spans")

    @property
    def size(self) -> int:
        """Bytes of all that a bundle stores."""
        self.prepare()
        return len(self._header) + (self._ends[-1] if self._ends else 0)

    def _index(self) -> None:
        packed = self._packed
        spans = string_spans(self._held, packed.start, packed.start + packed.length)
        if len(spans.starts) != packed.elements:
            msg = f"it has {len(spans.starts)} strings, its shape takes {packed.elements}"
            self._corrupt(msg, packed.start)
        self._spans = spans
        self._ends = array("q", accumulate(spans.lengths))
        self._header, _ = _native.strings_encode(spans.lengths)

    def _fill(self, view: memoryview, offset: int) -> None:
        done = 0
        if offset < len(self._header):
            part = self._header[offset : offset + len(view)]
            view[: len(part)] = part
            done = len(part)
        at = offset + done - len(self._header)
        starts, lengths, ends = *self._spans[:2], self._ends
        stop = self._packed.start + self._packed.length
        while done < len(view):
            number = bisect_right(ends, at)
            left = min(ends[number] - at, len(view) - done)
            place = starts[number] + lengths[number] - (ends[number] - at)
            if left >= WINDOW:
                self._held.read_into(view[done : done + left], place)
                done, at = done + left, at + left
                continue
            # Short ones are read together.
            low, window = place, self._held.read(place, min(WINDOW, stop - place))
            while left and place + left - low <= len(window):
                view[done : done + left] = window[place - low : place - low + left]
                done, at, left = done + left, at + left, 0
                if done < len(view):
                    number = bisect_right(ends, at, number)
                    place, left = starts[number], min(lengths[number], len(view) - done)
