"""``ckptkit.tf`` and TensorFlow give the same: names, order, types, bits, and kinds of errors."""

import os

import numpy as np
import pytest

import ckptkit.tf as train
from ckptkit.formats.tensorflow.dtypes import NAMES
from tests.compat.tensors import every_dtype, tensor, write, write_first
from tests.golden.handmade import Bundle, as_bytes, grid
from tests.hostile import forge

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def checkpoints(tf, tmp_path_factory):
    """Checkpoints of all sorts by TensorFlow, of both formats."""
    folder = tmp_path_factory.mktemp("sorts")
    values = {name: tensor(tf, array, dtype) for name, (dtype, array) in every_dtype().items()}
    model = tf.train.Checkpoint(
        dense=tf.train.Checkpoint(kernel=tf.Variable(tf.ones((3, 2))), bias=tf.Variable([0.5])),
        text=tf.Variable(["a", "bc"]),
    )
    return {
        "dtypes": write(tf, folder / "dtypes", values),
        "objects": model.save(str(folder / "objects")),
        "none": tf.train.Checkpoint().write(str(folder / "none")),
        "many": write(tf, folder / "many", {f"l{n // 7}/p{n}": tf.constant(n) for n in range(999)}),
        "slices": _sliced(tf, folder / "slices"),
        "first": _first(tf, folder / "first"),
    }


def _sliced(tf, prefix):
    rows = tf.reshape(tf.range(12.0), (4, 3))
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=["w", "w", "x"],
        shape_and_slices=["4 3 0,1:-", "4 3 1,3:-", ""],
        tensors=[rows[:1], rows[1:], tf.constant(1)],
    )
    return str(prefix)


def _first(tf, path):
    tensors = {f"layer{number}/kernel": tf.constant([number, 1.0]) for number in range(40)}
    tensors |= {"text": tf.constant([b"a\0", b""]), "step": tf.constant(7, tf.int64)}
    return write_first(tf, path, {**tensors, "none": tf.zeros((0, 3))})


SORTS = ("dtypes", "objects", "none", "many", "slices", "first")


@pytest.mark.parametrize("sort", SORTS)
def test_maps_and_lists_are_the_same_to_their_order(tf, checkpoints, sort):
    path = checkpoints[sort]
    ours, theirs = train.load_checkpoint(path), tf.train.load_checkpoint(path)
    for call in ("get_variable_to_shape_map", "get_variable_to_dtype_map"):
        found, expected = getattr(ours, call)(), getattr(theirs, call)()
        assert [*found.items()] == [*expected.items()]
        assert {*map(type, found.values())} == {*map(type, expected.values())}
    assert train.list_variables(path) == tf.train.list_variables(path)
    assert ours.debug_string() == theirs.debug_string()


@pytest.mark.parametrize("sort", SORTS)
def test_values_are_the_same_to_their_type(tf, checkpoints, sort):
    path = checkpoints[sort]
    ours, theirs = train.load_checkpoint(path), tf.train.load_checkpoint(path)
    for name, _ in train.list_variables(path):
        found, expected = ours.get_tensor(name), theirs.get_tensor(name)
        assert type(found) is type(expected)
        if isinstance(found, bytes):
            assert found == expected
            continue
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert as_bytes(np.asarray(found)) == as_bytes(np.asarray(expected))
        assert found.flags.writeable == expected.flags.writeable
        assert ours.has_tensor(name)
    assert ours.has_tensor("none/x") is theirs.has_tensor("none/x") is False


def test_keys_of_slices_are_found_as_well(tf, checkpoints):
    ours, theirs = (one.load_checkpoint(checkpoints["slices"]) for one in (train, tf.train))
    for line in ours.debug_string().split(b"\n")[:2]:
        key = line.partition(b" (")[0]
        assert ours.has_tensor(key)
        assert theirs.has_tensor(key)
        assert ours.get_tensor(key).tolist() == theirs.get_tensor(key).tolist()
    assert ours.has_tensor("")
    assert theirs.has_tensor("")


def test_dtypes_without_tensorflow_are_equal_to_those_with_it(tf):
    for code in NAMES:
        ours, theirs = train.DType(code), tf.as_dtype(code)
        assert ours == theirs
        assert theirs == ours
        assert hash(ours) == hash(theirs)
        assert tf.as_dtype(ours) is theirs
        assert (repr(ours), str(ours)) == (repr(theirs), str(theirs))
        for name in ("name", "size", "as_datatype_enum", "real_dtype", "base_dtype"):
            assert getattr(ours, name) == getattr(theirs, name)
        for name in dir(ours):
            if name.startswith("is_") and name != "is_compatible_with":
                assert getattr(ours, name) == getattr(theirs, name), (name, ours)
        if theirs.is_numpy_compatible:
            assert ours.as_numpy_dtype == theirs.as_numpy_dtype


def test_folders_have_the_same_latest_checkpoint(tf, tmp_path):
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(x=tf.Variable(1.0)), tmp_path, 2)
    assert train.latest_checkpoint(tmp_path) is None
    for _ in range(3):
        manager.save()
    assert train.latest_checkpoint(tmp_path) == tf.train.latest_checkpoint(tmp_path)
    assert train.latest_checkpoint(f"{tmp_path}/") == tf.train.latest_checkpoint(f"{tmp_path}/")
    assert train.list_variables(tmp_path) == tf.train.list_variables(tmp_path)
    exists = tf.compat.v1.train.checkpoint_exists
    for path in (manager.latest_checkpoint, f"{tmp_path}/ckpt-?", f"{tmp_path}/none", ""):
        assert train.checkpoint_exists(path) == exists(path)


@pytest.mark.parametrize(
    "more", ["# a comment", "tags: 1", "last_preserved_timestamp: 1.5 ; ", "x { y: 1 }", "[a.b] {}"]
)
def test_fields_that_a_state_file_does_not_have(tf, tmp_path, more):
    write(tf, tmp_path / "m", {"x": tf.constant(1)})
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "m"\n{more}\n')
    assert train.latest_checkpoint(tmp_path) == tf.train.latest_checkpoint(str(tmp_path))
    assert (train.latest_checkpoint(tmp_path) is None) == ("_" not in more and "#" not in more)


def outcome(call):
    """Return what a call gives, or what it raises."""
    try:
        found = call()
    except Exception as error:  # noqa: BLE001  whichever it is
        return error
    return found


def caught_alike(ours, theirs):
    """Whether whoever catches TensorFlow's error catches ours."""
    return isinstance(theirs, Exception) and isinstance(ours, type(theirs))


@pytest.mark.parametrize("name", ["none", "no/folder", "", ".", "m.data-00000-of-00001", "m?"])
def test_paths_that_are_no_checkpoint_raise_the_same(tf, tmp_path, monkeypatch, name):
    write(tf, tmp_path / "m", {"x": tf.constant(1)})
    monkeypatch.chdir(tmp_path)
    for one, other in (
        (train.load_checkpoint, tf.train.load_checkpoint),
        (train.NewCheckpointReader, tf.compat.v1.train.NewCheckpointReader),
        (train.list_variables, tf.train.list_variables),
    ):
        ours, theirs = outcome(lambda one=one: one(name)), outcome(lambda other=other: other(name))
        assert caught_alike(ours, theirs), (ours, theirs)


def _no_data(prefix):
    os.unlink(f"{prefix}.data-00000-of-00001")


def _short_data(prefix):
    os.truncate(f"{prefix}.data-00000-of-00001", 5)


def _flipped_data(prefix):
    with open(f"{prefix}.data-00000-of-00001", "r+b") as file:
        file.write(b"\xff")


def _short_index(prefix):
    os.truncate(f"{prefix}.index", 60)


def _no_index(prefix):
    os.truncate(f"{prefix}.index", 0)


def _flipped_index(prefix):
    with open(f"{prefix}.index", "r+b") as file:
        file.seek(10)
        file.write(b"\xff")


@pytest.mark.parametrize(
    "harm", [_no_data, _short_data, _flipped_data, _short_index, _no_index, _flipped_index]
)
def test_damage_raises_what_is_caught_as_the_same(tf, tmp_path, harm):
    prefix = write(tf, tmp_path / "m", {"x": tf.range(4.0)})
    harm(prefix)
    ours = outcome(lambda: train.load_variable(prefix, "x"))
    theirs = outcome(lambda: tf.train.load_variable(prefix, "x"))
    assert isinstance(ours, tf.errors.OpError)
    assert isinstance(ours, train.errors.OpError)
    assert caught_alike(ours, theirs), (ours, theirs)
    listed = outcome(lambda: train.list_variables(prefix))
    assert isinstance(listed, list) == isinstance(
        outcome(lambda: tf.train.list_variables(prefix)), list
    )


def test_a_name_that_is_not_there_is_not_found_by_either(tf, checkpoints):
    for sort in ("objects", "first"):
        path = checkpoints[sort]
        with pytest.raises(tf.errors.NotFoundError) as theirs:
            tf.train.load_variable(path, "nowhere")
        with pytest.raises(tf.errors.NotFoundError) as ours:
            train.load_variable(path, "nowhere")
        assert (str(ours.value), ours.value.error_code) == (
            str(theirs.value),
            theirs.value.error_code,
        )


def test_variants_have_no_form_in_numpy(tf, tmp_path):
    found = tf.raw_ops.TensorListFromTensor(
        tensor=tf.constant([1.0]), element_shape=tf.constant([], tf.int32)
    )
    prefix = write(tf, tmp_path / "m", {"v": found})
    for one in (train, tf.train):
        with pytest.raises(tf.errors.InternalError, match="not convertible to numpy dtype"):
            one.load_variable(prefix, "v")


# --- where we give more --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "uint16", "uint32", "uint64", "float8_e5m2"])
def test_slices_that_tensorflow_does_not_join(tf, tmp_path, dtype):
    values = np.arange(6).reshape(3, 2).astype(tf.as_dtype(dtype).as_numpy_dtype)
    bundle = Bundle()
    bundle.add_slices(b"w", values, grid((3, 2), [[1], []]))
    prefix = bundle.write(tmp_path / "m")
    with pytest.raises(ValueError, match="not supported"):
        tf.train.load_variable(prefix, "w")
    assert train.load_variable(prefix, "w").tobytes() == values.tobytes()


def test_names_that_tensorflow_does_not_list(tf, tmp_path):
    prefix = write(tf, tmp_path / "m", {b"\xff": tf.constant(3)})
    with pytest.raises(UnicodeDecodeError):
        tf.train.list_variables(prefix)
    assert train.list_variables(prefix) == [("\udcff", [])]
    assert train.load_variable(prefix, b"\xff") == tf.train.load_checkpoint(prefix).get_tensor(
        b"\xff"
    )


def test_an_index_in_which_tensorflow_finds_nothing_is_refused(tf, tmp_path):
    prefix = write(tf, tmp_path / "m", {"x": tf.constant(3)})
    assert tf.train.list_variables(f"{prefix}.index") == []
    with pytest.raises(tf.errors.DataLossError, match="give the prefix"):
        train.list_variables(f"{prefix}.index")


def test_a_table_of_which_tensorflow_shows_a_part_is_refused(tf, tmp_path):
    """A shared prefix that is longer than the key before it: the iterator of TensorFlow stops."""
    bad = forge.item(9, b"w", forge.record())
    content = forge.one_block(forge.item(0, b"a", forge.record()), bad)
    path = forge.write(tmp_path, content, forge.PAYLOAD)
    assert tf.train.list_variables(path) == [("a", [2, 3])]
    with pytest.raises(tf.errors.DataLossError):
        train.list_variables(path)
