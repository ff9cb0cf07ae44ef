"""Values in protobuf messages, read as if they were stored as they are."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import _native
from ckptkit.errors import ConflictError, CorruptError, UnsupportedError
from ckptkit.storage import packed as module
from ckptkit.storage.disk import Disk, Sources
from ckptkit.storage.packed import Packed
from tests.oracle import packed as twin
from tests.oracle import strings as string_twin
from tests.oracle.varint import put_bytes


@pytest.fixture
def near(monkeypatch):
    """Small windows and strides, so that a few values are many."""
    monkeypatch.setattr(module, "WINDOW", 64)
    monkeypatch.setattr(module, "STRIDE", 7)


def numbers(folder, runs, form, width, elements=None, *, before=b"abc", damage=None, crc=None):
    """Write runs of packed varints with a byte between them; return the open values."""
    content, places = before, []
    for run in runs:
        data = run if isinstance(run, bytes) else twin.encode(run)
        places.append((len(content), len(data)))
        content += data + b"\x3a"
    start = places[0][0] if places else len(content)
    length = sum(places[-1]) - start if places else 0
    checksum = _native.crc32c(content[start : start + length]) if crc is None else crc
    count = sum(map(len, runs)) if elements is None else elements
    if damage is not None:
        content = content[:damage] + bytes([content[damage] ^ 1]) + content[damage + 1 :]
    (folder / "f").write_bytes(content)
    path = Packed(form, width, count, start, length, checksum, tuple(places)).path(
        str(folder / "f"), "a\0w"
    )
    return Sources().file(path)


def texts(folder, elements, *, count=None, after=b"", damage=None):
    """Write strings in a message; return the open values."""
    message = b"".join(put_bytes(8, text) for text in elements)
    (folder / "f").write_bytes(b"xyz" + message + after)
    checksum = _native.crc32c(message + after) ^ (damage or 0)
    held = len(elements) if count is None else count
    path = Packed("string", 1, held, 3, len(message + after), checksum)
    return Sources().file(path.path(str(folder / "f"), "w"))


LISTS = st.lists(st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(0, 50), max_size=60)


@pytest.mark.usefixtures("near")
@given(st.lists(LISTS, min_size=1, max_size=3), st.data())
def test_any_part_of_numbers(fresh, runs, data):
    expected = np.array([value for run in runs for value in run], np.int32).tobytes()
    file = numbers(fresh(), runs, "int", 4)
    assert file.size == len(expected)
    for _ in range(5):
        low = data.draw(st.integers(0, len(expected)))
        high = data.draw(st.integers(low, len(expected)))
        assert file.read(low, high - low) == expected[low:high]
    if len(expected) >= 6:
        assert file.read_runs(3, [0, 2, 1]) == expected[:3] + expected[2:5] + expected[1:4]


@pytest.mark.usefixtures("near")
@given(st.lists(st.binary(max_size=90), max_size=20), st.data())
def test_any_part_of_strings(fresh, elements, data):
    expected, _ = string_twin.encode(elements)
    file = texts(fresh(), elements)
    assert file.size == len(expected)
    for _ in range(5):
        low = data.draw(st.integers(0, len(expected)))
        high = data.draw(st.integers(low, len(expected)))
        assert file.read(low, high - low) == expected[low:high]


@pytest.mark.usefixtures("near")
@given(st.lists(st.binary(max_size=90), min_size=1, max_size=4), st.data())
def test_any_part_of_bytes_in_several_runs(fresh, runs, data):
    expected = b"".join(runs)
    file = numbers(fresh(), runs, "raw", 1)
    low = data.draw(st.integers(0, len(expected)))
    high = data.draw(st.integers(low, len(expected)))
    assert file.read(low, high - low) == expected[low:high]


def test_many_values_in_windows_as_they_are(tmp_path):
    values = np.arange(300_000, dtype=np.int64) * 12_345 - 10**9
    file = numbers(tmp_path, [values.tolist()], "int", 8)
    assert file.read(0, file.size) == values.tobytes()
    assert file.read(8 * 299_990 + 3, 20) == values.tobytes()[8 * 299_990 + 3 :][:20]


def test_long_strings_are_not_held(tmp_path):
    elements = [b"a" * 1_000_000, b"", b"b" * 10, b"", b"c" * 600_000]
    file = texts(tmp_path, elements)
    header, _ = string_twin.header([*map(len, elements)])
    assert bytes(file.read(0, file.size)) == b"".join([header, *elements])


def test_threads_share_one(tmp_path):
    values = np.arange(200_000, dtype=np.int32)
    file = numbers(tmp_path, [values.tolist()], "int", 4)
    found = [b""] * 8

    def read(at):
        found[at] = bytes(file.read(at * 100_000, 100_000))

    threads = [threading.Thread(target=read, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert b"".join(found) == values.tobytes()


@pytest.mark.parametrize(
    ("runs", "form", "width", "elements", "text"),
    [
        ([[1, 2, 3]], "int", 4, 4, "3 values, its shape takes 4"),
        ([[1, 2, 3]], "int", 4, 2, "3 values, its shape takes 2"),
        ([b"\x01\x80"], "int", 4, 2, "cut off"),
        ([b"\xff" * 10], "int", 8, 1, "64 bits"),
        ([[1, 128]], "int", 1, 2, "128 does not fit an element of 1 bytes"),
        ([[1, -1]], "uint", 1, 2, "-1 does not fit"),
        ([[65_536]], "uint", 2, 1, "65536 does not fit"),
        ([[1 << 31]], "int", 4, 1, "2147483648 does not fit"),
        ([b"abcd", b"e"], "raw", 1, 6, "5 values, its shape takes 6"),
    ],
)
def test_other_values_than_there_should_be(tmp_path, runs, form, width, elements, text):
    file = numbers(tmp_path, runs, form, width, elements)
    with pytest.raises(CorruptError, match=text) as caught:
        file.read(0, file.size)
    assert (caught.value.path, caught.value.tensor) == (str(tmp_path / "f"), "a\0w")
    assert caught.value.offset >= 3


def test_damage_is_found_before_a_byte_is_given(tmp_path):
    file = numbers(tmp_path, [[5, 6, 7]], "int", 4, damage=4)
    with pytest.raises(CorruptError, match="checksum of bytes 3 to 6, by that of its block"):
        file.read(0, 1)
    with pytest.raises(CorruptError, match="checksum of bytes 3 to 8"):
        texts(tmp_path, [b"abc"], damage=1).read(0, 1)


def test_strings_that_are_not_as_many(tmp_path):
    with pytest.raises(CorruptError, match="2 strings, its shape takes 3"):
        texts(tmp_path, [b"a", b"b"], count=3).read(0, 1)
    with pytest.raises(CorruptError, match="behind the end of its message"):
        texts(tmp_path, [b"a"], after=b"\x42\x09ab").read(0, 1)
    with pytest.raises(CorruptError, match="2 strings, its shape takes 1"):
        texts(tmp_path, [b"a"], count=1, after=b"\x42\x00").read(0, 1)


def test_nothing_is_read_beyond_the_end(tmp_path):
    file = numbers(tmp_path, [[1, 2]], "int", 4)
    for offset, length in ((0, 9), (8, 1), (-1, 1)):
        with pytest.raises(ConflictError, match="ends at byte 8"):
            file.read(offset, length)
    assert file.read(8, 0) == b""


def test_a_file_that_became_shorter(tmp_path):
    file = numbers(tmp_path, [[1, 2]], "int", 4)
    (tmp_path / "f").write_bytes(b"ab")
    with pytest.raises(ConflictError):
        file.read(0, 1)


def test_it_is_only_read(tmp_path):
    file = numbers(tmp_path, [[1]], "int", 4)
    for call in (
        lambda: file.write(b"", 0),
        lambda: file.write_runs(1, [0], b"a"),
        lambda: file.copy_from(file, 0, 0, 1),
        lambda: file.resize(0),
    ):
        with pytest.raises(UnsupportedError, match="cannot be written in place"):
            call()
    file.close()
    file.close()


def test_what_is_copied_is_decoded(tmp_path):
    disk = Disk()
    file = numbers(tmp_path, [[1, 300]], "uint", 2)
    with disk.create(str(tmp_path / "out")) as out:
        out.copy_from(file, 1, 0, 3)
    assert (tmp_path / "out").read_bytes() == b"\x00\x2c\x01"
