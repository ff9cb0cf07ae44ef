"""Edits of checkpoints of objects, with TensorFlow's own restoring as the judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptkit
from ckptkit import EditError
from tests.compat.objects import Tree, agrees, edited, objects, save

pytestmark = pytest.mark.tensorflow

NET = {"net": {"dense": {"kernel": 1, "bias": 2}, "head": {"kernel": 3}}, "step": 4}

RENAMES = {
    "leaf": (
        NET,
        ["rename ^net/head/kernel/ -> net/head/weights/"],
        {"net": {"dense": {"kernel": 1, "bias": 2}, "head": {"weights": 3}}, "step": 4},
    ),
    "inner": (
        NET,
        ["rename ^net/dense/ -> net/first/"],
        {"net": {"first": {"kernel": 1, "bias": 2}, "head": {"kernel": 3}}, "step": 4},
    ),
    "all kernels": (
        NET,
        ["rename /kernel/ -> /w/"],
        {"net": {"dense": {"w": 1, "bias": 2}, "head": {"w": 3}}, "step": 4},
    ),
    "at several levels": (
        NET,
        ["rename ^net/dense/kernel -> model/first/w", "rename ^net/ -> model/"],
        {"model": {"first": {"w": 1}, "dense": {"bias": 2}, "head": {"kernel": 3}}, "step": 4},
    ),
    "everything at once": (
        NET,
        ["rename ^net -> model", "rename dense -> first", "rename kernel -> w"],
        {"model": {"first": {"w": 1, "bias": 2}, "head": {"w": 3}}, "step": 4},
    ),
    "deeper": (
        NET,
        ["rename ^net/ -> model/inner/"],
        {"model": {"inner": NET["net"]}, "step": 4},
    ),
    "deeper under its own name": (
        NET,
        ["rename ^net/ -> net/inner/"],
        {"net": {"inner": NET["net"]}, "step": 4},
    ),
    "all below one": (
        NET,
        ["rename ^ -> model/"],
        {"model": NET},
    ),
    "up": (
        NET,
        ['rename ^net/ -> ""'],
        {"dense": {"kernel": 1, "bias": 2}, "head": {"kernel": 3}, "step": 4},
    ),
    "merged": (
        NET,
        ["rename ^net/(dense|head)/(bias|kernel) -> net/\\1_\\2"],
        {"net": {"dense_kernel": 1, "dense_bias": 2, "head_kernel": 3}, "step": 4},
    ),
    "two into one": (
        {"a": {"x": 1}, "b": {"y": 2}},
        ["rename ^[ab]/ -> c/"],
        {"c": {"x": 1, "y": 2}},
    ),
    "into another one": (
        {"a": {"x": 1, "z": 3}, "b": {"y": 2}},
        ["rename ^a/ -> b/"],
        {"b": {"x": 1, "y": 2, "z": 3}},
    ),
    "deep into another one": (
        {"a": {"p": {"q": {"r": {"x": 1}}}}, "b": {"p": {"q": {"r": {"y": 2}}}}},
        ["rename ^a/ -> b/"],
        {"b": {"p": {"q": {"r": {"x": 1, "y": 2}}}}},
    ),
    "swapped": (
        {"a": 1, "b": 2, "c": {"a": 3}},
        ["rename ^a/ -> t/", "rename ^b/ -> a/", "rename ^t/ -> b/"],
        {"b": 1, "a": 2, "c": {"a": 3}},
    ),
    "crosswise": (
        {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 4}},
        ["rename ^a/x/ -> t/", "rename ^b/x/ -> a/x/", "rename ^t/ -> b/x/"],
        {"a": {"x": 3, "y": 2}, "b": {"x": 1, "y": 4}},
    ),
    "list": (
        {"layers": [{"w": 1}, {"w": 2}, {"w": 3}]},
        [
            "rename ^layers/0/ -> t/",
            "rename ^layers/2/ -> layers/0/",
            "rename ^t/ -> layers/2/",
        ],
        {"layers": [{"w": 3}, {"w": 2}, {"w": 1}]},
    ),
    "list to names": (
        {"layers": [{"w": 1}, {"w": 2}]},
        ["rename ^layers/(.)/ -> layer_\\1/"],
        {"layer_0": {"w": 1}, "layer_1": {"w": 2}},
    ),
    "diamond": (
        {"a": {"shared": "s"}, "b": {"shared": "s", "own": 1}},
        ["rename ^a/shared/ -> a/w/"],
        {"a": {"w": "s"}, "b": {"shared": "s", "own": 1}},
    ),
    "over one that goes": (
        {"a": 1, "b": 2},
        ["drop b/.ATTRIBUTES/VARIABLE_VALUE", "rename ^a/ -> b/"],
        {"b": 1},
    ),
    "graph leaf": (
        NET,
        ["rename graph:net/dense/kernel -> graph:net/dense/w"],
        {"net": {"dense": {"w": 1, "bias": 2}, "head": {"kernel": 3}}, "step": 4},
    ),
    "graph module elsewhere": (
        NET,
        ["rename graph:net/dense -> graph:encoder/first/dense"],
        {
            "net": {"head": {"kernel": 3}},
            "encoder": {"first": {"dense": NET["net"]["dense"]}},
            "step": 4,
        },
    ),
    "graph and names": (
        NET,
        [
            "rename graph:net/dense -> graph:net/first",
            "rename ^net/ -> model/",
            "rename graph:model/first/bias -> graph:model/first/b",
        ],
        {"model": {"first": {"kernel": 1, "b": 2}, "head": {"kernel": 3}}, "step": 4},
    ),
    "alias": (
        {"a": {"shared": "s"}, "z": {"shared": "s", "own": 1}},
        ["rename graph:z/shared -> graph:z/again"],
        {"a": {"shared": "s"}, "z": {"again": "s", "own": 1}},
    ),
    "alias elsewhere": (
        {"a": {"shared": "s"}, "z": {"shared": "s", "own": 1}},
        ["rename graph:z/shared -> graph:q/again"],
        {"a": {"shared": "s"}, "z": {"own": 1}, "q": {"again": "s"}},
    ),
}


@pytest.mark.parametrize("how", ["write", "save"])
@pytest.mark.parametrize("case", RENAMES)
def test_what_is_renamed_restores_under_its_new_name(tf, tmp_path, case, how):
    before, edits, after = RENAMES[case]
    if case == "all below one" and how == "save":
        edits = ["rename ^(?!save_counter) -> model/"]
    path = save(tf, tmp_path, before, how)
    edited(path, *edits)
    agrees(tf, tmp_path / "edited", after, how=how)


CHANGES = {
    "dropped": (
        NET,
        ["drop net/dense/bias/**"],
        {"net": {"dense": {"kernel": 1}, "head": {"kernel": 3}}, "step": 4},
    ),
    "dropped by path": (
        NET,
        ["drop graph:net/dense/*"],
        {"net": {"head": {"kernel": 3}}, "step": 4},
    ),
    "dropped by an alias": (
        {"a": {"shared": "s"}, "z": {"shared": "s", "own": 1}},
        ["drop graph:z/shared"],
        {"z": {"own": 1}},
    ),
    "kept": (NET, ["keep net/head/**"], {"net": {"head": {"kernel": 3}}}),
    "kept by path": (
        NET,
        ["keep graph:**/kernel"],
        {"net": {"dense": {"kernel": 1}, "head": {"kernel": 3}}},
    ),
    "new": (
        NET,
        ["new graph:net/head/bias = t('graph:step') + 1"],
        {**NET, "net": {**NET["net"], "head": {"kernel": 3, "bias": 5}}},
    ),
    "new far from all": (
        NET,
        ["new graph:a/b/c = t('graph:step') + 1", "new graph:a/b/d = t('graph:a/b/c') + 1"],
        {**NET, "a": {"b": {"c": 5, "d": 6}}},
    ),
    "new by name": (
        NET,
        ["new net/more/w/.ATTRIBUTES/VARIABLE_VALUE = t('graph:step') + 1"],
        {**NET, "net": {**NET["net"], "more": {"w": 5}}},
    ),
    "new below an alias": (
        {"z": {"m": {"w": 1}}, "deep": {"er": {"m": {"w": 1}}}},
        ["new graph:deep/er/m/v = t('graph:deep/er/m/w') + 4"],
        {"z": {"m": {"w": 1}}, "deep": {"er": {"m": {"w": 1, "v": 5}}}},
    ),
    "copied": (
        NET,
        ["copy graph:net/head/kernel -> graph:net/tail/kernel"],
        {**NET, "net": {**NET["net"], "tail": {"kernel": 3}}},
    ),
    "copied by groups": (
        NET,
        ["copy net/(*)/kernel/.ATTRIBUTES/VARIABLE_VALUE -> graph:more/{1}/kernel"],
        {**NET, "more": {"dense": {"kernel": 1}, "head": {"kernel": 3}}},
    ),
    "put in the place of one that went": (
        NET,
        ["drop graph:net/head/kernel", "new graph:net/head/kernel = t('graph:step') + 1"],
        {"net": {**NET["net"], "head": {"kernel": 5}}, "step": 4},
    ),
    "changed by path": (
        NET,
        ["graph:net/*/kernel = t('graph:step') + 4"],
        {"net": {"dense": {"kernel": 8, "bias": 2}, "head": {"kernel": 8}}, "step": 4},
    ),
    "moved, dropped and made": (
        NET,
        [
            "rename graph:net/dense -> graph:net/first",
            "drop graph:net/first/bias",
            "rename kernel -> w",
            "new graph:net/first/bias = t('graph:step') + 3",
        ],
        {"net": {"first": {"w": 1, "bias": 7}, "head": {"w": 3}}, "step": 4},
    ),
}


@pytest.mark.parametrize(
    ("case", "how"),
    [
        (case, how)
        for case in CHANGES
        for how in ("write", "save")
        # What is kept has no counter of saves among it.
        if how == "write" or not case.startswith("kept")
    ],
)
def test_what_is_dropped_or_added_restores_as_the_objects_that_are_left(tf, tmp_path, case, how):
    before, edits, after = CHANGES[case]
    path = save(tf, tmp_path, before, how)
    edited(path, *edits)
    agrees(tf, tmp_path / "edited", after, how=how)


def shared(tf, scale=1.0):
    """Two modules that share a module, of which only one path is in the names."""
    made = Tree(tf)
    inner = made.make({"w": 1}, scale)
    root = tf.train.Checkpoint(a=made.make({}), z=made.make({"own": 2}, scale))
    root.a.inner = root.z.inner = inner
    return root


def test_a_shared_module_is_found_by_each_of_its_paths(tf, tmp_path):
    path = Path(shared(tf).write(str(tmp_path / "m")))
    edited(path, "graph:z/inner/w *= 3", "rename graph:z/inner/w -> graph:z/inner/v")
    fresh = shared(tf, 0.0)
    fresh.a.inner.v = fresh.a.inner.w
    del fresh.a.inner.w
    fresh.read(str(tmp_path / "edited")).assert_consumed()
    assert fresh.z.inner.v.numpy().tolist() == [3.0, 4.5]


def test_names_with_dots_and_slashes_are_followed(tf, tmp_path):
    def made(names, scale):
        numbers = enumerate(names, 1)
        return tf.train.Checkpoint(
            held={name: tf.Variable([scale * number]) for number, name in numbers}
        )

    path = Path(made(["y/z", "k.w", ".S", "..", "a"], 1.0).write(str(tmp_path / "m")))
    edited(
        path,
        "rename graph:held/y.Sz -> graph:held/b..c.Sd",
        "rename ^held/k..w/ -> held/k..v/",
        "new graph:held/new.S..S = t('graph:held/a') + 1",
    )
    fresh = made(["b.c/d", "k.v", ".S", "..", "a", "new/.S"], 0.0)
    fresh.read(str(tmp_path / "edited")).assert_consumed()
    assert [float(one[0]) for one in fresh.held.values()] == [1, 2, 3, 4, 5, 6]


def test_a_table_keeps_its_parts_together(tf, tmp_path):
    def made(name, *keys):
        module = tf.Module()
        table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
        setattr(module, name, table)
        if keys:
            table.insert(tf.constant(keys), tf.range(len(keys), dtype=tf.int64))
        return tf.train.Checkpoint(m=module)

    path = Path(made("t", "a", "b").write(str(tmp_path / "m")))
    to = tmp_path / "edited"
    with ckptkit.open(path) as checkpoint:
        checkpoint.edit("rename ^m/t/ -> m/table/").plan(to).run()
        with pytest.raises(EditError, match="are parts of one object, and would be apart"):
            checkpoint.edit("drop m/t/.ATTRIBUTES/table-keys").plan(tmp_path / "no")
        with pytest.raises(EditError, match="are parts of one object, and would be apart"):
            checkpoint.edit("rename table-keys -> table-k").plan(tmp_path / "no")
        assert len(checkpoint.edit("drop graph:m/t").catalog) == 1
    fresh = made("table")
    fresh.read(str(to)).assert_consumed()
    assert fresh.m.table.lookup(tf.constant(["b"])).numpy().tolist() == [1]


# --- in pieces, and at random ------------------------------------------------------------------


def test_slices_are_renamed_with_their_objects(tf, tmp_path):
    def made(name, scale):
        module = tf.Module()
        setattr(module, name, tf.Variable(np.arange(64, dtype=np.float32) * scale))
        return tf.train.Checkpoint(m=module)

    policy = tf.train.experimental.MaxShardSizePolicy(100)
    options = tf.train.CheckpointOptions(experimental_sharding_callback=policy)
    path = Path(made("w", 1).write(str(tmp_path / "m"), options))
    with ckptkit.open(path) as checkpoint:
        assert len(checkpoint.catalog.columns.parts) == 1
    edited(path, "rename graph:m/w -> graph:m/v", "graph:m/v[:2] = 7")
    fresh = made("v", 0)
    fresh.read(str(tmp_path / "edited")).assert_consumed()
    assert fresh.m.v.numpy().tolist() == [7, 7, *range(2, 64)]


NAMES = st.sampled_from(["a", "b", "c", "d"])
TREES = st.recursive(
    st.integers(1, 50),
    lambda inner: (
        st.dictionaries(NAMES, inner, min_size=1, max_size=3)
        | st.lists(inner, min_size=1, max_size=2)
    ),
    max_leaves=8,
)


def with_names(what, names):
    if isinstance(what, dict):
        return {names[name]: with_names(part, names) for name, part in what.items()}
    return [with_names(part, names) for part in what] if isinstance(what, list) else what


def check_values(found, what):
    if isinstance(what, int):
        assert found.numpy().tolist() == [what, what + 0.5]
    for name, part in what.items() if isinstance(what, dict) else ():
        check_values(getattr(found, name), part)
    for one, part in zip(found, what, strict=True) if isinstance(what, list) else ():
        check_values(one, part)


@settings(max_examples=25)
@given(
    tree=st.dictionaries(NAMES, TREES, min_size=1, max_size=3),
    others=st.permutations(["a", "b", "c", "d", "e"]),
)
def test_random_objects_restore_under_other_names(tf, fresh, unsynced, tree, others):
    names = dict(zip("abcd", others, strict=False))
    folder = fresh()
    path = save(tf, folder, tree)
    edits = [rf"rename (^|/){old}(?=/) -> \1{old}+" for old in names]
    edits += [rf"rename (^|/){old}\+(?=/) -> \1{new}" for old, new in names.items()]
    with ckptkit.open(path) as checkpoint:
        there = [edit for edit in edits if f"/{edit[12]}/" in "/" + "/".join(checkpoint)]
        edited(path, *there)
    wanted = with_names(tree, names)
    found = objects(tf, wanted, 0.0)
    found.read(str(folder / "edited")).assert_consumed()
    check_values(found, wanted)
