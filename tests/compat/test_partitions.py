"""Partitioned tensors by TensorFlow's own means: read, edited, cut anew, joined, restored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptkit
from ckptkit.engine.check import verify_path
from ckptkit.model import TensorSpec
from ckptkit.partition import JOINED, equal_parts
from tests.compat.tensors import restore, tensor, texts, write
from tests.golden.handmade import NUMBERS, Bundle, random_array, same
from tests.property.strategies import SEEDS, tilings

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("unsynced")]

KEY = "/.ATTRIBUTES/VARIABLE_VALUE"
EVERY = (*NUMBERS, "string")


def values_of(dtype, shape, seed=5):
    if dtype != "string":
        return random_array(dtype, shape, seed)
    count = int(np.prod(shape))
    return texts(*(b"x" * n + bytes([n]) for n in range(count))).reshape(shape)


def part_of(values, spec):
    """Return what a slice in TensorFlow's notation stands for."""
    items = spec.split()[-1].split(":")
    starts = [None if item == "-" else [*map(int, item.split(","))] for item in items]
    return values[tuple(slice(None) if s is None else slice(s[0], sum(s)) for s in starts)]


def partitioned(tf, folder, dtype, values, specs):
    """Write a tensor in slices by TensorFlow, one bundle for each, merged."""
    parts = [
        write(tf, folder / f"part{at}", {"w": tensor(tf, part_of(values, spec), dtype)}, [spec])
        for at, spec in enumerate(specs)
    ]
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=parts, destination_prefix=str(folder / "m"), delete_old_dirs=False
    )
    return str(folder / "m")


@pytest.mark.parametrize("dtype", EVERY)
def test_tensorflow_joins_what_we_say_it_joins(tf, tmp_path, dtype):
    values = values_of(dtype, (4, 6))
    specs = ["4 6 0,1:-", "4 6 1,3:0,2", "4 6 1,3:2,4"]
    prefix = partitioned(tf, tmp_path, dtype, values, specs)
    for spec in specs:
        assert same(restore(tf, prefix, "w", dtype, spec), part_of(values, spec))
    found = verify_path(prefix).problems
    if dtype in JOINED:
        assert same(restore(tf, prefix, "w", dtype), values)
        assert found == ()
        return
    with pytest.raises(tf.errors.InvalidArgumentError, match="not supported"):
        restore(tf, prefix, "w", dtype)
    (problem,) = found
    assert (problem.tensor, problem.severity) == ("w", "warning")
    assert problem.message.endswith("this repairs it: repartition w -> whole")


@pytest.mark.parametrize("how", ["copy", "link", "append"])
@pytest.mark.parametrize("dtype", EVERY)
def test_joined_again_every_dtype_is_restored(tf, tmp_path, dtype, how):
    values = values_of(dtype, (4, 6))
    specs = ["4 6 0,1:-", "4 6 1,3:0,2", "4 6 1,3:2,4"]
    prefix = partitioned(tf, tmp_path, dtype, values, specs)
    target = None if how == "append" else str(tmp_path / "n")
    with ckptkit.open(prefix) as found:
        found.edit("repartition w -> whole", "rename w -> v").plan(target, how).run()
    path = target or prefix
    assert same(restore(tf, path, "v", dtype), values)
    assert verify_path(path).ok
    tf.train.load_checkpoint(path)


@pytest.mark.parametrize("dtype", sorted(JOINED))
@pytest.mark.parametrize("axis", [0, 1])
def test_cut_anew_tensors_are_restored_whole_and_by_slices(tf, tmp_path, dtype, axis):
    values = values_of(dtype, (7, 5))
    write(tf, tmp_path / "m", {"w": tensor(tf, values, dtype)})
    with ckptkit.open(tmp_path / "m") as found:
        found.edit(f"repartition w -> 3 axis {axis}").plan(tmp_path / "n").run(device="numpy")
    for spec in ("", "7 5 -:-", "7 5 1,4:-", "7 5 -:1,3", "7 5 2,3:3,2", "7 5 0,3:-", "7 5 -:0,2"):
        expected = part_of(values, spec) if spec else values
        assert same(restore(tf, tmp_path / "n", "w", dtype, spec), expected), spec


@pytest.mark.parametrize("dtype", [name for name in EVERY if name not in JOINED])
def test_what_tensorflow_does_not_join_is_cut_by_name_alone(tf, tmp_path, dtype):
    values = values_of(dtype, (6, 2))
    write(tf, tmp_path / "m", {"w": tensor(tf, values, dtype), "x": tf.zeros((2, 2))})
    with ckptkit.open(tmp_path / "m") as found:
        draft = found.edit("repartition ** -> 2")
        assert any("passed over 1 tensor: w (TensorFlow does not" in note for note in draft.notes)
        draft = found.edit("repartition w -> 2")
        assert any("slice by slice alone: 1 tensor: w" in note for note in draft.notes)
        draft.plan(tmp_path / "n").run(device="numpy")
    for spec in ("6 2 0,3:-", "6 2 3,3:-"):
        assert same(restore(tf, tmp_path / "n", "w", dtype, spec), part_of(values, spec))


@pytest.mark.parametrize(
    ("size", "parts"),
    [(size, parts) for size in (1, 5, 12, 13) for parts in (1, 2, 5, 12) if parts <= size],
)
def test_cuts_are_those_of_the_fixed_size_partitioner(tf, size, parts):
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        variable = v1.get_variable(
            "part", (size, 2), partitioner=v1.fixed_size_partitioner(parts, axis=0),
            use_resource=True,
        )  # fmt: skip
        theirs = [[*one.shape] for one in variable] if parts > 1 else [[size, 2]]
    ours = equal_parts(TensorSpec("float32", (size, 2)), parts, 0)
    assert [[*box.shape] for box in ours] == theirs


def partitioners(tf):
    v1 = tf.compat.v1
    return {
        "fixed": v1.fixed_size_partitioner(3, axis=1),
        "variable": v1.variable_axis_size_partitioner(64, axis=0),
        "least": v1.min_max_variable_partitioner(max_partitions=4, axis=0, min_slice_size=48),
    }


@pytest.mark.parametrize("kind", ["fixed", "variable", "least"])
def test_partitioners_of_version_1(tf, tmp_path, kind):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        variable = v1.get_variable(
            "part", (12, 5), initializer=v1.random_uniform_initializer(seed=1),
            partitioner=partitioners(tf)[kind], use_resource=True,
        )  # fmt: skip
        session.run(v1.global_variables_initializer())
        whole = session.run(tf.convert_to_tensor(variable))
        saver = v1.train.Saver()
        prefix = saver.save(session, str(tmp_path / "m"))
        with ckptkit.open(prefix) as found:
            assert list(found) == ["part"]
            assert len(found.catalog["part"].boxes) > 1
            assert same(found["part"].read(), whole)
            found.edit("part[:, 1:3] *= 2").plan(tmp_path / "n").run(device="numpy")
            found.edit("part[:, 1:3] *= 2", "repartition part -> 5").plan(tmp_path / "o").run(
                device="numpy"
            )
        whole[:, 1:3] *= np.float32(2)
        # The very graph that was saved restores its slices, and from others, too.
        for name in ("n", "o"):
            session.run(variable.assign([np.zeros(one.shape, np.float32) for one in variable]))
            saver.restore(session, str(tmp_path / name))
            assert same(session.run(tf.convert_to_tensor(variable)), whole)


@pytest.mark.parametrize("how", ["copy", "link", "append", "patch"])
def test_regions_are_edited_across_slices(tf, tmp_path, how):
    values = values_of("int32", (6, 5))
    specs = ["6 5 0,2:-", "6 5 2,4:0,2", "6 5 2,4:2,3"]
    prefix = partitioned(tf, tmp_path, "int32", values, specs)
    target = str(tmp_path / "n") if how in {"copy", "link"} else None
    with ckptkit.open(prefix) as found:
        found.edit("w[:, 1:3] *= 2").plan(target, how).run(device="numpy")
    expected = values.copy()
    with np.errstate(over="ignore"):
        expected[:, 1:3] *= 2
    assert same(restore(tf, target or prefix, "w", "int32"), expected)


class Holder:
    """Variables of some dtypes, saved in shards of a largest size."""

    def __init__(self, tf, values):
        self.values = values
        self.variables = {n: tf.Variable(tensor(tf, v, d)) for n, (d, v) in values.items()}
        self.checkpoint = tf.train.Checkpoint(**self.variables)

    def write(self, tf, path, limit):
        policy = tf.train.experimental.MaxShardSizePolicy(max_shard_size=limit)
        options = tf.train.CheckpointOptions(experimental_sharding_callback=policy)
        return self.checkpoint.write(str(path), options=options)

    def restored(self, tf, path):
        """Restore by objects into fresh variables, and return their values."""
        fresh = {n: tf.Variable(tensor(tf, v[::-1], d)) for n, (d, v) in self.values.items()}
        status = tf.train.Checkpoint(**fresh).read(str(path))
        status.assert_existing_objects_matched()
        return {name: one.numpy() for name, one in fresh.items()}


@pytest.mark.parametrize("dtype", ["float16", "uint16", "uint32", "uint64", "float8_e5m2"])
@pytest.mark.parametrize("rows", [2, 4])
def test_what_a_largest_shard_size_breaks_is_repaired(tf, tmp_path, dtype, rows):
    values = values_of(dtype, (6, 3))
    held = Holder(tf, {"a": (dtype, values), "b": ("int8", np.arange(3, dtype=np.int8))})
    # TensorFlow does not come to an end where a shard holds no whole row.
    prefix = held.write(tf, tmp_path / "m", rows * values[0].nbytes)
    with pytest.raises(Exception, match="not supported"):
        held.restored(tf, prefix)
    (problem,) = verify_path(prefix).problems
    assert problem.tensor == f"a{KEY}"
    with ckptkit.open(prefix) as found:
        assert same(found[f"a{KEY}"].read(), held.values["a"][1])
        found.edit("repartition ** -> whole").plan(tmp_path / "n").run()
    assert verify_path(tmp_path / "n").problems == ()
    for name, value in held.restored(tf, tmp_path / "n").items():
        assert same(np.asarray(value), held.values[name][1])


def test_strings_that_a_largest_shard_size_breaks_are_repaired(tf, tmp_path):
    held = Holder(tf, {"a": ("string", values_of("string", (9,)))})
    prefix = held.write(tf, tmp_path / "m", 30)
    with pytest.raises(Exception, match="not supported"):
        held.restored(tf, prefix)
    (problem,) = verify_path(prefix).problems
    assert problem.message.startswith("TensorFlow does not join slices of string")
    with ckptkit.open(prefix) as found:
        found.edit("repartition ** -> whole").plan(how="append").run()
    assert same(np.asarray(held.restored(tf, prefix)["a"]), held.values["a"][1])
    with ckptkit.open(prefix) as found:
        assert found.verify().ok
        assert found.dead_bytes > 0


def test_tensors_without_elements_that_are_lost_can_be_added(tf, tmp_path):
    held = Holder(
        tf, {"a": ("float32", np.zeros((0, 3), np.float32)), "b": ("int64", np.arange(3))}
    )
    prefix = held.write(tf, tmp_path / "m", 100)
    with pytest.raises(Exception, match=r"not found|NOT_FOUND"):
        held.restored(tf, prefix)
    with ckptkit.open(prefix) as found:
        lost = ckptkit.Put(f"a{KEY}", np.zeros((0, 3), np.float32))
        found.edit(lost).plan(tmp_path / "n").run()
    assert held.restored(tf, tmp_path / "n")["a"].shape == (0, 3)


@settings(max_examples=25)
@given(data=st.data(), dtype=st.sampled_from(EVERY), seed=SEEDS)
def test_tensorflow_reads_any_tiling_and_what_we_make_of_it(tf, fresh, data, dtype, seed):
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple))
    values, folder = values_of(dtype, shape, seed), fresh()
    slices = data.draw(tilings(shape))
    bundle = Bundle(2)
    if len(slices) > 1:
        bundle.add_slices(b"w", values, slices, dtype, shards=(0, 1))
    else:
        bundle.add(b"w", values, dtype)
    prefix = bundle.write(folder / "m")
    if dtype in JOINED or len(slices) == 1:
        assert same(restore(tf, prefix, "w", dtype), values)
    axis = data.draw(st.integers(0, len(shape) - 1))
    parts = data.draw(st.integers(1, shape[axis]))
    with ckptkit.open(prefix) as found:
        found.edit(f"repartition w -> {parts} axis {axis}").plan(folder / "n").run(device="numpy")
    if dtype in JOINED or parts == 1:
        assert same(restore(tf, folder / "n", "w", dtype), values)
    with ckptkit.open(folder / "n") as found:
        found.edit("repartition w -> whole").plan(folder / "o").run(device="numpy")
    assert same(restore(tf, folder / "o", "w", dtype), values)
