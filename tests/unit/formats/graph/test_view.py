"""Objects as people look at them: each once, under its shortest path, with all others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import UnsupportedError
from ckptkit.catalog import Catalog
from ckptkit.formats.tensorflow.graph import view
from ckptkit.formats.tensorflow.graph.objects import read_graph
from ckptkit.formats.tensorflow.graph.view import GraphObjects
from ckptkit.structure import Attribute, Slot
from tests.unit.formats.graph.graphs import encoded, graph_of, variable

KEY = "/.ATTRIBUTES/VARIABLE_VALUE"

NODES = [
    {"edges": [(1, "model"), (2, "optimizer"), (4, "table")]},
    {"edges": [(3, "a.b"), (3, "again"), (0, "up")]},
    {"edges": [(6, "none")], "slots": [(3, "m", 5)]},
    variable("model/a..b" + KEY, "w"),
    {"attributes": [("table", "", "table/.ATTRIBUTES/table")]},
    variable(f"model/a..b/.OPTIMIZER_SLOT/optimizer/m{KEY}"),
    variable("lost" + KEY),
    {"edges": [(8, "x")], "slots": [(1, "n", 7)]},
    {},
]
NAMES = [
    "model/a..b" + KEY,
    f"model/a..b/.OPTIMIZER_SLOT/optimizer/m{KEY}",
    "table/.ATTRIBUTES/table-keys",
    "table/.ATTRIBUTES/table-values",
]


def objects(nodes=NODES, names=NAMES):
    return GraphObjects(read_graph(encoded(nodes)), Catalog.of(dict.fromkeys(names)))


def test_an_object_has_paths_and_values():
    found = list(objects())
    assert [item.path for item in found] == [
        *("", "model", "optimizer", "model/a..b", "table", None, "optimizer/none", None, None)
    ]
    assert found[0].aliases == ("model/up",)
    assert found[3].aliases == ("model/again",)
    assert found[3].attributes == (Attribute("VARIABLE_VALUE", "w", NAMES[0], (NAMES[0],)),)
    assert found[4].attributes[0].tensors == tuple(NAMES[2:])
    assert found[5].slots == (Slot("optimizer", "model/a..b", "m"),)
    assert found[6].attributes[0].tensors == ()


def test_the_tree():
    lines = [
        (line.depth, line.name, line.variable, line.item and line.item.node, line.target)
        for line in objects().lines()
    ]
    assert lines == [
        (0, "", None, 0, None),
        (1, "model", None, 1, None),
        (2, "a.b", None, 3, None),
        (2, "again", None, None, "model/a..b"),
        (2, "up", None, None, ""),
        (1, "optimizer", None, 2, None),
        (2, "none", None, 6, None),
        (2, "m", "model/a..b", 5, None),
        (1, "table", None, 4, None),
        # What no path leads to, that which only it leads to, and what keeps itself.
        (0, "node 8", None, 8, None),
        (0, "node 7", None, 7, None),
        (1, "x", None, None, "node 8"),
        (1, "n", "model", None, "node 7"),
    ]


@pytest.mark.parametrize(
    ("glob", "nodes"),
    [
        ("model/again", [3]),
        ("model/a..b/.OPTIMIZER_SLOT/optimizer/m", [5]),
        ("model/**", [0, 1, 2, 3, 4, 5, 6]),
        ("**/m", [5]),
        ("nothing", []),
    ],
)
def test_globs_choose_by_every_path(glob, nodes):
    assert [item.node for item in objects().matching(glob)] == nodes


def test_no_object():
    assert list(objects([], []).lines()) == list(objects([], [])) == []
    assert objects([], []).matching("**") == []


def test_paths_that_no_program_makes_are_refused(monkeypatch):
    monkeypatch.setattr(view, "MAX_PATH", 10)
    fits = GraphObjects(graph_of((0, 1, "four"), (1, 2, "a.b")), Catalog.of({}))
    assert [line.name for line in fits.lines()] == ["", "four", "a.b"]
    long = GraphObjects(graph_of((0, 1, "four"), (1, 2, "a.b"), (2, 3, "")), Catalog.of({}))
    for call in (lambda: list(long), lambda: list(long.lines()), lambda: long.matching("**")):
        with pytest.raises(UnsupportedError, match="paths of more than 10 characters"):
            call()


def test_too_many_aliases_are_counted(monkeypatch):
    monkeypatch.setattr(view, "MAX_ALIASES", 2)
    graph = graph_of(*((0, 1, name) for name in "abcde"))
    item = list(GraphObjects(graph, Catalog.of({})))[1]
    assert (item.path, item.aliases, item.more_aliases) == ("a", ("b", "c"), 2)


@st.composite
def anything(draw):
    count = draw(st.integers(1, 7))
    at = st.integers(0, count - 1)
    edges = st.lists(st.tuples(at, st.sampled_from("abc")), max_size=3)
    slots = st.lists(st.tuples(at, st.just("m"), at), max_size=2)
    return [{"edges": draw(edges), "slots": draw(slots)} for _ in range(count)]


@given(anything())
def test_every_object_stands_once_and_every_reference_has_a_line(nodes):
    lines = list(objects(nodes, []).lines())
    assert sorted(line.item.node for line in lines if line.item) == list(range(len(nodes)))
    references = sum(len(node["edges"]) + len(node["slots"]) for node in nodes)
    assert sum(line.depth > 0 for line in lines) == references
    assert all((line.item is None) == (line.target is not None) for line in lines)
    for item in objects(nodes, []):
        for path in (item.path, *item.aliases):
            if path is not None:
                assert item in objects(nodes, []).matching(path)
