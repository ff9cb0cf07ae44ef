"""Contents of archive members: read piece by piece, checked, and inflated where they have to be."""

from __future__ import annotations

import os
import weakref
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn, Self

from ckptkit import _native
from ckptkit.errors import CorruptError, UnsupportedError
from ckptkit.formats.keras.archive.reader import DEFLATED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from ckptkit.formats.keras.archive.reader import Member
    from ckptkit.storage.disk import File


PIECE: Final = 1 << 20
"""Bytes read, and bytes inflated, at a time."""

CAP: Final = 4 << 30
FLOOR: Final = 256 << 20
"""Contents of up to so many bytes are never taken for a bomb."""

RATIO: Final = 100
"""How many times as long as it is stored a member may get, if it gets longer than the cap."""

TEXT: Final = 256 << 20
"""The most bytes of a text member."""

_RAW: Final = -15


class Inflated:
    """The contents of a member in a temporary file, which goes with this object."""

    def __init__(self, path: str) -> None:
        """Own a file."""
        self.path = path
        self._remove = weakref.finalize(self, _remove, path, os.getpid())

    def close(self) -> None:
        """Remove the file; a second call does nothing."""
        self._remove()

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the file."""
        self.close()


def inflate(file: File, member: Member, cap: int = CAP) -> Inflated:
    """Put the contents of a member into a temporary file.

    Args:
        file: The archive.
        member: One of its members.
        cap: Bytes of contents above which a member is refused that gets more than a hundred times
            as long as it is stored; 256 MiB are always allowed.

    Raises:
        CorruptError: The member does not inflate to the size and the checksum that it has.
        UnsupportedError: It gets too long.
    """
    if member.size > max(cap, FLOOR) and member.size > RATIO * member.compressed:
        msg = (
            f"member {member.name!r}: {member.compressed} bytes say that they inflate to"
            f" {member.size}, more than {max(cap, FLOOR)} and more than {RATIO} times as many: this"
            " may be a bomb; if it is not, store the member without compression"
        )
        raise UnsupportedError(msg, path=file.path, offset=member.data_offset)
    import tempfile

    handle, path = tempfile.mkstemp(prefix="ckptkit-", suffix=os.path.splitext(member.name)[1])
    inflated = Inflated(path)
    try:
        with open(handle, "wb", buffering=0) as out:
            for piece in contents(file, member):
                view = memoryview(piece)
                while view:
                    view = view[out.write(view) :]
    except BaseException:
        inflated.close()
        raise
    return inflated


def read_text_member(file: File, member: Member, limit: int = TEXT) -> bytes:
    """Return the contents of a member that is small, as text is.

    Raises:
        CorruptError: It does not have the size or the checksum that it should have.
        UnsupportedError: It is longer than the limit.
    """
    if member.size > limit:
        msg = f"member {member.name!r} has {member.size} bytes; texts have at most {limit}"
        raise UnsupportedError(msg, path=file.path, offset=member.data_offset)
    return b"".join(contents(file, member))


def contents(file: File, member: Member) -> Iterator[bytes | bytearray]:
    """Yield the contents of a member, of at most a mebibyte each.

    What was yielded is known to be right only when the iteration has ended: the checksum is over
    all of it.

    Raises:
        CorruptError: It does not have the size or the checksum that it should have.
    """
    total, crc = 0, 0
    stored = _stored(file, member)
    for piece in _decoded(file, member, stored) if member.method == DEFLATED else stored:
        total += len(piece)
        if total > member.size:
            _refuse(file, member, f"inflates to more than the {member.size} bytes it should have")
        crc = _native.crc32(piece, crc)
        yield piece
    if total != member.size:
        _refuse(file, member, f"inflates to {total} bytes, it should have {member.size}")
    if crc != member.crc32:
        _refuse(file, member, f"checksum mismatch: stored {member.crc32:08x}, computed {crc:08x}")


def _stored(file: File, member: Member) -> Iterator[bytearray]:
    for at in range(0, member.compressed, PIECE):
        yield file.read(member.data_offset + at, min(PIECE, member.compressed - at))


def _decoded(file: File, member: Member, stored: Iterator[bytearray]) -> Iterator[bytes]:
    """Yield what stored pieces inflate to, each bounded, however small the pieces are."""
    decoder = zlib.decompressobj(_RAW)
    try:
        for piece in stored:
            rest: bytes | bytearray = piece
            while rest and not decoder.eof:
                decoded = decoder.decompress(rest, PIECE)
                rest = decoder.unconsumed_tail
                if decoded:
                    yield decoded
            if decoder.eof:
                break
        while not decoder.eof and (decoded := decoder.decompress(b"", PIECE)):
            yield decoded
    except zlib.error as error:
        _refuse(file, member, f"does not inflate: {error}")
    left = len(decoder.unused_data) + sum(map(len, stored))
    if left:
        _refuse(file, member, f"{left} of its bytes come after the end of what is compressed")
    if not decoder.eof:
        _refuse(file, member, "does not inflate: its bytes end before what is compressed does")


def _refuse(file: File, member: Member, message: str) -> NoReturn:
    msg = f"member {member.name!r}: {message}"
    raise CorruptError(msg, path=file.path, offset=member.data_offset)


def _remove(path: str, owner: int) -> None:
    # A process that was forked holds the object, too, but the file is not its own.
    if os.getpid() == owner:
        with suppress(FileNotFoundError):
            os.unlink(path)
