"""Object graphs as columns, read from real checkpoints, and their revisions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit.errors import CorruptError
from ckptkit.formats.tensorflow.graph.objects import (
    escape,
    joined,
    paths_to,
    read_graph,
    split,
)
from ckptkit.formats.tensorflow.graph.revision import Revision
from tests.unit.formats.graph.graphs import encoded, graph_of, variable

SEEDS = Path(__file__).parents[4] / "native/fuzz/seeds/graph"
KEY = "/.ATTRIBUTES/VARIABLE_VALUE"


def test_a_graph_that_tensorflow_wrote():
    graph = read_graph((SEEDS / "checkpoint").read_bytes())
    paths = [joined(graph.path(node)) for node in range(len(graph))]
    assert paths == [
        *("", "m", "step", "save_counter", "m/w", "m/l", "m/d", "m/l/0", "m/d/a..b", "m/d/c.Sd")
    ]
    assert {graph.key[at]: graph.attribute_node[at] for at in range(6)} == {
        path + KEY: node for node, path in enumerate(paths) if node in {2, 3, 4, 7, 8, 9}
    }
    assert list(graph.holders) == [1] * 10
    assert graph.child(1, "me") == 1
    assert graph.child(5, "1") == 4
    assert graph.child(5, "2") is None
    assert list(paths_to(graph, 4, 5)) == [("m", "w"), ("m", "l", "1")]
    assert [*graph.edges_of] == [0, 1, 5, 6]
    assert len(graph.attributes_of) == 6
    assert 0 not in graph.attributes_of
    assert -1 not in graph.edges_of
    assert graph.slots_of.get(0) is None


@pytest.mark.parametrize("seed", sorted(path.name for path in SEEDS.iterdir()))
def test_a_revision_back_gives_the_same_bytes(seed):
    data = (SEEDS / seed).read_bytes()
    graph = read_graph(data)
    there = Revision(graph)
    for at, key in enumerate(graph.key):
        there.set_attribute(at, key=f"x/{key}", full_name=key)
    there.rename_edge(0, "another")
    moved = read_graph(there.encode())
    assert moved.key == [f"x/{key}" for key in graph.key]
    assert (moved.full_name, moved.edge_name[0]) == (graph.key, "another")
    back = Revision(moved)
    for at, key in enumerate(graph.key):
        back.set_attribute(at, key=key, full_name=graph.full_name[at])
    back.rename_edge(0, graph.edge_name[0])
    assert back.encode() == data


def test_all_changes_of_a_revision():
    nodes = [{"edges": [(1, "a"), (2, "b")], "slots": [(1, "m", 2)]}, variable("a"), variable("b")]
    revision = Revision(read_graph(encoded(nodes)))
    assert not revision.changed
    revision.drop_edge(1)
    revision.drop_attribute(1)
    revision.drop_slot(0)
    revision.set_has_values(2, value=False)
    node = revision.add_node()
    revision.add_edge(0, node, "c")
    revision.add_attribute(node, "VARIABLE_VALUE", "full", "c")
    revision.add_slot(0, 1, "v", node)
    revision.set_has_values(node, value=True)
    assert revision.changed
    expected = [
        {"edges": [(1, "a"), (3, "c")], "slots": [(1, "v", 3)]},
        variable("a"),
        {"values": False},
        variable("c", "full"),
    ]
    assert revision.encode() == encoded(expected)


def test_the_last_change_of_a_thing_counts():
    revision = Revision(graph_of((0, 1, "a")))
    revision.drop_edge(0)
    revision.rename_edge(0, "b")
    assert read_graph(revision.encode()).edge_name == ["b"]


def test_what_does_not_parse_says_where():
    with pytest.raises(CorruptError, match="the object graph does not parse: the graph refers"):
        read_graph(b"\x0a\x04\x0a\x02\x08\x01")
    with pytest.raises(CorruptError) as caught:
        read_graph(b"\x0a\x00\x0a\x80")
    assert caught.value.offset == 3


@given(st.lists(st.text(alphabet="ab./S", min_size=1), max_size=4))
def test_paths_are_written_as_in_keys(names):
    assert split(joined(names)) == tuple(names)
    assert all("/" not in escape(name) for name in names)
