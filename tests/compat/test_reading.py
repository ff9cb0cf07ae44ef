"""TensorFlow writes, we read: equal values, whatever it wrote and however it cut it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import ckptkit
from tests.compat.tensors import TEXTS, every_dtype, restore, tensor, texts, write
from tests.golden.handmade import Bundle, grid, numpy_dtype, random_array, same
from tests.oracle import snappy

pytestmark = pytest.mark.tensorflow

EVERY = every_dtype()


@pytest.fixture(scope="module")
def every(tf, tmp_path_factory):
    """A checkpoint of every dtype in every shape, by TensorFlow."""
    prefix = tmp_path_factory.mktemp("every") / "m"
    write(tf, prefix, {name: tensor(tf, values, dtype) for name, (dtype, values) in EVERY.items()})
    with ckptkit.open(prefix) as found:
        yield found


@pytest.mark.parametrize("name", EVERY)
def test_every_dtype_in_every_shape(every, name):
    dtype, values = EVERY[name]
    assert (every[name].dtype, every[name].shape) == (dtype, values.shape)
    assert same(every[name].read(), values)
    assert every[name].read().dtype == (object if dtype == "string" else numpy_dtype(dtype))


def test_all_names_are_there_in_the_order_of_the_index(every):
    assert list(every) == sorted(EVERY)


def test_a_variant_is_read_as_messages(tf, tmp_path):
    lists = tf.stack([
        tf.raw_ops.TensorListFromTensor(
            tensor=tf.constant([1.0, 2.0]) * n, element_shape=tf.constant([], tf.int32)
        )
        for n in (1, 2)
    ])  # fmt: skip
    prefix = write(tf, tmp_path / "m", {"v": lists, "w": tf.constant(1)})
    with ckptkit.open(prefix) as found:
        assert (found["v"].dtype, found["v"].shape) == ("variant", (2,))
        values = found["v"].read()
        assert all(b"tensorflow::TensorList" in message for message in values)
        found.edit("w = 2").plan(tmp_path / "n").run()
    for at in range(2):
        back = tf.raw_ops.RestoreV2(
            prefix=str(tmp_path / "n"), tensor_names=["v"], shape_and_slices=[""],
            dtypes=[tf.variant],
        )[0]  # fmt: skip
        stacked = tf.raw_ops.TensorListStack(
            input_handle=back[at], element_shape=tf.constant([], tf.int32),
            element_dtype=tf.float32, num_elements=2,
        )  # fmt: skip
        assert stacked.numpy().tolist() == [1.0 * (at + 1), 2.0 * (at + 1)]


def test_any_binary_key(tf, tmp_path):
    keys = [b"\0", b"\xff\xfe", b"a\0b", "é".encode(), b"\n", b"a/b/c", b"a", b"\x00f\x00\x01"]
    write(tf, tmp_path / "m", {key: tf.constant(n) for n, key in enumerate(keys)})
    with ckptkit.open(tmp_path / "m") as found:
        assert list(found) == [k.decode("utf-8", "surrogateescape") for k in sorted(keys)]
        for number, key in enumerate(keys):
            assert found[os.fsdecode(key)].read() == number


def test_several_shards_of_merged_bundles(tf, tmp_path):
    parts, values = [], {}
    for part in range(3):
        here = {f"{part}/{n}": np.arange(n + part, dtype=np.float32) for n in range(4)}
        values.update(here)
        parts.append(write(tf, tmp_path / f"part{part}", here))
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=parts, destination_prefix=str(tmp_path / "m"), delete_old_dirs=False
    )
    with ckptkit.open(tmp_path / "m") as found:
        assert found.catalog.columns.shards == 3
        for name, expected in values.items():
            assert same(found[name].read(), expected)


def test_slices_that_come_from_several_bundles(tf, tmp_path):
    """After a merge the record of the whole tensor has a shard number that means nothing."""
    whole = np.arange(50, dtype=np.float32).reshape(5, 10)
    parts = []
    for part, (low, high) in enumerate([(0, 1), (1, 4), (4, 10)]):
        spec = f"5 10 -:{low},{high - low}"
        tensors = {"foo": tf.constant(whole[:, low:high]), f"{part}": tf.constant(part)}
        parts.append(write(tf, tmp_path / f"part{part}", tensors, [spec, ""]))
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=parts, destination_prefix=str(tmp_path / "m"), delete_old_dirs=False
    )
    with ckptkit.open(tmp_path / "m") as found:
        assert list(found) == ["0", "1", "2", "foo"]
        assert same(found["foo"].read(), whole)
        assert same(found["foo"][1:4, ::3], whole[1:4, ::3])
        found.edit("foo[2] = 0", "rename foo -> bar").plan(tmp_path / "n").run(device="numpy")
    expected = whole.copy()
    expected[2] = 0
    assert same(restore(tf, tmp_path / "n", "bar", "float32"), expected)
    assert same(restore(tf, tmp_path / "n", "bar", "float32", "5 10 -:0,6"), expected[:, :6])


SLICED = ("float32", "bfloat16", "float16", "uint16", "uint32", "uint64", "float8_e5m2", "int4")


@pytest.mark.parametrize("dtype", [*SLICED, "string", "bool", "complex64", "qint16"])
def test_partitioned_tensors_of_any_dtype(tf, tmp_path, dtype):
    """TensorFlow writes slices of all dtypes, and joins those of some."""
    values = TEXTS[:6].reshape(3, 2) if dtype == "string" else random_array(dtype, (3, 2), 1)
    for key, (low, size) in enumerate([(0, 1), (1, 2)]):
        part = tensor(tf, values[low : low + size], dtype)
        write(tf, tmp_path / f"part{key}", {"w": part}, [f"3 2 {low},{size}:-"])
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(tmp_path / "part0"), str(tmp_path / "part1")],
        destination_prefix=str(tmp_path / "m"),
        delete_old_dirs=False,
    )
    with ckptkit.open(tmp_path / "m") as found:
        assert list(found) == ["w"]
        assert same(found["w"].read(), values)
        assert same(found["w"][1:, :1], values[1:, :1])


def test_slices_that_are_the_whole_are_plain_tensors(tf, tmp_path):
    values = tf.reshape(tf.range(50), (5, 10))
    for spec in ("5 10 -:-", "5 10 0,5:0,10", "5 10 0,5:-"):
        prefix = write(tf, tmp_path / spec.replace(" ", "_"), {"w": values}, [spec])
        with ckptkit.open(prefix) as found:
            assert same(found["w"].read(), values.numpy())


def test_partitioned_variables_of_version_1(tf, tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        variable = v1.get_variable(
            "part", (12, 5), initializer=v1.random_uniform_initializer(seed=1),
            partitioner=v1.fixed_size_partitioner(3, axis=0), use_resource=True,
        )  # fmt: skip
        v1.get_variable("plain", initializer=np.float32(7), use_resource=True)
        session.run(v1.global_variables_initializer())
        whole = session.run(tf.convert_to_tensor(variable))
        prefix = v1.train.Saver().save(session, str(tmp_path / "m"), global_step=5)
    with ckptkit.open(prefix) as found:
        assert list(found) == ["part", "plain"]
        assert same(found["part"].read(), whole)
        assert same(found["part"][3:6, 1], whole[3:6, 1])
    assert ckptkit.open(tmp_path).path == prefix


def _checkpoint(tf, path, values, limit):
    options = tf.train.CheckpointOptions(
        experimental_sharding_callback=tf.train.experimental.MaxShardSizePolicy(limit)
    )
    held = {name: tf.Variable(tensor(tf, array, dtype)) for name, (dtype, array) in values.items()}
    holder = tf.train.Checkpoint(**held)
    return holder.write(str(path), options=options)


@pytest.mark.parametrize("limit", [24, 40, 64, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint16", "int64", "string"])
def test_shards_of_a_largest_size(tf, tmp_path, dtype, limit):
    """TensorFlow cuts tensors to fit, also of dtypes that it then cannot join again."""
    text = np.array([b"abcd", b"", b"e\0f", b"g"] * 3, object)
    array = text if dtype == "string" else random_array(dtype, (4, 3), 9)
    values = {"a": (dtype, array), "b": ("float32", np.arange(5, dtype=np.float32))}
    prefix = _checkpoint(tf, tmp_path / "m", values, limit)
    with ckptkit.open(prefix) as found:
        for name, (_, expected) in values.items():
            assert same(found[f"{name}/.ATTRIBUTES/VARIABLE_VALUE"].read(), expected)
        plan = found.edit().plan(tmp_path / "n", layout=ckptkit.Layout(shards=1))
        plan.run()
    with ckptkit.open(tmp_path / "n") as found:
        for name, (_, expected) in values.items():
            assert same(found[f"{name}/.ATTRIBUTES/VARIABLE_VALUE"].read(), expected)


@pytest.mark.parametrize("dtype", ["float16", "uint16", "string"])
def test_what_tensorflow_cannot_join_can_be_put_together_again(tf, tmp_path, dtype):
    text = np.array([b"abcd", b"", b"e\0f", b"g"] * 3, object)
    array = text if dtype == "string" else random_array(dtype, (4, 3), 9)
    prefix = _checkpoint(tf, tmp_path / "m", {"a": (dtype, array)}, 10)
    key = "a/.ATTRIBUTES/VARIABLE_VALUE"
    with pytest.raises(Exception, match=r"not supported"):
        restore(tf, prefix, key, dtype)
    with ckptkit.open(prefix) as found:
        values = {name: found[name].read() for name in found}
        ckptkit.save(tmp_path / "n", values)
    assert same(restore(tf, tmp_path / "n", key, dtype), array)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "complex64", "uint8", "bool"])
@pytest.mark.parametrize("sliced", [False, True])
def test_bundles_of_big_endian_machines(tf, tmp_path, dtype, sliced):
    values, bundle = random_array(dtype, (4, 3), 2), Bundle(big_endian=True)
    if sliced:
        bundle.add_slices(b"w", values, grid((4, 3), [[1], [2]]))
    else:
        bundle.add(b"w", values)
    prefix = bundle.write(tmp_path / "m")
    with ckptkit.open(prefix) as found:
        assert same(found["w"].read(), values)
        assert same(found["w"][1:, 1], values[1:, 1])
    if not (sliced and dtype == "float16"):
        assert same(restore(tf, prefix, "w", dtype), values)


def test_strings_of_big_endian_machines(tf, tmp_path):
    bundle = Bundle(big_endian=True)
    bundle.add(b"s", TEXTS)
    prefix = bundle.write(tmp_path / "m")
    assert same(restore(tf, prefix, "s", "string"), TEXTS)
    with ckptkit.open(prefix) as found:
        assert same(found["s"].read(), TEXTS)
        new = texts(b"put", b"")
        found.edit(ckptkit.Put("t", new), ckptkit.Put("n", np.arange(3.0))).plan(
            tmp_path / "n"
        ).run(device="numpy")
    assert same(restore(tf, tmp_path / "n", "s", "string"), TEXTS)
    assert same(restore(tf, tmp_path / "n", "t", "string"), new)
    assert same(restore(tf, tmp_path / "n", "n", "float64"), np.arange(3.0))


@pytest.mark.parametrize("compress", [snappy.compress_literal, snappy.compress_runs])
def test_compressed_indexes(tf, tmp_path, compress):
    bundle = Bundle()
    values = {f"layer/{n:04d}": np.full(2, n, np.int32) for n in range(300)}
    for name, array in values.items():
        bundle.add(name.encode(), array)
    prefix = bundle.write(tmp_path / "m", compress=compress)
    assert same(restore(tf, prefix, "layer/0123", "int32"), values["layer/0123"])
    with ckptkit.open(prefix) as found:
        assert list(found) == list(values)
        assert all(same(found[name].read(), array) for name, array in values.items())


def test_a_checkpoint_folder_stands_for_its_latest(tf, tmp_path):
    variable = tf.Variable(0.0)
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(x=variable), str(tmp_path), 2)
    for step in range(4):
        variable.assign(step)
        manager.save()
    with ckptkit.open(tmp_path) as found:
        assert found.path == manager.latest_checkpoint
        assert found["x/.ATTRIBUTES/VARIABLE_VALUE"].read() == 3.0
        assert found["save_counter/.ATTRIBUTES/VARIABLE_VALUE"].read() == 4
        assert found["_CHECKPOINTABLE_OBJECT_GRAPH"].read().item()[:1] == b"\n"
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    assert ckptkit.open(moved)["x/.ATTRIBUTES/VARIABLE_VALUE"].read() == 3.0
    moved.rename(tmp_path)


@pytest.mark.parametrize("name", ["plain", "new\nline", 'quo"te', "tab\t", "back\\slash", "é世"])
def test_state_files_with_names_that_need_escapes(tf, tmp_path, name):
    prefix = tf.train.Checkpoint(x=tf.Variable(1.0)).write(str(tmp_path / name))
    tf.compat.v1.train.update_checkpoint_state(str(tmp_path), name)
    assert ckptkit.open(tmp_path).path == prefix


def test_any_member_file_stands_for_the_checkpoint(tf, tmp_path):
    prefix = write(tf, tmp_path / "m", {"x": tf.constant(1)})
    for member in sorted(os.listdir(tmp_path)):
        assert ckptkit.open(tmp_path / member).path == prefix


def test_bytes_that_no_record_names_are_left_out_of_copies(tf, tmp_path):
    prefix = write(tf, tmp_path / "m", {"x": tf.constant([1.0, 2.0])})
    with open(f"{prefix}.data-00000-of-00001", "ab") as file:
        file.write(b"garbage")
    with ckptkit.open(prefix) as found:
        assert found["x"].read().tolist() == [1.0, 2.0]
        found.edit().plan(tmp_path / "n").run()
    assert Path(tmp_path, "n.data-00000-of-00001").stat().st_size == 8


def test_true_is_any_byte_but_zero(tf, tmp_path):
    bundle = Bundle()
    bundle.add(b"b", np.array([0, 1, 7, 255], np.uint8), "bool")
    prefix = bundle.write(tmp_path / "m")
    expected = [False, True, True, True]
    assert restore(tf, prefix, "b", "bool").astype(bool).tolist() == expected
    with ckptkit.open(prefix) as found:
        assert found["b"].read().tolist() == expected


def test_the_upper_bits_of_narrow_integers_mean_nothing(tf, tmp_path):
    bundle = Bundle()
    bundle.add(b"i", np.array([0xFF, 0x17, 0xA8], np.uint8), "int4")
    bundle.add(b"u", np.array([0xFF, 0x17, 0xA8], np.uint8), "uint4")
    prefix = bundle.write(tmp_path / "m")
    with ckptkit.open(prefix) as found:
        for name, dtype in (("i", "int4"), ("u", "uint4")):
            theirs = restore(tf, prefix, name, dtype).astype(int).tolist()
            assert found[name].read().astype(int).tolist() == theirs
