"""``CheckpointReader`` without TensorFlow: what it gives, and what it makes of damage."""

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ckptkit
import ckptkit.tf as train
from ckptkit.tf import cache, errors
from tests.golden.handmade import Bundle, grid
from tests.hostile import forge
from tests.oracle import hashed, ordered

VALUES = {
    "b/scalar": np.float32(1.5),
    "a/matrix": np.arange(6, dtype=np.int64).reshape(2, 3),
    "c/none": np.zeros((0, 4), np.float16),
    "d/flags": np.array([True, False]),
    "e/text": np.array([b"x", b"", b"a\0"], object),
    "f/word": b"word\0",
}


@pytest.fixture
def prefix(tmp_path):
    ckptkit.save(tmp_path / "m", VALUES)
    return str(tmp_path / "m")


def test_values_are_what_numpy_has_for_them(prefix):
    reader = train.load_checkpoint(prefix)
    for name, expected in VALUES.items():
        found = reader.get_tensor(name)
        assert type(found) is type(expected)
        if isinstance(expected, np.ndarray):
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            assert found.tolist() == expected.tolist()
            assert found.flags.writeable
        else:
            assert found == expected


def test_arrays_are_fresh(prefix):
    reader = train.load_checkpoint(prefix)
    reader.get_tensor("a/matrix")[:] = 0
    assert reader.get_tensor("a/matrix").sum() == 15


@pytest.mark.parametrize("nbytes", [1 << 20, (1 << 20) + 4, 5 << 20])
def test_large_tensors_are_read_as_small_ones_are(tmp_path, nbytes):
    values = np.arange(nbytes // 4, dtype=np.float32).reshape(-1, 1)
    ckptkit.save(tmp_path / "m", {"w": values})
    found = train.load_variable(tmp_path / "m", "w")
    assert (found.dtype, found.shape) == (values.dtype, values.shape)
    assert found.tobytes() == values.tobytes()


def test_variables_are_sorted_and_shapes_are_lists_of_ones_own(prefix):
    expected = [(name, [*np.shape(VALUES[name])]) for name in sorted(VALUES)]
    expected[-1] = ("f/word", [])
    assert train.list_variables(prefix) == expected
    train.list_variables(prefix)[0][1].append(1)
    train.load_checkpoint(prefix).get_variable_to_shape_map()["a/matrix"].append(1)
    assert train.list_variables(prefix) == expected


def test_maps_are_in_the_order_of_a_hash_map(prefix):
    reader = train.load_checkpoint(prefix)
    order = [key.decode() for key in hashed.order(sorted(name.encode() for name in VALUES))]
    assert [*reader.get_variable_to_shape_map()] == order
    assert [*reader.get_variable_to_dtype_map()] == order
    assert reader.get_variable_to_dtype_map()["b/scalar"] == "float32"


def test_the_debug_string_has_a_line_for_each(prefix):
    assert train.load_checkpoint(prefix).debug_string().splitlines() == [
        b"a/matrix (DT_INT64) [2,3]",
        b"b/scalar (DT_FLOAT) []",
        b"c/none (DT_HALF) [0,4]",
        b"d/flags (DT_BOOL) [2]",
        b"e/text (DT_STRING) [3]",
        b"f/word (DT_STRING) []",
    ]


@pytest.mark.parametrize("kind", [str, os.fsencode, os.path.abspath, lambda text: text])
def test_paths_and_names_are_text_or_bytes(prefix, kind):
    assert train.load_checkpoint(kind(prefix)).has_tensor("a/matrix")
    assert train.NewCheckpointReader(kind(prefix)).get_tensor(b"b/scalar") == 1.5


@pytest.mark.parametrize("value", [None, 5])
def test_other_things_are_neither(prefix, value):
    reader = train.load_checkpoint(prefix)
    for call in (reader.get_tensor, reader.has_tensor, train.load_checkpoint):
        with pytest.raises(TypeError, match="binary or unicode"):
            call(value)


def test_a_colon_and_a_zero_are_left_out_of_names(prefix):
    assert train.load_variable(prefix, "b/scalar:0") == 1.5
    with pytest.raises(errors.NotFoundError, match="not found in checkpoint"):
        train.load_checkpoint(prefix).get_tensor("b/scalar:0")


def test_names_that_are_no_utf8(tmp_path):
    bundle = Bundle()
    for number, key in enumerate((b"\xff", b"ok", b"\0x")):
        bundle.add(key, np.array(number, np.int32))
    path = bundle.write(tmp_path / "m")
    reader = train.load_checkpoint(path)
    assert [name for name, _ in train.list_variables(path)] == ["\0x", "ok", "\udcff"]
    assert (reader.get_tensor(b"\xff"), reader.get_tensor("\udcff")) == (0, 0)
    assert reader.get_tensor(b"\0x") == 2
    assert reader.debug_string().endswith(b"\xff (DT_INT32) []\n")


def test_slices_are_joined_and_can_be_had_by_themselves(tmp_path):
    values = np.arange(12, dtype=np.float16).reshape(4, 3)
    bundle = Bundle()
    bundle.add_slices(b"w", values, grid((4, 3), [[1], []]))
    bundle.add(b"v", np.float32([1]))
    path = bundle.write(tmp_path / "m")
    reader = train.load_checkpoint(path)
    assert train.list_variables(path) == [("v", [1]), ("w", [4, 3])]
    assert reader.get_tensor("w").tolist() == values.tolist()
    key = ordered.slice_key(b"w", [(0, 1), (0, -1)])
    assert reader.has_tensor(key)
    assert reader.get_tensor(key).tolist() == values[:1].tolist()
    lines = reader.debug_string().split(b"\n")
    assert lines[0] == key + b" (DT_HALF) [1,3]"
    assert lines[2:] == [b"v (DT_FLOAT) [1]", b""]


@pytest.mark.parametrize("dtype", ["float32", "complex64", "int16"])
def test_big_endian_bundles(tmp_path, dtype):
    values = np.arange(6).reshape(2, 3).astype(dtype)
    bundle = Bundle(big_endian=True)
    bundle.add(b"w", values)
    found = train.load_variable(bundle.write(tmp_path / "m"), "w")
    assert found.dtype == values.dtype
    assert found.tolist() == values.tolist()


def test_a_reader_is_for_many_threads(prefix):
    reader = train.load_checkpoint(prefix)
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda _: reader.get_tensor("a/matrix").sum(), range(200))]
    assert found == [15] * 200


# --- what is not there, or damaged ---------------------------------------------------------------


def test_there_is_no_such_checkpoint(tmp_path):
    for path in (tmp_path / "none", tmp_path / "no" / "folder", ""):
        with pytest.raises(errors.NotFoundError, match="Failed to find any matching files"):
            train.load_checkpoint(path)


def test_there_is_something_else(tmp_path, prefix):
    for path, why in (
        (f"{prefix}.data-00000-of-00001", "it is none"),
        (f"{prefix}.index", "give the prefix"),
        ("a\0b", "NUL"),
    ):
        with pytest.raises(errors.DataLossError, match=why):
            train.load_checkpoint(path)
    with pytest.raises(errors.DataLossError, match="it is a folder"):
        train.NewCheckpointReader(tmp_path)


def test_a_file_system_that_only_tensorflow_knows():
    with pytest.raises(errors.UnimplementedError, match='reader="tensorflow"'):
        train.load_checkpoint("gs://bucket/model")


def test_there_is_no_such_tensor(prefix):
    reader = train.load_checkpoint(prefix)
    with pytest.raises(errors.NotFoundError, match="Key none not found in checkpoint"):
        reader.get_tensor("none")
    assert not reader.has_tensor("none")
    assert reader.has_tensor("")
    with pytest.raises(errors.DataLossError, match="header"):
        reader.get_tensor("")


def test_an_index_alone_is_listed(prefix):
    os.unlink(f"{prefix}.data-00000-of-00001")
    assert len(train.list_variables(prefix)) == len(VALUES)
    with pytest.raises(errors.NotFoundError, match="data-00000-of-00001"):
        train.load_variable(prefix, "a/matrix")


def test_tensors_before_the_damage_are_read(prefix):
    shard = f"{prefix}.data-00000-of-00001"
    with open(shard, "r+b") as file:
        file.seek(8)
        file.write(b"\xff")
        file.truncate(60)
    reader = train.load_checkpoint(prefix)
    assert reader.get_tensor("b/scalar") == 1.5
    with pytest.raises(errors.DataLossError, match="checksum of bytes 4 to 52"):
        reader.get_tensor("a/matrix")
    with pytest.raises(IndexError, match="beyond the end"):
        reader.get_tensor("f/word")


@pytest.mark.parametrize("length", [0, 10, 60])
def test_an_index_that_is_cut_short(prefix, length):
    os.truncate(f"{prefix}.index", length)
    with pytest.raises(errors.DataLossError) as caught:
        train.load_checkpoint(prefix)
    assert isinstance(caught.value.__cause__, ckptkit.CorruptError)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (forge.record(size=23), errors.DataLossError),
        (forge.record(dims=[1 << 40], size=1 << 42), errors.OutOfRangeError),
        (forge.record(dims=[1 << 40]), errors.DataLossError),
        (forge.record(shard=3), errors.DataLossError),
        (forge.record(offset=1 << 40), errors.OutOfRangeError),
        (forge.record(dims=[1] * 70 + [6]), errors.UnimplementedError),
        (forge.record(dims=[1 << 62, 0], payload=b""), errors.UnimplementedError),
        (forge.record(dims=[1 << 50], dtype=forge.STRING), errors.DataLossError),
        (forge.record(dtype=forge.VARIANT, dims=[]), errors.InternalError),
        (forge.record(slices=[[(0, 1), (0, -1)]], size=0), errors.DataLossError),
    ],
)
def test_records_that_cannot_be_spoil_no_others(tmp_path, value, kind):
    records = [forge.header(), (b"sound", forge.record()), (b"w", value)]
    path = forge.write(tmp_path, records, forge.PAYLOAD)
    reader = train.load_checkpoint(path)
    assert reader.has_tensor("w")
    assert reader.get_tensor("sound").tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(kind):
        reader.get_tensor("w")


@pytest.mark.parametrize("dtype", [0, 99, 101])
def test_a_dtype_on_which_tensorflow_aborts(tmp_path, dtype):
    path = forge.simple(tmp_path, forge.record(dtype=dtype))
    with pytest.raises(errors.DataLossError, match=f"no dtype {dtype}"):
        train.load_checkpoint(path)


def test_versions_that_do_not_exist_yet(tmp_path):
    records = [forge.header(version=b"\x08\x02\x10\x02"), (b"w", forge.record())]
    path = forge.write(tmp_path, records, forge.PAYLOAD)
    with pytest.raises(errors.UnimplementedError, match="asks for a reader of version 2"):
        train.load_checkpoint(path)


def test_while_an_edit_in_place_was_cut_short_nothing_is_read(prefix):
    from ckptkit.storage.sidecar import JOURNAL, sidecar

    with open(sidecar(prefix, JOURNAL), "wb") as file:
        file.write(struct.pack("<Q", 0))
    with pytest.raises(errors.FailedPreconditionError, match="ckptkit recover"):
        train.load_checkpoint(prefix)


# --- indexes that are kept -----------------------------------------------------------------------


@pytest.fixture
def settled(monkeypatch):
    """Take every file for one that was written long ago."""
    monkeypatch.setattr(cache, "SETTLED", 0)
    cache.CACHE.clear()
    yield
    cache.CACHE.clear()


def test_an_index_is_read_once_and_again_when_it_changes(tmp_path, settled):
    ckptkit.save(tmp_path / "m", {"w": np.float32([1])})
    first, second = (train.load_checkpoint(tmp_path / "m").listing for _ in range(2))
    assert first is second
    ckptkit.save(tmp_path / "n", {"w": np.float32([2])})
    for end in (".index", ".data-00000-of-00001"):
        os.replace(f"{tmp_path}/n{end}", f"{tmp_path}/m{end}")
    assert train.load_variable(tmp_path / "m", "w").tolist() == [2]


def test_an_index_that_was_just_written_is_read_with_every_call(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SETTLED", 3_600_000_000_000)
    ckptkit.save(tmp_path / "m", {"w": np.float32([1])})
    first, second = (train.load_checkpoint(tmp_path / "m").listing for _ in range(2))
    assert first is not second


def test_one_file_may_be_asked_for_in_two_ways(prefix, settled):
    """As the index of a bundle, and as a table that would be of the first format."""
    train.load_checkpoint(prefix)
    with pytest.raises(errors.DataLossError, match="give the prefix"):
        train.load_checkpoint(f"{prefix}.index")


def test_few_indexes_are_kept(tmp_path, settled, monkeypatch):
    monkeypatch.setattr(cache, "MOST", 2)
    for number in range(3):
        ckptkit.save(tmp_path / f"m{number}", {"w": np.float32([number])})
    found = [train.load_checkpoint(tmp_path / f"m{number}").listing for number in range(3)]
    assert train.load_checkpoint(tmp_path / "m2").listing is found[2]
    assert train.load_checkpoint(tmp_path / "m0").listing is not found[0]


def test_a_large_index_is_not_kept(tmp_path, settled, monkeypatch):
    monkeypatch.setattr(cache, "MOST_BYTES", 100)
    ckptkit.save(tmp_path / "m", {"w": np.float32([1])})
    first, second = (train.load_checkpoint(tmp_path / "m").listing for _ in range(2))
    assert first is not second


def test_no_file_stays_open(tmp_path, settled):
    ckptkit.save(tmp_path / "m", {"w": np.float32([1])})
    for _ in range(3):
        train.load_variable(tmp_path / "m", "w")
    held = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not [path for path in held if path.startswith(str(tmp_path))]
