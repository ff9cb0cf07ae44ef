"""The file beside a SavedModel's variables that holds a hash of their index.

``FingerprintDef.checkpoint_hash`` is field 5, a varint: FarmHash Fingerprint64 of all bytes of
``variables/variables.index``. The other fields are about saved_model.pb and stay as they are.
"""

from __future__ import annotations

from typing import Final

from ckptkit import _native
from ckptkit.errors import CorruptError

FINGERPRINT: Final = "fingerprint.pb"
MAX_BYTES: Final = 1 << 20
"""A fingerprint is some 60 bytes; a longer file is something else."""

_CHECKPOINT_HASH: Final = 5
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def with_checkpoint_hash(fingerprint: bytes, index: bytes, *, path: str) -> bytes:
    """Return a fingerprint with the hash of a new index; all other fields as they were.

    Raises:
        CorruptError: The fingerprint does not parse.
    """
    field = _varint(_CHECKPOINT_HASH << 3) + _varint(_native.fingerprint64(index))
    out: list[bytes] = []
    at = 0
    placed = False
    while at < len(fingerprint):
        number, end = _field(fingerprint, at, path)
        if number > _CHECKPOINT_HASH and not placed:
            out.append(field)
            placed = True
        if number != _CHECKPOINT_HASH:
            out.append(fingerprint[at:end])
        elif not placed:
            out.append(field)
            placed = True
        at = end
    return b"".join(out if placed else [*out, field])


def _field(data: bytes, at: int, path: str) -> tuple[int, int]:
    """Return the number of the field that starts at a byte, and where it ends."""
    tag, end = _read_varint(data, at, path)
    kind = tag & 7
    if kind == _VARINT:
        _, end = _read_varint(data, end, path)
    elif kind in {_FIXED64, _FIXED32}:
        end += 8 if kind == _FIXED64 else 4
    elif kind == _BYTES:
        length, end = _read_varint(data, end, path)
        end += length
    else:
        end = len(data) + 1
    if end > len(data):
        msg = "the fingerprint does not parse"
        raise CorruptError(msg, path=path, offset=at)
    return tag >> 3, end


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int, path: str) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, at + shift + 1
    msg = "the fingerprint does not parse"
    raise CorruptError(msg, path=path, offset=at)
