"""Tables that hold tensors: their blocks, and where the records in them are. See FORMAT.md.

Small blocks are read whole and compared with their checksums. Of a large one, which is a single
large value, only what is around the value is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from ckptkit import _native
from ckptkit.errors import CorruptError, UnsupportedError
from ckptkit.formats.tensorflow.paths import FOOTER_BYTES, MAGIC
from ckptkit.formats.tensorflow.scan import DECODED_SLACK
from ckptkit.formats.tensorflow.wire import varint
from ckptkit.storage.packed import sum_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptkit.storage.disk import File

SMALL: Final = 1 << 20
"""Bytes of a block up to which it is read whole."""

MAX_INDEX: Final = 256 << 20
"""Bytes of an index block; with one entry for each block it stands for far more than a disk."""

MAX_KEY: Final = 1 << 20
"""Bytes of the name of a tensor, or of the key that is made of it."""

PAGE: Final = 4096
"""Bytes that are read where a few are asked for."""

EMPTY: Final = b"\0\0\0\0\1\0\0\0"
"""A block without records."""

TRAILER: Final = 5
_SNAPPY: Final = 1
_ORDER: Final = 2**31 - 1
"""Shifting a CRC-32C by so many bytes changes nothing, so that a shift can be undone by another."""


class Handle(NamedTuple):
    """Where a block is, in bytes of the file, without its trailer."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        """Where its body ends."""
        return self.offset + self.size


class Record(NamedTuple):
    """A key, and where its value is in the file."""

    key: bytes
    start: int
    end: int


class Block(NamedTuple):
    """A block of a table.

    Attributes:
        handle: Where it is.
        checksum: CRC-32C of its body and of the byte that says how it is compressed.
        content: The bytes of its body, as far as they are read.
        records: What is in it, in order.
        whole: It was read whole, and its checksum holds.
    """

    handle: Handle
    checksum: int
    content: Window
    records: tuple[Record, ...]
    whole: bool

    @property
    def alone(self) -> bool:
        """Whether it holds one tensor and nothing else."""
        return len(self.records) == 1 and self.records[0].key != b""


class Window:
    """Bytes of a file, by their offsets in it, read a page at a time as they are asked for."""

    __slots__ = ("_end", "_file", "_page", "_start")

    def __init__(self, file: File, end: int, content: bytes = b"", start: int = 0) -> None:
        """Look at a file up to an end; ``content`` is what is known of it from ``start`` on."""
        self._file = file
        self._end = end
        self._page = content
        self._start = start

    def __len__(self) -> int:
        """Return where the bytes end."""
        return self._end

    def __getitem__(self, part: slice) -> bytes:
        """Return a part, which is asked for by its start and its end."""
        start, stop = part.start, min(part.stop, self._end)
        if not self._start <= start <= stop <= self._start + len(self._page):
            nbytes = min(max(stop - start, PAGE), self._end - start)
            self._page, self._start = bytes(self._file.read(start, nbytes)), start
        return self._page[start - self._start : stop - self._start]


class TableFile:
    """A table in a file: its blocks, one after the other.

    Attributes:
        path: The file.
        size: Its length in bytes.
        metaindex, index: The two blocks that hold no records.
        blocks: The others, each with a key that none of its own is above.
    """

    def __init__(self, file: File, path: str) -> None:
        """Read footer and index block.

        Raises:
            CorruptError: They are damaged, or contradict the file.
            UnsupportedError: The index block is compressed.
        """
        self.path = path
        self._file = file
        self.size = file.size
        if self.size < FOOTER_BYTES:
            self.refuse(f"a table has at least {FOOTER_BYTES} bytes, not {self.size}", self.size)
        footer = bytes(file.read(self.size - FOOTER_BYTES, FOOTER_BYTES))
        if footer[-len(MAGIC) :] != MAGIC:
            text = f"a table ends in {MAGIC.hex()}, this file in {footer[-len(MAGIC) :].hex()}"
            self.refuse(f"{text}: it was cut short, or written over", self.size - len(MAGIC))
        self.padding, (self.metaindex, self.index) = self._handles(footer)
        # Keys may share what they have in common, and take far more memory than bytes here.
        self._room = self.size + DECODED_SLACK
        if self.index.size > MAX_INDEX:
            self.refuse(f"its index block claims {self.index.size} bytes", self.index.offset)
        listed = self._read(self.index)
        self.blocks = [(one.key, self._handle(listed.content, one)) for one in listed.records]
        self._check_apart()

    def refuse(self, message: str, offset: int | None = None) -> NoReturn:
        """Raise the error that a damaged table deserves."""
        raise CorruptError(message, path=self.path, offset=offset)

    def _handles(self, footer: bytes) -> tuple[bytes, tuple[Handle, Handle]]:
        end = len(footer) - len(MAGIC)
        numbers, at = [], 0
        for _ in range(4):
            number, at = self._varint(footer, at, end, self.size - FOOTER_BYTES)
            numbers.append(number)
        handles = Handle(*numbers[:2]), Handle(*numbers[2:])
        for one in handles:
            self._check_inside(one)
        return footer[at:end], handles

    def _varint(self, data: bytes | Window, at: int, end: int, shift: int = 0) -> tuple[int, int]:
        try:
            return varint(data, at, end)
        except CorruptError as error:
            self.refuse(error.message, shift + (error.offset or 0))

    def _check_inside(self, one: Handle) -> None:
        if one.end + TRAILER > self.size - FOOTER_BYTES:
            text = f"a block of {one.size} bytes at {one.offset} is beyond the end of the file"
            self.refuse(text, one.offset if one.offset < self.size else None)

    def _handle(self, content: Window, record: Record) -> Handle:
        offset, at = self._varint(content, record.start, record.end)
        size, _ = self._varint(content, at, record.end)
        found = Handle(offset, size)
        self._check_inside(found)
        return found

    def _check_apart(self) -> None:
        """Refuse blocks that share bytes."""
        end, last = 0, Handle(0, 0)
        for one in sorted([handle for _, handle in self.blocks] + [self.index]):
            if one.offset < end:
                text = f"the blocks at {last.offset} and at {one.offset} share bytes"
                self.refuse(text, one.offset)
            end, last = one.end + TRAILER, one

    def read(self) -> Iterator[Block]:
        """Yield the blocks, each compared with its checksum unless it is one large value.

        Writers of today give every large value a block of its own.

        Raises:
            CorruptError: A block is damaged, or keys are not in order.
            UnsupportedError: A block is compressed.
        """
        floor: bytes | None = None
        for separator, handle in self.blocks:
            block = self._read(handle)
            keys = [record.key for record in block.records]
            if not keys:
                self.refuse("a block is empty", handle.offset)
            if (floor is not None and keys[0] <= floor) or keys[-1] > separator:
                self.refuse("keys of a block are not where the index has them", handle.offset)
            floor = separator
            if not block.whole and not block.alone:
                self._check(block)
            yield block

    def sums(self) -> Iterator[tuple[Handle, int]]:
        """Yield every block that is read with its checksum, as it is stored."""
        for handle in [*(handle for _, handle in self.blocks), self.index]:
            yield handle, _stored(self._file.read(handle.end, TRAILER))

    def oddities(self) -> Iterator[str]:
        """Yield what is wrong with the metaindex block, which nobody reads."""
        handle = self.metaindex
        trailer = self._file.read(handle.end, TRAILER)
        if sum_of(self._file, handle.offset, handle.size + 1) != _stored(trailer):
            yield "the checksum of the metaindex block is another one; nobody reads it"
        elif handle.size != len(EMPTY) or self._file.read(handle.offset, handle.size) != EMPTY:
            yield "the metaindex block is not the empty one; nobody reads it"

    def _read(self, handle: Handle) -> Block:
        whole = handle.size <= SMALL or handle == self.index
        if not whole:
            content = Window(self._file, handle.end)
            trailer = bytes(self._file.read(handle.end, TRAILER))
        else:
            body = bytes(self._file.read(handle.offset, handle.size + TRAILER))
            trailer = body[handle.size :]
            found = _native.crc32c(memoryview(body)[: handle.size + 1])
            if found != _stored(trailer):
                text = f"checksum of the block of {handle.size} bytes at {handle.offset}: expected"
                self.refuse(f"{text} {_stored(trailer):08x}, found {found:08x}", handle.offset)
            content = Window(self._file, handle.end, body[: handle.size], handle.offset)
        if trailer[0]:
            self._refuse_kind(trailer[0], handle)
        records = tuple(self._records(content, handle))
        return Block(handle, _stored(trailer), content, records, whole)

    def _refuse_kind(self, kind: int, handle: Handle) -> NoReturn:
        if kind != _SNAPPY:
            self.refuse(f"a block is of type {kind}, which there is not", handle.end)
        msg = (
            "a block is compressed with Snappy, which is not read in the first format; have"
            " TensorFlow restore the checkpoint and save it anew"
        )
        raise UnsupportedError(msg, path=self.path, offset=handle.offset)

    def _records(self, content: Window, handle: Handle) -> Iterator[Record]:
        """Yield the records of a block; its restarts are checked at the end."""
        count = int.from_bytes(content[max(handle.end - 4, handle.offset) : handle.end], "little")
        end = handle.end - 4 - 4 * count
        if handle.size < 4 or count < 1 or end < handle.offset:
            self.refuse(f"a block of {handle.size} bytes has {count} restarts", handle.offset)
        at, key, starts = handle.offset, b"", []
        while at < end:
            # Where nothing is shared a search may start.
            record, shared = self._record(content, at, end, key)
            if not shared:
                starts.append(at - handle.offset)
            self._room -= len(record.key)
            if self._room < 0:
                self.refuse("its keys take more memory than such a file may", at)
            if key >= record.key and at > handle.offset:
                self.refuse("its keys do not rise", at)
            yield record
            at, key = record.end, record.key
        if count > max(len(starts), 1):
            self.refuse(f"a block has {count} restarts, at {len(starts)} places", end)
        places = memoryview(content[end : handle.end - 4]).cast("I")
        if not _is_subsequence(places.tolist(), starts or [0]) or places[0]:
            self.refuse("the restarts of a block are not where its records start", end)

    def _record(self, content: Window, at: int, end: int, key: bytes) -> tuple[Record, int]:
        shared, body = self._varint(content, at, end)
        unshared, body = self._varint(content, body, end)
        nbytes, body = self._varint(content, body, end)
        start = body + unshared
        if max(shared, unshared, nbytes) >> 32 or shared > len(key) or start + nbytes > end:
            self.refuse("a record reaches beyond its block, or shares more than there is", at)
        if shared + unshared > MAX_KEY:
            self.refuse(f"a key has {shared + unshared} bytes, at most {MAX_KEY} are read", at)
        return Record(key[:shared] + content[body:start], start, start + nbytes), shared

    def range_sums(self, block: Block, ranges: Sequence[tuple[int, int]]) -> list[int]:
        """Return the CRC-32C of byte ranges of a block.

        A single range of a large block is not read: its checksum follows from that of the block
        and of what is around it. If the range is damaged, that is not what its bytes have.

        Args:
            block: The block.
            ranges: Offset in the file, and length, of each.
        """
        if block.whole:
            return [_native.crc32c(block.content[at : at + length]) for at, length in ranges]
        if block.alone:
            return [self._follows(block, *one) for one in ranges]
        return [sum_of(self._file, *one) for one in ranges]

    def _follows(self, block: Block, start: int, length: int) -> int:
        handle = block.handle
        before = sum_of(self._file, handle.offset, start - handle.offset)
        rest = handle.end + 1 - start - length
        after = sum_of(self._file, start + length, rest)
        # crc(a + b) = shift(crc(a), len(b)) ^ crc(b), and a shift can be undone.
        both = _native.crc32c_combine(block.checksum ^ after, 0, _ORDER - rest % _ORDER)
        return both ^ _native.crc32c_combine(before, 0, length)

    def _check(self, block: Block) -> None:
        found = sum_of(self._file, block.handle.offset, block.handle.size + 1)
        if found != block.checksum:
            text = f"checksum of the block of {block.handle.size} bytes: expected"
            self.refuse(f"{text} {block.checksum:08x}, found {found:08x}", block.handle.offset)


def _stored(trailer: bytes | bytearray) -> int:
    """Return the checksum in a trailer as a plain number."""
    return _native.crc32c_unmask(int.from_bytes(trailer[1:], "little"))


def _is_subsequence(some: Sequence[int], of: Sequence[int]) -> bool:
    rest = iter(of)
    return all(any(one == other for other in rest) for one in some)
