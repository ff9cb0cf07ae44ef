"""HDF5 datasets and attributes that are not what they say, or not what weights are."""

from __future__ import annotations

import struct
from typing import Any

import h5py
import numpy as np
import pytest

from ckptkit import _native
from ckptkit.errors import CorruptError, FormatError, UnsupportedError
from ckptkit.formats.keras.hdf5 import reader as hdf5
from tests.hostile.h5 import (
    ATTRIBUTE,
    DATASPACE,
    DATATYPE,
    FILTERS,
    LAYOUT,
    UNDEFINED,
    made,
    messages,
    put,
    refused,
    swap,
    tree,
    two,
)

# --- datasets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (h5py.string_dtype(), "text of any length"),
        ("S5", "text of 5 bytes"),
        (h5py.ref_dtype, "references"),
        (h5py.vlen_dtype("f4"), "lists"),
        ([("x", "f4"), ("y", "f4")], "compounds"),
        ([("r", "f4"), ("j", "f4")], "compounds"),
        ([("r", "i4"), ("i", "i4")], "compounds"),
        (("f4", (3,)), "arrays"),
        (h5py.enum_dtype({"A": 0, "B": 1}), "enumerations"),
        ("V3", "opaque bytes, 3 each"),
    ],
)
def test_other_elements(dtype: Any, words: str) -> None:
    content = made(lambda file: file.create_dataset("g/d", (2,), dtype))
    refused(content, UnsupportedError, words, name="g/d")


@pytest.mark.parametrize(
    ("at", "new"),
    [(1, b"\x60"), (2, b"\x1e"), (8, b"\1"), (10, b"\x1f"), (12, b"\x16"), (16, b"\x80")],
)
def test_floats_of_another_form(at: int, new: bytes) -> None:
    content = made(lambda file: file.create_dataset("d", data=np.float32(1)))
    place, _ = messages(content, "d")[DATATYPE]
    refused(put(content, place + at, new), UnsupportedError, "floats of an unusual form", name="d")


def test_integers_of_another_form() -> None:
    content = made(lambda file: file.create_dataset("d", data=np.int32(1)))
    place, _ = messages(content, "d")[DATATYPE]
    refused(put(content, place + 10, b"\x1f"), UnsupportedError, "do not fill", name="d")


def test_opaque_elements_that_say_what_they_are() -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset("d", data=np.zeros(2, "V2")).attrs["dtype"] = "float16"

    refused(made(fill), UnsupportedError, 'said to be "float16"', name="d")


def test_no_shape() -> None:
    content = made(lambda file: file.create_dataset("d", data=h5py.Empty("f4")))
    refused(content, UnsupportedError, "without a shape", name="d")


@pytest.mark.parametrize("dim", [1 << 61, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_dimensions_that_no_file_has(dim: int) -> None:
    content = made(two)
    at, _ = messages(content, "aa")[DATASPACE]
    refused(put(content, at + 8, struct.pack("<Q", dim)), CorruptError, name="aa")


def test_the_shape_of_nothing_is_no_excuse() -> None:
    content = made(lambda file: file.create_dataset("d", data=np.zeros((0, 7, 3))))
    at, _ = messages(content, "d")[DATASPACE]
    put(content, at + 16, struct.pack("<QQ", 1 << 40, 1 << 40))
    refused(content, CorruptError, "more bytes than a file can have", name="d")


def test_rank() -> None:
    content = made(two)
    at, _ = messages(content, "aa")[DATASPACE]
    refused(put(content, at + 1, b"\x21"), CorruptError, "rank is 33", name="aa")


def test_extents_beyond_the_end() -> None:
    content = made(two)
    at, _ = messages(content, "aa")[LAYOUT]
    for address in (len(content) - 23, 1 << 62, (1 << 64) - 2):
        refused(put(content, at + 2, struct.pack("<Q", address)), CorruptError, "beyond", name="aa")


def test_extents_that_are_not_as_long_as_the_shape() -> None:
    content = made(two)
    at, _ = messages(content, "aa")[LAYOUT]
    refused(put(content, at + 10, b"\x17"), CorruptError, "24 bytes, the layout says 23", name="aa")


def test_extents_of_two_datasets() -> None:
    content = made(two)
    first, second = (messages(content, name)[LAYOUT][0] for name in ("aa", "bb"))
    put(content, second + 2, content[first + 2 : first + 10])
    refused(content, CorruptError, "overlaps data of a dataset", name="bb")


def test_extents_in_metadata() -> None:
    content = made(two)
    at, _ = messages(content, "aa")[LAYOUT]
    refused(put(content, at + 2, struct.pack("<Q", 80)), CorruptError, "overlaps", name="aa")


def test_layouts_of_other_versions_and_classes() -> None:
    for at, new, kind in (
        (0, b"\6", UnsupportedError),
        (0, b"\0", UnsupportedError),
        (1, b"\7", CorruptError),
    ):
        content = made(two)
        place, _ = messages(content, "aa")[LAYOUT]
        refused(put(content, place + at, new), kind, name="aa")


def test_shape_bombs() -> None:
    def fill(file: h5py.File) -> None:
        made = file.create_dataset("d", (1 << 40,), "u1", chunks=(1 << 20,), compression="gzip")
        made[:100] = 1

    refused(made(fill), UnsupportedError, "bomb", name="d")
    refused(
        made(lambda file: file.create_dataset("d", (1 << 40,), "u1")),
        UnsupportedError,
        "bomb",
        name="d",
    )
    # As much as this may be declared without a reason.
    assert tree(made(lambda file: file.create_dataset("d", (1 << 32,), "u1"))).datasets["d"]


def chunked(file: h5py.File, **options: Any) -> None:
    file.create_dataset("d", data=np.arange(100), chunks=(10,), **options)


def test_trees_of_chunks() -> None:
    sound = made(chunked)
    assert tree(sound).datasets["d"].stored == 800
    node = sound.rindex(b"TREE")
    for at, new, words in (
        (24, b"\1\1", "a chunk takes 257 bytes"),
        (48, UNDEFINED, "a chunk has no address"),
        (48, struct.pack("<Q", 1 << 50), "beyond"),
        (48, struct.pack("<Q", 80), "overlaps"),
        (4, b"\0", "kind"),
        (5, b"\1", "tree of chunks"),
    ):
        refused(put(bytearray(sound), node + at, new), CorruptError, words, name="d")
    at, _ = messages(sound, "d")[LAYOUT]
    for place, new in ((2, b"\3"), (11, bytes(4)), (11, b"\xff" * 4), (15, b"\7")):
        refused(put(bytearray(sound), at + place, new), CorruptError, "chunks", name="d")


def test_filters_without_chunks() -> None:
    content = made(two)
    at, _ = messages(content, "aa")[5]
    put(content, at - 8, struct.pack("<HH", FILTERS, 8))
    put(content, at, bytes([2, 1, 1, 0, 0, 0, 0, 0]))
    refused(content, CorruptError, "filters belong to chunks", name="aa")


def test_lists_of_filters() -> None:
    content = made(lambda file: chunked(file, compression="gzip"))
    at, _ = messages(content, "d")[FILTERS]
    for place, new in ((1, b"\0"), (1, b"\x21"), (0, b"\3"), (10, b"\xff\xff"), (14, b"\xff")):
        with pytest.raises(FormatError):
            tree(put(bytearray(content), at + place, new))


# --- attributes --------------------------------------------------------------------------------


def test_texts_that_their_heap_has_not() -> None:
    content = made(two)
    at, length = messages(content, "cc")[ATTRIBUTE]
    at = content.index(b"\4\0\0\0", at + length - 16)
    for place, new, words in (
        (0, b"\xff", "text of 255 bytes"),
        (4, struct.pack("<Q", 1 << 50), "beyond"),
        (4, struct.pack("<Q", 96), "GCOL"),
        (12, b"\7", "no object number 7"),
    ):
        refused(put(bytearray(content), at + place, new), CorruptError, words, name="cc")
    heap = content.index(b"GCOL")
    for place, new in (
        (4, b"\2"),
        (8, b"\0\0"),
        (8, struct.pack("<Q", 1 << 60)),
        (24, b"\xff\xff"),
    ):
        with pytest.raises(FormatError):
            tree(put(bytearray(content), heap + place, new))


def test_attributes_twice() -> None:
    content = made(lambda file: file.attrs.update({"ab": 1, "cd": 2}))
    refused(swap(content, b"cd\0", b"ab\0"), CorruptError, 'two attributes are named "ab"')


def test_attributes_longer_than_their_message() -> None:
    content = made(lambda file: file.attrs.create("ab", np.zeros(4)))
    at, _ = messages(content, "/")[ATTRIBUTE]
    for place, new in ((2, b"\xff\xff"), (4, b"\xff\xff"), (6, b"\xff\xff"), (6, b"\1")):
        with pytest.raises(FormatError):
            tree(put(bytearray(content), at + place, new))


def test_memory_is_capped() -> None:
    """Many attributes name one long text; many bytes are metadata."""

    def fill(file: h5py.File) -> None:
        for n in range(30):
            file.attrs[f"a{n:02}"] = "text" * 1000 if n == 0 else "x"

    content = made(fill)
    long = content.index(struct.pack("<I", 4000))
    value = content[long : long + 16]
    for n in range(1, 30):
        at = content.index(b"a%02d\0" % n)
        at = content.index(b"\1\0\0\0", at + 36)
        content[at : at + 16] = value
    assert set(tree(content).groups[""].attributes.values()) == {"text" * 1000}
    windows = np.array([0, len(content)])
    for cap, words in ((100_000, "texts of attributes"), (1000, "metadata takes more memory")):
        with pytest.raises(_native.DecodeError, match=words) as caught:
            _native.hdf5_scan(content, windows, len(content), cap)
        assert caught.value.unsupported


def test_metadata_all_over_a_large_file_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "METADATA", 64 << 10)
    content = made(lambda file: [file.create_group(f"g{n}") for n in range(100)])
    refused(content, UnsupportedError, "more than 65536 bytes of the file")
