"""A zoo of small Keras models: every kind of layer, policy and optimizer that shapes a file."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Builder = Callable[[Any], Any]

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
FLOATS = ("float16", "bfloat16", "float32", "float64")


def import_keras() -> Any:
    """Return Keras 3 on TensorFlow, or skip the test."""
    keras = pytest.importorskip("keras", reason="keras is not installed")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend")
    return keras


def _classes() -> Any:
    from tests.compat import keras_classes

    return keras_classes


def fill(variables: Any, seed: int) -> None:
    """Give variables values that tell them apart; floats are positive, as variances must be."""
    rng = np.random.default_rng(seed)
    for variable in variables:
        shape, dtype = tuple(variable.shape), variable.dtype
        if dtype in FLOATS:
            variable.assign(rng.uniform(0.25, 1.5, shape).astype("float32"))
        elif dtype.startswith("complex"):
            variable.assign((rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype))
        elif dtype == "bool":
            variable.assign(rng.integers(0, 2, shape).astype(bool))
        else:
            variable.assign(rng.integers(0, 100, shape).astype(dtype))


def sequential(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential([
        keras.Input((4,)),
        layers.Dense(5, activation="relu", name="first"),
        layers.BatchNormalization(),
        layers.Dropout(0.5),
        layers.Dense(5, use_bias=False),
        layers.Dense(3, name="head"),
    ])  # fmt: skip


def eleven(keras: Any) -> Any:
    return keras.Sequential([keras.Input((2,)), *(keras.layers.Dense(2) for _ in range(11))])


def functional(keras: Any) -> Any:
    layers, ops = keras.layers, keras.ops
    given = keras.Input((4,), name="given")
    x = ops.relu(layers.Dense(4, name="one")(given))
    y = ops.add(x, layers.Dense(4, name="two")(given) * 2.0)
    shared = layers.Dense(4, name="shared")
    z = layers.Concatenate()([shared(x), shared(y)])
    return keras.Model(given, [layers.Dense(2, name="head")(z), layers.Dense(1)(z)])


def nested(keras: Any) -> Any:
    layers = keras.layers
    inner_in = keras.Input((3,))
    deepest = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="deepest")])
    inner_out = layers.LayerNormalization()(deepest(layers.Dense(3, name="inner")(inner_in)))
    inner = keras.Model(inner_in, inner_out, name="encoder")
    given = keras.Input((3,))
    return keras.Model(given, layers.Dense(2, name="head")(inner(layers.Dense(3)(inner(given)))))


def nested_sequential(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential([
        keras.Input((3,)),
        keras.Sequential([layers.Dense(3), keras.Sequential([layers.Dense(3)])], name="stem"),
        layers.Dense(2, name="head"),
    ])  # fmt: skip


def recurrent(keras: Any) -> Any:
    layers = keras.layers
    given = keras.Input((3, 2))
    x = layers.LSTM(2, return_sequences=True, name="lstm")(given)
    x = layers.Bidirectional(layers.GRU(2, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(2), name="each")(x)
    x = layers.RNN([layers.GRUCell(2), layers.SimpleRNNCell(2)], name="cells")(x)
    return keras.Model(given, layers.Dense(1, name="head")(x))


def attention(keras: Any) -> Any:
    layers = keras.layers
    given = keras.Input((3,), dtype="int32")
    x = layers.Embedding(7, 4)(given)
    x = layers.MultiHeadAttention(2, 2)(x, x)
    x = layers.LayerNormalization()(x)
    return keras.Model(given, layers.EinsumDense("abc,cd->abd", (3, 3), bias_axes="d")(x))


def convolutions(keras: Any) -> Any:
    layers = keras.layers
    given = keras.Input((4, 4, 2))
    x = layers.SeparableConv2D(3, 3, padding="same")(given)
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.Conv2DTranspose(2, 2)(layers.Conv2D(2, 2, padding="same")(x))
    x = layers.Conv1D(2, 3)(layers.Reshape((-1, 2))(x))
    x = layers.Conv3D(2, 2, padding="same")(layers.Reshape((-1, 1, 1, 2))(x))
    return keras.Model(given, layers.Dense(1, name="head")(layers.Flatten()(x)))


def subclassed(keras: Any) -> Any:
    return _classes().Branches()


def deep_lists(keras: Any) -> Any:
    return _classes().DeepLists()


def _odds(*dtypes: str) -> Builder:
    def build(keras):
        odds = _classes().Odds(dtypes, name="odds")
        return keras.Sequential([keras.Input((3,)), odds, keras.layers.Dense(2)])

    return build


def own_keys(keras: Any) -> Any:
    return keras.Sequential([keras.Input((3,)), _classes().OwnKeys()])


def vocabulary(keras: Any) -> Any:
    lookup = keras.layers.StringLookup(output_mode="tf_idf")
    text = keras.layers.TextVectorization(output_mode="tf_idf")
    for layer in (lookup, text):
        layer.adapt(np.array(["word", "a", "été", "a"]))
    given = keras.Input((1,), dtype="string")
    both = keras.layers.Add()([lookup(given), text(given)])
    return keras.Model(given, keras.layers.Dense(2, name="head")(both))


def _policy(policy: str) -> Builder:
    def build(keras):
        layers = keras.layers
        return keras.Sequential([
            keras.Input((4,)),
            layers.Dense(3, dtype=policy, name="first"),
            layers.LayerNormalization(dtype=policy),
            layers.Dense(2, dtype=policy, name="head"),
        ])  # fmt: skip

    return build


def _quantized(mode: str, block_size: int | None = None) -> Builder:
    def build(keras):
        config = (
            keras.quantizers.Int8QuantizationConfig()
            if mode == "int8"
            else keras.quantizers.Int4QuantizationConfig(block_size=block_size)
        )
        layers = keras.layers
        given = keras.Input((3,), dtype="int32")
        x = layers.Embedding(5, 5)(given)
        x = layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d")(x)
        model = keras.Model(given, layers.Dense(5, name="head")(x))
        fill(model.weights, 1)
        for layer in model.layers[1:]:
            layer.quantize(config=config)
        return model

    return build


MODELS: dict[str, Builder] = {
    "sequential": sequential,
    "eleven": eleven,
    "functional": functional,
    "nested": nested,
    "nested_sequential": nested_sequential,
    "recurrent": recurrent,
    "attention": attention,
    "convolutions": convolutions,
    "subclassed": subclassed,
    "deep_lists": deep_lists,
    "odd_dtypes": _odds(*INTEGERS, "bool", *FLOATS),
    "complex": _odds("complex64", "complex128"),
    "own_keys": own_keys,
    "vocabulary": vocabulary,
    "int8": _quantized("int8"),
    "int4": _quantized("int4", 2),
    "int4_channels": _quantized("int4"),
    "mixed_bfloat16": _policy("mixed_bfloat16"),
    "bfloat16": _policy("bfloat16"),
    "float16": _policy("float16"),
    "float64": _policy("float64"),
}
"""Builders by name."""

UNCALLED = {"subclassed": (2, 3), "deep_lists": (2, 2)}
"""Shapes of what models without inputs of their own are called with."""

QUANTIZED = frozenset({"int8", "int4", "int4_channels"})
"""Models whose values belong together."""

SUBCLASSED = frozenset(UNCALLED)
"""Models that the old whole-model format cannot hold."""

OPTIMIZERS: dict[str, Builder] = {
    "sgd": lambda k: k.optimizers.SGD(0.1, momentum=0.9),
    "rmsprop": lambda k: k.optimizers.RMSprop(centered=True, momentum=0.5),
    "adam": lambda k: k.optimizers.Adam(0.01),
    "amsgrad": lambda k: k.optimizers.Adam(0.01, amsgrad=True),
    "adamw": lambda k: k.optimizers.AdamW(0.01),
    "adadelta": lambda k: k.optimizers.Adadelta(0.5),
    "adagrad": lambda k: k.optimizers.Adagrad(0.1),
    "adamax": lambda k: k.optimizers.Adamax(0.01),
    "adafactor": lambda k: k.optimizers.Adafactor(0.01),
    "nadam": lambda k: k.optimizers.Nadam(0.01),
    "ftrl": lambda k: k.optimizers.Ftrl(0.1),
    "lion": lambda k: k.optimizers.Lion(0.01),
    "lamb": lambda k: k.optimizers.Lamb(0.01),
    "muon": lambda k: k.optimizers.Muon(0.01),
    "schedule_free": lambda k: k.optimizers.ScheduleFreeAdamW(0.01),
    "loss_scale": lambda k: k.optimizers.LossScaleOptimizer(k.optimizers.Adam(0.01)),
    "schedule": lambda k: k.optimizers.Adam(k.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)),
    "ema": lambda k: k.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.5),
}
"""Builders of optimizers by name."""


def inputs(model: Any, name: str = "") -> Array:
    """Return what a model is called with, the same each time."""
    if name == "vocabulary":
        import tensorflow as tf

        return tf.constant([["word"], ["a"], ["nothing"]])
    shape = UNCALLED.get(name) or (2, *model.inputs[0].shape[1:])
    values = np.random.default_rng(7).uniform(0, 4, shape)
    dtype = "float32" if name in UNCALLED else model.inputs[0].dtype
    return values.astype(dtype)


def fresh(name: str, seed: int = 2) -> Any:
    """Build a model of the zoo, with values that tell its variables apart."""
    keras = import_keras()
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    model = MODELS[name](keras)
    model(inputs(model, name))
    if name not in QUANTIZED:
        fill(model.weights, seed)
    return model


@cache
def build(name: str) -> Any:
    """Return a model of the zoo; it is shared, and not to be changed."""
    return fresh(name)


def train(model: Any) -> None:
    """Go one step, eagerly, along gradients that are the same each time."""
    rng = np.random.default_rng(11)
    convert = import_keras().ops.convert_to_tensor
    variables = model.trainable_variables
    found = [rng.uniform(-1, 1, tuple(v.shape)).astype("float32") for v in variables]
    model.optimizer.apply([convert(gradient) for gradient in found], variables)


def fresh_trained(optimizer: str, model: str = "sequential", seed: int = 2) -> Any:
    """Build a compiled model of the zoo that has gone one step."""
    keras = import_keras()
    found = fresh(model, seed)
    loss = keras.losses.MeanSquaredError()
    found.compile(OPTIMIZERS[optimizer](keras), loss, run_eagerly=True, jit_compile=False)
    found.optimizer.build(found.trainable_variables)
    train(found)
    return found


@cache
def trained(optimizer: str, model: str = "sequential") -> Any:
    """Return a model that has gone one step; it is shared, and not to be changed."""
    return fresh_trained(optimizer, model)


def predict(model: Any, name: str) -> list[Array]:
    """Return what a model makes of its inputs."""
    found = model(inputs(model, name), training=False)
    return [np.asarray(one) for one in (found if isinstance(found, (list, tuple)) else [found])]
