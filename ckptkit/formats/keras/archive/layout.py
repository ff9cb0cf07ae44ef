"""The layout of a new zip archive of stored members: where its bytes go, and all its headers.

Sizes are known before a byte is written, checksums after. Headers are those that Python's zipfile
writes, as Keras uses it; what an old archive says of a member (date, attributes, comment, extra
fields) is kept.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptkit import _native
from ckptkit.formats.keras.archive.reader import STORED

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ckptkit.formats.keras.archive.reader import Member


NARROW: Final = (1 << 31) - 1
"""The largest size and offset that zipfile puts into 32 bits."""

MOST_RECORDS: Final = 0xFFFF
"""The most members of an archive without a zip64 end record."""

_FULL: Final = 0xFFFFFFFF
_LONGEST: Final = 0xFFFF
_VERSION: Final = 20
_WIDE_VERSION: Final = 45
_UNIX: Final = 3
_FIRST_DAY: Final = 1 << 5 | 1  # 1980-01-01, the date of members that Keras writes from memory
_PRIVATE: Final = 0o600 << 16
_ZIP64: Final = 1
_UNICODE_PATH: Final = 0x7075
_UTF8: Final = 1 << 11
_OF_DEFLATE: Final = 1 << 1 | 1 << 2
_DESCRIBED: Final = 1 << 3

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_RECORD: Final = struct.Struct("<4sBB5H3I5H2I")
_WIDE_END: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR: Final = struct.Struct("<4sIQI")
_END: Final = struct.Struct("<4s4H2IH")


@dataclass(frozen=True, slots=True)
class Part:
    """One member of an archive that is to be written.

    Attributes:
        name: Its name.
        size: Bytes of its contents.
        crc32: CRC-32 of its contents, if that is known before they are written.
        like: The member of an old archive that it takes date, attributes and the like from.
    """

    name: str
    size: int
    crc32: int | None = None
    like: Member | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the file a member goes: its local header, its contents, and their end."""

    header_offset: int
    data_offset: int
    end: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything in a new archive goes.

    Attributes:
        parts: The members, in order.
        places: Where each of them goes; one follows the other.
        directory_offset: Where the central directory goes.
        end: Bytes of the file.
        comment: The comment of the archive.
    """

    parts: tuple[Part, ...]
    places: tuple[Place, ...]
    directory_offset: int
    end: int
    comment: bytes = b""


def lay_out(parts: Sequence[Part], comment: bytes = b"") -> Layout:
    """Place members one after the other, then the central directory.

    Args:
        parts: The members; no two with the same name.
        comment: The comment of the archive.
    """
    places, at, directory = [], 0, 0
    for part in parts:
        data = at + len(_local(part, 0))
        places.append(Place(at, data, data + part.size))
        directory += len(_record(part, at, 0))
        at = data + part.size
    end = at + directory + len(_end(len(parts), at, directory, comment))
    return Layout(tuple(parts), tuple(places), at, end, comment)


def headers(layout: Layout, crcs: Sequence[int]) -> list[tuple[int, bytes]]:
    """Return all that is not contents: local headers, central directory with end records.

    Args:
        layout: The archive.
        crcs: CRC-32 of the contents of every part, in order.

    Returns:
        Offset in the file and bytes of each.
    """
    found, directory = [], bytearray()
    for part, place, crc in zip(layout.parts, layout.places, crcs, strict=True):
        found.append((place.header_offset, _local(part, crc)))
        directory += _record(part, place.header_offset, crc)
    at = layout.directory_offset
    directory += _end(len(layout.parts), at, len(directory), layout.comment)
    return [*found, (at, bytes(directory))]


@dataclass(frozen=True, slots=True)
class _Looks:
    """What headers say of a member besides its size and place; by default, of a new one."""

    name: bytes
    flags: int
    made: int = _VERSION
    system: int = _UNIX
    needed: int = _VERSION
    time: int = 0
    date: int = _FIRST_DAY
    internal: int = 0
    attributes: int = _PRIVATE
    local_extra: bytes = b""
    extra: bytes = b""
    comment: bytes = b""
    wide: bool = False


def _looks(part: Part) -> _Looks:
    name = part.name.encode("utf-8", "surrogateescape")
    utf8 = 0 if part.name.isascii() else _UTF8
    like = part.like
    if like is None:
        return _Looks(name, utf8)
    fields = _RECORD.unpack_from(like.record)
    _, made, system, needed, flags, _, time, date = fields[:8]
    old_name, extra, _, _, internal, attributes, _ = fields[11:]
    start = _RECORD.size + old_name
    renamed = like.name != part.name
    if renamed:
        flags = flags & ~_UTF8 | utf8
    dropped = {_ZIP64, _UNICODE_PATH} if renamed else {_ZIP64}
    return _Looks(
        name,
        flags & ~_OF_DEFLATE & ~_DESCRIBED,
        # That of zip64 is put back where zip64 is needed.
        _VERSION if made == _WIDE_VERSION else made,
        system,
        _VERSION if needed == _WIDE_VERSION else needed,
        time,
        date,
        internal,
        attributes,
        _without(like.local[_LOCAL.size + old_name :], dropped),
        _without(like.record[start : start + extra], dropped),
        like.record[start + extra :],
        _native.zip_local(like.local)[-1],
    )


def _same(part: Part) -> Member | None:
    """Return the old member if its local header holds but for the checksum."""
    like = part.like
    if like is None or like.method != STORED or like.flags & _DESCRIBED:
        return None
    return like if (like.name, like.size) == (part.name, part.size) else None


def _is_wide(part: Part, looks: _Looks) -> bool:
    """Tell whether the local header has a zip64 extra."""
    # zipfile leaves room for contents that grow by a twentieth while they are written.
    return looks.wide or (_same(part) is None and part.size * 1.05 > NARROW)


def _local(part: Part, crc: int) -> bytes:
    same = _same(part)
    if same is not None:
        return same.local[:14] + crc.to_bytes(4, "little") + same.local[18:]
    looks = _looks(part)
    needed, size, extra = looks.needed, part.size, looks.local_extra
    if _is_wide(part, looks):
        extra = _joined(extra, struct.pack("<2H2Q", _ZIP64, 16, size, size))
        needed, size = max(needed, _WIDE_VERSION), _FULL
    return b"".join(
        (
            _LOCAL.pack(b"PK\3\4", needed, *_facts(looks, crc, size, extra)),
            looks.name,
            extra,
        )
    )


def _facts(looks: _Looks, crc: int, size: int, extra: bytes) -> tuple[int, ...]:
    """Return the fields that both headers of a member have, from its flags on."""
    names = len(looks.name), len(extra)
    return looks.flags, STORED, looks.time, looks.date, crc, size, size, *names


def _record(part: Part, offset: int, crc: int) -> bytes:
    same = _same(part)
    if same is not None and same.header_offset == offset:
        return same.record[:16] + crc.to_bytes(4, "little") + same.record[20:]
    looks = _looks(part)
    size, extra, version = part.size, looks.extra, _WIDE_VERSION if _is_wide(part, looks) else 0
    numbers = []
    if size > NARROW:
        numbers += [size, size]
        size = _FULL
    if offset > NARROW:
        numbers += [offset]
        offset = _FULL
    if numbers:
        count = len(numbers)
        extra = _joined(struct.pack(f"<2H{count}Q", _ZIP64, 8 * count, *numbers), extra)
        version = _WIDE_VERSION
    return b"".join(
        (
            _RECORD.pack(
                b"PK\1\2",
                max(looks.made, version),
                looks.system,
                max(looks.needed, version),
                *_facts(looks, crc, size, extra),
                len(looks.comment),
                0,
                looks.internal,
                looks.attributes,
                offset,
            ),
            looks.name,
            extra,
            looks.comment,
        )
    )


def _end(count: int, offset: int, length: int, comment: bytes) -> bytes:
    """Return the end records of an archive."""
    wide = b""
    if count > MOST_RECORDS or offset > NARROW or length > NARROW:
        version = _WIDE_VERSION
        wide = _WIDE_END.pack(
            b"PK\6\6", 44, version, version, 0, 0, count, count, length, offset
        ) + _LOCATOR.pack(b"PK\6\7", 0, offset + length, 1)
    count = min(count, MOST_RECORDS)
    narrow = _END.pack(
        b"PK\5\6", 0, 0, count, count, min(length, _FULL), min(offset, _FULL), len(comment)
    )
    return wide + narrow + comment


def _without(extra: bytes, dropped: Collection[int]) -> bytes:
    """Return extra fields but for some, and without the padding that aligned them."""
    kept, at = b"", 0
    while at + 4 <= len(extra):
        number, length = struct.unpack_from("<2H", extra, at)
        if number not in dropped:
            kept += extra[at : at + 4 + length]
        at += 4 + length
    return kept


def _joined(first: bytes, second: bytes) -> bytes:
    """Return extra fields together; the zip64 field alone if there is no room for both."""
    joined = first + second
    if len(joined) <= _LONGEST:
        return joined
    return min(first, second, key=len)
