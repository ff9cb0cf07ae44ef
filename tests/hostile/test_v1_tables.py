"""Malformed tables of TensorFlow's first format, small and large, and what must come of them."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest

import ckptkit
from ckptkit import CorruptError, UnknownFormatError, UnsupportedError, _native
from ckptkit.engine.check import verify_path
from ckptkit.formats.tensorflow.v1 import table as module
from tests.golden.damage import flip
from tests.hostile import forge
from tests.hostile.first import KEY, SOUND, W, write
from tests.hostile.forge import assemble, body, handle, item, refused
from tests.oracle import first, packed, table
from tests.oracle.varint import put_varint


def test_other_ends_are_no_tables(tmp_path):
    content = table.assemble([SOUND])
    for data in (content[:-1], content[:-8] + bytes(8)):
        refused(write(tmp_path, data), CorruptError, "it was cut short")
    for data in (content[-47:], b""):
        with pytest.raises(UnknownFormatError):
            ckptkit.open(write(tmp_path, data))


@pytest.mark.parametrize("at", [0, 40, -60])
def test_a_bit_of_a_small_block(tmp_path, at):
    path = write(tmp_path, table.assemble([SOUND]))
    flip(path, at, bits=1)
    refused(path, CorruptError, "checksum of the block of")


def test_the_metaindex_is_read_by_nobody(tmp_path):
    path = write(tmp_path, table.assemble([SOUND]))
    flip(path, len(table.seal(table.encode_block(SOUND, 16))), bits=1)
    forge.warned(path, "checksum of the metaindex block")
    assert ckptkit.open(path)["w"].shape == (2, 3)
    other = table.seal(body([item(0, b"a", b"b")]))
    forge.warned(write(tmp_path, _table(metaindex=other)), "not the empty one")


def _table(**given):
    return assemble([table.encode_block(SOUND, 16)], separators=[b"\x01"], **given)


def test_bytes_that_nobody_reads(tmp_path):
    forge.warned(write(tmp_path, _table(gap=b"abc")), "3 bytes belong to no block")
    forge.warned(write(tmp_path, _table(padding=b"x")), "padded with other than zeros")


@pytest.mark.parametrize(
    ("offset", "size", "text"),
    [
        (0, 1 << 62, "beyond the end of the file"),
        (1 << 62, 8, "beyond the end of the file"),
        (0, 1 << 34, "beyond the end of the file"),
        (5, 8, "share bytes"),
    ],
)
def test_handles_of_data_blocks(tmp_path, offset, size, text):
    listed = [handle(0, len(table.encode_block(SOUND, 16))), handle(offset, size)]
    content = assemble(
        [table.encode_block(SOUND, 16)] * 2, separators=[b"\x01", b"\x02"], listed=listed
    )
    refused(write(tmp_path, content), CorruptError, text)


def test_handles_of_the_footer(tmp_path):
    content = table.assemble([SOUND])[:-48]
    for meta, index in itertools.product((handle(0, 8), handle(0, 1 << 62)), repeat=2):
        if handle(0, 1 << 62) in {meta, index}:
            path = write(tmp_path, content + forge.footer(meta, index))
            refused(path, CorruptError, "beyond the end of the file")
    path = write(tmp_path, content + b"\xff" * 40 + struct.pack("<Q", table.MAGIC))
    refused(path, CorruptError, "varint")


def test_a_block_is_listed_twice(tmp_path):
    where = handle(0, len(table.encode_block(SOUND, 16)))
    content = assemble(
        [table.encode_block(SOUND, 16)], separators=[b"\x01", b"\x02"], listed=[where, where]
    )
    # The index block has as many entries as it has keys.
    refused(write(tmp_path, content), CorruptError, "share bytes")


@pytest.mark.parametrize(("kind", "error"), [(1, UnsupportedError), (7, CorruptError)])
def test_blocks_of_other_types(tmp_path, kind, error):
    content = assemble([table.encode_block(SOUND, 16)], kind=kind)
    text = "compressed with Snappy" if kind == 1 else "type 7"
    refused(write(tmp_path, content), error, text)


BLOCKS = {
    "no restarts": (body([], [], 0), "0 restarts"),
    "many restarts": (body([item(0, b"", b"x")], count=1 << 30), "restarts"),
    "a restart within a record": (body([item(0, b"", SOUND[0][1])], [0, 3]), "restarts"),
    "a restart that falls": (
        body([item(0, *SOUND[0]), item(0, *SOUND[1])], [0, 0]),
        "restarts",
    ),
    "no first restart": (body([item(0, b"", b"x"), item(0, b"a", b"x")], [4]), "restarts"),
    "lengths that overflow": (
        body([put_varint(0) + put_varint(1 << 31) + put_varint(1 << 31) + b"x"]),
        "beyond its block",
    ),
    "a length of more than 32 bits": (
        body([put_varint(0) + put_varint(1 << 32) + put_varint(0)]),
        "beyond its block",
    ),
    "a value past the end": (body([put_varint(0) * 2 + put_varint(99) + b"x"]), "beyond its block"),
    "more shared than there is": (
        body([item(0, *SOUND[0]), item(1, b"k", b"v")]),
        "shares more than there is",
    ),
    "the same key twice": (body([item(0, b"", b"x"), item(0, b"", b"x")]), "do not rise"),
    "keys that fall": (
        body([item(0, b"", b"x"), item(0, b"b", b"x"), item(0, b"a", b"")]),
        "do not rise",
    ),
    "no records": (body([]), "empty"),
    "less than a count": (b"ab", "a block of 2 bytes has"),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(tmp_path, name):
    content, text = BLOCKS[name]
    refused(write(tmp_path, assemble([content])), CorruptError, text)


@pytest.mark.parametrize(
    "name", [n for n in BLOCKS if n not in {"no records", "less than a count"}]
)
def test_large_blocks_that_are_not_read_whole(tmp_path, name, monkeypatch):
    monkeypatch.setattr(module, "SMALL", 0)
    content, text = BLOCKS[name]
    refused(write(tmp_path, assemble([content])), CorruptError, text)


def test_keys_that_are_not_where_the_index_has_them(tmp_path):
    blocks = [table.encode_block([entry], 16) for entry in SOUND]
    for separators in ([b"\x00" * 2, b"\x00"], [KEY, KEY + b"a"]):
        content = assemble(blocks, separators=separators)
        text = "do not rise" if separators[0] > separators[1] else "not where the index has them"
        refused(write(tmp_path, content), CorruptError, text)


def test_keys_that_take_more_memory_than_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "DECODED_SLACK", 1 << 20)
    start = b"\x01" + b"k" * 5000
    many = [item(0, start, b"")] + [
        item(len(start), struct.pack(">H", number), b"") for number in range(1, 2000)
    ]
    content = assemble([body([item(0, *SOUND[0]), *many])])
    refused(write(tmp_path, content), CorruptError, "more memory")
    long = item(0, b"\x01" * (module.MAX_KEY + 1), b"")
    content = assemble([body([item(0, *SOUND[0]), long])])
    refused(write(tmp_path, content), CorruptError, "at most 1048576 are read")


# --- large values --------------------------------------------------------------------------------

LARGE = {
    "a": ("float32", np.arange(400_000, dtype=np.float32)),
    "b": ("int64", np.arange(300_000, dtype=np.int64) * 999_983),
    "c": ("string", np.array([b"x" * 1_100_000, b"y"], object)),
}


@pytest.fixture(scope="module")
def large():
    """The bytes of a checkpoint whose tensors have blocks of their own."""
    found = first.entries({n.encode(): first.whole(*one) for n, one in LARGE.items()})
    found = [(b"", first.meta([
        first.description(n.encode(), {"float32": 1, "int64": 9, "string": 7}[dtype], v.shape,
                          [first.extents_of(v)]) for n, (dtype, v) in LARGE.items()
    ])), *found[1:]]  # fmt: skip
    keys, values = zip(*found, strict=True)
    ends = [np.cumsum([*map(len, column)], dtype=np.int64) for column in (keys, values)]
    return _native.table_encode(b"".join(keys), ends[0], b"".join(values), ends[1])


def test_large_values_are_not_read_to_list_them(tmp_path, large, monkeypatch):
    path = write(tmp_path, large)
    asked = []
    read = ckptkit.storage.disk.File.read

    def counted(self, offset, length):
        asked.append(length)
        return read(self, offset, length)

    monkeypatch.setattr(ckptkit.storage.disk.File, "read", counted)
    with ckptkit.open(path) as found:
        assert found.shapes() == {name: values.shape for name, (_, values) in LARGE.items()}
    assert sum(asked) < 1 << 20


@pytest.mark.parametrize("name", LARGE)
def test_a_bit_of_a_large_value(tmp_path, large, name):
    marks = {"a": LARGE["a"][1][200_000:200_050].tobytes(), "c": b"x" * 500}
    marks["b"] = packed.encode(LARGE["b"][1][150_000:150_050].tolist())
    path = write(tmp_path, large)
    flip(path, large.index(marks[name]), bits=1)
    with ckptkit.open(path) as found:
        with pytest.raises(CorruptError, match="checksum of bytes") as caught:
            found[name].read()
        assert caught.value.tensor == name
        for other in LARGE.keys() - {name}:
            found[other].read()
        verdict = found.verify()
    problems = [problem for problem in verdict.problems if problem.severity == "error"]
    assert {problem.tensor for problem in problems} == {name}
    assert "TensorFlow does not read it" in "".join(problem.message for problem in problems)
    # It is not blessed by a new checksum: it stays damaged, or is not carried over.
    try:
        ckptkit.convert(path, tmp_path / "new")
    except CorruptError as error:
        assert error.tensor == name
    else:
        (problem,) = ckptkit.open(tmp_path / "new").verify().problems
        assert problem.tensor == name


def test_a_bit_around_a_large_value(tmp_path, large):
    """The restarts of its block are read, and the bit shows in what its checksum should be."""
    path = write(tmp_path, large)
    flip(path, large.index(LARGE["a"][1].tobytes()) - 12, bits=0x10)
    assert not verify_path(path).ok


def test_a_large_description(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SMALL", 0)
    path = write(tmp_path, table.assemble([SOUND[:1], SOUND[1:]]))
    np.testing.assert_array_equal(ckptkit.open(path)["w"].read(), W)
    flip(path, 5, bits=1)
    refused(path, CorruptError, "checksum of the block")


def test_small_tensors_in_a_large_block(tmp_path, monkeypatch):
    """An old writer put a large value behind small ones."""
    monkeypatch.setattr(module, "SMALL", 0)
    tensors = {
        b"a": first.whole("int32", np.arange(5, dtype=np.int32)),
        b"b": first.whole("float32", np.arange(5000, dtype=np.float32)),
        b"c": first.whole("bool", np.array([True, False, True])),
        b"d": first.whole("string", np.array([b"one", b""], object)),
        b"e": first.whole("float64", np.empty((0, 3))),
    }
    path = write(tmp_path, first.encode(tensors))
    with ckptkit.open(path) as found:
        for name, (_, values, _) in tensors.items():
            np.testing.assert_array_equal(found[name.decode()].read(), values)
        assert found.verify().ok
    ckptkit.convert(path, tmp_path / "new")
    assert ckptkit.open(tmp_path / "new").verify().ok
    assert ckptkit.diff(path, tmp_path / "new", values=True) == ()


@pytest.mark.parametrize("cut", [1, 100, 1000])
def test_a_file_that_was_cut_short(tmp_path, large, cut):
    content = large[: -48 - cut] + large[-48:]
    with pytest.raises(CorruptError):
        ckptkit.open(write(tmp_path, content))
