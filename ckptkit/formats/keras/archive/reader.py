"""The zip archive that a ``.keras`` file is: what is where in it, and how one is laid out."""

from __future__ import annotations

import re
import struct
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NoReturn

from ckptkit import _native
from ckptkit.errors import CorruptError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptkit.storage.disk import File


STORED: Final = 0
DEFLATED: Final = 8

WEIGHTS: Final = "model.weights.h5"
PICKLED: Final = "model.weights.npz"

ENDS: Final = 22 + 20 + 56
"""Bytes of the end records without a comment: the end itself, a locator, a zip64 end."""

TAIL: Final = ENDS + 65_535
"""Bytes that they take at most, with a comment."""

LARGEST_HEADERS: Final = 32 << 20
"""Bytes of the largest central directory that is read, some 300,000 members, and of all local
headers together."""

_MARK: Final = b"PK\3\4"
_LOCAL: Final = 30
_END_MARK: Final = b"PK\5\6"
_END: Final = 22
_DESCRIPTOR: Final = 24
_CRC_IN_LOCAL: Final = 14
_CRC_IN_RECORD: Final = 16

_ENCRYPTED: Final = 1 << 0 | 1 << 6 | 1 << 13
_DESCRIBED: Final = 1 << 3
_PATCH: Final = 1 << 5

_KIND: Final = 0o170000
_LINK: Final = 0o120000
_KINDS: Final = {0, 0o100000, 0o040000}


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive.

    Attributes:
        name: Its name; bytes that are no UTF-8 are kept as surrogates.
        method: 0 stored, 8 deflated.
        flags: Its flags.
        crc32: CRC-32 of its contents.
        compressed: Bytes that it takes in the file.
        size: Bytes of its contents.
        header_offset: Where its local header is in the file.
        header_length: Bytes of the local header, name and extra fields included.
        data_offset: Where its bytes are in the file.
        descriptor: Where in the file a CRC-32 is that follows the data; -1 if none does.
        end: Where in the file it ends, descriptor included.
        record_offset: Where its record in the central directory is in the file.
        record_length: Bytes of that record.
        local: The local header, as it is.
        record: The record in the central directory, as it is.
    """

    name: str
    method: int
    flags: int
    crc32: int
    compressed: int
    size: int
    header_offset: int
    header_length: int
    data_offset: int
    descriptor: int
    end: int
    record_offset: int
    record_length: int
    local: bytes
    record: bytes


@dataclass(frozen=True, slots=True)
class Archive:
    """A whole archive.

    Attributes:
        members: In the order of the central directory.
        directory_offset: Where the central directory is in the file.
        directory_length: Bytes of it.
        end: Bytes of the file.
        comment: The comment of the archive.
    """

    members: tuple[Member, ...]
    directory_offset: int
    directory_length: int
    end: int
    comment: bytes

    def member(self, name: str) -> Member | None:
        """Return the member of a name, if there is one."""
        return next((member for member in self.members if member.name == name), None)


def read_archive(file: File) -> Archive:
    """Read the headers of an archive, and check them against one another and the file.

    Raises:
        CorruptError: There is no archive, or it contradicts itself.
        UnsupportedError: It is encrypted, spread over files, holds links or pickled weights, has
            names that lead out of it, or is compressed in a way that is not read.
    """
    records, directory, offset, comment = _directory(file)
    places = list(accumulate((record[-1] for record in records), initial=offset))
    reading = _Reading(file, offset)
    found: dict[int, Member] = {}
    # In the order of the file: members that share bytes are refused before these are read twice.
    for row in sorted(range(len(records)), key=lambda row: records[row][_HEADER]):
        at = places[row] - offset
        raw = directory[at : at + records[row][-1]]
        found[row] = reading.member(records[row], places[row], raw)
    members = tuple(found[row] for row in range(len(records)))
    _check_names(file, members)
    return Archive(members, offset, len(directory), file.size, comment)


def names_in(file: File) -> tuple[str, ...]:
    """Return the names that an archive lists. No more of it is read, nor compared with the rest.

    Raises:
        CorruptError: There is no archive.
        UnsupportedError: It is spread over files, or has too many members.
    """
    records, *_ = _directory(file)
    return tuple(record[0].decode("utf-8", "surrogateescape") for record in records)


def _directory(file: File) -> tuple[Sequence[_Record], bytes, int, bytes]:
    """Return the records of the central directory, its bytes, where it is; and the comment."""
    size = file.size
    tail = _tail(file, size)
    try:
        count, offset, length, whole, comment = _native.zip_end(tail, size)
    except _native.DecodeError as error:
        place = size - len(tail) + error.offset
        raise CorruptError(error.message, path=file.path, offset=place) from None
    if not whole:
        msg = "the archive is one of several that belong together; join them into one"
        raise UnsupportedError(msg, path=file.path)
    if length > LARGEST_HEADERS:
        msg = (
            f"the central directory has {length} bytes, and at most {LARGEST_HEADERS} are read:"
            " no checkpoint has so many members"
        )
        raise UnsupportedError(msg, path=file.path, offset=offset)
    directory = bytes(file.read(offset, length))
    try:
        records = _native.zip_directory(directory, count)
    except _native.DecodeError as error:
        place = offset + error.offset
        raise CorruptError(error.message, path=file.path, offset=place) from None
    return records, directory, offset, comment


def _tail(file: File, size: int) -> bytearray:
    """Return the end of a file, of which only an archive with a comment needs much."""
    tail = file.read(max(size - ENDS, 0), min(size, ENDS))
    if tail[-_END:].startswith(_END_MARK) and tail.endswith(b"\0\0"):
        return tail
    return file.read(max(size - TAIL, 0), min(size, TAIL))


def crc_places(member: Member) -> tuple[int, ...]:
    """Return where in the file the CRC-32 of a member is: 4 bytes, little-endian, each.

    In the local header and the central record; where a descriptor after the data has it, there
    instead of in the local header, or in all three.
    """
    places = [member.record_offset + _CRC_IN_RECORD]
    if member.descriptor >= 0:
        places.insert(0, member.descriptor)
    stored = member.local[_CRC_IN_LOCAL : _CRC_IN_LOCAL + 4]
    if member.descriptor < 0 or any(stored):
        places.insert(0, member.header_offset + _CRC_IN_LOCAL)
    return tuple(places)


_Record = tuple[bytes, int, int, int, int, int, int, int, int, int, int, int]
_HEADER: Final = 10


@dataclass(slots=True)
class _Reading:
    """The reading of members one after the other, by their place in the file.

    Attributes:
        file: The archive.
        limit: Where its central directory starts.
        name: The member that is being read.
        at: What in the file is being looked at.
        last: The member before, and where it ends.
        headers: Bytes of local headers that were read.
    """

    file: File
    limit: int
    name: str = ""
    at: int = 0
    last: tuple[str, int] = "", 0
    headers: int = 0

    def corrupt(self, message: str) -> NoReturn:
        msg = f"member {self.name!r}: {message}"
        raise CorruptError(msg, path=self.file.path, offset=self.at)

    def unsupported(self, message: str) -> NoReturn:
        msg = f"member {self.name!r}: {message}"
        raise UnsupportedError(msg, path=self.file.path, offset=self.at)

    def member(self, found: _Record, at: int, record: bytes) -> Member:
        """Return the member of a central record, after a look at its local header."""
        raw, _, _, flags, method, _, crc, compressed, size, attributes, header, _ = found
        self.name, self.at = raw.decode("utf-8", "surrogateescape"), at
        self.check_name()
        self.check_kind(flags, method, attributes >> 16)
        if method == STORED and compressed != size:
            self.corrupt(f"stored as it is, but {size} bytes in {compressed}")
        self.at = header
        before, start = self.last
        if header < start:
            self.corrupt(f"starts at {header}, within {before!r}, which ends at {start}")
        local = self.local(header)
        try:
            other = _native.zip_local(local)
        except _native.DecodeError as error:
            self.at += error.offset
            self.corrupt(error.message)
        described = bool(flags & _DESCRIBED)
        for what, here, there in (
            ("name", other[0], raw),
            ("flags", other[2], flags),
            ("method", other[3], method),
            ("CRC-32", other[5], crc),
            ("compressed size", other[6], compressed),
            ("size", other[7], size),
        ):
            # With a descriptor the numbers were not known yet when the header was written.
            unknown = described and here == 0 and what not in {"name", "flags", "method"}
            if here != there and not unknown:
                self.corrupt(
                    f"its {what} is {_shown(here)} in the local header,"
                    f" {_shown(there)} in the central directory"
                )
        data = header + len(local)
        end = data + compressed
        if end > self.limit:
            self.corrupt(
                f"its {compressed} bytes from {data} on run into the central directory at"
                f" {self.limit}"
            )
        descriptor = -1
        if described:
            self.at = end
            following = self.file.read(end, min(_DESCRIPTOR, self.limit - end))
            try:
                place, length = _native.zip_descriptor(following, crc, compressed, size)
            except _native.DecodeError as error:
                self.corrupt(error.message)
            descriptor, end = end + place, end + length
        self.last = self.name, end
        return Member(
            self.name,
            method,
            flags,
            crc,
            compressed,
            size,
            header,
            len(local),
            data,
            descriptor,
            end,
            at,
            len(record),
            local,
            record,
        )

    def local(self, offset: int) -> bytes:
        """Return the bytes of a local header, with name and extra fields as long as it says."""
        if offset + _LOCAL > self.limit:
            self.corrupt(
                f"its local header at {offset} is not before the central directory at {self.limit}"
            )
        head = bytes(self.file.read(offset, _LOCAL))
        if not head.startswith(_MARK):
            return head
        length = _LOCAL + sum(struct.unpack_from("<HH", head, 26))
        if offset + length > self.limit:
            self.corrupt(
                f"its local header of {length} bytes at {offset} runs into the central directory"
                f" at {self.limit}"
            )
        self.headers += length
        if self.headers > LARGEST_HEADERS:
            self.unsupported(
                f"it and the members before have local headers of {self.headers} bytes, and at"
                f" most {LARGEST_HEADERS} are read: no checkpoint has so many members"
            )
        return head + bytes(self.file.read(offset + _LOCAL, length - _LOCAL))

    def check_name(self) -> None:
        """Refuse names that another reader might take for a path that leads elsewhere."""
        reason = ""
        if not self.name:
            reason = "the name is empty"
        elif "\0" in self.name:
            reason = "the name has a NUL in it"
        elif "\\" in self.name:
            reason = "the name has a backslash in it"
        elif self.name.startswith("/"):
            reason = "the name is an absolute path"
        elif re.match("[A-Za-z]:", self.name):
            reason = "the name starts with a drive"
        elif ".." in self.name.split("/"):
            reason = "the name has a part '..'"
        if reason:
            self.unsupported(f"{reason}; members are named by relative paths")

    def check_kind(self, flags: int, method: int, mode: int) -> None:
        """Refuse members whose bytes are not their contents, stored or deflated."""
        if flags & _ENCRYPTED:
            self.unsupported("it is encrypted; decrypt the archive first")
        if flags & _PATCH:
            self.unsupported("it is a patch for something else")
        if mode & _KIND == _LINK:
            self.unsupported("it is a symbolic link; links are not followed")
        if mode & _KIND not in _KINDS:
            self.unsupported("it is neither a file nor a folder")
        if method not in {STORED, DEFLATED}:
            self.unsupported(
                f"compression method {method}; only 0 (stored) and 8 (deflated) are read"
            )
        if self.name == PICKLED:
            self.unsupported(
                "pickled arrays, which could run code when they are read; Keras refuses them, too:"
                " save the model again with weights in HDF5"
            )


def _shown(value: bytes | int) -> str:
    return str(value) if isinstance(value, int) else repr(value.decode("utf-8", "surrogateescape"))


def _check_names(file: File, members: Sequence[Member]) -> None:
    for name, times in Counter(member.name for member in members).most_common(1):
        if times > 1:
            msg = f"{times} members have the name {name!r}; readers differ in which one counts"
            raise CorruptError(msg, path=file.path)
