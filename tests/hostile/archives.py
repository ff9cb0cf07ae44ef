"""Malformed archives, forged header by header."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field, replace

FULL = 0xFFFFFFFF


@dataclass(frozen=True)
class Forged:
    """A member as its headers claim it to be; ``there`` is what its local header says instead."""

    name: bytes = b"config.json"
    data: bytes = b"{}"
    flags: int = 0
    method: int = 0
    crc: int | None = None
    compressed: int | None = None
    size: int | None = None
    mode: int = 0o100600
    header: int | None = None
    extra: bytes = b""
    disk: int = 0
    after: bytes = b""
    there: dict[str, object] = field(default_factory=dict)

    def fields(self) -> bytes:
        length = len(self.data)
        return struct.pack(
            "<5H3I2H",
            20,
            self.flags,
            self.method,
            0,
            33,
            zlib.crc32(self.data) if self.crc is None else self.crc,
            length if self.compressed is None else self.compressed,
            length if self.size is None else self.size,
            len(self.name),
            len(self.extra),
        )

    def local(self) -> bytes:
        other = replace(self, **self.there)
        return b"PK\3\4" + other.fields() + other.name + other.extra + self.data + self.after

    def record(self, at: int) -> bytes:
        offset = at if self.header is None else self.header
        rest = struct.pack("<3H2I", 0, self.disk, 0, self.mode << 16, offset)
        return b"PK\1\2\x14\3" + self.fields() + rest + self.name + self.extra


def forge(*members: Forged, before_end: bytes = b"", comment: bytes = b"", **end: int) -> bytes:
    """Return an archive of members; ``end`` is what its end record says instead."""
    out, directory = b"", b""
    for member in members:
        directory += member.record(len(out))
        out += member.local()
    said = {
        "disk": 0,
        "start": 0,
        "here": len(members),
        "count": len(members),
        "length": len(directory),
        "offset": len(out),
        "comment": len(comment),
    } | end
    return (
        out + directory + before_end + struct.pack("<4s4H2IH", b"PK\5\6", *said.values()) + comment
    )


def wide(length: int, offset: int, place: int, count: int = 1, **other: int) -> bytes:
    """Return a zip64 end record and its locator."""
    said = {"rest": 44, "disk": 0, "start": 0, "disks": 1} | other
    return struct.pack(
        "<4sQ2H2I4Q4sIQI",
        b"PK\6\6",
        said["rest"],
        45,
        45,
        said["disk"],
        said["start"],
        count,
        count,
        length,
        offset,
        b"PK\6\7",
        0,
        place,
        said["disks"],
    )


def zip64(*numbers: int) -> bytes:
    return struct.pack(f"<2H{len(numbers)}Q", 1, 8 * len(numbers), *numbers)


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


SOUND = Forged()
"""A sound member."""
