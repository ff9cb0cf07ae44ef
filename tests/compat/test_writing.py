"""We write, TensorFlow reads: equal values, by each of its ways of reading."""

from __future__ import annotations

import numpy as np
import pytest

import ckptkit
from ckptkit import Layout
from tests.compat.tensors import (
    TEXTS,
    every_dtype,
    restore,
    tensor,
    texts,
    values_of,
    write,
)
from tests.golden.handmade import as_bytes, random_array, same

pytestmark = pytest.mark.tensorflow

EVERY = every_dtype()
PLAIN = {name: pair for name, pair in EVERY.items() if not pair[0].startswith("q")}
KEY = "/.ATTRIBUTES/VARIABLE_VALUE"


LAYOUTS = {
    "one": Layout(),
    "three": Layout(shards=3),
    "small": Layout(max_shard_bytes=40),
    "rules": Layout(rules=("string/*", "float*/*")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_restore_gives_every_dtype_in_every_shape(tf, tmp_path, layout):
    values = {name: array for name, (_, array) in PLAIN.items()}
    ckptkit.save(tmp_path / "m", values, layout=LAYOUTS[layout])
    found = tf.raw_ops.RestoreV2(
        prefix=str(tmp_path / "m"),
        tensor_names=list(PLAIN),
        shape_and_slices=[""] * len(PLAIN),
        dtypes=[tf.as_dtype(dtype) for dtype, _ in PLAIN.values()],
    )
    for name, back in zip(PLAIN, found, strict=True):
        assert same(values_of(back), values[name]), name


def test_the_reader_lists_and_gives_what_was_saved(tf, tmp_path):
    values = {name: array for name, (_, array) in PLAIN.items()}
    ckptkit.save(tmp_path / "m", values)
    reader = tf.train.load_checkpoint(str(tmp_path / "m"))
    assert reader.get_variable_to_shape_map() == {
        name: list(array.shape) for name, array in values.items()
    }
    dtypes = reader.get_variable_to_dtype_map()
    assert {name: dtypes[name].name for name in values} == {
        name: dtype for name, (dtype, _) in PLAIN.items()
    }
    for name in ("float32/2x3", "int64/scalar", "bfloat16/3", "bool/1x1x1x5", "complex128/2x3"):
        assert same(np.asarray(reader.get_tensor(name)), values[name])
    assert reader.get_tensor("string/texts").tolist() == list(TEXTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies_of_all_dtypes_restore(tf, tmp_path, layout):
    write(tf, tmp_path / "m", {n: tensor(tf, array, dtype) for n, (dtype, array) in EVERY.items()})
    with ckptkit.open(tmp_path / "m") as found:
        found.edit("rename ^ -> new/").plan(tmp_path / "n", layout=_under("new/", layout)).run()
    for name, (dtype, array) in EVERY.items():
        assert same(restore(tf, tmp_path / "n", f"new/{name}", dtype), array), name


def _under(prefix, layout):
    chosen = LAYOUTS[layout]
    return Layout(rules=tuple(prefix + rule for rule in chosen.rules)) if chosen.rules else chosen


class Net:
    """A module of two layers, made anew for every restore."""

    def __new__(cls, tf, seed):
        generator = tf.random.Generator.from_seed(seed)
        root, dense, conv = tf.Module(), tf.Module(), tf.Module()
        dense.kernel = tf.Variable(generator.normal((4, 3)))
        dense.bias = tf.Variable(generator.normal((3,)))
        conv.kernel = tf.Variable(generator.normal((2, 2, 1, 4)))
        root.dense, root.conv, root.step = dense, conv, tf.Variable(7, dtype=tf.int64)
        root.name_of_it = tf.Variable("text", dtype=tf.string)
        return root


def test_the_three_jobs_restore_into_objects(tf, tmp_path):
    net = Net(tf, 1)
    prefix = tf.train.Checkpoint(net=net).save(str(tmp_path / "m"))
    with ckptkit.open(prefix) as found:
        found.edit(
            f"net/dense/*{KEY} *= 0.5",
            f"net/conv/kernel{KEY} += 0.01",
            f"net/dense/kernel{KEY}[:, 1] *= 1.5",
            f"net/dense/bias{KEY}[1] *= 1.5",
        ).plan(tmp_path / "n").run(device="numpy")
    other = Net(tf, 2)
    status = tf.train.Checkpoint(net=other).restore(str(tmp_path / "n"))
    status.assert_existing_objects_matched().assert_consumed()
    kernel, bias = net.dense.kernel.numpy() / 2, net.dense.bias.numpy() / 2
    kernel[:, 1] *= np.float32(1.5)
    bias[1] *= np.float32(1.5)
    assert same(other.dense.kernel.numpy(), kernel)
    assert same(other.dense.bias.numpy(), bias)
    assert same(other.conv.kernel.numpy(), net.conv.kernel.numpy() + np.float32(0.01))
    assert other.step.numpy() == 7
    assert other.name_of_it.numpy() == b"text"


@pytest.mark.parametrize("layout", [Layout(shards=4), Layout(max_shard_bytes=16)])
def test_a_checkpoint_in_other_shards_restores_into_objects(tf, tmp_path, layout):
    net, other = Net(tf, 1), Net(tf, 2)
    prefix = tf.train.Checkpoint(net=net).save(str(tmp_path / "m"))
    with ckptkit.open(prefix) as found:
        found.edit().plan(tmp_path / "n", layout=layout).run()
    status = tf.train.Checkpoint(net=other).restore(str(tmp_path / "n"))
    status.assert_existing_objects_matched().assert_consumed()
    for ours, theirs in zip(net.variables, other.variables, strict=True):
        assert as_bytes(np.asarray(ours.numpy())) == as_bytes(np.asarray(theirs.numpy()))


@pytest.mark.parametrize("edit", ["w *= 2", "w[2, 1:] = 0", "cast w -> float64", "rename w -> v"])
@pytest.mark.parametrize("axis", [0, 1])
def test_edited_partitioned_tensors_restore_whole_and_in_slices(tf, tmp_path, edit, axis):
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    for part, low in enumerate((0, 2)):
        length = (2, 2) if part == 0 else (2, 2 + 2 * axis)
        spec = f"{low},{length[1]}"
        spec = f"4 6 -:{spec}" if axis else f"4 6 {spec}:-"
        index = (slice(None),) * axis + (slice(low, low + length[1]),)
        write(tf, tmp_path / f"p{part}", {"w": tf.constant(values[index])}, [spec])
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(tmp_path / "p0"), str(tmp_path / "p1")],
        destination_prefix=str(tmp_path / "m"), delete_old_dirs=False,
    )  # fmt: skip
    with ckptkit.open(tmp_path / "m") as found:
        assert same(found["w"].read(), values)
        found.edit(edit).plan(tmp_path / "n").run(device="numpy")
    with ckptkit.open(tmp_path / "n") as found:
        (name,) = found
        expected, dtype = found[name].read(), found[name].dtype
        assert len(found.catalog[name].boxes) == 2
    assert same(restore(tf, tmp_path / "n", name, dtype), expected)
    assert same(restore(tf, tmp_path / "n", name, dtype, "4 6 1,2:1,4"), expected[1:3, 1:5])


def test_put_replaces_slices_and_other_shapes(tf, tmp_path):
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    tensors = {"w": tf.constant(values[:2]), "v": tf.constant(values[2:])}
    write(tf, tmp_path / "p0", tensors, ["4 6 0,2:-", "4 6 2,2:-"])
    write(tf, tmp_path / "p1", {"w": tensors["v"], "v": tensors["w"]}, ["4 6 2,2:-", "4 6 0,2:-"])
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(tmp_path / "p0"), str(tmp_path / "p1")],
        destination_prefix=str(tmp_path / "m"), delete_old_dirs=False,
    )  # fmt: skip
    new, other = values[::-1].copy(), np.arange(3.0)
    with ckptkit.open(tmp_path / "m") as found:
        draft = found.edit(ckptkit.Put("w", new), ckptkit.Put("v", other))
        draft.plan(tmp_path / "n").run(device="numpy")
    assert same(restore(tf, tmp_path / "n", "w", "float32"), new)
    assert same(restore(tf, tmp_path / "n", "v", "float64"), other)


def test_put_replaces_a_text_in_slices(tf, tmp_path):
    for part in range(2):
        piece = tf.constant([f"old{part}", ""])
        write(tf, tmp_path / f"p{part}", {"s": piece}, [f"4 {2 * part},2"])
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(tmp_path / "p0"), str(tmp_path / "p1")],
        destination_prefix=str(tmp_path / "m"), delete_old_dirs=False,
    )  # fmt: skip
    new = texts(b"a", b"bc", b"", b"d\0")
    with ckptkit.open(tmp_path / "m") as found:
        found.edit(ckptkit.Put("s", new)).plan(tmp_path / "n").run(device="numpy")
    with ckptkit.open(tmp_path / "n") as found:
        assert same(found["s"].read(), new)


def test_text_of_any_kind_is_saved(tf, tmp_path):
    values = {
        "one": "text",
        "bytes": b"a\0b\0",
        "list": ["a", "béé", ""],
        "numpy": np.array(["x", "yy"]),
        "objects": texts(b"\0", b"\xff"),
        "none": texts(),
    }
    ckptkit.save(tmp_path / "m", values)
    assert restore(tf, tmp_path / "m", "one", "string").item() == b"text"
    assert restore(tf, tmp_path / "m", "bytes", "string").item() == b"a\0b\0"
    lists = restore(tf, tmp_path / "m", "list", "string").tolist()
    assert lists == [b"a", "béé".encode(), b""]
    assert restore(tf, tmp_path / "m", "numpy", "string").tolist() == [b"x", b"yy"]
    assert restore(tf, tmp_path / "m", "objects", "string").tolist() == [b"\0", b"\xff"]
    assert restore(tf, tmp_path / "m", "none", "string").shape == (0,)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32", "uint8"])
def test_casts_restore_as_tensorflow_casts(tf, tmp_path, dtype):
    values = (random_array("uint8", (5, 4), 3) / 7).astype(np.float32)
    write(tf, tmp_path / "m", {"w": tf.constant(values), "b": tf.constant([1])})
    with ckptkit.open(tmp_path / "m") as found:
        found.edit(f"cast w -> {dtype}").plan(tmp_path / "n").run(device="numpy")
    expected = tf.cast(values, dtype).numpy()
    assert same(restore(tf, tmp_path / "n", "w", dtype), expected)
