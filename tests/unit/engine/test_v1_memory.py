"""Memory is bounded where a checkpoint of TensorFlow's first format is listed and converted."""

from __future__ import annotations

import numpy as np
import pytest

import ckptkit
from ckptkit import _native
from tests.golden.handmade import CODES
from tests.oracle import first
from tests.oracle.varint import put_bytes, put_varint
from tests.unit.engine.limited import run_limited

FLOATS, IDS, TEXT, HALVES = 16_000_000, 60_000_000, 64_000_000, 8_000_000


def content(scale):
    """Return names with dtype, shape and message, made without many objects."""
    floats = np.arange(FLOATS // scale, dtype=np.float32)
    ids = (np.arange(IDS // scale) % 100).astype(np.uint8)
    halves = np.full(HALVES // scale, 0x3C00, np.uint16)
    text = b"x" * (TEXT // scale)
    return {
        b"floats": ("float32", floats.shape, put_bytes(5, floats.tobytes())),
        # Numbers below 128 take a byte each, and eight when they are decoded.
        b"ids": ("int64", ids.shape, put_bytes(10, ids.tobytes())),
        b"halves": ("float16", halves.shape, put_bytes(13, put_varint(0x3C00) * halves.size)),
        b"text": ("string", (2,), put_bytes(8, text) + put_bytes(8, b"end")),
    }


def write(path, scale):
    """Write a checkpoint."""
    found = content(scale)
    described = [
        first.description(name, CODES[dtype], shape, [[(0, -1)]])
        for name, (dtype, shape, _) in sorted(found.items())
    ]
    records = [(b"", first.meta(described))]
    records += sorted(
        (first.key(name, [(0, -1)]), first.record(name, [(0, -1)], message))
        for name, (_, _, message) in found.items()
    )
    keys, values = zip(*records, strict=True)
    ends = [np.cumsum([*map(len, column)], dtype=np.int64) for column in (keys, values)]
    index = _native.table_encode(b"".join(keys), ends[0], b"".join(values), ends[1])
    path.write_bytes(index)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint of some 200 MB, and a tiny one alike."""
    folder = tmp_path_factory.mktemp("memory")
    large, tiny = folder / "large", folder / "tiny"
    write(large, 1)
    write(tiny, 1000)
    assert large.stat().st_size > 200e6
    yield large, tiny
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize("statements", [(), ("floats *= 2", "ids += 1", "halves *= 2")])
def test_a_copy_within_limits(files, tmp_path, statements):
    target = tmp_path / "made"
    run_limited(*files, target, statements)
    factor = 2 if statements else 1
    with ckptkit.open(target) as found:
        expected = np.arange(FLOATS - 5, FLOATS, dtype=np.float32) * factor
        np.testing.assert_array_equal(found["floats"][FLOATS - 5 :], expected)
        expected = np.arange(IDS - 300, IDS) % 100 + factor - 1
        np.testing.assert_array_equal(found["ids"][IDS - 300 :], expected)
        assert (found["halves"][::1000] == factor).all()
        assert [*map(len, found["text"].read())] == [TEXT, 3]
    for path in tmp_path.iterdir():
        path.unlink()
