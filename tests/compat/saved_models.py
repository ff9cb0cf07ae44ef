"""SavedModels of all sorts, and what each of them predicts by every way to call it."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from pathlib import Path

KEY = "/.ATTRIBUTES/VARIABLE_VALUE"
POINTS = np.array([[1.0, 1.0], [0.0, 2.0]], np.float32)

SLOPE, SHIFT = np.array([[2.0], [3.0]], np.float32), np.float32(1.0)


@dataclass(frozen=True)
class Sort:
    """One sort of SavedModel: a line, ``x @ slope + shift``, wherever it keeps the two.

    Attributes:
        make: Makes one in a folder that is not there yet.
        slope, shift: What the two are called in it; as globs, if more than once.
        whole: It is called as a function, too.
    """

    make: Callable[..., None]
    slope: str
    shift: str
    whole: bool = True


def module(tf, folder: Path) -> None:
    """Save a module with two signatures, an asset, and a file that is somebody's own."""
    asset = folder.parent / f"{folder.name}-words.txt"
    asset.write_text("one\ntwo\n")

    class Line(tf.Module):
        def __init__(self):
            super().__init__()
            self.slope = tf.Variable(SLOPE)
            self.shift = tf.Variable(SHIFT)
            self.asset = tf.saved_model.Asset(str(asset))

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])
        def __call__(self, x):
            return x @ self.slope + self.shift

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])
        def twice(self, x):
            return {"y": 2 * self(x)}

    line = Line()
    signatures = {"serving_default": line.__call__, "twice": line.twice}
    tf.saved_model.save(line, str(folder), signatures=signatures)
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "notes.txt").write_text("why")


def keras_export(tf, folder: Path) -> None:
    """Export a Keras 3 model."""
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.set_weights([SLOPE, np.atleast_1d(SHIFT)])
    with contextlib.redirect_stdout(io.StringIO()):
        model.export(str(folder), verbose=False)


def old_keras(tf, folder: Path) -> None:
    """Save a tf_keras model with its optimizer, and keras_metadata.pb."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.Input((2,)), tf_keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(POINTS, np.ones(2), verbose=0)
    model.set_weights([SLOPE, np.atleast_1d(SHIFT)])
    model.save(str(folder), save_format="tf")


def first(tf, folder: Path, *, resource: bool = True) -> None:
    """Save a graph of TensorFlow 1: variables by name, no object graph, no fingerprint of ours."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        with v1.variable_scope("line", use_resource=resource):
            slope = v1.get_variable("slope", initializer=SLOPE)
            shift = v1.get_variable("shift", initializer=SHIFT)
        session.run(v1.global_variables_initializer())
        y = tf.matmul(x, slope) + shift
        info = v1.saved_model.build_tensor_info
        method = v1.saved_model.signature_constants.PREDICT_METHOD_NAME
        signature = v1.saved_model.build_signature_def({"x": info(x)}, {"y": info(y)}, method)
        builder = v1.saved_model.Builder(str(folder))
        signatures = {"serving_default": signature}
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


def first_plain(tf, folder: Path) -> None:
    """Save one whose variables are references, as they were at first."""
    first(tf, folder, resource=False)


def split(tf, folder: Path) -> None:
    """Save a graph of TensorFlow 1 with a variable in two parts."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        parts = v1.fixed_size_partitioner(2)
        slope = v1.get_variable(
            "slope",
            [2, 1],
            initializer=v1.zeros_initializer(),
            partitioner=parts,
            use_resource=True,
        )
        shift = v1.get_variable("shift", initializer=SHIFT, use_resource=True)
        session.run(v1.global_variables_initializer())
        for part, value in zip(slope, SLOPE, strict=True):
            session.run(part.assign(value.reshape(part.shape)))
        y = tf.matmul(x, slope.as_tensor()) + shift
        v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": y})


SORTS = {
    "module": Sort(module, f"slope{KEY}", f"shift{KEY}"),
    "keras": Sort(keras_export, f"*variables/0{KEY}", f"*variables/1{KEY}", whole=False),
    "tf_keras": Sort(
        old_keras, f"layer_with_weights-0/kernel{KEY}", f"layer_with_weights-0/bias{KEY}"
    ),
    "first": Sort(first, "line/slope", "line/shift", whole=False),
    "first, plain": Sort(first_plain, "line/slope", "line/shift", whole=False),
    "first, in parts": Sort(split, "slope", "shift", whole=False),
}


def predictions(tf, folder: str | os.PathLike[str], sort: Sort) -> dict[str, list[float]]:
    """Return what a SavedModel predicts for the points, by every way to call it."""
    loaded = tf.saved_model.load(str(folder))
    found = {}
    for name, served in loaded.signatures.items():
        (argument,) = served.structured_input_signature[1]
        (result,) = served(**{argument: tf.constant(POINTS)}).values()
        found[name] = result.numpy().ravel().tolist()
    if sort.whole:
        found["call"] = np.ravel(loaded(tf.constant(POINTS))).tolist()
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        graph = v1.saved_model.load(session, ["serve"], str(folder))
        signature = graph.signature_def["serving_default"]
        (fed,), (told,) = signature.inputs.values(), signature.outputs.values()
        found["session"] = session.run(told.name, {fed.name: POINTS}).ravel().tolist()
    return found


def line(slope: np.ndarray, shift: float) -> list[float]:
    """Return what a line predicts."""
    return (POINTS @ slope + shift).ravel().tolist()
