"""What weights are called: as Keras calls them, or else as their place in the file does."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from ckptkit.formats.keras.hdf5.reader import read_tree
from ckptkit.formats.keras.naming.families import family_of
from ckptkit.formats.keras.naming.labels import in_order, labels_of, layers_of
from ckptkit.formats.keras.naming.repair import missing_names, names_from_config
from ckptkit.storage.disk import Disk
from tests.compat import keras_files as files
from tests.compat import keras_zoo as zoo
from tests.golden.make import FILES
from tests.unit.formats.trees import tree_of

UNNAMED = {"odd_dtypes", "complex", "own_keys", "vocabulary", "subclassed"}
"""Models with layers that are no part of Keras, or that store what is no variable."""


def tree_in(path):
    with Disk().open(str(path)) as file:
        return read_tree(file, 0, file.size)


def many(keras):
    """A model with layers of Keras that the zoo does not have, and some with fewer variables."""
    layers = keras.layers
    given, image = keras.Input((5, 4)), keras.Input((6, 6, 2))
    x = layers.RMSNormalization()(layers.GroupNormalization(groups=2)(given))
    x = layers.BatchNormalization(center=False)(layers.BatchNormalization(scale=False)(x))
    x = layers.LayerNormalization(scale=False)(layers.LayerNormalization(center=False)(x))
    x = layers.GroupQueryAttention(4, 2, 2)(x, x)
    x = layers.AdditiveAttention()([x, layers.Attention(use_scale=True)([x, x])])
    x = layers.SimpleRNN(3, use_bias=False, return_sequences=True, name="plain")(x)
    x = layers.GRU(2, name="first_gru")(layers.GRU(2, return_sequences=True)(x))
    y = layers.PReLU()(layers.Normalization()(image))
    y = layers.SpectralNormalization(layers.Conv2D(2, 3, name="wrapped"))(y)
    y = layers.ConvLSTM2D(2, 2)(layers.Reshape((1, 4, 4, 2))(y))
    y = layers.SeparableConv1D(2, 2)(layers.Reshape((9, 2))(y))
    y = layers.GlobalAveragePooling1D()(layers.Conv1DTranspose(2, 2, use_bias=False)(y))
    return keras.Model([given, image], layers.Dense(1)(layers.Concatenate()([x, y])))


@pytest.fixture(scope="module")
def many_built():
    keras = zoo.import_keras()
    keras.backend.clear_session()
    model = many(keras)
    zoo.fill(model.weights, 4)
    return model


def named_as_in(model, values, labels, *, copies=()):
    """Check that each variable has one label: the end of its path in the model."""
    expected = {variable.path: variable for variable in model.weights}
    models = {one.name for one in [model, *model._flatten_layers()] if hasattr(one, "layers")}
    found = set()
    for path, label in labels.items():
        if label.startswith("optimizer/") or label in copies:
            continue
        [variable] = [one for one in expected if f"/{one}".endswith(f"/{label}")]
        assert models.issuperset(variable.removesuffix(label).split("/")[:-1])
        assert np.array_equal(values[path], np.asarray(expected[variable])), label
        found.add(variable)
    assert found == set(expected)


WRITTEN = [
    (name, saver)
    for name in sorted(zoo.MODELS.keys() - UNNAMED)
    for saver in ("weights", "legacy", "legacy_weights")
    if files.can_save(saver, name)
]


@pytest.mark.tensorflow
@pytest.mark.parametrize(("name", "saver"), WRITTEN)
def test_every_model(tmp_path, name, saver):
    model = zoo.build(name)
    file = files.SAVERS[saver](model, tmp_path)
    tree = tree_in(file)
    labels = labels_of(tree, None)
    assert family_of(tree) == saver.replace("_", "-")
    assert list(labels) == [path for path in tree.datasets if path in labels]
    named_as_in(model, files.h5py_reads(file), labels)


@pytest.mark.tensorflow
def test_layers_that_may_lack_variables(tmp_path, many_built):
    file = files.save_weights(many_built, tmp_path)
    tree, values = tree_in(file), files.h5py_reads(file)
    # The kernel that the wrapper has too.
    copies = {"spectral_normalization/kernel"}
    with zipfile.ZipFile(files.save_zip(many_built, tmp_path)) as archive:
        config = json.loads(archive.read("config.json"))
    named_as_in(many_built, values, labels_of(tree, config), copies=copies)
    labels = {label: path for path, label in labels_of(tree, None).items()}
    # One of gamma and beta is there, and only a configuration tells which.
    for layer in ("batch_normalization", "batch_normalization_1", "layer_normalization"):
        assert f"{layer}/0" in labels
        assert f"{layer}/gamma" not in labels
    assert "batch_normalization/moving_variance" in labels


def without_names(tree):
    """The same tree as older versions of Keras wrote it."""
    return tree_of(
        {path: (one.dtype, one.shape) for path, one in tree.datasets.items()},
        groups=[*filter(None, tree.groups)],
    )


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["sequential", "functional", "nested", "recurrent", "attention"])
def test_names_from_the_configuration_are_those_of_the_file(tmp_path, name):
    model = zoo.build(name)
    tree = tree_in(files.save_weights(model, tmp_path))
    with zipfile.ZipFile(files.save_zip(model, tmp_path)) as archive:
        config = json.loads(archive.read("config.json"))
    assert names_from_config(tree, config) == {}
    bare = without_names(tree)
    names = names_from_config(bare, config)
    written = {path: group.attributes.get("name") for path, group in tree.groups.items()}
    assert {path: written[path] for path in names} == names
    with_weights = {path.rpartition("/")[0] for path in tree.datasets}
    inside = {path for path in with_weights if "attention" in path}
    assert set(names) >= with_weights - inside
    same = labels_of(tree, None)
    assert {
        path: label for path, label in labels_of(bare, config).items() if "attention" not in path
    } == {path: label for path, label in same.items() if "attention" not in path}


@pytest.mark.tensorflow
@pytest.mark.parametrize("optimizer", ["adam", "schedule", "loss_scale", "sgd"])
def test_optimizers(tmp_path, optimizer):
    model = zoo.trained(optimizer)
    file = files.save_zip(model, tmp_path)
    with zipfile.ZipFile(file) as archive:
        (tmp_path / "w.h5").write_bytes(archive.read("model.weights.h5"))
        config = json.loads(archive.read("config.json"))
    tree = tree_in(tmp_path / "w.h5")
    labels, values = labels_of(tree, config), files.h5py_reads(file)
    found = {label: values[path] for path, label in labels.items()}
    known = {one.path.rpartition("/")[2]: one for one in reversed(model.optimizer.variables)}
    names = {"iteration", "learning_rate", "step_counter", "dynamic_scale"} & known.keys()
    for name in names:
        assert np.array_equal(found[f"optimizer/{name}"], np.asarray(known[name])), name
    assert ("optimizer/learning_rate" in found) == (optimizer != "schedule")
    assert labels_of(tree, None) == labels


def test_old_files_of_others():
    def labels(name):
        return labels_of(tree_in(FILES / name), None)

    assert labels("keras_0.h5")["layer_2/param_1"] == "layer_2/param_1"
    assert labels("keras_1.h5")["dense_1/dense_1_W"] == "dense_1/W"
    assert labels("keras_old_names.weights.h5") == {
        path.replace("\\", "/"): label for path, label in labels("keras_windows.weights.h5").items()
    }
    assert set(labels("keras_windows.weights.h5").values()) >= {"dense_1/kernel", "dense/bias"}
    of_tf_keras = labels("keras_tf_keras.h5")
    assert of_tf_keras["model_weights/head/head/kernel:0"] == "head/kernel"
    assert of_tf_keras["optimizer_weights/iteration:0"] == "optimizer/iteration"
    assert of_tf_keras["optimizer_weights/Adam/m/head/bias:0"] == "optimizer/m/head/bias"


@pytest.mark.parametrize(
    ("tree", "family"),
    [
        (tree_of(["layers/dense/vars/0"]), "weights"),
        (tree_of([], groups=["vars"]), "weights"),
        (tree_of([], groups=["_layer_checkpoint_dependencies"]), "weights"),
        (tree_of([], groups=["_layer_checkpoint_dependencies\\dense"]), "weights"),
        (tree_of(["a/a/kernel"], attributes={"": {"layer_names": ("a",)}}), "legacy-weights"),
        (tree_of(["a/b"], attributes={"": {"layer_names0": ("a",)}}), "legacy-weights"),
        (tree_of([], attributes={"": {"layer_names": None}}), "legacy-weights"),
        (tree_of(["model_weights/a/b"], attributes={"": {"model_config": "{}"}}), "legacy"),
        (tree_of(["model_weights/a/b"], attributes={"model_weights": {"layer_names": ("a",)}}),
         "legacy"),
        (tree_of(["layer_0/param_0"], attributes={"": {"nb_layers": 1}}), "keras0"),
        (tree_of(["layer_0/param_0"]), None),
        (tree_of(["model_weights/a/b"]), None),
        (tree_of(["model_weights/vars/0"]), "weights"),
        (tree_of(["data"]), None),
        (tree_of([]), None),
    ],
)  # fmt: skip
def test_families(tree, family):
    assert family_of(tree) == family
    if family is None:
        assert labels_of(tree, None) == {}


def test_numbers_are_in_order_and_all_else_stays():
    names = [*map(str, range(12)), "x"]
    tree = tree_of([f"a/vars/{name}" for name in names] + ["a/vars/10/deep", "b/3", "b/20"][1:])
    assert in_order(tree) == (*(f"a/vars/{name}" for name in names), "b/3", "b/20")
    huge = ["1" + "0" * 5000, "9" * 5000, "٣"]
    assert set(in_order(tree_of(huge))) == set(huge)
    assert in_order(tree_of(huge)).index("9" * 5000) < in_order(tree_of(huge)).index(huge[0])


def named(*names):
    return {f"{path}/vars": {"name": name} for path, name in names}


def test_what_is_ambiguous_is_qualified():
    shapes = {"layers/dense/vars/0": (2, 2), "layers/functional/layers/dense/vars/0": (2, 2)}
    names = named(
        ("layers/dense", "head"), ("layers/functional", "tower"),
        ("layers/functional/layers/dense", "head"),
    )  # fmt: skip
    labels = labels_of(tree_of(shapes, groups=names, attributes=names), None)
    assert [*labels.values()] == ["head/kernel", "tower/head/kernel"]
    assert layers_of(tree_of(shapes), labels) == dict(
        zip(shapes, ["head", "tower/head"], strict=True)
    )


def test_what_stays_ambiguous_has_no_label():
    shapes = {f"layers/{group}/vars/0": (2, 2) for group in ("dense", "dense_1", "dense_2")}
    names = named(("layers/dense", "twin"), ("layers/dense_1", "twin"))
    labels = labels_of(tree_of(shapes, attributes=names), None)
    assert labels == {"layers/dense_2/vars/0": "dense_2/kernel"}


def test_a_label_is_no_path_of_another():
    tree = tree_of({"layers/dense/vars/0": (2, 2), "dense/kernel": (2,)})
    assert "layers/dense/vars/0" not in labels_of(tree, None)


@pytest.mark.parametrize("name", [None, 7, 1.5, "", ("a",)])
def test_garbage_for_a_name_is_no_name(name):
    tree = tree_of({"layers/dense_3/vars/0": (2, 2)}, attributes=named(("layers/dense_3", name)))
    assert labels_of(tree, None) == {"layers/dense_3/vars/0": "dense_3/kernel"}


@pytest.mark.parametrize("names", [None, 3, "a", ()])
def test_garbage_for_lists_is_no_list(names):
    attributes = {"": {"layer_names": names}, "a": {"weight_names": names}}
    tree = tree_of(["a/m/a/kernel:0", "a/m/a/bias:0", "lone"], attributes=attributes)
    assert [*labels_of(tree, None).values()] == ["a/bias", "a/kernel", "lone"]


@pytest.mark.parametrize(
    "config",
    [
        {}, {"class_name": 3}, {"class_name": "Sequential"},
        {"class_name": "Sequential", "config": []},
        {"class_name": "Sequential", "config": {"layers": 3}},
        {"class_name": "Sequential", "config": {"layers": [None, 3, {}, {"class_name": "Dense"}]}},
        {"class_name": "Functional", "config": {"layers": [
            {"class_name": "Bidirectional", "config": {"layer": 3, "backward_layer": []}},
            {"class_name": "R", "config": {"cell": {"class_name": "X", "config": {"cells": [3]}}}},
            {"class_name": "Dense", "config": {"name": 5, "use_bias": "x"}, "module": 3},
        ]}},
        {"class_name": "Sequential", "compile_config": {"optimizer": 3}},
    ],
)  # fmt: skip
def test_garbage_for_a_configuration_tells_nothing(config):
    tree = tree_of({"layers/dense/vars/0": (2, 2), "optimizer/vars/0": ("int64", ())})
    assert [*labels_of(tree, config).values()] in (
        ["dense/kernel", "optimizer/iteration"],
        ["dense/0", "optimizer/iteration"],
    )


def test_endless_configurations_end():
    config = {"class_name": "Sequential", "config": {"name": "x"}}
    config["config"]["layers"] = [config]
    assert names_from_config(tree_of([], groups=["layers/sequential/vars"]), config) == {
        "layers/sequential/vars": "x"
    }


def test_variables_that_do_not_fit_a_class_keep_their_keys():
    shapes = {
        "layers/dense/vars/0": (2,), "layers/dense/vars/1": (2, 2),
        "layers/embedding/vars/0": ("int64", (2, 2)),
        "layers/lstm_cell/vars/1": (2, 2), "layers/lstm_cell/vars/2": (2, 2),
        "layers/my_layer/vars/0": (2,),
        "layers/dense_1/vars/kernel": (2, 2),
    }  # fmt: skip
    found = labels_of(tree_of(shapes), None)
    assert {path: label.rpartition("/")[2] for path, label in found.items()} == {
        path: path.rpartition("/")[2] for path in shapes
    }
    assert found["layers/dense_1/vars/kernel"] == "dense_1/kernel"


def test_a_class_of_its_own_with_a_name_of_keras_keeps_its_keys():
    config = {"class_name": "Sequential", "config": {"layers": [
        {"class_name": "Dense", "module": "mine", "config": {"name": "d"}}
    ]}}  # fmt: skip
    tree = tree_of({"layers/dense/vars/0": (2, 2)})
    assert labels_of(tree, config) == {"layers/dense/vars/0": "d/0"}


def test_shards_lend_each_other_names():
    def shard(name, groups=()):
        attributes = {"layers/dense/vars": {"name": name}} if name is not None else {}
        return tree_of(["layers/dense/vars/0"], groups=groups, attributes=attributes)

    assert missing_names([shard("a"), shard(None), shard(3)]) == {
        1: {"layers/dense/vars": "a"}, 2: {"layers/dense/vars": "a"},
    }  # fmt: skip
    assert missing_names([shard("a"), shard("b"), shard(None)]) == {}
    assert missing_names([shard(None), shard(None)]) == {}


@pytest.mark.tensorflow
def test_shards_of_keras_lack_names(tmp_path):
    model = zoo.build("sequential")
    file = files.save_sharded(model, tmp_path)
    trees = [tree_in(shard) for shard in files.shards(file)]
    found = missing_names(trees)
    assert found
    whole = tree_in(files.save_weights(model, tmp_path))
    for groups in found.values():
        for path, name in groups.items():
            assert whole.groups[path].attributes["name"] == name
