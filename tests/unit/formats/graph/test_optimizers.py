"""The state of optimizers: what it is by the object graph, and by names where there is none."""

from __future__ import annotations

import numpy as np

import ckptkit
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY
from ckptkit.naming import DropOptimizerState
from tests.unit.formats.graph.graphs import graph_after, key, refused, variable, write


def test_a_graph_without_an_optimizer_has_no_state(tmp_path):
    with write(tmp_path / "m", [{"edges": [(1, "step")]}, variable(key("step"))]) as found:
        assert refused(found, "drop optimizer state") == "there is no optimizer in the object graph"


def test_a_tensor_may_be_called_optimizer_state(tmp_path):
    ckptkit.save(tmp_path / "m", {"optimizer state": [1.0], "w": [1.0], "w/Adam": [1.0]})
    with ckptkit.open(tmp_path / "m") as found:
        assert "w" in found.edit('drop "optimizer state"').catalog
        assert list(found.edit("drop  optimizer  state ").catalog) == ["optimizer state", "w"]


OPTIMIZED = [
    {"edges": [(1, "model"), (2, "trainer"), (5, "step")]},
    {"edges": [(3, "w")]},
    {
        "edges": [
            (4, "_variables"),
            (5, "_iterations"),
            (6, "_learning_rate"),
            (7, "_trainable_variables"),
        ]
    },
    variable(key("model/w")),
    {"edges": [(5, "0"), (6, "1"), (8, "2")]},
    variable(key("step")),
    variable(key("trainer/_learning_rate")),
    {"edges": [(3, "0"), (9, "1")]},
    variable(key("trainer/_variables/2")),
    variable(key("trainer/_trainable_variables/1")),
]


def test_state_is_what_only_the_optimizer_reaches(tmp_path):
    with write(tmp_path / "m", OPTIMIZED) as found:
        draft = found.edit("drop optimizer state")
        assert draft.notes == ("drop optimizer state: 2 tensors go, 32 B",)
        left = ["model/w", "step", "trainer/_trainable_variables/1"]
        assert [name for name in draft.catalog if name != GRAPH_KEY] == list(map(key, left))
        assert "has no state of its own" in refused(found, *["drop optimizer state"] * 2)
        message = refused(found, "drop trainer/**")
        assert "1 weight that is only named after the optimizer" in message
        assert f"such as {key(left[2])!r};" in message


def test_slots_of_a_variable_that_went_are_state(tmp_path):
    slot = "model/w/.OPTIMIZER_SLOT/trainer/m"
    nodes = [*OPTIMIZED, variable(key(slot))]
    nodes[2] = {**nodes[2], "slots": [(3, "m", len(OPTIMIZED))]}
    with write(tmp_path / "m", nodes) as found:
        graph, _ = graph_after(found, f"drop {key('model/w')}")
        assert key(slot) in graph.key
        graph, _ = graph_after(found, f"drop {key('model/w')}", "drop optimizer state")
        assert key(slot) not in graph.key


def test_nothing_but_state_is_not_dropped(tmp_path):
    nodes = [{"edges": [(1, "optimizer")]}, {"edges": [(2, "iter")]}, variable("optimizer/iter")]
    with write(tmp_path / "m", nodes) as found:
        assert "nothing but the state of an optimizer" in refused(found, "drop optimizer state")


NAMED = {
    "dense/kernel": (2, 3),
    "dense/kernel/Adam": (2, 3),
    "dense/kernel/Adam_1": (2, 3),
    "dense/bias": (3,),
    "dense/bias/Momentum": (3,),
    "training/dense/bias/RMSProp": (3,),
    "beta1_power": (),
    "training/beta2_power_1": (),
    "global_step": (),
    "other/Adam": (2, 3),
    "dense/bias/Adagrad": (4,),
}


def test_without_a_graph_state_is_told_by_names(tmp_path):
    ckptkit.save(tmp_path / "m", {name: np.zeros(shape, "f4") for name, shape in NAMED.items()})
    with ckptkit.open(tmp_path / "m") as found:
        left = found.edit(DropOptimizerState()).catalog
        assert list(left) == [
            "dense/bias",
            "dense/bias/Adagrad",
            "dense/kernel",
            "global_step",
            "other/Adam",
        ]
        assert "no tensor is named as optimizers name" in refused(
            found, *["drop optimizer state"] * 2
        )
