"""HDF5 files that break their format, or lead out of themselves."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from ckptkit import _native
from ckptkit.errors import CorruptError, FormatError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable


from tests.hostile.h5 import (
    CONTINUATION,
    DATATYPE,
    LAYOUT,
    UNDEFINED,
    made,
    messages,
    put,
    refused,
    sealed,
    swap,
    tree,
    two,
)

# --- what leads out ----------------------------------------------------------------------------


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_soft_links(libver: str) -> None:
    content = made(lambda file: file.update({"g/s": h5py.SoftLink("/a")}) or file, libver=libver)
    refused(content, UnsupportedError, '"s" is a soft link', name="g")


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_external_links(libver: str) -> None:
    content = made(
        lambda file: file.update({"g/e": h5py.ExternalLink("/etc/x.h5", "/a")}), libver=libver
    )
    refused(content, UnsupportedError, '"e" is an external link', name="g")


def test_user_defined_links() -> None:
    content = made(lambda file: file.update({"g/e": h5py.ExternalLink("x.h5", "/a")}))
    swap(content, b"\x01\x08\x40\x01e", b"\x01\x08\x41\x01e")
    refused(content, UnsupportedError, '"e" is a user-defined link', name="g")


def test_external_storage() -> None:
    content = made(lambda file: file.create_dataset("d", (3,), "f4", external=[("/x", 0, 12)]))
    refused(content, UnsupportedError, "other files", name="d")


def test_views() -> None:
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "d", (3,))
    content = made(lambda file: file.create_virtual_dataset("d", layout), libver="latest")
    refused(content, UnsupportedError, "view of others", name="d")


def test_a_family_of_files() -> None:
    content = put(made(two), 48, struct.pack("<Q", 96))
    refused(content, UnsupportedError, "family")


# --- groups ------------------------------------------------------------------------------------


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_groups_in_themselves(libver: str) -> None:
    def fill(file: h5py.File) -> None:
        file["a/b"] = file.create_group("a")

    refused(made(fill, libver=libver), UnsupportedError, "cycle", name="a")
    refused(made(lambda file: file.update({"a": file["/"]}), libver=libver), UnsupportedError)


def test_two_names_of_one_object_are_fine() -> None:
    def fill(file: h5py.File) -> None:
        two(file)
        file["dd"], file["ee"] = file["aa"], file["cc"]

    found = tree(made(fill))
    assert found.datasets["dd"].address == found.datasets["aa"].address
    assert found.groups["ee"].attributes == found.groups["cc"].attributes == {"name": "text"}


def test_depth() -> None:
    path = "/".join("x" * 64)
    assert path in tree(made(lambda file: file.create_group(path))).groups
    refused(
        made(lambda file: file.create_group(path + "/x")),
        UnsupportedError,
        "64 deep",
        name=path + "/x",
    )


def test_more_paths_than_objects() -> None:
    def fill(file: h5py.File) -> None:
        group = file["/"]
        for _ in range(30):
            group = group.create_group("a")
            group.parent["b"] = group

    refused(made(fill), UnsupportedError, "hard links make more paths", name="/".join("a" * 30))


@pytest.mark.parametrize("name", [b"..", b".\0", b"\0\0", b"a/", b"/a"])
def test_names_that_are_no_names(name: bytes) -> None:
    content = swap(made(lambda file: file.update({"zz": 1.0})), b"zz", name)
    refused(content, CorruptError, "has the name")


def test_names_in_messages_that_are_no_names() -> None:
    content = made(lambda file: file.create_group("zz"), libver="latest")
    for name in (b"..", b"z/", b"z\0", b"/z"):
        changed = bytearray(content)
        put(changed, changed.index(b"zz"), name)
        at = changed.index(b"OHDR")
        assert changed[at + 5] == 1 << 5  # Times are stored, and a length of 1 byte.
        refused(sealed(changed, b"OHDR", 27 + changed[at + 22]), CorruptError, "has the name")


def test_names_out_of_order() -> None:
    content = swap(made(two), b"aa\0", b"ab\0")
    assert list(tree(content).datasets) == ["ab", "bb"]
    refused(swap(content, b"ab\0", b"zz\0"), CorruptError, "not in order")
    content = made(two)
    refused(put(content, content.index(b"aa\0"), b"bb\0"), CorruptError, "not in order")


def test_a_name_beyond_its_heap() -> None:
    content = made(two)
    at = content.index(b"SNOD") + 8
    refused(put(content, at, struct.pack("<Q", 1 << 40)), CorruptError, "not in the heap")


def test_nodes_that_two_have() -> None:
    content = made(lambda file: [file.create_group("a/b"), file.create_group("c/d")])
    with h5py.File(io.BytesIO(content)) as file:
        first, second = (h5py.h5o.get_info(file[name].id).addr for name in "ac")
    content[second + 24 : second + 40] = content[first + 24 : first + 40]
    refused(content, CorruptError, "overlaps", name="c")


def test_trees_of_the_wrong_kind_or_height() -> None:
    for at, new in ((4, b"\1"), (5, b"\1"), (5, b"\xff"), (6, b"\xff\xff")):
        content = made(two)
        refused(put(content, content.index(b"TREE") + at, new), CorruptError)


def test_a_symbol_table_with_too_many_links() -> None:
    content = made(two)
    refused(put(content, content.index(b"SNOD") + 6, b"\xff\xff"), CorruptError, "at most")


def test_the_root_is_a_group() -> None:
    content = made(two)
    with h5py.File(io.BytesIO(content)) as file:
        address = h5py.h5o.get_info(file["aa"].id).addr
    refused(put(content, 64, struct.pack("<Q", address)), CorruptError, "the root is no group")


# --- superblock --------------------------------------------------------------------------------


def test_other_files() -> None:
    for content in (b"", b"\x89HDF", b"PK\3\4" + bytes(5000)):
        refused(content, CorruptError, "signature")


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_every_truncation(libver: str) -> None:
    content = made(two, libver=libver)
    for length in range(len(content)):
        with pytest.raises(CorruptError):
            tree(content[:length])
    assert tree(content + b"more").end == len(content)


@pytest.mark.parametrize(
    ("at", "new", "kind", "words"),
    [
        (8, b"\4", UnsupportedError, "version 4"),
        (13, b"\3", UnsupportedError, "wide"),
        (14, b"\0", UnsupportedError, "wide"),
        (20, b"\1", CorruptError, "being written"),
        (24, UNDEFINED, CorruptError, "no base"),
        (40, UNDEFINED, CorruptError, "no base"),
        (40, b"\xff\xff", CorruptError, "cut short"),
        (64, UNDEFINED, CorruptError, "no address"),
        (64, b"\xff\xff", CorruptError, "beyond the end"),
        (64, b"\0\0", UnsupportedError, "version"),
    ],
)
def test_old_superblocks(at: int, new: bytes, kind: type[FormatError], words: str) -> None:
    refused(put(made(two), at, new), kind, words)


@pytest.mark.parametrize(
    ("at", "new", "kind", "words"),
    [
        (9, b"\5", UnsupportedError, "wide"),
        (11, b"\1", CorruptError, "being written"),
        (28, UNDEFINED, CorruptError, "no base"),
        (28, b"\xff\xff", CorruptError, "cut short"),
        (36, b"\xff\xff", CorruptError, "beyond the end"),
    ],
)
def test_new_superblocks(at: int, new: bytes, kind: type[FormatError], words: str) -> None:
    content = put(made(two, libver="latest"), at, new)
    if at > 9:
        refused(content, CorruptError, "checksum")
        sealed(content, b"\x89HDF", 48)
    refused(content, kind, words)


# --- object headers ----------------------------------------------------------------------------


def test_checksums_of_headers() -> None:
    content = made(two, libver="latest")
    refused(put(content, content.index(b"OHDR") + 8, b"\xee"), CorruptError, "checksum")


def test_headers_that_continue_in_themselves() -> None:
    def fill(file: h5py.File) -> None:
        for n in range(20):
            file.attrs[f"a{n}"] = n

    content = made(fill)
    at, _ = messages(content, "/")[CONTINUATION]
    refused(put(content, at, struct.pack("<Q", 96)), CorruptError, "overlaps")


def test_both_a_group_and_a_dataset() -> None:
    content = made(two)
    at, _ = messages(content, "aa")[5]
    refused(put(content, at - 8, b"\x11\0"), CorruptError, "both", name="aa")


def test_neither_a_group_nor_a_dataset() -> None:
    content = made(two)
    found = messages(content, "aa")
    for kind in (LAYOUT, DATATYPE):
        put(content, found[kind][0] - 8, b"\0\0")
    refused(content, CorruptError, "neither", name="aa")


def test_the_same_message_twice() -> None:
    content = made(two)
    at, _ = messages(content, "aa")[5]
    refused(put(content, at - 8, b"\3\0"), CorruptError, "two messages", name="aa")


def test_messages_that_must_be_known() -> None:
    content = made(two)
    at, _ = messages(content, "aa")[5]
    put(content, at - 8, b"\xee\0")
    assert "aa" in tree(content).datasets
    refused(put(content, at - 4, b"\x80"), UnsupportedError, "has to know", name="aa")


def test_datatypes_elsewhere() -> None:
    def fill(file: h5py.File) -> None:
        file["t"] = np.dtype("f4")
        file.create_dataset("d", (3,), file["t"])

    content = made(fill)
    refused(content, UnsupportedError, "shared", name="d")
    refused(
        made(lambda file: file.update({"t": np.dtype("f4")})),
        UnsupportedError,
        "with a name",
        name="t",
    )


# --- anything ----------------------------------------------------------------------------------


def rich(file: h5py.File) -> None:
    two(file)
    file.create_dataset("gz", data=np.arange(20), chunks=(5,), compression="gzip", shuffle=True)
    file["cc"].attrs["names"] = ["kernel", "bias"]
    file["cc"].attrs["count"] = 3
    file["flags"] = np.array([True, False])
    file["z"] = np.zeros(2, "c8")
    made = file.create_dataset("bf", data=np.zeros(3, "V2"))
    made.attrs["dtype"] = "bfloat16"


def many(file: h5py.File) -> None:
    for n in range(12):
        file[f"g/{n}"] = n
        file["g"].attrs[f"a{n}"] = f"{n}"


@pytest.mark.parametrize("fill", [rich, many])
@pytest.mark.parametrize("options", [{}, {"libver": "latest"}, {"track_order": True}])
def test_every_byte(fill: Callable[[h5py.File], None], options: dict[str, Any]) -> None:
    """Whatever one byte becomes, the file reads, or the error is one of the format."""
    content = made(fill, **options)
    sound, windows = tree(content), np.array([0, len(content)])
    ranges = [range(at, at + length) for at, length in sound.metadata]
    read = 0
    for at in (at for ats in ranges for at in ats):
        for flip in (0x01, 0x80, 0xFF):
            content[at] ^= flip
            try:
                needs, columns = _native.hdf5_scan(content, windows, len(content), 1 << 20)
            except _native.DecodeError as error:
                assert 0 <= error.offset <= len(content)
            else:
                assert not needs
                assert columns is not None
                read += 1
            content[at] ^= flip
    assert read
    assert tree(content) == sound
