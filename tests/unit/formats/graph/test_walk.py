"""Globs over paths: every path counts, cycles end, and the rules are those of names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit.errors import EditError
from ckptkit.formats.tensorflow.graph.objects import joined, read_graph, respelled
from ckptkit.formats.tensorflow.graph.walk import reached, slots_reached
from ckptkit.globs import glob_pattern
from tests.unit.formats.graph.graphs import encoded, graph_of

MODEL = graph_of(
    (0, 1, "model"),
    (1, 2, "dense"),
    (2, 3, "kernel"),
    (2, 4, "bias"),
    (0, 5, "optimizer"),
    (5, 6, "_trainable_variables"),
    (6, 3, "0"),
    (6, 4, "1"),
    (1, 7, "a.b"),
    (7, 8, "c/d"),
)


@pytest.mark.parametrize(
    ("glob", "nodes"),
    [
        ("", [0]),
        ("model", [1]),
        ("model/dense/kernel", [3]),
        ("optimizer/_trainable_variables/0", [3]),
        ("model/*", [2, 7]),
        ("model/*/*", [3, 4, 8]),
        ("**/kernel", [3]),
        ("**/model", [1]),
        ("optimizer/**", [3, 4, 6]),
        ("optimizer**", [3, 4, 5, 6]),
        ("**", [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("**/?", [3, 4]),
        ("model/a..b/c.Sd", [8]),
        ("model/a.b/*", [8]),
        ("model/a.b/c/d", []),
        ("model/?.b", [7]),
        ("model/a.Sb/*", []),
        ("model/(*)/b*s", [4]),
        ("*", [0, 1, 5]),
        ("nothing", []),
        ("model/", []),
        ("model/dense/kernel/more", []),
    ],
)
def test_what_a_glob_reaches(glob, nodes):
    assert reached(MODEL, glob) == nodes


def test_unbalanced_groups_are_refused():
    with pytest.raises(EditError, match="is no glob"):
        reached(MODEL, "(*)/(")


def test_a_graph_without_nodes_has_nothing():
    assert reached(read_graph(b""), "**") == []


def test_the_root_may_be_reached_again():
    looped = graph_of((0, 1, "a"), (1, 0, "up"))
    assert reached(looped, "a/up") == [0]
    assert reached(looped, "a/up/a/up/a") == [1]
    assert reached(looped, "/a") == []


def test_a_name_that_starts_with_a_slash_is_no_step():
    assert reached(graph_of((0, 1, "/a")), ".Sa") == [1]
    assert reached(graph_of((0, 1, "/a")), "/a") == []


def test_diamonds_in_a_row_are_no_paths_to_count():
    edges = []
    for at in range(0, 600, 3):
        edges += [
            (at, at + 1, "l"),
            (at, at + 2, "r"),
            (at + 1, at + 3, "x"),
            (at + 2, at + 3, "x"),
        ]
    graph = graph_of(*edges, (600, 0, "back"))
    assert reached(graph, "**/l/x/**/r/x")[-1] == 600
    assert reached(graph, "[lr]/x") == []


NAMES = st.sampled_from(["a", "b", "ab", "", ".", "/", "a/", "..S", "(", "*"])
GLOBS = st.lists(
    st.sampled_from(["a", "b", "*", "**", "**/", "/", "?", ".", "S", "(", ")", "."]), max_size=7
).map("".join)


@st.composite
def trees(draw):
    """Trees have one path for every node, which can be written down and matched."""
    count = draw(st.integers(1, 7))
    return [(draw(st.integers(0, child - 1)), child, draw(NAMES)) for child in range(1, count)]


@given(trees(), GLOBS)
def test_it_is_what_the_pattern_matches(edges, glob):
    graph = graph_of(*edges)
    try:
        matches = glob_pattern(respelled(glob)).fullmatch
    except EditError:
        with pytest.raises(EditError):
            reached(graph, glob)
        return
    expected = [node for node in range(len(graph)) if matches(joined(graph.path(node)))]
    assert reached(graph, glob) == expected


def test_slots_are_reached_by_any_path_to_both_ends():
    nodes = [
        {"edges": [(1, "m"), (2, "o.pt"), (1, "alias")]},
        {"edges": [(3, "w")]},
        {"slots": [(3, "m", 4), (3, "v", 5), (0, "m", 6)]},
        *[{"edges": []} for _ in range(4)],
    ]
    graph = read_graph(encoded(nodes))
    slot = "/.OPTIMIZER_SLOT/"
    assert slots_reached(graph, f"m/w{slot}o..pt/m") == [4]
    assert slots_reached(graph, f"alias/w{slot}o.pt/m") == [4]
    assert slots_reached(graph, f"{slot}o..pt/*") == [6]
    assert slots_reached(graph, f"**/w{slot}**/v") == [5]
    assert slots_reached(graph, f"**{slot}**") == [4, 5, 6]
    assert slots_reached(graph, f"*{slot}*") == []
    assert slots_reached(graph, f"m/w{slot}*/m") == [4]
    assert slots_reached(graph, f"m/w{slot}m") == []
    assert slots_reached(graph, "**") == []
    assert slots_reached(graph_of((0, 1, "a")), f"**{slot}**") == []
