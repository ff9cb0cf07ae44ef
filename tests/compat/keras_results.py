"""What Keras makes of files that we edited, and of models that are edited alike in memory."""

from __future__ import annotations

import numpy as np

import ckptkit
from tests.compat import keras_zoo as zoo

WHOLE = ("zip", "folder", "legacy")
"""Kinds of files that hold a model, and not only its weights."""


def run(file, folder, how, *edits):
    """Edit a saved model, at a new place or in its place; return where the result is."""
    with ckptkit.open(file) as found:
        draft = found.edit(*edits)
        if how != "copy":
            draft.plan(how=how).run(device="numpy")
            return file
        (folder / "out").mkdir()
        draft.plan(folder / "out" / file.name, how="copy").run(device="numpy")
        return folder / "out" / file.name


def load(kind, file, optimizer="adam", model="sequential"):
    """Read a saved model with Keras."""
    if kind in WHOLE:
        keras = zoo.import_keras()
        keras.backend.clear_session()
        return keras.models.load_model(file)
    found = zoo.fresh_trained(optimizer, model, seed=9) if optimizer else zoo.fresh(model, seed=9)
    found.load_weights(file)
    return found


def arrays(variables):
    return [one.numpy() for one in variables]


def equal(a, b):
    return len(a) == len(b) and all(
        (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
        for one, other in zip(a, b, strict=True)
    )


def check_same(found, expected, kind="weights", name="sequential"):
    """Compare weights, state and predictions of two models; and those after one more step."""
    assert equal(arrays(found.weights), arrays(expected.weights))
    assert equal(zoo.predict(found, name), zoo.predict(expected, name))
    # Keras 3 reads no state from the old format.
    if kind != "legacy" and getattr(expected, "optimizer", None):
        state = arrays(expected.optimizer.variables)
        assert equal(arrays(found.optimizer.variables), state)
        zoo.train(found)
        zoo.train(expected)
        assert equal(arrays(found.weights), arrays(expected.weights))


def name_of(found, layer, weight):
    """Return the name of a weight of the sequential model of the zoo, by what it is."""
    old = f"/{layer}/{weight}"
    for name in found:
        if name.endswith(old) and name.startswith("model_weights"):
            return name
    place = {"first": "dense", "head": "dense_2"}.get(layer, layer)
    order = ("gamma", "beta", "moving_mean") if layer.startswith("batch") else ("kernel", "bias")
    return f"layers/{place}/vars/{order.index(weight)}"


def edited(model):
    """Edit a model in memory as :func:`statements` do, and return it."""
    first, head = model.get_layer("first"), model.get_layer("head")
    first.kernel.assign(first.kernel.numpy() * np.float32(0.5))
    kernel, bias = head.kernel.numpy(), head.bias.numpy()
    kernel[:, 1] *= np.float32(1.5)
    bias[1] *= np.float32(1.5)
    head.kernel.assign(kernel)
    head.bias.assign(bias)
    mean = model.get_layer("batch_normalization").moving_mean
    mean.assign(mean.numpy() + np.float32(0.3))
    return model


def statements(file):
    with ckptkit.open(file) as found:
        names = {
            key: name_of(found, *key)
            for key in (
                ("first", "kernel"),
                ("head", "kernel"),
                ("head", "bias"),
                ("batch_normalization", "moving_mean"),
            )
        }
    first, kernel, bias, mean = names.values()
    return (f"{first} *= 0.5", f"{kernel}[:, 1] *= 1.5", f"{bias}[1] *= 1.5", f"{mean} += 0.3")
