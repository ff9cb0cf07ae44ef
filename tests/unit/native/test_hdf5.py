"""The native walk over HDF5 metadata, and what it reads of a file."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from ckptkit import _native
from ckptkit.formats.keras.hdf5 import reader as hdf5
from ckptkit.formats.keras.hdf5.tree import Dataset, Group
from ckptkit.storage.disk import Disk
from tests.oracle.hdf5 import lookup3

if TYPE_CHECKING:
    from pathlib import Path

CAP = 1 << 20


def fill(file: h5py.File) -> None:
    """Make what a small Keras model leaves, and a bit of everything."""
    file["layers/dense/vars/0"] = np.arange(6, dtype="<f4").reshape(2, 3)
    file["layers/dense/vars"].attrs["name"] = "head"
    file["layers/dense/vars/10"] = np.arange(3, dtype=">i2")
    file["layers"].attrs["names"] = [f"layer_{n}" for n in range(300)]
    file.create_dataset("packed", data=np.arange(50), chunks=(5,), compression="gzip")
    file.create_group("vars")


@pytest.fixture(params=["earliest", "latest"])
def content(request: Any) -> bytes:
    memory = io.BytesIO()
    with h5py.File(memory, "w", libver=request.param) as file:
        fill(file)
    return memory.getvalue()


def scan(content: bytes, parts: list[tuple[int, int]]) -> tuple[bytes, Any]:
    joined = b"".join(content[at : at + length] for at, length in parts)
    windows = np.array(parts, np.int64).reshape(-1)
    return _native.hdf5_scan(joined, windows, len(content), CAP)


def test_the_whole_as_one_window_needs_nothing(content: bytes) -> None:
    needs, columns = scan(content, [(0, len(content))])
    assert needs == b""
    (paths, numbers), (addresses, dtypes, *_), *_, end = columns
    assert _native.names_decode(*paths)[:4] == ["", "layers", "layers/dense", "layers/dense/vars"]
    assert len(numbers) == len(addresses) == 8 * len(dtypes)
    assert "int16" in dtypes
    assert end == len(content)


@pytest.mark.parametrize("seed", range(8))
def test_windows_of_any_size_in_any_order_give_the_same(content: bytes, seed: int) -> None:
    draw = random.Random(seed)
    cuts = sorted({0, len(content), *draw.choices(range(len(content)), k=200)})
    parts = [(low, high - low) for low, high in pairwise(cuts)]
    draw.shuffle(parts)
    assert scan(content, parts) == scan(content, [(0, len(content))])


@pytest.mark.parametrize("page", [1, 7, 64, 1000])
def test_only_what_is_needed_is_asked_for(content: bytes, page: int) -> None:
    """Each round asks for something new; in the end there is no byte of data among it."""
    _, expected = scan(content, [(0, len(content))])
    have: set[int] = set()
    while True:
        parts = [(at * page, min(page, len(content) - at * page)) for at in sorted(have)]
        needs, columns = scan(content, parts)
        if columns is not None:
            break
        wanted = memoryview(needs).cast("q").tolist()
        more = {
            number
            for at, length in zip(wanted[::2], wanted[1::2], strict=True)
            for number in range(at // page, -(-(at + length) // page))
        }
        assert more - have
        have |= more
    assert columns == expected
    if page == 1:
        ranges = np.frombuffer(expected[-2], np.int64).reshape(-1, 2)
        assert len(have) <= ranges[:, 1].sum()


def test_windows_that_no_call_can_have(content: bytes) -> None:
    size = len(content)
    for windows, words in (
        ([0], "no pairs"),
        ([0, -1], "negative"),
        ([0, size + 1], "longer"),
        ([0, 10], "not as long"),
        ([1, size], "beyond"),
        ([0, 9, 5, size - 9], "overlap"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            _native.hdf5_scan(content, np.array(windows), size, CAP)
        assert not isinstance(caught.value, _native.DecodeError)


def test_errors_say_whether_and_where() -> None:
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file["a/b"] = "text"
    content = memory.getvalue()
    with pytest.raises(_native.DecodeError, match="text of any length") as caught:
        scan(content, [(0, len(content))])
    assert caught.value.unsupported
    assert caught.value.name == b"a/b"
    with pytest.raises(_native.DecodeError, match="cut short") as caught:
        scan(content[:-1], [(0, len(content) - 1)])
    assert not caught.value.unsupported
    assert caught.value.name == b""


def test_the_checksum_of_the_twin() -> None:
    """Values that its author published."""
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"Four score and seven years ago") == 0x17770551


def test_tensors_are_not_read(tmp_path: Path) -> None:
    path = str(tmp_path / "x.h5")
    with h5py.File(path, "w") as file:
        for n in range(8):
            file[f"layers/dense_{n}/vars/0"] = np.zeros(1 << 18)
    with Disk().open(path) as file:
        reads: list[int] = []

        class Counted:
            path = file.path

            def read(self, offset: int, length: int) -> bytearray:
                reads.append(length)
                return file.read(offset, length)

        found = hdf5.read_tree(Counted(), 0, file.size)  # type: ignore[arg-type]
    assert len(found.datasets) == 8
    assert os.stat(path).st_size > 16 << 20
    assert sum(reads) < 100_000


def test_a_tree_behind_other_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.keras"
    path.write_bytes(bytes(77) + content + bytes(33))
    with Disk().open(str(path)) as file:
        found = hdf5.read_tree(file, 77, len(content))
    assert found.end == len(content)
    vars_ = found.groups["layers/dense/vars"]
    assert vars_ == Group(vars_.path, ("0", "10"), vars_.address, {"name": "head"})
    assert found.groups["layers"].attributes["names"] == tuple(f"layer_{n}" for n in range(300))
    weight = found.datasets["layers/dense/vars/0"]
    assert weight == Dataset(
        weight.path, "float32", "little", (2, 3), "contiguous", weight.offset, 24, 24, (),
        weight.address, {},
    )  # fmt: skip
    data = content[weight.offset : weight.offset + 24]
    assert np.frombuffer(data, "<f4").tolist() == [0, 1, 2, 3, 4, 5]
    assert found.datasets["packed"].filters == (1,)


def test_a_long_chain_of_blocks_takes_few_rounds(tmp_path: Path) -> None:
    """A header that goes on in hundreds of places is not read one page at a time."""
    path = str(tmp_path / "x.h5")
    with h5py.File(path, "w") as file:
        group = file.create_group("g")
        for n in range(3000):
            group.attrs[f"attribute_{n}"] = np.zeros(20)
    rounds = 0
    with Disk().open(path) as file:

        class Counted:
            path = file.path

            def read(self, offset: int, length: int) -> bytearray:
                nonlocal rounds
                rounds += 1
                return file.read(offset, length)

        found = hdf5.read_tree(Counted(), 0, file.size)  # type: ignore[arg-type]
    assert len(found.groups["g"].attributes) == 3000
    assert rounds < 100


def test_reading_imports_no_array_library() -> None:
    script = (
        "import sys, ckptkit.formats.keras.hdf5.reader; print({'numpy', 'h5py'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout == "set()\n"
