"""Bytes that do not change, read and written without TensorFlow at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit import _native
from tests.compat.tensors import every_dtype
from tests.golden.handmade import same
from tests.golden.make import FILES, WHOLE, first_format, vector

DATA = "0000803f00000040 0100000000000000 0200000000000000 0300000000000000 05000000 d8ea82a2"
INDEX = (
    "00000608011a020801000115610809120812020801120208032008281835e1f28a2a00010f62080112041202"
    "0802280835593ce53500020f65330807120212002024280435f6c10c640105116d7074793008011206120012"
    "020803202435d8ea82a200060d7363616c6172080312002020280435d9c69c430000000001000000002ebc2d"
    "bf000000000100000000c0f2a1b00001037400800100000000010000000058fa401685010892010f00000000"
    "00000000000000000000000000000000000000000000000000000000000057fb808b247547db"
)
FINGERPRINT = 236576835171936222

EVERY = every_dtype()


def contents(folder, stem):
    return {path.name[len(stem) :]: path.read_bytes() for path in Path(folder).glob(f"{stem}.*")}


def test_the_vector_is_written_byte_for_byte(tmp_path):
    ckptkit.save(tmp_path / "m", vector())
    assert contents(tmp_path, "m") == {
        ".data-00000-of-00001": bytes.fromhex(DATA),
        ".index": bytes.fromhex(INDEX),
    }


def test_the_vector_is_read(tmp_path):
    (tmp_path / "m.index").write_bytes(bytes.fromhex(INDEX))
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes.fromhex(DATA))
    with ckptkit.open(tmp_path / "m") as found:
        assert list(found) == ["a", "b", "e3", "empty0", "scalar"]
        for name, expected in vector().items():
            assert same(found[name].read(), np.asarray(expected))
        assert found.verify().ok


def test_the_fingerprint_of_the_vector():
    assert _native.fingerprint64(bytes.fromhex(INDEX)) == FINGERPRINT


@pytest.mark.parametrize("name", EVERY)
def test_every_dtype(name):
    dtype, expected = EVERY[name]
    with ckptkit.open(FILES / "every_dtype") as found:
        assert found[name].dtype == dtype
        assert same(found[name].read(), expected)


def test_slices_of_three_shards():
    with ckptkit.open(FILES / "sliced") as found:
        assert list(found) == ["0", "1", "2", "whole"]
        assert same(found["whole"].read(), WHOLE)
        assert [found[f"{n}"].read() for n in range(3)] == [0, 1, 2]


def test_variants():
    with ckptkit.open(FILES / "variant") as found:
        (message,) = found["lists"].read()
        assert b"TensorList" in message
        assert found.verify().ok


@pytest.mark.parametrize("stem", ["every_dtype", "sliced", "variant"])
def test_copies_are_the_same_bytes(tmp_path, stem):
    with ckptkit.open(FILES / stem) as found:
        found.edit().plan(tmp_path / stem).run()
    assert contents(tmp_path, stem) == contents(FILES, stem)


def test_a_compressed_index_of_an_older_writer(tmp_path):
    with ckptkit.open(FILES / "half_plus_two" / "variables") as found:
        values = {name[:1]: found[name].read().item() for name in found if name[:1] != "_"}
        assert values == {"a": 0.5, "b": 2.0, "c": 3.0}
        assert found.verify().ok
        found.edit().plan(tmp_path / "variables").run()
    assert contents(tmp_path, "variables") == contents(FILES / "half_plus_two", "variables")


def test_every_dtype_of_the_first_format(tmp_path):
    with ckptkit.open(FILES / "v1") as found:
        assert set(found) == set(first_format())
        for name, (dtype, expected) in first_format().items():
            assert found[name].dtype == dtype
            assert same(found[name].read(), expected)
        assert found.verify().ok
    ckptkit.convert(FILES / "v1", tmp_path / "new")
    with ckptkit.open(tmp_path / "new") as made:
        assert made.verify().ok
        for name, (_, expected) in first_format().items():
            assert same(made[name].read(), expected)


def test_slices_of_the_first_format_in_three_shards():
    with ckptkit.open(FILES / "v1_sliced") as found:
        assert list(found) == ["0", "1", "2", "half", "whole"]
        assert same(found["whole"].read(), WHOLE)
        assert same(found["half"].read(), WHOLE.astype(np.float16))
        assert [found[f"{n}"].read() for n in range(3)] == [0, 1, 2]
        assert found.verify().ok
