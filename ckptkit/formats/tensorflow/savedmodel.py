"""The file beside a SavedModel's variables that holds a hash of their index.

``FingerprintDef.checkpoint_hash`` is field 5, a varint: FarmHash Fingerprint64 of all bytes of
``variables/variables.index``. The other fields are about saved_model.pb and stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ckptkit import _native
from ckptkit.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES: Final = 1 << 20
"""A fingerprint is some 60 bytes; a longer file is something else."""

_CHECKPOINT_HASH: Final = 5
_LONGEST: Final = 10
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def with_checkpoint_hash(fingerprint: bytes, index: bytes, *, path: str) -> bytes:
    """Return a fingerprint with the hash of a new index; all other fields as they were.

    A new hash is written in as many bytes as the longest number takes, so that the length of the
    result is known before the index is.

    Raises:
        CorruptError: The fingerprint does not parse, or is too long to be one.
    """
    if len(fingerprint) > MAX_BYTES:
        msg = f"a fingerprint has at most {MAX_BYTES} bytes"
        raise CorruptError(msg, path=path)
    found = _native.fingerprint64(index)
    fields = list(_fields(fingerprint, path))
    if [value for number, value, _ in fields if number == _CHECKPOINT_HASH][-1:] == [found]:
        return fingerprint
    return b"".join(
        [
            *(stored for number, _, stored in fields if number < _CHECKPOINT_HASH),
            bytes([_CHECKPOINT_HASH << 3]),
            *(bytes([found >> 7 * n & 0x7F | 0x80]) for n in range(_LONGEST - 1)),
            bytes([found >> 7 * (_LONGEST - 1)]),
            *(stored for number, _, stored in fields if number > _CHECKPOINT_HASH),
        ]
    )


def _fields(data: bytes, path: str) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, value or length, and the stored bytes of every field."""
    at = 0
    while at < len(data):
        tag, end = _read_varint(data, at, path)
        kind, value = tag & 7, 0
        if kind in {_VARINT, _BYTES}:
            value, end = _read_varint(data, end, path)
        end += {_VARINT: 0, _FIXED64: 8, _BYTES: value, _FIXED32: 4}.get(kind, len(data))
        if end > len(data):
            msg = "the fingerprint does not parse"
            raise CorruptError(msg, path=path, offset=at)
        yield tag >> 3, value, data[at:end]
        at = end


def _read_varint(data: bytes, at: int, path: str) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(data[at : at + _LONGEST]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, at + shift + 1
    msg = "the fingerprint does not parse"
    raise CorruptError(msg, path=path, offset=at)
