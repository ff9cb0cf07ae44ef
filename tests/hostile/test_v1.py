"""Malformed checkpoints of TensorFlow's first format, and what must come of them."""

from __future__ import annotations

import numpy as np
import pytest

import ckptkit
from ckptkit import CorruptError, UnknownFormatError, UnsupportedError
from ckptkit.engine.check import verify_path
from tests.hostile.first import ALL, SOUND, W, write
from tests.hostile.forge import refused
from tests.oracle import first, packed
from tests.oracle.varint import put_bytes, put_number, put_varint

FLOAT, INT, STRING = 1, 3, 7


def described(*descriptions, **more):
    return b"", first.meta(descriptions, **more)


def one(message, shape=(2, 3), code=FLOAT, extents=ALL, **given):
    """Return records of one tensor, ``w``, whose values are a message; sound unless told."""
    extents = [(0, -1)] * len(shape) if len(shape) != len(extents) else extents
    record = first.record(given.get("name", b"w"), given.get("says", extents), message)
    slices = given.get("slices", [extents])
    meta = described(first.description(b"w", code, shape, slices))
    return [meta, (given.get("key", first.key(b"w", extents)), record)]


def test_the_sound_one_is_read(tmp_path):
    path = write(tmp_path, SOUND)
    with ckptkit.open(path) as found:
        np.testing.assert_array_equal(found["w"].read(), W)
        assert found.verify().ok


# --- descriptions --------------------------------------------------------------------------------


def test_nothing_describes_the_tensors(tmp_path):
    refused(write(tmp_path, SOUND[1:]), CorruptError, "its first record has a key")
    refused(write(tmp_path, [(b"", b"")]), CorruptError, "0 descriptions")
    refused(write(tmp_path, [(b"", b"\x0a\x00"), (b"key", b"value")]), CorruptError, "parse")
    refused(write(tmp_path, [(b"", b"\x0a\x05a")]), CorruptError, "parse")


@pytest.mark.parametrize(
    ("version", "error", "text"),
    [
        (b"\x08\x01\x10\x02", UnsupportedError, "version 2 or later"),
        (b"\x08\x01\x18\x01", UnsupportedError, "not of [1]"),
        (b"\x08\x01\x1a\x02\x05\x01", UnsupportedError, "not of [5, 1]"),
        (b"\x08" + packed.encode([-1]), CorruptError, "version -1"),
        (b"\x1a\x01\x80", None, ""),
        (b"\x08\x63\x1a\x01\x02", None, ""),
        (b"", None, ""),
    ],
)
def test_versions(tmp_path, version, error, text):
    meta = described(first.description(b"w", FLOAT, (2, 3), [ALL]), version=version)
    path = write(tmp_path, [meta, SOUND[1]])
    if error is None:
        assert ckptkit.open(path)["w"].read().shape == (2, 3)
    else:
        refused(path, error, text)


SHAPES = {
    "negative": (first.shape_message([2]) + put_bytes(2, put_number(1, -3)), "-3 elements"),
    "unknown": (put_number(3, 1), "unknown"),
    "too many elements": (first.shape_message([1 << 40, 1 << 40, 0]), "too many axes or elements"),
    "too many axes": (first.shape_message([1] * 255), "at most 254 axes"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(tmp_path, name):
    message, text = SHAPES[name]
    meta = described(put_bytes(1, b"w") + put_bytes(2, message) + put_number(3, FLOAT))
    # A shape that parses is that of a tensor.
    tensor = "w" if name == "too many elements" else None
    refused(write(tmp_path, [meta, SOUND[1]]), CorruptError, text, tensor=tensor)


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (0, CorruptError, "number 0"),
        (101, CorruptError, "number 101"),
        (99, CorruptError, "number 99"),
        (14, UnsupportedError, "bfloat16, which the first format"),
        (20, UnsupportedError, "resource"),
        (21, UnsupportedError, "variant"),
        (22, UnsupportedError, "uint32"),
    ],
)
def test_dtypes(tmp_path, code, error, text):
    message = first.values("float32", W)
    refused(write(tmp_path, one(message, code=code)), error, text, tensor="w")


# --- values --------------------------------------------------------------------------------------

FLOATS = W.tobytes()


@pytest.mark.parametrize(
    ("message", "code", "shape", "text"),
    [
        (put_bytes(5, FLOATS[:-4]), FLOAT, (2, 3), "20 bytes of values, not 24"),
        (put_bytes(5, FLOATS + b"abcd"), FLOAT, (2, 3), "28 bytes of values, not 24"),
        (put_bytes(5, FLOATS[:4]), FLOAT, (2, 3), "4 bytes of values, not 24"),
        (b"", FLOAT, (2, 3), "0 bytes of values, not 24"),
        (put_bytes(5, FLOATS), FLOAT, (1 << 40,), "24 bytes of values, not 4398046511104"),
        (put_bytes(5, FLOATS), FLOAT, (1 << 50, 1 << 10), "24 bytes of values"),
        (put_bytes(7, b"\x01" * 5), INT, (2, 3), "5 values, not 6"),
        (put_bytes(7, b"\x01" * 7), INT, (2, 3), "7 values, not 6"),
        (put_bytes(7, b"\x01" * 7), INT, (1 << 40,), "7 values, not 1099511627776"),
        (put_bytes(7, b"\x01" * 5 + b"\x80"), INT, (2, 3), "cut off"),
        (put_bytes(7, b"\xff" * 11), INT, (), "64 bits"),
        (b"", INT, (2, 3), "0 bytes cannot be 6 values"),
        (put_bytes(11, b"\x01" * 5), 10, (2, 3), "5 values, not 6"),
        (put_bytes(11, b"\x81\x00" * 3), 10, (2, 3), "3 values, not 6"),
        (put_bytes(8, b"a") * 5, STRING, (2, 3), "5 strings, not 6"),
        (put_bytes(8, b"a") * 7, STRING, (2, 3), "7 strings, not 6"),
        (put_bytes(8, b"a"), STRING, (1 << 40,), "1 strings, not"),
        (b"", STRING, (2, 3), "0 strings, not 6"),
        (b"\x42\x00\x42" + put_varint(1 << 62), STRING, (2,), "behind the end of its message"),
        (b"\x42\x00\x42" + put_varint((1 << 64) - 1), STRING, (2,), "a string of"),
        (b"\x42" + put_varint(1 << 62), STRING, (), "parse"),
        (b"\x42\x00\x42\x85", STRING, (2,), "something comes behind its strings"),
        (put_bytes(8, b"a") + put_number(1, 7), STRING, (), "something comes behind its strings"),
        (put_bytes(7, b"\x01"), FLOAT, (), "its values are in field 7, not 5"),
        (put_bytes(8, b"a"), FLOAT, (), "its values are in field 8, not 5"),
        (put_bytes(5, b"abcd") + put_bytes(7, b"a"), FLOAT, (), "values of two kinds"),
        (put_bytes(5, b"abcd") + put_bytes(8, b"a"), FLOAT, (), "values of two kinds"),
        (put_number(5, 1), FLOAT, (), "wire type 0"),
        (b"\x2a\xff\xff\xff\xff\x0f" + FLOATS, FLOAT, (2, 3), "parse"),
    ],
)
def test_values_that_are_not_those_of_the_shape(tmp_path, message, code, shape, text):
    path = write(tmp_path, one(message, shape, code))
    with pytest.raises(CorruptError, match=text) as caught:
        ckptkit.open(path)
    assert caught.value.path == path
    assert caught.value.tensor in {"w", None}
    assert not verify_path(path).ok


@pytest.mark.parametrize(
    ("code", "field", "values"),
    [
        (6, 7, [128]),
        (6, 7, [-129]),
        (4, 7, [-1]),
        (4, 7, [256]),
        (17, 7, [1 << 16]),
        (3, 7, [1 << 31]),
        (19, 13, [1 << 16]),
        (19, 13, [-1]),
    ],
)
def test_values_that_are_none_of_the_dtype(tmp_path, code, field, values):
    path = write(tmp_path, one(put_bytes(field, packed.encode(values)), (1,), code))
    with ckptkit.open(path) as found, pytest.raises(CorruptError, match="none of its dtype"):
        found["w"].read()
    (problem,) = verify_path(path).problems
    assert (problem.tensor, problem.severity) == ("w", "error")
    with pytest.raises(CorruptError, match="none of its dtype"):
        ckptkit.convert(path, tmp_path / "new")
    assert not list(tmp_path.glob("new*"))


def test_values_in_other_places(tmp_path):
    content = one(put_bytes(4, FLOATS))
    refused(write(tmp_path, content), UnsupportedError, "field 4", tensor="w")
    content = one(put_bytes(16, FLOATS))
    refused(write(tmp_path, content), UnsupportedError, "field 16", tensor="w")
    message = first.unpacked(5, 5, [b"abcd"] * 1025)
    refused(write(tmp_path, one(message, (1025,))), UnsupportedError, "1024 runs", tensor="w")


LEGAL = {
    "one by one": (first.unpacked(5, 5, [FLOATS[at : at + 4] for at in range(0, 24, 4)]), FLOAT),
    "in two runs": (put_bytes(5, FLOATS[:8]) + put_bytes(5, FLOATS[8:]), FLOAT),
    "both ways": (put_bytes(5, FLOATS[:20]) + first.unpacked(5, 5, [FLOATS[20:]]), FLOAT),
    "with dtype, shape and version": (
        put_number(1, 1) + put_bytes(2, b"") + put_number(3, 0) + put_bytes(5, FLOATS),
        FLOAT,
    ),
    "numbers one by one": (first.unpacked(7, 0, [put_varint(at) for at in range(6)]), INT),
    "numbers in two runs": (put_bytes(7, b"\0\1\2") + put_bytes(7, b"\3\4\5"), INT),
    "long numbers": (put_bytes(7, b"".join(bytes([0x80 | at, 0x80, 0]) for at in range(6))), INT),
}


@pytest.mark.parametrize("name", LEGAL)
def test_what_protobuf_allows(tmp_path, name):
    message, code = LEGAL[name]
    path = write(tmp_path, one(message, code=code))
    with ckptkit.open(path) as found:
        np.testing.assert_array_equal(found["w"].read(), W)
        np.testing.assert_array_equal(found["w"][1, 1:], W[1, 1:])
        assert found.verify().ok
    ckptkit.convert(path, tmp_path / "new")
    with ckptkit.open(tmp_path / "new") as made:
        np.testing.assert_array_equal(made["w"].read(), W)
        assert made.verify().ok


def test_booleans_are_true_by_any_number(tmp_path):
    message = put_bytes(11, b"\x00\x01\x02\x81\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x80\x00")
    path = write(tmp_path, one(message, code=10))
    expected = [[False, True, True], [True, True, False]]
    assert ckptkit.open(path)["w"].read().tolist() == expected
    ckptkit.convert(path, tmp_path / "new")
    assert ckptkit.open(tmp_path / "new")["w"].read().tolist() == expected


# --- slices --------------------------------------------------------------------------------------

LEFT, RIGHT = [(0, -1), (0, 1)], [(0, -1), (1, 2)]


def sliced(slices, stored=None, shape=(2, 3)):
    """Return records of a tensor in slices."""
    meta = described(first.description(b"w", FLOAT, shape, slices))
    kept = slices if stored is None else stored
    records = {}
    for extents in kept:
        values = first.values("float32", first.part(W, extents))
        records[first.key(b"w", extents)] = first.record(b"w", extents, values)
    return [meta, *sorted(records.items())]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (sliced([LEFT, RIGHT], [LEFT]), "the record of its slice [0:2, 1:3] is missing"),
        (sliced([LEFT]), "2 of 6 elements; none holds the one at [0, 1]"),
        (sliced([RIGHT]), "4 of 6 elements; none holds the one at [0, 0]"),
        (sliced([[(0, 1), (0, 2)], [(0, 1), (2, 1)]]), "none holds the one at [1, 0]"),
        (sliced([LEFT, LEFT]), "the record of its slice [0:2, 0:1] is missing"),
        (sliced([LEFT, RIGHT, [(0, 1), (0, 1)]]), "overlap"),
        (sliced([LEFT, [(0, -1), (1, 3)]], [LEFT, RIGHT]), "outside the shape"),
        (sliced([[(0, -1)]], []), "1 axes, the tensor has 2"),
        (sliced([], [LEFT, RIGHT]), "described nowhere"),
        (sliced([[(0, -1), (-1, 2)], RIGHT], [RIGHT]), "starts at -1"),
        (sliced([LEFT, RIGHT], [LEFT, RIGHT, [(0, 1), (0, 1)]]), "described nowhere"),
        (sliced([], []), "there are no values of it"),
        (one(first.values("float32", W), says=LEFT), "says that it is another one"),
        (one(first.values("float32", W), name=b"v"), "says that it is another one"),
        (one(first.values("float32", W), key=first.key(b"v", ALL)), "is missing"),
        (one(first.values("float32", W), key=b"\x01"), "is missing"),
        (one(first.values("float32", W[:, :1]), extents=RIGHT, slices=[LEFT, RIGHT]), "missing"),
    ],
)
def test_slices(tmp_path, content, text):
    path = write(tmp_path, content)
    with pytest.raises(CorruptError) as caught:
        ckptkit.open(path)
    assert text in str(caught.value)
    assert not verify_path(path).ok


def test_a_slice_with_too_few_values(tmp_path):
    content = sliced([LEFT, RIGHT])
    short = first.record(b"w", RIGHT, put_bytes(5, FLOATS[:12]))
    content[2 if content[2][0] == first.key(b"w", RIGHT) else 1] = first.key(b"w", RIGHT), short
    text = "slice [0:2, 1:3]: it has 12 bytes of values, not 16"
    refused(write(tmp_path, content), CorruptError, text, tensor="w")


def test_negative_lengths(tmp_path):
    extent = put_bytes(1, put_number(2, -5))
    meta = described(
        put_bytes(1, b"w") + put_bytes(2, first.shape_message([2])) + put_number(3, 1)
        + put_bytes(4, extent)
    )  # fmt: skip
    refused(write(tmp_path, [meta, SOUND[1]]), CorruptError, "-5 elements along an axis")


# --- shards --------------------------------------------------------------------------------------


def shards(folder, *contents):
    for number, content in enumerate(contents):
        if content is not None:
            write(folder, content, f"model-{number:05d}-of-{len(contents):05d}")
    return f"{folder}/model-?????-of-{len(contents):05d}"


def test_a_shard_is_missing(tmp_path):
    pattern = shards(tmp_path, sliced([LEFT]), None)
    for path in (pattern, f"{tmp_path}/model", f"{tmp_path}/model-00000-of-00002"):
        refused(path, CorruptError, "shard 1 of 2 is missing")
    shards(tmp_path, None, sliced([RIGHT]))
    assert ckptkit.open(pattern)["w"].read().tolist() == W.tolist()


def test_a_shard_is_of_another_checkpoint(tmp_path):
    wide = sliced([[(0, -1), (1, 3)]], [], shape=(2, 4))
    path = shards(tmp_path, sliced([LEFT]), wide)
    refused(path, CorruptError, "shards of two checkpoints are mixed", tensor="w")


def test_a_slice_is_in_two_shards(tmp_path):
    path = shards(tmp_path, sliced([LEFT, RIGHT]), sliced([RIGHT]))
    refused(path, CorruptError, "in model-00000-of-00002 as well", tensor="w")


def test_shards_of_two_checkpoints(tmp_path):
    shards(tmp_path, SOUND)
    pattern = shards(tmp_path, sliced([LEFT]), sliced([RIGHT]))
    with pytest.raises(UnknownFormatError, match=r"2 checkpoints .* model-\?\?\?\?\?-of-00001"):
        ckptkit.open(tmp_path / "model")
    assert len(ckptkit.open(pattern)["w"].tensor.boxes) == 2


def test_a_pattern_is_no_glob(tmp_path):
    shards(tmp_path, SOUND)
    for path in ("model-*", "mode?-?????-of-00001", "model-?????-of-00002", "model-?????-of-00000"):
        with pytest.raises(FileNotFoundError):
            ckptkit.open(tmp_path / path)
