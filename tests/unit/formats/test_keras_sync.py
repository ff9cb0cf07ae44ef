"""Configs that go with other weights, with Keras as the oracle of what they should say."""

from __future__ import annotations

import io
import json
import zipfile

import h5py
import numpy as np
import pytest

from ckptkit.formats.keras.config.agreement import (
    SpecChange,
    disagreements,
    layers,
    read_config,
    synced,
)
from ckptkit.model import TensorSpec


@pytest.fixture(scope="module")
def keras(tf):
    return pytest.importorskip("keras")


def config_of(model, folder):
    model.save(folder / "model.keras")
    with zipfile.ZipFile(folder / "model.keras") as archive:
        return read_config(archive.read("config.json"))


def by_label(model):
    return {v.path.removeprefix(f"{model.name}/"): v for v in model.weights}


def specs_of(model):
    return {k: TensorSpec(v.dtype, tuple(v.shape)) for k, v in by_label(model).items()}


def changes_between(before, after):
    old, new = specs_of(before), specs_of(after)
    assert old.keys() == new.keys()
    return [SpecChange(label, old[label], new[label]) for label in old if old[label] != new[label]]


def plain(value):
    """Leave out what differs from one run to another, or says the same as it did."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k != "shared_object_id"}
    return [*map(plain, value)] if isinstance(value, list) else value


# --- Keras as the oracle: the config of a model, synced, is that of the other model -------------


def dense_chain(keras, a, b, first=3):
    return keras.Sequential(
        [
            keras.Input((first,), name="in"),
            keras.layers.Dense(a, name="a"),
            keras.layers.Dropout(0.1, name="drop"),
            keras.layers.Activation("relu", name="act"),
            keras.layers.Dense(b, use_bias=False, name="b"),
            keras.layers.LayerNormalization(name="norm"),
        ],
        name="chain",
    )


def image(keras, filters, kernel=3, units=2, channels=3, **options):
    layer = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, channels), name="in"),
            layer.Conv2D(filters, kernel, padding="same", name="conv", **options),
            layer.BatchNormalization(name="bn"),
            layer.ReLU(name="relu"),
            layer.MaxPooling2D(name="pool"),
            layer.Flatten(name="flat"),
            layer.Dense(units, name="head"),
        ],
        name="image",
    )


def functional(keras, units, taken=5):
    layer = keras.layers
    x = given_ = keras.Input((taken,), name="in")
    x = layer.Dense(units, name="a")(x)
    x = layer.GaussianNoise(0.1, name="noise")(x)
    left = layer.Dense(4, name="left")(x)
    right = layer.Dense(4, name="right")(x)
    total = layer.Add(name="add")([left, right])
    return keras.Model(given_, keras.src.ops.nn.Relu(name="op")(total), name="fun")


def nested(keras, units):
    layer = keras.layers
    inner = keras.Sequential(
        [keras.Input((3,), name="first"), layer.Dense(units, name="same")], name="inner"
    )
    x = keras.Input((3,), name="in")
    y = layer.Dense(2, name="same")(layer.ReLU(name="relu")(inner(x)))
    return keras.Model(x, y, name="outer")


def text(keras, rows, width, units):
    layer = keras.layers
    return keras.Sequential(
        [
            keras.Input((7,), dtype="int32", name="in"),
            layer.Embedding(rows, width, name="emb"),
            layer.LSTM(units, return_sequences=True, name="lstm"),
            layer.GRU(units + 1, return_sequences=True, name="gru"),
            layer.GRU(units, reset_after=False, return_sequences=True, name="old"),
            layer.SimpleRNN(units, use_bias=False, return_sequences=True, name="rnn"),
            layer.Bidirectional(layer.LSTM(units, name="two"), name="both"),
        ],
        name="text",
    )


def odd_convolutions(keras, filters, multiplier, window):
    layer = keras.layers
    return keras.Sequential(
        [
            keras.Input((20, 4), name="in"),
            layer.Conv1D(filters, window, padding="same", groups=2, name="grouped"),
            layer.DepthwiseConv1D(window, padding="same", use_bias=False, name="depth"),
            layer.SeparableConv1D(filters, window, padding="same", name="apart"),
            layer.Conv1DTranspose(filters, window, padding="same", name="back"),
            layer.GroupNormalization(2, name="group"),
            layer.SeparableConv1D(2, 3, depth_multiplier=multiplier, name="last"),
        ],
        name="odd",
    )


def wrapped(keras, units, taken):
    layer = keras.layers
    return keras.Sequential(
        [
            keras.Input((5, taken), name="in"),
            layer.TimeDistributed(layer.Dense(units, name="inside"), name="each"),
            layer.Dense(2, name="head"),
        ],
        name="wrapped",
    )


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("make", "before", "after"),
    [
        (dense_chain, (4, 2), (4, 5)),
        (dense_chain, (4, 2), (6, 2)),
        (dense_chain, (4, 2, 3), (6, 5, 7)),
        (image, (4,), (6,)),
        (image, (4, 3), (4, 5)),
        (image, (4, 3, 2, 3), (6, 5, 9, 1)),
        (functional, (3,), (4,)),
        (functional, (3, 5), (4, 6)),
        (nested, (3,), (4,)),
        (text, (10, 6, 3), (12, 6, 3)),
        (text, (10, 6, 3), (10, 8, 3)),
        (text, (10, 6, 3), (11, 7, 4)),
        (odd_convolutions, (4, 1, 3), (6, 1, 3)),
        (odd_convolutions, (4, 1, 3), (4, 2, 5)),
        (wrapped, (3, 3), (4, 3)),
        (wrapped, (3, 3), (4, 6)),
    ],
)
def test_synced_config_is_that_of_the_model_with_such_weights(keras, tmp_path, make, before, after):
    old, new = make(keras, *before), make(keras, *after)
    wanted = config_of(new, tmp_path)
    config = config_of(old, tmp_path)
    found = disagreements(config, changes_between(old, new))
    assert found
    assert all(one.fix is not None for one in found)
    content = synced(config, found)
    assert plain(json.loads(content)) == plain(wanted.value)
    assert not disagreements(read_config(content), changes_between(old, new))


@pytest.mark.tensorflow
def test_channels_first(keras, tmp_path):
    def make(filters, channels):
        return keras.Sequential(
            [
                keras.Input((channels, 8, 8), name="in"),
                keras.layers.ZeroPadding2D(data_format="channels_first", name="pad"),
                keras.layers.Conv2D(filters, 3, data_format="channels_first", name="conv"),
                keras.layers.BatchNormalization(axis=1, name="bn"),
                keras.layers.GlobalAveragePooling2D(data_format="channels_first", name="pool"),
                keras.layers.Dense(2, name="head"),
            ],
            name="first",
        )

    old, new = make(4, 3), make(6, 3)
    config = config_of(old, tmp_path)
    found = disagreements(config, changes_between(old, new))
    assert plain(json.loads(synced(config, found))) == plain(config_of(new, tmp_path).value)
    # A layer without weights is between the input and the one that tells its width.
    found = disagreements(config, changes_between(old, make(4, 1)))
    assert [(one.layer, one.field, one.wanted) for one in found] == [
        ("conv", "build_config.input_shape[1]", 1)
    ]


# --- Keras loads it ---------------------------------------------------------------------------


def rewritten(folder, config, values):
    """Write a .keras file with another config and other weights, by their paths in the HDF5."""
    with zipfile.ZipFile(folder / "model.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    content = io.BytesIO(members["model.weights.h5"])
    with h5py.File(content, "r+") as file:
        for path, value in values.items():
            del file[path]
            if value.dtype.name == "bfloat16":
                file[path] = value.view("V2")
                file[path].attrs["dtype"] = "bfloat16"
            else:
                file[path] = value
    members |= {"config.json": config, "model.weights.h5": content.getvalue()}
    with zipfile.ZipFile(folder / "edited.keras", "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return folder / "edited.keras"


generator = np.random.default_rng(5)


def numbers(*shape):
    return generator.normal(size=shape).astype("float32")


def loaded(keras, model, folder, values, paths):
    """Load a model with other weights, given by their labels, through a synced config."""
    config = config_of(model, folder)
    old = specs_of(model)
    changes = [
        SpecChange(label, old[label], TensorSpec(value.dtype.name, value.shape))
        for label, value in values.items()
    ]
    content = synced(config, disagreements(config, changes))
    stored = {paths[label]: value for label, value in values.items()}
    result = keras.models.load_model(rewritten(folder, content, stored))
    # A nested model may name its weights otherwise once it is loaded; no two values are the same.
    found = {np.asarray(keras.ops.convert_to_numpy(v)).tobytes(): v for v in result.weights}
    for value in values.values():
        variable = found[value.tobytes()]
        assert (variable.dtype, tuple(variable.shape)) == (value.dtype.name, value.shape)
    return result


@pytest.mark.tensorflow
def test_head_of_other_width_is_loaded(keras, tmp_path):
    model = dense_chain(keras, 4, 2)
    values = {
        "a/kernel": numbers(3, 6),
        "a/bias": numbers(6),
        "b/kernel": numbers(6, 5),
        "norm/gamma": numbers(5),
        "norm/beta": numbers(5),
    }
    h5 = ["dense/vars/0", "dense/vars/1", "dense_1/vars/0"]
    h5 += ["layer_normalization/vars/0", "layer_normalization/vars/1"]
    paths = dict(zip(values, (f"layers/{one}" for one in h5), strict=True))
    result = loaded(keras, model, tmp_path, values, paths)
    assert result(np.ones((2, 3), "float32")).shape == (2, 5)


@pytest.mark.tensorflow
def test_filters_with_their_normalization_are_loaded(keras, tmp_path):
    model = image(keras, 4)
    values = {
        "conv/kernel": numbers(3, 3, 3, 6),
        "conv/bias": numbers(6),
        **{f"bn/{name}": abs(numbers(6)) for name in ("gamma", "beta")},
        **{f"bn/moving_{name}": abs(numbers(6)) for name in ("mean", "variance")},
        "head/kernel": numbers(96, 2),
    }
    h5 = ["conv2d/vars/0", "conv2d/vars/1", *(f"batch_normalization/vars/{i}" for i in range(4))]
    paths = dict(zip(values, (f"layers/{one}" for one in [*h5, "dense/vars/0"]), strict=True))
    result = loaded(keras, model, tmp_path, values, paths)
    assert result.get_layer("pool").output.shape == (None, 4, 4, 6)


@pytest.mark.tensorflow
def test_functional_and_nested_models_are_loaded(keras, tmp_path):
    values = {"a/kernel": numbers(6, 4), "a/bias": numbers(4)}
    values |= {"left/kernel": numbers(4, 4), "right/kernel": numbers(4, 4)}
    paths = {"a/kernel": "layers/dense/vars/0", "a/bias": "layers/dense/vars/1"}
    paths |= {"left/kernel": "layers/dense_1/vars/0", "right/kernel": "layers/dense_2/vars/0"}
    result = loaded(keras, functional(keras, 3), tmp_path, values, paths)
    assert result.input_shape == (None, 6)

    model = nested(keras, 3)
    values = {"inner/same/kernel": numbers(3, 4), "inner/same/bias": numbers(4)}
    values["same/kernel"] = numbers(4, 2)
    h5 = ["sequential/layers/dense/vars/0", "sequential/layers/dense/vars/1", "dense/vars/0"]
    paths = dict(zip(values, (f"layers/{one}" for one in h5), strict=True))
    result = loaded(keras, model, tmp_path, values, paths)
    assert result.get_layer("inner").output_shape == (None, 4)


@pytest.mark.tensorflow
def test_embedding_of_more_rows_is_loaded(keras, tmp_path):
    model = text(keras, 10, 6, 3)
    values = {"emb/embeddings": numbers(15, 6)}
    paths = {"emb/embeddings": "layers/embedding/vars/0"}
    result = loaded(keras, model, tmp_path, values, paths)
    assert result.get_layer("emb").input_dim == 15


@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_layers_of_other_dtype_are_loaded(keras, tmp_path, dtype):
    # All layers share one policy in the config; those that are not cast keep it.
    model = image(keras, 4)
    names = ["gamma", "beta", "moving_mean", "moving_variance"]
    values = {
        **{f"bn/{name}": abs(numbers(4)).astype(dtype) for name in names},
        "head/kernel": numbers(64, 2).astype(dtype),
        "head/bias": numbers(2).astype(dtype),
    }
    paths = {f"bn/{name}": f"layers/batch_normalization/vars/{i}" for i, name in enumerate(names)}
    paths |= {"head/kernel": "layers/dense/vars/0", "head/bias": "layers/dense/vars/1"}
    result = loaded(keras, model, tmp_path, values, paths)
    assert result.get_layer("head").dtype_policy.name == dtype
    assert result.get_layer("conv").dtype_policy.name == "float32"
    assert result(np.ones((1, 8, 8, 3), "float32")).dtype == dtype


@pytest.mark.tensorflow
def test_layers_of_a_model(keras, tmp_path) -> None:
    found = [*layers(config_of(text(keras, 10, 6, 3), tmp_path))]
    assert [f"{one.owner}{one.name}" for one in found][1:] == [
        "emb", "lstm", "gru", "old", "rnn", "both", "both/forward_two", "both/backward_two",
    ]  # fmt: skip
    found = [*layers(config_of(functional(keras, 3), tmp_path))]
    assert [one.class_name for one in found] == [
        "InputLayer", "Dense", "GaussianNoise", "Dense", "Dense", "Add",
    ]  # fmt: skip
    config = config_of(nested(keras, 3), tmp_path)
    found = {f"{one.owner}{one.name}": one for one in layers(config)}
    assert config.entry(found["inner/same"])["config"]["units"] == 3
    assert config.entry(found["same"])["config"]["units"] == 2


@pytest.mark.tensorflow
def test_text_of_keras_is_as_json_dumps_it(keras, tmp_path) -> None:
    content = config_of(image(keras, 4), tmp_path).content
    assert json.dumps(json.loads(content)).encode() == content
    assert synced(read_config(content), []) is content
