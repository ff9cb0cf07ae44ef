"""Objects that TensorFlow saves and restores, made of plain dictionaries."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import ckptkit
from ckptkit.formats.tensorflow.graph.load import load_graph

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


class Tree:
    """Builds modules: a dictionary is a module, a list a list, a number a variable of it."""

    def __init__(self, tf):
        self.tf = tf
        self.known = {}

    def make(self, what, scale=1.0):
        tf = self.tf
        if isinstance(what, dict):
            module = tf.Module()
            for name, part in what.items():
                setattr(module, name, self.make(part, scale))
            return module
        if isinstance(what, list):
            return [self.make(part, scale) for part in what]
        if isinstance(what, str):
            return self.known.setdefault(what, self.variable(len(self.known) + 100, scale))
        return self.variable(what, scale)

    def variable(self, number, scale):
        return self.tf.Variable(np.float32([number, number + 0.5]) * np.float32(scale))


def objects(tf, what, scale=1.0):
    made = Tree(tf).make(what, scale)
    return tf.train.Checkpoint(**{name: getattr(made, name) for name in what})


def edited(path, *edits, to=None):
    to = to or path.with_name("edited")
    with ckptkit.open(path) as checkpoint:
        plan = checkpoint.edit(*edits).plan(to)
        plan.run()
    with ckptkit.open(to) as checkpoint:
        graph = load_graph(checkpoint.catalog)
        assert sorted(graph.key) == sorted(set(checkpoint) - {"_CHECKPOINTABLE_OBJECT_GRAPH"})
        assert checkpoint.verify().ok
    return plan


def agrees(tf, path, what, *, whole=True, how="write"):
    """Restore into objects of a form, and tell whether all values, and only they, are there."""
    fresh = objects(tf, what, 0.0)
    status = (fresh.read if how == "write" else fresh.restore)(str(path))
    status.assert_existing_objects_matched()
    if whole:
        status.assert_consumed()
    if how == "save":
        assert int(fresh.save_counter) == 1
    same(fresh, objects(tf, what), tf)


def values(tf, root):
    view = tf.train.TrackableView(root).descendants()
    return [one.numpy().tobytes() for one in view if getattr(one, "dtype", None) == tf.float32]


def same(found, wanted, tf):
    assert values(tf, found) == values(tf, wanted) != []


def save(tf, tmp_path, what, how="write"):
    return Path(getattr(objects(tf, what), how)(str(tmp_path / "m")))
