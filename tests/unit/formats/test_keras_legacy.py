"""Lists of layers and weights stay true, and Keras goes by them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ckptkit import EditError
from ckptkit.formats.keras.hdf5.linkedits import Attribute, Make, Move, Remove
from ckptkit.formats.keras.hdf5.reader import read_tree
from ckptkit.formats.keras.hdf5.regrouping import regroup
from ckptkit.formats.keras.naming.families import names_in
from ckptkit.formats.keras.naming.legacy import MAX_ATTRIBUTE, attributes_after
from ckptkit.storage.disk import Disk
from tests.compat import keras_files as files
from tests.compat import keras_zoo as zoo
from tests.unit.formats.trees import tree_of

MODEL = "model_weights"


def whole(*, root=MODEL):
    """A file with two layers that have weights, one that has none, and an optimizer."""
    at = f"{root}/" if root else ""
    paths = [f"{at}{one}/seq/{one}/{weight}" for one in ("a", "b") for weight in ("kernel", "bias")]
    attributes = {
        root: {"layer_names": ("b", "none", "a")},
        f"{at}none": {"weight_names": ()},
        f"{at}a": {"weight_names": ("seq/a/kernel", "seq/a/bias")},
        f"{at}b": {"weight_names": ("seq/b/kernel", "seq/b/bias")},
        f"{at}top_level_model_weights": {"weight_names": ()},
    }
    groups = [f"{at}none", f"{at}top_level_model_weights"]
    if root:
        paths += ["optimizer_weights/adam/iteration", "optimizer_weights/adam/rate"]
        attributes["optimizer_weights"] = {"weight_names": ("adam/iteration", "adam/rate")}
    return tree_of(paths, groups=groups, attributes=attributes)


def changed(tree, change, added=()):
    datasets = {path: new for path in tree.datasets if (new := change(path)) is not None}
    return attributes_after(tree, datasets, added)


def test_nothing_changes_where_nothing_moves():
    for tree in (whole(), whole(root="")):
        assert changed(tree, lambda path: path) == {}


def test_a_layer_is_renamed():
    for root in (MODEL, ""):
        tree, at = whole(root=root), f"{root}/" if root else ""
        found = changed(tree, lambda path, at=at: path.replace(f"{at}a/", f"{at}head/", 1))
        assert found == {root: {"layer_names": ("b", "none", "head")}}


def test_a_layer_is_renamed_wherever_its_name_is():
    found = changed(whole(), lambda path: path.replace("/a/", "/head/"))
    assert found == {
        MODEL: {"layer_names": ("b", "none", "head")},
        f"{MODEL}/head": {"weight_names": ("seq/head/kernel", "seq/head/bias")},
    }


def test_a_weight_is_renamed_in_its_place():
    found = changed(whole(), lambda path: path.replace("a/kernel", "a/weight"))
    assert found == {f"{MODEL}/a": {"weight_names": ("seq/a/weight", "seq/a/bias")}}


def test_weights_go():
    found = changed(whole(), lambda path: None if path.endswith("a/kernel") else path)
    assert found == {f"{MODEL}/a": {"weight_names": ("seq/a/bias",)}}
    found = changed(whole(), lambda path: None if "/a/" in path else path)
    assert found == {MODEL: {"layer_names": ("b", "none")}}
    found = changed(whole(), lambda path: None if path.startswith("opt") else path)
    assert found == {}
    found = changed(whole(), lambda path: None if path.endswith("rate") else path)
    assert found == {"optimizer_weights": {"weight_names": ("adam/iteration",)}}


def test_layers_change_places():
    names = {"a": "b", "b": "a"}

    def change(path):
        return "/".join(names.get(part, part) for part in path.split("/"))

    assert changed(whole(), change) == {
        MODEL: {"layer_names": ("a", "none", "b")},
        f"{MODEL}/a": {"weight_names": ("seq/a/kernel", "seq/a/bias")},
        f"{MODEL}/b": {"weight_names": ("seq/b/kernel", "seq/b/bias")},
    }


def test_a_weight_comes_from_another_layer():
    new = f"{MODEL}/b/seq/b/second"
    found = changed(whole(), lambda path: new if path.endswith("a/kernel") else path)
    assert found == {
        f"{MODEL}/a": {"weight_names": ("seq/a/bias",)},
        f"{MODEL}/b": {"weight_names": ("seq/b/kernel", "seq/b/bias", "seq/b/second")},
    }


def test_weights_are_added_last_and_replaced_in_place():
    tree = whole()
    found = changed(tree, lambda path: path, [f"{MODEL}/a/seq/a/more"])
    assert found == {f"{MODEL}/a": {"weight_names": ("seq/a/kernel", "seq/a/bias", "seq/a/more")}}
    again = f"{MODEL}/a/seq/a/kernel"
    assert changed(tree, lambda path: None if path == again else path, [again]) == {}
    both = [again, f"{MODEL}/a/seq/a/bias"]
    assert changed(tree, lambda path: None if path in both else path, both) == {}


def test_a_layer_without_weights_gets_one():
    found = changed(whole(), lambda path: path, [f"{MODEL}/none/w"])
    assert found == {f"{MODEL}/none": {"weight_names": ("w",)}}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f"{MODEL}/a/seq/a/kernel", f"{MODEL}/c/kernel", "where no layer is"),
        (f"{MODEL}/a/seq/a/kernel", "kernel", "where no layer is"),
        ("optimizer_weights/adam/rate", "rate", "where no layer is"),
    ],
)
def test_a_weight_without_a_layer_is_refused(old, new, message):
    with pytest.raises(EditError, match=message):
        changed(whole(), lambda path: new if path == old else path)


def test_groups_that_keras_asks_for_keep_their_names():
    for name in (MODEL, "optimizer_weights"):
        with pytest.raises(EditError, match="Keras looks for it"):
            changed(whole(), lambda path, name=name: path.replace(name, "other"))
    with pytest.raises(EditError, match="layers are in 'model_weights'"):
        changed(whole(), lambda path: path.replace(f"{MODEL}/a/", "a/"))
    with pytest.raises(EditError, match="where no layer is"):
        changed(whole(), lambda path: path, [f"{MODEL}/new/w"])


def test_what_is_listed_nowhere_stays_so():
    tree = tree_of(["a/kernel", "a/other"], attributes={
        "": {"layer_names": ("a", "missing")}, "a": {"weight_names": ("kernel", "not there")},
    })  # fmt: skip
    assert changed(tree, lambda path: path.replace("other", "else")) == {}
    found = changed(tree, lambda path: path.replace("kernel", "k"))
    assert found == {"a": {"weight_names": ("k", "not there")}}


@pytest.mark.parametrize("garbage", [None, 3, "kernel"])
def test_garbage_lists_nothing(garbage):
    attributes = {"": {"layer_names": ("a",)}, "a": {"weight_names": garbage}}
    tree = tree_of(["a/kernel"], attributes=attributes)
    assert changed(tree, lambda path: path.replace("kernel", "k")) == {}


def test_long_lists_are_cut_as_keras_cuts_them():
    names = [f"layer_{number:0117d}" for number in range(702)]
    parts = {"layer_names0": tuple(names[:351]), "layer_names1": tuple(names[351:])}
    attributes = {"": parts} | {name: {"weight_names": ("w",)} for name in names}
    tree = tree_of([f"{name}/w" for name in names], attributes=attributes)
    assert len(names[0]) == 123
    found = changed(tree, lambda path: path.replace(names[0], "x"))
    assert found == {"": {"layer_names0": ("x", *names[1:351])}} or found == {
        "": {"layer_names0": ("x", *names[1:351]), "layer_names1": tuple(names[351:])}
    }
    # Half of them fit into one attribute.
    found = changed(tree, lambda path: path if path.split("/")[0] in names[:300] else None)
    assert found[""] == {
        "layer_names": tuple(names[:300]), "layer_names0": None, "layer_names1": None,
    }  # fmt: skip
    found = changed(tree, lambda path: path.replace(names[0], "x" * 1000))
    assert all(len(part) * 1000 <= MAX_ATTRIBUTE for part in found[""].values() if part is not None)
    assert names_in(found[""], "layer_names") == ["x" * 1000, *names[1:]]
    with pytest.raises(EditError, match="too long"):
        changed(tree, lambda path: path.replace(names[0], "x" * 70000))


def test_files_before_1_0_keep_their_numbers():
    tree = tree_of(["layer_0/param_0"], attributes={"": {"nb_layers": 1}})
    assert changed(tree, lambda path: path) == {}
    for change in (lambda _: None, lambda _: "layer_1/param_0"):
        with pytest.raises(EditError, match="numbers its layers"):
            changed(tree, change)


def edited(path, change):
    """Change names in a file through h5py, as the edits of a regrouping say."""
    with Disk().open(str(path)) as file:
        tree = read_tree(file, 0, file.size)
    paths = {old: change(old) for old in tree.datasets}
    kept = {old: new for old, new in paths.items() if new is not None}
    found = regroup(tree, paths, attributes=attributes_after(tree, kept))
    with h5py.File(path, "r+") as file:
        for edit in found.edits:
            match edit:
                case Make(group):
                    file.create_group(group)
                case Move(old, new):
                    file.move(old, new)
                case Remove(gone):
                    del file[gone]
                case Attribute(at, name, None):
                    del file[at or "/"].attrs[name]
                case Attribute(at, name, value):
                    file[at or "/"].attrs[name] = list(value)
    return found


@pytest.mark.tensorflow
@pytest.mark.parametrize("saver", ["legacy", "legacy_weights"])
def test_keras_loads_what_has_other_names(tmp_path, saver):
    keras = zoo.import_keras()
    model = zoo.build("sequential")
    file = files.SAVERS[saver](model, tmp_path)
    edited(file, lambda path: path.replace("first/", "stem/").replace("/beta", "/offset"))
    again = zoo.fresh("sequential", seed=9)
    again.load_weights(file)
    for one, other in zip(again.weights, model.weights, strict=True):
        assert np.array_equal(one, other), one.path
    named = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, name="stem")])
    named.load_weights(file, by_name=True)
    assert np.array_equal(named.layers[0].kernel, model.layers[0].kernel)


@pytest.mark.tensorflow
def test_keras_loads_a_model_without_its_optimizer(tmp_path):
    keras = zoo.import_keras()
    model = zoo.trained("adam")
    file = files.save_legacy(model, tmp_path)
    found = edited(file, lambda path: None if path.startswith("optimizer_weights/") else path)
    assert found.edits == (Remove("optimizer_weights"),)
    again = keras.models.load_model(file, compile=False)
    for one, other in zip(again.weights, model.weights, strict=True):
        assert np.array_equal(one, other), one.path
