"""Laws of edits that an object graph follows, over random graphs: diamonds, cycles, odd names."""

from __future__ import annotations

from collections import deque

from hypothesis import assume, event, given
from hypothesis import strategies as st

from ckptkit.catalog import Catalog
from ckptkit.columns import Columns
from ckptkit.errors import EditError
from ckptkit.formats.tensorflow.graph.following import Changes, changes
from ckptkit.formats.tensorflow.graph.objects import (
    ATTRIBUTES,
    HAS_VALUES,
    SLOT,
    VARIABLE_VALUE,
    escape,
    read_graph,
    split,
)
from ckptkit.formats.tensorflow.graph.regraph import regraph
from tests.oracle import graph as oracle
from tests.unit.formats.graph.graphs import encoded

VALUE = ATTRIBUTES + VARIABLE_VALUE
NAMES = st.sampled_from(["a", "b", "c", "d", "w", "x.y", "p/q", ".S", "..", "0", "1", "ü"])


@st.composite
def shapes(draw):
    """Draw nodes with edges, of which some are variables and some slots, as TensorFlow writes."""
    count = draw(st.integers(1, 12))
    edges = {at: [] for at in range(count)}
    for child in range(1, count):
        _connect(draw, edges, draw(st.integers(0, child - 1)), child)
    for _ in range(draw(st.integers(0, 6))):
        parent, child = draw(st.integers(0, count - 1)), draw(st.integers(1, max(1, count - 1)))
        if child < count:
            _connect(draw, edges, parent, child)
    paths = shortest(edges)
    variables = [at for at in sorted(paths) if draw(st.booleans())]
    nodes = [{"edges": edges[at]} for at in range(count)]
    for at in variables:
        nodes[at]["attributes"] = [(VARIABLE_VALUE, f"full/{at}", paths[at] + VALUE)]
    _keep_slots(draw, nodes, paths)
    if draw(st.booleans()):
        graph = read_graph(encoded(nodes))
        for node, holds in zip(nodes, graph.holders, strict=True):
            node["values"] = bool(holds)
    return encoded(nodes)


def _keep_slots(draw, nodes, paths):
    """Make one of the nodes an optimizer that keeps variables for others."""
    named = [at for at in sorted(paths) if at and "attributes" in nodes[at]]
    owners = [at for at in sorted(paths) if at and "attributes" not in nodes[at]]
    if named and owners and draw(st.booleans()):
        owner = draw(st.sampled_from(owners))
        for at in draw(st.lists(st.sampled_from(named), unique=True)):
            key = f"{paths[at]}{SLOT}{paths[owner]}/m{VALUE}"
            nodes[owner].setdefault("slots", []).append((at, "m", len(nodes)))
            nodes.append({"edges": [], "attributes": [(VARIABLE_VALUE, "", key)]})


def shortest(edges):
    """Return the path to each node that a breadth-first walk finds first."""
    paths = {0: ""}
    queue = deque([0])
    while queue:
        node = queue.popleft()
        for child, name in edges[node]:
            if child not in paths:
                above = paths[node]
                paths[child] = f"{above}/{escape(name)}" if above else escape(name)
                queue.append(child)
    return paths


def _connect(draw, edges, parent, child):
    taken = {name for _, name in edges[parent]}
    name = draw(NAMES)
    while name in taken:
        name += "+"
    edges[parent].append((child, name))


def renamings(graph):
    """Draw new paths for some keys."""
    keys = [key for key in graph.key if SLOT not in key and not key.startswith(ATTRIBUTES)]
    paths = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: "/".join(map(escape, names)))
    if not keys:
        return st.just({})
    return st.dictionaries(
        st.sampled_from(keys), st.builds(lambda path: path + VALUE, paths), max_size=6
    )


def swaps(graph, draw):
    """Draw a renaming by a component, as a regular expression would do it."""
    parts = sorted({part for key in graph.key for part in key.split("/")[:-2] if part})
    if not parts:
        return {}
    old, new = draw(st.sampled_from(parts)), draw(NAMES.map(escape))
    found = {}
    for key in graph.key:
        head, rest = key.rsplit(ATTRIBUTES, 1)
        if SLOT in key:
            continue
        becomes = "/".join(new if part == old else part for part in head.split("/"))
        if becomes != head:
            found[key] = becomes + ATTRIBUTES + rest
    return found


def joins(graph, draw):
    """Draw a renaming of all below one path to be below another, as by its prefix."""
    heads = [key.rsplit(ATTRIBUTES, 1)[0] for key in graph.key if SLOT not in key]
    above = sorted({"/".join(head.split("/")[:at]) for head in heads for at in range(1, 4)} - {""})
    if not above:
        return {}
    old, new = draw(st.sampled_from(above)) + "/", draw(st.sampled_from([*above, "new"])) + "/"
    keys = [key for key in graph.key if SLOT not in key and key.startswith(old)]
    return {key: new + key.removeprefix(old) for key in keys if old != new}


def leads_to(nodes, path):
    """Walk from the root along local names, as restoring does."""
    at = 0
    for name in split(path):
        found = [child for child, called in nodes[at].children if called == name]
        if not found:
            return None
        at = found[0]
    return at


def check_sound(data, names):
    """Keys are the names, and lead to their nodes; what is said of values is so."""
    graph = read_graph(data)
    nodes = oracle.decode(data)
    assert sorted(graph.key) == sorted(names)
    for key, node in zip(graph.key, graph.attribute_node, strict=True):
        if SLOT not in key:
            assert leads_to(nodes, key.rsplit(ATTRIBUTES, 1)[0]) == node, key
    for flags, holds, node in zip(graph.flags, graph.holders, nodes, strict=True):
        if node.values is not None:
            assert bool(flags & HAS_VALUES) == bool(holds)
    for node in nodes:
        called = [name for _, name in node.children]
        assert len(called) == len(set(called))
    for at, slot in enumerate(graph.slot_variable):
        (attribute,) = graph.attributes_of[slot]
        owner, original = graph.slot_optimizer[at], graph.slot_original[at]
        variable, _, rest = graph.key[attribute].partition(SLOT)
        assert leads_to(nodes, variable) == original
        assert leads_to(nodes, rest.rpartition("/m" + VALUE)[0]) == owner
    return graph, nodes


@given(data=st.data(), stored=shapes())
def test_keys_lead_to_the_nodes_that_they_led_to_before(data, stored):
    graph = read_graph(stored)
    kind = data.draw(st.sampled_from(["each", "component", "prefix"]))
    if kind == "each":
        moved = data.draw(renamings(graph))
    else:
        moved = (swaps if kind == "component" else joins)(graph, data.draw)
    names = [moved.get(key, key) for key in graph.key]
    moved = {old: new for old, new in moved.items() if old != new}
    assume(len(set(names)) == len(names))
    try:
        done = regraph(graph, graph.key, Changes(dict(moved), {}, []))
    except EditError as error:
        event("collision")
        assert "is there already" in error.message
        return
    event(f"{len(moved)} moved, {len(graph.slot_name)} slots")
    names = [done.names.get(name, name) for name in names]
    after, _ = check_sound(done.data, names)
    assert list(after.attribute_node)[: len(graph.key)] == list(graph.attribute_node)
    assert after.key == names
    assert list(after.slot_variable) == list(graph.slot_variable)
    # What no key is named after stays where it was.
    tree = set(graph.tree)
    kept = set(zip(after.edge_parent, after.edge_child, after.edge_name, strict=True))
    others = zip(graph.edge_parent, graph.edge_child, graph.edge_name, strict=True)
    living = {*graph.attribute_node}
    for edge, (parent, child, name) in enumerate(others):
        if edge not in tree and child in living:
            assert (parent, child, name) in kept or any(
                (parent, name) == (start, called) for start, _, called in kept
            )


@given(data=st.data(), stored=shapes())
def test_what_is_dropped_takes_nothing_else_along(data, stored):
    graph = read_graph(stored)
    gone = data.draw(st.sets(st.sampled_from(graph.key))) if graph.key else set()
    done = regraph(graph, graph.key, Changes({}, dict.fromkeys(gone), []))
    after, before = oracle.decode(done.data), oracle.decode(stored)
    assert len(after) == len(before)
    for node, old in zip(after, before, strict=True):
        assert node.children == old.children
        assert node.attributes == [one for one in old.attributes if one[2] not in gone]
        emptied = {
            at for at, one in enumerate(before) if one.attributes and not after[at].attributes
        }
        assert node.slots == [
            one for one in old.slots if one[0] not in emptied and one[2] not in emptied
        ]
    read = read_graph(done.data)
    for node, holds in zip(after, read.holders, strict=True):
        assert node.values in {None, bool(holds)}
    assert gone or done.data == stored


@given(data=st.data(), stored=shapes())
def test_what_is_added_is_found_by_its_path(data, stored):
    graph = read_graph(stored)
    paths = st.lists(NAMES, min_size=1, max_size=4).map(lambda names: "/".join(map(escape, names)))
    added = data.draw(st.lists(paths.map(lambda path: path + VALUE), min_size=1, unique=True))
    assume(not set(added) & set(graph.key))
    try:
        done = regraph(graph, graph.key, Changes({}, {}, list(added)))
    except EditError as error:
        assert "has a tensor already" in error.message
        return
    after, _ = check_sound(done.data, [*graph.key, *added])
    # Nothing that was there is another.
    edges = set(zip(after.edge_parent, after.edge_child, after.edge_name, strict=True))
    assert edges >= set(zip(graph.edge_parent, graph.edge_child, graph.edge_name, strict=True))


def catalog_of(names):
    return Catalog(list(names), range(len(names)), Columns())


@given(data=st.data(), stored=shapes())
def test_there_and_back_again_is_nowhere(data, stored):
    graph = read_graph(stored)
    base = catalog_of(graph.key)
    moved = swaps(graph, data.draw)
    there = base.replace(names=[moved.get(key, key) for key in base.names])
    assert changes(base, there.replace(names=list(base.names))) is None
    found = changes(base, there)
    assert (found is None) == (list(there.names) == list(base.names))
    if found is not None and len(set(there.names)) == len(base):
        assert found.moved == moved
        assert not found.gone
        assert not found.added


@given(data=st.data())
def test_a_catalog_is_followed_by_rows(data):
    count = data.draw(st.integers(0, 8))
    names = [f"n{at}" for at in range(count)]
    base = catalog_of(names)
    rows = data.draw(st.lists(st.integers(-1, count - 1), max_size=10))
    now = data.draw(
        st.lists(
            st.sampled_from([*names, "x", "y", "z"]),
            min_size=len(rows),
            max_size=len(rows),
            unique=True,
        )
        if len(rows) <= count + 3
        else st.nothing()
    )
    after = base.replace(names=now, rows=rows)
    after.single = {name: object() for name, row in zip(now, rows, strict=True) if row < 0}
    found = changes(base, after)
    if found is None:
        assert (now, rows) == (names, list(range(count)))
        return
    holds = dict(zip(now, rows, strict=True))
    for old, new in found.moved.items():
        assert holds[new] == names.index(old)
    stays = [name for name in names if name not in found.moved and name not in found.gone]
    assert all(name in holds for name in stays)
    assert sorted([*found.moved.values(), *stays, *found.added]) == sorted(now)
    for name in found.gone:
        assert name not in holds or name in found.moved.values()
        assert names.index(name) not in rows
