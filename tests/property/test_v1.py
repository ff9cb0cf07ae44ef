"""Laws of TensorFlow's first format: any partition over any shards, and any damage."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptkit
from ckptkit.formats.tensorflow.v1 import table as module
from tests.golden.handmade import as_bytes, random_array
from tests.oracle import first, table

pytestmark = pytest.mark.usefixtures("unsynced")


def values(dtype, shape, seed):
    if dtype != "string":
        return random_array(dtype, shape, seed)
    found = np.empty(shape, object)
    found[...] = b""
    for at, index in enumerate(np.ndindex(shape)):
        found[index] = bytes([at % 256]) * (seed * at % 11)
    return found


@st.composite
def partitions(draw):
    """Draw dtype, shape and the slices of a grid over it; sometimes of one cell."""
    dtype = draw(st.sampled_from(first.DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    cuts = []
    for size in shape:
        inner = draw(st.sets(st.integers(1, size - 1), max_size=2)) if size > 1 else set()
        cuts.append([0, *sorted(inner), size])
    whole = draw(st.booleans())
    axes = [
        [
            (0, -1) if (a, b) == (0, size) and (whole or not size) else (a, b - a)
            for a, b in itertools.pairwise(edges)
        ]
        for edges, size in zip(cuts, shape, strict=True)
    ]
    # A tensor without elements has but one slice, which is all of it.
    slices = [[(0, -1)] * len(shape)] if 0 in shape else [*map(list, itertools.product(*axes))]
    return dtype, shape, draw(st.permutations(slices))


@given(st.lists(partitions(), min_size=1, max_size=4), st.integers(1, 3), st.data())
def test_any_partition_over_any_shards(fresh, parts, shards, data):
    folder = fresh()
    tensors = {}
    files = [{} for _ in range(shards)]
    for number, (dtype, shape, slices) in enumerate(parts):
        name, array = f"t{number}".encode(), values(dtype, shape, number + 1)
        tensors[name.decode()] = array
        for extents in slices:
            of = files[data.draw(st.integers(0, shards - 1))]
            of.setdefault(name, (dtype, array, []))[2].append(extents)
    for number, content in enumerate(files):
        path = folder / f"m-{number:05d}-of-{shards:05d}"
        path.write_bytes(first.encode(content))
    with ckptkit.open(folder / "m") as found:
        assert set(found) == set(tensors)
        for name, array in tensors.items():
            read = found[name].read()
            assert (read.shape, as_bytes(read)) == (array.shape, as_bytes(array))
            region = tuple(slice(size // 3, size, 2) for size in array.shape)
            part = np.asarray(array[region], array.dtype)
            assert as_bytes(found[name][region]) == as_bytes(part)
        assert found.verify().ok
    ckptkit.convert(folder / "m", folder / "new")
    with ckptkit.open(folder / "new") as made:
        assert made.verify().ok
        for name, array in tensors.items():
            read = made[name].read()
            assert (read.shape, as_bytes(read)) == (array.shape, as_bytes(array))
    assert ckptkit.diff(folder / "m", folder / "new", values=True) == ()


SAMPLE = {
    b"f": ("float32", np.float32([[0, 1, 2], [3, 4, 5]]), [[(0, 1), (0, -1)], [(1, 1), (0, -1)]]),
    b"h": first.whole("float16", np.arange(5, dtype=np.float16)),
    b"i": first.whole("int64", np.array([3, -4, 1 << 50])),
    b"o": first.whole("bool", np.array([True, False])),
    b"s": first.whole("string", np.array([b"abc", b""], object)),
}


@settings(max_examples=300)
@given(st.data())
def test_no_damage_does_worse_than_an_error(fresh, monkeypatch, data):
    """Values of records are changed, and blocks get right checksums, so that all is decoded."""
    monkeypatch.setattr(module, "SMALL", data.draw(st.sampled_from([0, 1 << 20])))
    entries = first.entries(SAMPLE)
    at = data.draw(st.integers(0, len(entries) - 1))
    value = bytearray(entries[at][1])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(value) - 1))
        kind = data.draw(st.sampled_from(["bit", "byte", "cut", "more"]))
        if kind == "bit":
            value[place] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "byte":
            value[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        elif kind == "cut" and len(value) > 1:
            del value[place]
        else:
            value[place:place] = data.draw(st.binary(min_size=1, max_size=3))
    entries[at] = entries[at][0], bytes(value)
    path = fresh() / "m"
    path.write_bytes(table.assemble([entries]))
    _look(path)


@settings(max_examples=200)
@given(st.data())
def test_no_bit_of_a_file_does_worse_than_an_error(fresh, monkeypatch, data):
    monkeypatch.setattr(module, "SMALL", data.draw(st.sampled_from([0, 1 << 20])))
    entries = first.entries(SAMPLE)
    alone = data.draw(st.booleans())
    blocks = [[entry] for entry in entries] if alone else [entries]
    content = bytearray(table.assemble(blocks))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path = fresh() / "m"
    path.write_bytes(bytes(content))
    values = _look(path)
    # What is read in spite of it is what was written.
    for name, array in values.items():
        expected = SAMPLE[name.encode()][1]
        assert (array.shape, as_bytes(array)) == (expected.shape, as_bytes(expected))


def _look(path):
    """Do what can be done with a file; return the values that are read."""
    found = {}
    try:
        with ckptkit.open(path) as checkpoint:
            checkpoint.verify()
            for name in checkpoint:
                try:
                    found[name] = checkpoint[name].read()
                except ckptkit.CkptError:
                    continue
            checkpoint.edit().plan(path.with_name("new")).run()
            ckptkit.open(path.with_name("new")).close()
    except ckptkit.CkptError:
        pass
    return found
