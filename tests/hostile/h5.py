"""HDF5 content that h5py makes, changed byte by byte, and what must come of it."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from ckptkit.formats.keras.hdf5.reader import read_tree
from tests.oracle.hdf5 import lookup3

if TYPE_CHECKING:
    from collections.abc import Callable

    from ckptkit.errors import FormatError
    from ckptkit.formats.keras.hdf5.tree import Tree

DATASPACE, DATATYPE, LAYOUT, FILTERS, ATTRIBUTE, CONTINUATION = 1, 3, 8, 11, 12, 16
START = 100
"""Where the content starts in the file that holds it."""

UNDEFINED = b"\xff" * 8


class Content:
    """An open file in memory that holds some content behind other bytes."""

    path = "x.keras"

    def __init__(self, content: bytes) -> None:
        self.content = bytes(START) + content

    def read(self, offset: int, length: int) -> bytearray:
        found = self.content[offset : offset + length]
        assert len(found) == length
        return bytearray(found)


def tree(content: bytes) -> Tree:
    return read_tree(Content(content), START, len(content))  # type: ignore[arg-type]


def made(fill: Callable[[h5py.File], Any], **options: Any) -> bytearray:
    """Return the bytes of a file that h5py makes."""
    memory = io.BytesIO()
    with h5py.File(memory, "w", **options) as file:
        fill(file)
    return bytearray(memory.getvalue())


def two(file: h5py.File) -> None:
    """Make two datasets, and a group with a text."""
    file["aa"] = np.arange(3.0)
    file["bb"] = np.arange(4, dtype="<i4")
    file.create_group("cc").attrs["name"] = "text"


def messages(content: bytes, path: str) -> dict[int, tuple[int, int]]:
    """Return offset and length of the last message of each kind in a header of version 1."""
    with h5py.File(io.BytesIO(content)) as file:
        at = h5py.h5o.get_info(file[path].id).addr
    blocks = [(at + 16, *struct.unpack_from("<I", content, at + 8))]
    found = {}
    for start, length in blocks:
        at = start
        while at < start + length:
            kind, size = struct.unpack_from("<HH", content, at)
            found[kind] = (at + 8, size)
            if kind == CONTINUATION:
                blocks.append(struct.unpack_from("<QQ", content, at + 8))
            at += 8 + size
    return found


def put(content: bytearray, at: int, new: bytes) -> bytearray:
    assert content[at : at + len(new)] != new
    content[at : at + len(new)] = new
    return content


def swap(content: bytearray, old: bytes, new: bytes) -> bytearray:
    assert content.count(old) == 1
    assert len(old) == len(new)
    return put(content, content.index(old), new)


def refused(content: bytes, kind: type[FormatError], *words: str, name: str | None = None) -> None:
    """Read, and expect an error of exactly this kind, with these words, about this object."""
    with pytest.raises(kind) as caught:
        tree(content)
    assert type(caught.value) is kind
    assert caught.value.path == "x.keras"
    assert caught.value.tensor == name
    offset = caught.value.offset
    assert offset is not None
    assert START <= offset <= START + len(content)
    for word in words:
        assert word in caught.value.message


def sealed(content: bytearray, mark: bytes, length: int) -> bytearray:
    """Give a block of some length the checksum that its bytes have."""
    at = content.index(mark)
    struct.pack_into("<I", content, at + length - 4, lookup3(content[at : at + length - 4]))
    return content
