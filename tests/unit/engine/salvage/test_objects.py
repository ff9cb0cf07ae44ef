"""Salvage of checkpoints with an object graph: what it names, and what is left of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ckptkit
from ckptkit.formats.tensorflow.graph.load import load_graph
from ckptkit.formats.tensorflow.graph.objects import HAS_VALUES, SAYS_VALUES, ObjectGraph
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY
from tests.golden.damage import damage
from tests.golden.handmade import texts
from tests.unit.engine.salvage.saves import assert_equal, fates, read
from tests.unit.formats.graph.graphs import encoded, variable

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("unsynced")

W, V = (f"{name}/.ATTRIBUTES/VARIABLE_VALUE" for name in "wv")
TABLE = "t/.ATTRIBUTES/table"
KEYS, VALUES = TABLE + "-keys", TABLE + "-values"


def nodes(*, says: bool) -> list[dict[str, Any]]:
    """Return a root with variables w and v, the latter in a module, and a table."""
    found: list[dict[str, Any]] = [
        {"edges": [(1, "w"), (2, "m"), (3, "t")], "values": True},
        variable(W),
        {"edges": [(4, "v")], "values": True},
        {"attributes": [("table", "t", TABLE)], "values": True},
        variable(V),
    ]
    if not says:
        for node in found:
            node.pop("values")
    return found


def saved(path: Path, *, seed: int = 1, says: bool = True) -> str:
    tensors: dict[str, Any] = {
        W: np.arange(seed, seed + 5, dtype="float32"),
        V: np.arange(3),
        KEYS: np.arange(4),
        VALUES: np.arange(4.0) + seed,
        GRAPH_KEY: texts(encoded(nodes(says=says))).reshape(()),
    }
    ckptkit.save(path, tensors)
    return str(path)


def graph_of(path: str) -> ObjectGraph:
    with ckptkit.open(path) as checkpoint:
        found = load_graph(checkpoint.catalog)
    assert found is not None
    return found


def said(graph: ObjectGraph) -> list[bool | None]:
    """Return what each node says of its values."""
    return [bool(one & HAS_VALUES) if one & SAYS_VALUES else None for one in graph.flags]


def test_a_table_is_named_by_the_graph(tmp_path: Path) -> None:
    path = saved(tmp_path / "m")
    found = ckptkit.salvage(path, tmp_path / "out")
    assert found.ok
    assert found.notes == ("nothing is wrong with this checkpoint",)


def test_a_table_stays_where_another_tensor_is_lost(tmp_path: Path) -> None:
    path = saved(tmp_path / "m")
    damage(path, W)
    found = ckptkit.salvage(path, tmp_path / "out")
    assert fates(found) == {W: "lost"}
    assert found.dropped == (W,)
    graph = graph_of(str(tmp_path / "out"))
    assert sorted(graph.key) == sorted([TABLE, V])
    assert said(graph) == [True, False, True, True, True]


def test_a_table_goes_with_one_of_its_tensors(tmp_path: Path) -> None:
    path = saved(tmp_path / "m")
    damage(path, KEYS)
    found = ckptkit.salvage(path, tmp_path / "out")
    assert fates(found) == {KEYS: "lost"}
    assert found.dropped == (TABLE,)
    graph = graph_of(str(tmp_path / "out"))
    assert sorted(graph.key) == sorted([V, W])
    assert said(graph) == [True, True, True, False, True]


def test_a_graph_that_says_nothing_of_values_goes_on_to_say_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "m", says=False)
    damage(path, W)
    damage(path, V)
    found = ckptkit.salvage(path, tmp_path / "out")
    assert set(found.dropped) == {V, W}
    graph = graph_of(str(tmp_path / "out"))
    assert graph.key == [TABLE]
    assert said(graph) == [None] * 5


def test_the_graph_of_a_donor_with_a_table_is_taken(tmp_path: Path) -> None:
    path = saved(tmp_path / "m")
    wanted = read(path)
    (tmp_path / "donor").mkdir()
    donor = saved(tmp_path / "donor" / "m", seed=2)
    damage(path, GRAPH_KEY)
    found = ckptkit.salvage(path, tmp_path / "out", donor)
    assert fates(found) == {GRAPH_KEY: "filled"}
    assert found.ok
    assert_equal(read(str(tmp_path / "out")), wanted)
