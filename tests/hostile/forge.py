"""Malformed bundles, forged with the plain-Python twins, and what must come of them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ckptkit
from ckptkit.engine.check import verify_path
from tests.oracle import entry, table
from tests.oracle.crc import crc32c, mask
from tests.oracle.varint import put_bytes, put_number, put_varint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ckptkit.engine.findings import Problem

FLOAT, STRING, VARIANT, RESOURCE = 1, 7, 21, 20

PAYLOAD = np.arange(6, dtype="<f4").tobytes()
"""The bytes of a float tensor of shape [2, 3]."""

Record = tuple[bytes, bytes]


def header(shards: int = 1, *, endianness: int = 0, version: bytes = b"\x08\x01") -> Record:
    """Return the header record."""
    value = put_number(1, shards) if shards else b""
    value += put_number(2, endianness) if endianness else b""
    return b"", value + put_bytes(3, version)


def record(
    payload: bytes = PAYLOAD,
    dims: Sequence[int] = (2, 3),
    dtype: int = FLOAT,
    *,
    shard: int = 0,
    offset: int = 0,
    size: int | None = None,
    crc: int | None = None,
    slices: Sequence[Sequence[tuple[int, int]]] = (),
) -> bytes:
    """Return a record, sound for a payload unless told otherwise."""
    return entry.encode(
        entry.Entry(
            dtype,
            list(dims),
            shard,
            offset,
            len(payload) if size is None else size,
            mask(crc32c(payload) if crc is None else crc),
            slices=[list(extents) for extents in slices],
        )
    )


def write(folder: Path, index: bytes | Sequence[Record], *shards: bytes) -> str:
    """Write a bundle of an index, or of its records, and return the prefix."""
    content = index if isinstance(index, bytes) else table.encode(list(index))
    (folder / "model.index").write_bytes(content)
    for number, data in enumerate(shards):
        (folder / f"model.data-{number:05d}-of-{len(shards):05d}").write_bytes(data)
    return str(folder / "model")


def simple(folder: Path, value: bytes, data: bytes = PAYLOAD) -> str:
    """Write a bundle of one shard with one tensor, ``w``."""
    return write(folder, [header(), (b"w", value)], data)


SOUND = (header(), (b"w", record()))
"""The records of a sound bundle of one tensor."""


# --- tables ------------------------------------------------------------------------------------


def item(shared: int, suffix: bytes, value: bytes, length: int | None = None) -> bytes:
    """Return an entry of a block as it is stored, whatever its numbers claim."""
    unshared = len(suffix) if length is None else length
    return put_varint(shared) + put_varint(unshared) + put_varint(len(value)) + suffix + value


def body(items: Sequence[bytes], restarts: Sequence[int] = (0,), count: int | None = None) -> bytes:
    """Return the body of a block of entries."""
    claimed = len(restarts) if count is None else count
    return (
        b"".join(items) + struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", claimed)
    )


def handle(offset: int, size: int) -> bytes:
    """Return where a block is, as an index block or a footer says it."""
    return put_varint(offset) + put_varint(size)


def footer(metaindex: bytes, index: bytes, padding: bytes = b"\0") -> bytes:
    """Return a footer."""
    handles = metaindex + index
    return handles + padding * (40 - len(handles)) + struct.pack("<Q", table.MAGIC)


def assemble(
    bodies: Sequence[bytes],
    *,
    kind: int = 0,
    separators: Sequence[bytes] | None = None,
    listed: Sequence[bytes] | None = None,
    metaindex: bytes | None = None,
    gap: bytes = b"",
    padding: bytes = b"\0",
) -> bytes:
    """Return a table of data blocks as they are given.

    Args:
        bodies: The stored bodies.
        kind: Their type: 0 for raw, 1 for snappy.
        separators: Keys of the index block.
        listed: Values of the index block, handles; right ones by default.
        metaindex: The metaindex block with its trailer.
        gap: What comes between the blocks.
        padding: What fills the footer.
    """
    out, handles = b"", []
    for stored in bodies:
        handles.append(handle(len(out), len(stored)))
        out += table.seal(stored, kind) + gap
    keys = separators or [bytes([0x7A + n]) for n in range(len(bodies))]
    values = handles if listed is None else listed
    meta = table.seal(body([])) if metaindex is None else metaindex
    where_meta = handle(len(out), len(meta) - table.TRAILER)
    out += meta
    listing = table.encode_block(list(zip(keys, values, strict=False)), 1)
    where = handle(len(out), len(listing))
    return out + table.seal(listing) + footer(where_meta, where, padding)


def one_block(*items: bytes, restarts: Sequence[int] = (0,), count: int | None = None) -> bytes:
    """Return a table of one data block that starts with a sound header."""
    return assemble([body([item(0, *header()), *items], restarts, count)])


# --- what must come of them ----------------------------------------------------------------------


def refused(
    path: str,
    error: type[ckptkit.CkptError],
    *parts: str,
    tensor: str | None = None,
    file: str = "model",
) -> ckptkit.CkptError:
    """Require that a checkpoint does not open, and that verifying it reports the same."""
    with pytest.raises(error) as caught:
        ckptkit.open(path)
    assert type(caught.value) is error
    _says(str(caught.value), parts)
    assert caught.value.tensor == tensor
    assert caught.value.path is not None
    assert file in caught.value.path
    verdict = verify_path(path)
    assert not verdict.ok
    assert verdict.checked_bytes == 0
    (problem,) = verdict.problems
    assert str(problem) == str(caught.value)
    return caught.value


def found(
    path: str,
    error: type[ckptkit.CkptError],
    *parts: str,
    tensor: str = "w",
    offset: int | None = None,
) -> Problem:
    """Require that a tensor cannot be read, and that verifying names it, its file, its place."""
    with ckptkit.open(path) as checkpoint:
        assert tensor in checkpoint
        with pytest.raises(error) as caught:
            checkpoint[tensor].read()
        assert type(caught.value) is error
        assert caught.value.tensor == tensor
        _says(str(caught.value), parts)
    verdict = verify_path(path)
    assert not verdict.ok
    problem = next(problem for problem in verdict.problems if problem.severity == "error")
    assert problem.tensor == tensor
    assert ".data-" in problem.path
    if offset is not None:
        assert problem.offset == offset
    return problem


def warned(path: str, *parts: str) -> Problem:
    """Require that a checkpoint is sound but for a warning."""
    verdict = verify_path(path)
    assert verdict.ok, verdict
    problem = next(problem for problem in verdict.problems if parts[0] in problem.message)
    assert problem.severity == "warning"
    _says(str(problem), parts)
    return problem


def _says(text: str, parts: Sequence[str]) -> None:
    for part in parts:
        assert part in text, text
