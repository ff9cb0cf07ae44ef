"""The object graph as a structure of a catalog: when it is read, and what it answers."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import ckptkit
from ckptkit import CorruptError, EditError
from ckptkit.formats.tensorflow.graph import answers
from ckptkit.formats.tensorflow.graph.load import load_graph
from ckptkit.formats.tensorflow.graph.objects import HAS_VALUES
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY, GraphStructure
from tests.unit.formats.graph.graphs import (
    encoded,
    graph_after,
    key,
    refused,
    variable,
    write,
)

VALUE = key("")

NODES = [
    {"edges": [(1, "net"), (2, "step"), (6, "again")], "values": True},
    {"edges": [(3, "dense"), (4, "tail")], "values": True},
    variable(key("step"), "step"),
    {"edges": [(5, "kernel"), (6, "bias")], "values": True},
    {"edges": [(5, "kernel")], "values": True},
    variable(key("net/dense/kernel"), "dense/kernel"),
    variable(key("again"), "dense/bias"),
]
"""A kernel and a bias that several paths reach."""


@pytest.fixture
def checkpoint(tmp_path):
    with write(tmp_path / "m", NODES) as found:
        yield found


def edges(graph):
    return sorted(zip(graph.edge_parent, graph.edge_child, graph.edge_name, strict=True))


# --- when it is read ---------------------------------------------------------------------------


@pytest.fixture
def unread(monkeypatch):
    def fail(*_):
        pytest.fail("the object graph is read")

    monkeypatch.setattr(answers, "load_graph", fail)


@pytest.mark.parametrize(
    "edits",
    [
        (),
        ("net/** *= 2",),
        (f"{key('step')}[1] = 3", "cast ** -> float16"),
        (f"{key('step')} = 3", "clip net/** -> 0, 1"),
    ],
)
def test_edits_of_values_do_not_read_it(checkpoint, unread, edits):
    plan = checkpoint.edit(*edits).plan(checkpoint.path + "-n")
    plan.run()
    if not edits:
        for kind in (".index", ".data-00000-of-00001"):
            paths = [Path(path + kind) for path in (checkpoint.path, checkpoint.path + "-n")]
            assert paths[0].read_bytes() == paths[1].read_bytes()


def test_names_that_are_as_before_leave_it_as_it_is(checkpoint):
    before = load_graph(checkpoint.catalog).data
    graph, _ = graph_after(checkpoint, "rename ^net/ -> other/", "rename ^other/ -> net/")
    assert graph.data == before
    graph, _ = graph_after(
        checkpoint, "rename graph:net/dense -> graph:net/d", "rename graph:net/d -> graph:net/dense"
    )
    assert graph.data == before


def test_it_is_pickled_unread_with_its_catalog(checkpoint):
    catalog = checkpoint.catalog
    assert catalog.structure.places(catalog, "net/tail/kernel") == [2]
    copy = pickle.loads(pickle.dumps(catalog))  # noqa: S301  our own
    assert isinstance(copy.structure, GraphStructure)
    assert copy.structure._answers is None
    assert copy.structure.places(copy, "net/tail/kernel") == [2]
    moved = checkpoint.edit("rename graph:net/tail -> graph:tail").catalog
    copy = pickle.loads(pickle.dumps(moved))  # noqa: S301
    assert copy.structure.places(copy, "tail/kernel") == [2]


def test_a_checkpoint_without_a_graph_says_so(tmp_path):
    ckptkit.save(tmp_path / "m", {"a": [1.0]})
    with ckptkit.open(tmp_path / "m") as found:
        assert found.catalog.structure is None
        assert "says nothing of objects; use the names" in refused(found, "graph:a *= 2")
        assert "says nothing of objects; give a name" in refused(found, "new graph:b = t('a')")
        assert "says nothing of objects: rename by" in refused(found, "rename graph:a -> graph:b")


def test_a_tensor_of_the_name_that_is_no_text_is_no_graph(tmp_path):
    ckptkit.save(tmp_path / "m", {GRAPH_KEY: [1.0]})
    with ckptkit.open(tmp_path / "m") as found:
        assert found.catalog.structure is None


def test_a_graph_that_does_not_read_fails_edits_that_need_it(tmp_path):
    ckptkit.save(tmp_path / "m", {GRAPH_KEY: b"\x0a\xff", "a": [1.0]})
    with ckptkit.open(tmp_path / "m") as found:
        assert found.edit("a *= 2").plan(tmp_path / "n")
        with pytest.raises(CorruptError) as caught:
            found.edit("rename a -> b").plan(tmp_path / "n")
        assert caught.value.tensor == GRAPH_KEY
        plan = found.edit("rename a -> b", f"drop {GRAPH_KEY}").plan(tmp_path / "n")
        assert any("no object gets its values" in note for note in plan.notes)


# --- what it answers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("step", ["step"]),
        ("net/tail/kernel", ["net/dense/kernel"]),
        ("net/*/kernel", ["net/dense/kernel"]),
        ("net/dense/*", ["again", "net/dense/kernel"]),
        ("**", ["again", "net/dense/kernel", "step"]),
    ],
)
def test_paths_reach_tensors_under_whatever_name(checkpoint, path, names):
    catalog = checkpoint.catalog
    found = catalog.structure.places(catalog, path)
    assert [catalog.names[at] for at in found] == list(map(key, names))


def test_a_path_that_reaches_no_tensor_is_refused(checkpoint):
    for path in ("nets/dense", "net/dense/*/kernel", "net/"):
        found = refused(checkpoint, f"graph:{path} *= 2")
        assert found == f"no object with a tensor is at 'graph:{path}'; ls --graph shows the tree"
    for path, told in {
        "net": "below it are 2 tensors: graph:net/**",
        "net/tail": "below it is 1 tensor: graph:net/tail/**",
        "": "below it are 3 tensors: graph:**",
    }.items():
        found = refused(checkpoint, f"drop graph:{path}")
        assert found == f"no object with a tensor is at 'graph:{path}'; {told}"
        assert len(checkpoint.edit(f"graph:{told.partition(':')[2][7:]} *= 2").catalog) == 4


def test_a_dot_that_escapes_nothing_stands_for_itself(tmp_path):
    nodes = [{"edges": [(1, "a.b")]}, variable(key("a..b"))]
    with write(tmp_path / "m", nodes) as found:
        assert len(found.edit("drop graph:a.b").catalog) == 1
        graph, _ = graph_after(found, "rename graph:a.b -> graph:c.d/e.f")
        assert graph.key == [key("c..d/e..f")]
        assert edges(graph) == [(0, 2, "c.d"), (2, 1, "e.f")]
        graph, _ = graph_after(found, "new graph:g.h = zeros(shape=[1])")
        assert graph.key[1] == key("g..h")


def test_slot_variables_are_targets_by_the_paths_of_both(tmp_path):
    nodes = [
        {"edges": [(1, "m"), (2, "o"), (1, "n")]},
        {"edges": [(3, "w")]},
        {"slots": [(3, "s", 4)]},
        variable(key("m/w")),
        variable(key("m/w/.OPTIMIZER_SLOT/o/s")),
    ]
    with write(tmp_path / "m", nodes) as found:
        for target in ("m/w/.OPTIMIZER_SLOT/o/s", "n/w/.OPTIMIZER_SLOT/o/*"):
            left = found.edit(f"drop graph:{target}").catalog
            assert list(left) == [GRAPH_KEY, key("m/w")]
        assert list(found.edit("drop graph:**").catalog) == [
            GRAPH_KEY,
            key("m/w/.OPTIMIZER_SLOT/o/s"),
        ]
        assert "goes along with these" in refused(
            found, "rename graph:m/w/.OPTIMIZER_SLOT/o/s -> graph:x"
        )


def test_paths_are_those_after_the_edits_so_far(checkpoint):
    draft = checkpoint.edit(
        "rename ^net/dense/ -> net/first/", "rename graph:net/tail -> graph:end"
    )
    catalog = draft.catalog
    kernel = catalog.position(key("net/first/kernel"))
    assert catalog.structure.places(catalog, "end/kernel") == [kernel]
    assert catalog.structure.places(catalog, "net/first/kernel") == [kernel]
    assert catalog.structure.places(catalog, "net/dense/kernel") == []


def test_a_new_tensor_is_named_as_keys_spell_the_path(checkpoint):
    catalog = checkpoint.catalog
    named = catalog.structure.name_at
    assert named(catalog, "net/tail/bias") == key("net/tail/bias")
    assert named(catalog, "a/b") == key("a/b")
    assert named(catalog, "net/dense/bias/more") == key("again/more")
    with pytest.raises(EditError, match="has a tensor already: 'net/dense/kernel/"):
        named(catalog, "net/tail/kernel")
    for path in ("", "/a", "a/", "a//b", "net/dense/kernel/.OPTIMIZER_SLOT/net/m"):
        with pytest.raises(EditError, match="is no path of an object"):
            named(catalog, path)


# --- what becomes of it ------------------------------------------------------------------------


def test_a_rename_moves_an_edge_a_key_and_the_name_of_the_variable(checkpoint):
    before = load_graph(checkpoint.catalog)
    graph, notes = graph_after(checkpoint, "rename ^net/dense/ -> net/first/")
    assert set(edges(graph)) - set(edges(before)) == {(1, 3, "first")}
    assert list(graph.key) == [key("step"), key("net/first/kernel"), key("again")]
    assert list(graph.full_name) == ["step", "first/kernel", "dense/bias"]
    assert "the object graph goes with the edit: 1 edge, 1 key" in notes


def test_only_the_edge_of_an_alias_goes(checkpoint):
    graph, notes = graph_after(checkpoint, "rename graph:net/dense/bias -> graph:net/dense/offset")
    assert (3, 6, "offset") in edges(graph)
    assert (3, 6, "bias") not in edges(graph)
    assert list(graph.key) == [key("step"), key("net/dense/kernel"), key("again")]
    assert any("only the object graph is another" in note for note in notes)
    assert "the object graph goes with the edit: 1 edge" in notes
    graph, notes = graph_after(checkpoint, "rename graph:net/tail/kernel -> graph:x/y")
    assert (0, 7, "x") in edges(graph)
    assert (7, 5, "y") in edges(graph)
    assert (4, 5, "kernel") not in edges(graph)
    assert "the object graph goes with the edit: 2 edges" in notes


def test_where_an_alias_goes_there_are_values_afterwards(checkpoint):
    before = load_graph(checkpoint.catalog)
    graph, _ = graph_after(checkpoint, "rename graph:net/tail/kernel -> graph:x/y")
    tail, made = 4, len(before)
    assert [node for node, holds in enumerate(graph.holders) if not holds] == [tail]
    assert not graph.flags[tail] & HAS_VALUES
    assert graph.flags[made] & HAS_VALUES
    assert graph.flags[:tail] == before.flags[:tail]


def test_what_all_edits_do_to_the_graph_is_told_together(checkpoint):
    _, notes = graph_after(
        checkpoint,
        f"drop {key('step')}",
        "rename graph:net/tail -> graph:net/end",
        "rename graph:net/dense -> graph:first",
        "rename ^first/ -> second/",
    )
    told = [note for note in notes if "object graph goes" in note]
    assert told == ["the object graph goes with the edit: 1 attribute left out, 3 edges, 2 keys"]


def test_an_object_in_the_way_is_named(checkpoint):
    assert refused(checkpoint, "rename graph:step -> graph:net/tail/kernel") == (
        "'step' cannot become 'net/tail/kernel': an object is there already,"
        f" that of {key('net/dense/kernel')!r}"
    )
    assert refused(checkpoint, "rename graph:net -> graph:net/inner/net") == (
        "'net' cannot become 'net/inner/net', which is below it"
    )
    assert refused(checkpoint, "rename graph:nothing -> graph:x") == (
        "no object is at 'nothing'; ls --graph shows the tree"
    )
    for path in ("/x", "", "x//y", "x/", "x/.ATTRIBUTES/y", "x/.OPTIMIZER_SLOT/o/m"):
        found = refused(checkpoint, f"rename graph:step -> graph:{path}")
        assert found == f"{path!r} is no path of an object"
    assert refused(checkpoint, "rename graph:net/* -> graph:x") == (
        "no object is at 'net/*', which is one object, not a glob; ls --graph shows the tree"
    )
    assert refused(checkpoint, "rename graph: -> graph:x") == (
        "the root of all objects has no name; rename what it has"
    )
    assert refused(checkpoint, "rename graph:net -> graph:net") == "'net' is called that already"
    assert refused(checkpoint, "rename ^step/ -> net/tail/kernel/") == (
        "'step' cannot become 'net/tail/kernel': the object of"
        f" {key('net/dense/kernel')!r} is there already, by another path"
    )
    found = refused(checkpoint, f"new {key('net/tail/kernel')} = t('{key('step')}')")
    assert found == (
        "the object at 'net/tail/kernel' has a tensor already,"
        f" {key('net/dense/kernel')!r}, besides {key('net/tail/kernel')!r}"
    )


def test_a_rename_to_what_is_no_key_changes_only_the_key(checkpoint):
    before = load_graph(checkpoint.catalog)
    graph, notes = graph_after(checkpoint, f'rename {VALUE} -> ""')
    assert list(graph.key) == ["step", "net/dense/kernel", "again"]
    assert edges(graph) == edges(before)
    assert any("no name of its object, to which the graph still leads" in note for note in notes)


def test_keys_that_lead_elsewhere_are_only_renamed(tmp_path):
    nodes = [{"edges": [(1, "a"), (2, "b")]}, variable(key("b")), variable(key("lost/one"))]
    with write(tmp_path / "m", nodes) as found:
        graph, _ = graph_after(found, "rename ^ -> x/")
        assert list(graph.key) == [key("x/b"), key("x/lost/one")]
        assert edges(graph) == [(0, 1, "a"), (0, 2, "b")]


def test_an_attribute_without_a_tensor_goes_along(tmp_path):
    nodes = [
        {"edges": [(1, "a")]},
        {"edges": [(2, "v"), (3, "w")]},
        variable(key("a/v")),
        variable(key("a/w")),
    ]
    write(tmp_path / "m", nodes).close()
    # What MaxShardSizePolicy does to a tensor without elements.
    with ckptkit.open(tmp_path / "m") as found:
        names = [name for name in found if name != key("a/w")]
        ckptkit.save(tmp_path / "less", {name: found[name].read() for name in names})
    with ckptkit.open(tmp_path / "less") as found:
        graph, _ = graph_after(found, "rename ^a/ -> b/")
        assert list(graph.key) == [key("b/v"), key("b/w")]
        assert edges(graph) == [(0, 1, "b"), (1, 2, "v"), (1, 3, "w")]


def test_the_tensor_that_an_attribute_lacks_is_added(tmp_path):
    nodes = [{"edges": [(1, "a"), (2, "o")]}, variable(key("a")), {"slots": [(1, "m", 3)]}]
    slot = f"a/.OPTIMIZER_SLOT/o/m{VALUE}"
    write(tmp_path / "m", [*nodes, variable(slot)]).close()
    with ckptkit.open(tmp_path / "m") as found:
        before = load_graph(found.catalog).data
        ckptkit.save(tmp_path / "less", {GRAPH_KEY: found[GRAPH_KEY].read()})
    with ckptkit.open(tmp_path / "less") as found:
        graph, _ = graph_after(found, ckptkit.Put(key("a"), [1.0]), ckptkit.Put(slot, [2.0]))
        assert graph.data == before
        graph, _ = graph_after(found, "new graph:b = zeros(shape=[2])", ckptkit.Put(slot, [2.0]))
        assert list(graph.key) == [key("a"), slot, key("b")]


def test_what_is_left_out_leaves_its_node(checkpoint):
    graph, _ = graph_after(checkpoint, "drop graph:net/tail/kernel")
    assert len(graph) == len(NODES)
    assert list(graph.key) == [key("step"), key("again")]
    assert [flags & 4 > 0 for flags in graph.flags] == [True, True, True, True, False, False, True]


def test_a_tensor_of_no_object_is_noted(checkpoint):
    _, notes = graph_after(checkpoint, f"new extra = t('{key('step')}')")
    assert any(
        note == "extra: of no object, so that only its name restores it;"
        " new graph:PATH = ... adds an object"
        for note in notes
    )


def test_an_edit_of_the_graph_itself_is_left_alone(checkpoint):
    other = encoded([{"edges": [(1, "a")]}, variable("a")])
    draft = checkpoint.edit(ckptkit.Put(GRAPH_KEY, other), f"rename {key('step')} -> a")
    to = checkpoint.path + "-n"
    draft.plan(to).run()
    with ckptkit.open(to) as found:
        assert load_graph(found.catalog).data == other
    assert "the object graph itself is edited" in refused(
        checkpoint, ckptkit.Put(GRAPH_KEY, other), "graph:a *= 2"
    )


@pytest.mark.parametrize("how", ["append", "auto", "link"])
def test_every_way_of_writing_takes_the_graph_along(checkpoint, how):
    to = checkpoint.path + "-n" if how == "link" else None
    checkpoint.edit("rename ^net/ -> model/").plan(to, how=how).run()
    with ckptkit.open(to or checkpoint.path) as found:
        graph = load_graph(found.catalog)
        assert key("model/dense/kernel") in graph.key
        assert found.verify().ok


# --- what wildcards leave alone ----------------------------------------------------------------


def test_wildcards_and_renames_leave_the_graph_alone(checkpoint):
    assert list(checkpoint.edit("keep net/**").catalog) == [GRAPH_KEY, key("net/dense/kernel")]
    assert list(checkpoint.edit(f"keep {key('step')}").catalog) == [GRAPH_KEY, key("step")]
    assert list(checkpoint.edit("drop **").catalog) == [GRAPH_KEY]
    assert GRAPH_KEY in checkpoint.edit("rename ^ -> x/").catalog
    assert refused(checkpoint, "drop _CHECK*") == (
        f"'_CHECK*' matches only {GRAPH_KEY!r}; to leave it out, give its exact name"
    )
    assert refused(checkpoint, "rename OBJECT -> X") == (
        f"'OBJECT' matches only {GRAPH_KEY!r}, which cannot have another name"
    )
    without = checkpoint.edit(f"drop {GRAPH_KEY}")
    assert without.catalog.structure is None
    assert "what restores objects leaves them as they are" in without.notes[0]


def test_a_prefix_that_is_a_name_is_a_name(tmp_path):
    ckptkit.save(tmp_path / "m", {"graph:a": [1.0], GRAPH_KEY: encoded([{}])})
    with ckptkit.open(tmp_path / "m") as found:
        assert list(found.edit("drop graph:a").catalog) == [GRAPH_KEY]


# --- targets everywhere ------------------------------------------------------------------------


def test_paths_are_targets_of_every_edit(checkpoint):
    kernel = key("net/dense/kernel")
    joined = checkpoint.edit("concat graph:net/tail/kernel, graph:step -> graph:net/both").catalog
    assert list(joined) == [GRAPH_KEY, key("again"), key("net/both")]
    parts = checkpoint.edit("split graph:net/tail/kernel -> graph:a/x, graph:a/y").catalog
    assert list(parts) == [GRAPH_KEY, key("again"), key("step"), key("a/x"), key("a/y")]
    assert kernel not in parts
    assert checkpoint.edit("cast graph:net/** -> float16").catalog[kernel].spec.dtype == "float16"
    copied = checkpoint.edit("copy graph:net/*/kernel -> graph:more/kernel").catalog
    assert copied[key("more/kernel")].source == copied[kernel].source
    with pytest.raises(EditError, match="nor is a checkpoint bound to 'donor'"):
        checkpoint.edit("new graph:more = t('donor:graph:net/tail/kernel')")


def test_two_paths_of_a_new_object_are_no_names_of_two_parts(checkpoint):
    twice = "split graph:step -> graph:net/dense/x, graph:net/dense/y"
    assert len(checkpoint.edit(twice).catalog) == len(checkpoint) + 1
    same = f"split graph:step -> graph:net/dense/x, {key('net/dense/x')}"
    told = refused(checkpoint, same)
    assert told == f"two new tensors would be named {key('net/dense/x')!r}"


def test_a_donor_is_read_by_paths_of_its_objects(checkpoint, tmp_path):
    draft = checkpoint.edit(
        "graph:step = t('donor:graph:net/tail/kernel')",
        "copy donor:graph:net/dense/bias -> graph:more",
        others={"donor": checkpoint},
    )
    draft.plan(tmp_path / "n").run()
    with ckptkit.open(tmp_path / "n") as found:
        assert found[key("step")].read().tolist() == [1.0, 0.5]
        assert found[key("more")].read().tolist() == [2.0, 0.5]
        assert key("more") in load_graph(found.catalog).key
