"""TensorFlow's first format: what TensorFlow writes is read, and reads the same as a bundle."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

import ckptkit
from ckptkit.cli import main
from tests.compat.tensors import TEXTS, restore, tensor, texts, values_of, write_first
from tests.golden.handmade import CODES, random_array, same
from tests.oracle import first

pytestmark = pytest.mark.tensorflow

SHAPES = ((), (3,), (4, 6), (0, 3), (2, 1, 5))
ASSEMBLED = sorted(set(first.DTYPES) - {"float16", "uint16", "string"})
"""What TensorFlow joins the slices of when it reads a bundle."""


def some(dtype, shape, seed=0):
    if dtype == "string":
        count = int(np.prod(shape))
        return texts(*(TEXTS[at % len(TEXTS)] for at in range(count))).reshape(shape)
    return random_array(dtype, shape, seed)


def everything():
    return {
        f"{dtype}/{at}": (dtype, some(dtype, shape, at))
        for dtype in first.DTYPES
        for at, shape in enumerate(SHAPES)
    }


def save(tf, path, tensors):
    made = {name: tensor(tf, values, dtype) for name, (dtype, values) in tensors.items()}
    return write_first(tf, path, made)


def restored(tf, path, name, dtype, spec=""):
    """Read a tensor, or a slice of one, as TensorFlow reads this format."""
    found = tf.raw_ops.RestoreSlice(
        file_pattern=str(path), tensor_name=name, shape_and_slice=spec, dt=tf.as_dtype(dtype)
    )
    return values_of(found)


def test_every_dtype(tf, tmp_path):
    tensors = everything()
    path = save(tf, tmp_path / "m", tensors)
    with ckptkit.open(path) as found:
        assert found.format == "tensorflow-v1"
        assert list(found) == sorted(tensors)
        for name, (dtype, values) in tensors.items():
            assert found[name].dtype == dtype
            assert same(found[name].read(), values), name
        assert found.verify().ok
    ckptkit.convert(path, tmp_path / "new")
    for name, (dtype, values) in tensors.items():
        assert same(restore(tf, tmp_path / "new", name, dtype), values), name
    assert ckptkit.diff(path, tmp_path / "new", values=True) == ()
    with ckptkit.open(tmp_path / "new") as made:
        assert made.format == "tensorflow"
        assert made.verify().ok


def test_the_twin_writes_what_tensorflow_writes(tf, tmp_path):
    tensors = everything()
    path = save(tf, tmp_path / "m", tensors)
    twin = first.encode(
        {name.encode(): first.whole(dtype, values) for name, (dtype, values) in tensors.items()}
    )
    with open(path, "rb") as file:
        assert file.read() == twin


@pytest.mark.parametrize("dtype", first.DTYPES)
def test_slices_are_joined(tf, tmp_path, dtype):
    values = some(dtype, (5, 7))
    specs = ["5 7 0,2:-", "5 7 2,3:0,3", "5 7 2,3:3,4"]
    parts = [values[:2], values[2:, :3], values[2:, 3:]]
    path = tmp_path / "m"
    tf.raw_ops.SaveSlices(
        filename=str(path),
        tensor_names=["w"] * 3,
        shapes_and_slices=specs,
        data=[tensor(tf, part, dtype) for part in parts],
    )
    with ckptkit.open(path) as found:
        assert same(found["w"].read(), values)
        assert same(found["w"][1:4, 2:5], values[1:4, 2:5])
        assert found.verify().ok
        report = found.edit().plan(tmp_path / "new")
        assert bool(report.notes) == (dtype not in ASSEMBLED)
        report.run()
    assert same(restore(tf, tmp_path / "new", "w", dtype), values)
    with ckptkit.open(tmp_path / "new") as made:
        assert same(made["w"].read(), values)
        assert len(made["w"].tensor.boxes) == (3 if dtype in ASSEMBLED else 1)
    assert same(restored(tf, path, "w", dtype), values)


def saver_v1(tf, **options):
    one = tf.compat.v1.train
    return one.Saver(write_version=one.SaverDef.V1, **options)


@pytest.fixture
def graph(tf):
    """A graph of its own, with partitioned variables, and a session."""
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        for name, cut in (
            ("fixed", v1.fixed_size_partitioner(3)),
            ("variable", v1.variable_axis_size_partitioner(64, axis=1)),
        ):
            v1.get_variable(
                name, (7, 8), initializer=v1.random_normal_initializer(), partitioner=cut
            )
        v1.get_variable("step", initializer=np.int64(-7))
        v1.get_variable("flags", initializer=np.array([True, False]))
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            yield session


def variables(tf, session):
    found = {}
    for variable in tf.compat.v1.global_variables():
        name = variable.op.name.split("/part_")[0]
        found.setdefault(name, []).append(session.run(variable))
    axes = {"fixed": 0, "variable": 1}
    return {
        name: np.concatenate(parts, axes[name]) if name in axes else parts[0]
        for name, parts in found.items()
    }


@pytest.mark.parametrize("sharded", [False, True])
def test_partitioned_variables_of_a_saver(tf, graph, tmp_path, sharded):
    path = saver_v1(tf, sharded=sharded).save(graph, str(tmp_path / "m"), global_step=3)
    expected = variables(tf, graph)
    # As a path, as its prefix, as the folder that has a state file; and what is beside is ignored.
    assert (tmp_path / "m-3.meta").exists() or sharded
    for given in (path, tmp_path / "m-3", tmp_path):
        with ckptkit.open(given) as found:
            assert set(found) == set(expected)
            for name, values in expected.items():
                assert same(found[name].read(), values), name
            assert found.verify().ok
    ckptkit.convert(path, tmp_path / "new")
    reader = tf.train.load_checkpoint(str(tmp_path / "new"))
    for name, values in expected.items():
        assert same(reader.get_tensor(name), values), name


def test_a_bundle_of_it_restores_the_same_graph(tf, graph, tmp_path):
    path = saver_v1(tf).save(graph, str(tmp_path / "m"))
    expected = variables(tf, graph)
    ckptkit.convert(path, tmp_path / "new")
    for variable in tf.compat.v1.global_variables():
        graph.run(variable.initializer)
    tf.compat.v1.train.Saver().restore(graph, str(tmp_path / "new"))
    for name, values in variables(tf, graph).items():
        assert same(values, expected[name]), name


def test_slices_in_several_shards(tf, tmp_path):
    values = np.arange(60, dtype=np.float32).reshape(10, 6)
    ids = np.arange(10) - 5
    for shard, rows in enumerate((slice(0, 3), slice(3, 8), slice(8, 10))):
        spec = f"10 6 {rows.start},{rows.stop - rows.start}:-"
        also = f"10 {rows.start},{rows.stop - rows.start}"
        tf.raw_ops.SaveSlices(
            filename=f"{tmp_path}/m-{shard:05d}-of-00003",
            tensor_names=["w", "ids", f"only/{shard}"],
            shapes_and_slices=[spec, also, ""],
            data=[tf.constant(values[rows]), tf.constant(ids[rows]), tf.constant(shard)],
        )
    pattern = f"{tmp_path}/m-?????-of-00003"
    for given in (pattern, f"{tmp_path}/m", f"{tmp_path}/m-00001-of-00003"):
        with ckptkit.open(given) as found:
            assert str(found.source) == pattern
            assert same(found["w"].read(), values)
            assert same(found["ids"].read(), ids)
            assert [found[f"only/{shard}"].read() for shard in range(3)] == [0, 1, 2]
            assert found.verify().ok
    assert same(restored(tf, pattern, "w", "float32"), values)
    ckptkit.convert(pattern, tmp_path / "new")
    for name, expected in (("w", values), ("ids", ids)):
        assert same(restore(tf, tmp_path / "new", name, expected.dtype.name), expected)


def test_edits_give_a_bundle(tf, tmp_path):
    tensors = {
        "w": ("float32", some("float32", (4, 6), 1)),
        "half": ("float16", np.linspace(-1, 1, 24, dtype=np.float16).reshape(4, 6)),
        "ids": ("int32", np.arange(24, dtype=np.int32).reshape(4, 6) - 12),
        "text": ("string", TEXTS),
    }
    path = save(tf, tmp_path / "m", tensors)
    edits = ["w *= 2", "half[1] = 0", "ids[:, 2] += 1000", "rename ^text$ -> words"]
    command = ["edit", path, str(tmp_path / "new"), "--quiet"]
    assert main([*command, *(word for edit in edits for word in ("-e", edit))]) == 0
    half, ids = tensors["half"][1].copy(), tensors["ids"][1].copy()
    half[1], ids[:, 2] = 0, ids[:, 2] + 1000
    for name, expected in (
        ("w", tensors["w"][1] * 2),
        ("half", half),
        ("ids", ids),
        ("words", TEXTS),
    ):
        dtype = "string" if name == "words" else expected.dtype.name
        assert same(restore(tf, tmp_path / "new", name, dtype), expected), name
    assert ckptkit.open(tmp_path / "new").verify().ok


def test_a_checkpoint_of_large_and_small_blocks(tf, tmp_path):
    tensors = {
        "a/large": ("float32", some("float32", (700, 1000), 1)),
        "b/large ids": ("int64", np.arange(400_000, dtype=np.int64) * 7919 - 10**9),
        "c/large text": ("string", texts(b"x" * 1_500_000, b"", b"y" * 700_000)),
        "d/large flags": ("bool", np.arange(1_300_000) % 3 == 0),
        "e/large half": ("float16", some("float16", (900, 800), 3)),
        **{f"s/{at}": ("float64", some("float64", (500,), at)) for at in range(300)},
    }
    path = save(tf, tmp_path / "m", tensors)
    with ckptkit.open(path) as found:
        for name, (_, values) in tensors.items():
            assert same(found[name].read(), values), name
        assert same(found["b/large ids"][1000:399_000:3], tensors["b/large ids"][1][1000:399_000:3])
        verdict = found.verify()
        assert verdict.ok
        assert verdict.checked_bytes > 0.9 * os.path.getsize(path)
    ckptkit.convert(path, tmp_path / "new")
    for name, (dtype, values) in tensors.items():
        assert same(restore(tf, tmp_path / "new", name, dtype), values), name
    assert ckptkit.open(tmp_path / "new").verify().ok


def test_old_tools_read_what_we_read(tf, tmp_path):
    names = {"w": ("float32", some("float32", (3, 4))), "n": ("int64", some("int64", (5,)))}
    path = save(tf, tmp_path / "m", names)
    reader = tf.train.load_checkpoint(path)
    with ckptkit.open(path) as found:
        for name in names:
            assert same(found[name].read(), reader.get_tensor(name))
        assert {n: list(s) for n, s in found.shapes().items()} == reader.get_variable_to_shape_map()


def test_dtypes_that_it_cannot_hold_are_named(tf, tmp_path):
    with pytest.raises((tf.errors.UnimplementedError, tf.errors.InvalidArgumentError)):
        save(tf, tmp_path / "m", {"w": ("bfloat16", some("bfloat16", (2,)))})
    assert set(first.DTYPES) < set(CODES)


def test_a_moved_checkpoint_is_found_by_its_folder(tf, graph, tmp_path):
    (tmp_path / "old").mkdir()
    saver_v1(tf, sharded=True).save(graph, str(tmp_path / "old" / "m"), write_meta_graph=False)
    text = (tmp_path / "old" / "checkpoint").read_text()
    shutil.move(tmp_path / "old", tmp_path / "new")
    with pytest.raises(ckptkit.CorruptError, match="outside its folder"):
        ckptkit.open(tmp_path / "new")
    (tmp_path / "new" / "checkpoint").write_text(text.replace(f"{tmp_path}/old/", ""))
    assert "fixed" in ckptkit.open(tmp_path / "new")
