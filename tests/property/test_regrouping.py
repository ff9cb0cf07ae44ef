"""The law of regrouping: its edits, done one by one, give just what it says becomes of a file."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from ckptkit import EditError
from ckptkit.formats.keras.hdf5.regrouping import Attribute, Make, Move, Remove, regroup
from tests.unit.formats.trees import tree_of

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


class File:
    """A file as nested dicts, whose links are edited as HDF5 would."""

    def __init__(self, tree):
        self.root = {}
        self.attributes = {}
        self.origins = {id(self.root): ""}
        for path in [*tree.groups, *tree.datasets]:
            if path:
                node = {} if path in tree.groups else [path]
                self.put(path, node)
                self.origins[id(node)] = path
        self.kept = []

    def parent(self, path):
        *parents, name = path.split("/")
        at = self.root
        for part in parents:
            at = at[part]
            assert isinstance(at, dict)
        return at, name

    def put(self, path, node):
        parent, name = self.parent(path)
        assert name not in parent
        parent[name] = node

    def take(self, path):
        parent, name = self.parent(path)
        return parent.pop(name)

    def apply(self, edit):
        match edit:
            case Make(path):
                self.put(path, {})
            case Move(old, new):
                assert not new.startswith(old + "/")
                self.put(new, self.take(old))
            case Remove(path):
                self.kept.append(self.take(path))  # so that no other gets its identity
            case Attribute(path, name, value):
                parent, last = self.parent(path)
                assert last in parent
                self.attributes.setdefault(path, {})[name] = value

    def walk(self, node=None, path=""):
        node = self.root if node is None else node
        yield path, isinstance(node, dict), self.origins.get(id(node))
        if isinstance(node, dict):
            for name, child in node.items():
                yield from self.walk(child, f"{path}/{name}" if path else name)


@st.composite
def trees(draw):
    datasets: list[str] = []
    for path in draw(st.lists(PATHS, min_size=1, max_size=8, unique=True)):
        if not any(
            one == path or one.startswith(path + "/") or path.startswith(one + "/")
            for one in datasets
        ):
            datasets.append(path)
    groups = [
        path
        for path in draw(st.lists(PATHS, max_size=4))
        if not any(one == path or path.startswith(one + "/") for one in datasets)
    ]
    return tree_of(datasets, groups=groups)


def by_prefix(draw, paths):
    old, new = draw(PATHS), draw(st.one_of(st.just(""), PATHS))
    return {
        path: (new + now[len(old) :]).lstrip("/") if now.startswith(old + "/") else now
        for path, now in paths.items()
    }


def by_segment(draw, paths):
    old, new = draw(NAMES), draw(NAMES)
    return {path: re.sub(old, new, now) for path, now in paths.items()}


def by_swap(draw, paths):
    one, other = draw(NAMES), draw(NAMES)
    turn = str.maketrans(one + other, other + one)
    return {path: now.translate(turn) for path, now in paths.items()}


def of_one(draw, paths):
    return paths | {draw(st.sampled_from([*paths])): draw(PATHS)}


def but_one(draw, paths):
    left = draw(st.sampled_from([*paths]))
    return {path: now for path, now in paths.items() if path != left}


@st.composite
def changes(draw, tree):
    """New paths: as by renaming what matches, by swapping, by scattering; some are dropped."""
    ways = st.sampled_from([by_prefix, by_segment, by_swap, of_one, but_one])
    kept = {path: path for path in tree.datasets}
    for way in draw(st.lists(ways, max_size=3)):
        if kept:
            kept = way(draw, kept)
    return {path: kept.get(path) for path in tree.datasets}


def expected_refusal(tree, paths, added):
    new = [*(path for path in paths.values() if path is not None), *added]
    return len({*new}) < len(new) or any(
        one != other and other.startswith(one + "/") for one in new for other in new
    )


@given(st.data())
def test_the_edits_give_what_is_said(data):
    tree = data.draw(trees())
    paths = data.draw(changes(tree))
    added = data.draw(st.lists(PATHS, max_size=1))
    try:
        found = regroup(tree, paths, added=added)
    except EditError as error:
        clash = "where group" in error.message  # an empty group is where a dataset would be
        assert clash or expected_refusal(tree, paths, added)
        return
    assert not expected_refusal(tree, paths, added)
    file = File(tree)
    for edit in found.edits:
        file.apply(edit)
    places = [(new, True, old) for old, new in found.groups.items()]
    places += [(new, True, None) for new in found.made]
    places += [(new, False, old) for old, new in found.datasets.items()]
    assert sorted(file.walk(), key=str) == sorted(places, key=str)
    assert found.datasets == {old: new for old, new in paths.items() if new is not None}
    assert found.groups[""] == ""
    for path in added:
        assert all(path != new for new, *_ in places)
        assert (parent := path.rpartition("/")[0]) in {new for new, group, _ in places if group}, (
            parent
        )


@given(st.data())
def test_a_group_goes_only_with_all_its_datasets(data):
    tree = data.draw(trees())
    paths = data.draw(changes(tree))
    try:
        found = regroup(tree, paths)
    except EditError:
        return
    for path in tree.groups:
        below = [new for old, new in paths.items() if old.startswith(path + "/")]
        kept = [new for new in below if new is not None]
        if path and below and not kept and path in found.groups:
            # It would be made anew for others otherwise.
            assert any(new.startswith(path + "/") for new in found.datasets.values())
        if kept and all(paths[old] == old for old in paths if old.startswith(path + "/")):
            assert found.groups[path] == path


@given(trees())
def test_nothing_changes_where_no_path_does(tree):
    found = regroup(tree, {path: path for path in tree.datasets})
    assert (found.edits, found.made) == ((), ())
    assert found.groups == {path: path for path in tree.groups}


@given(trees(), st.lists(NAMES, min_size=1, max_size=2, unique=True))
def test_a_group_with_one_new_name_is_one_move(tree, names):
    old = names[0]
    paths = {
        path: "new" + path[1:] if path.startswith(old + "/") else path for path in tree.datasets
    }
    moved = any(path.startswith(old + "/") for path in paths)
    assert regroup(tree, paths).edits == ((Move(old, "new"),) if moved else ())


@given(trees(), st.permutations(["a", "b", "c"]))
def test_whole_groups_change_places(tree, names):
    turned = dict(zip("abc", names, strict=True))
    has = {path.split("/")[0] for path in tree.datasets if "/" in path}
    empty = {path.split("/")[0] for path in tree.groups if path} - has
    if empty or {path for path in tree.datasets if "/" not in path}:
        return
    paths = {path: turned[path[0]] + path[1:] for path in tree.datasets}
    found = regroup(tree, paths)
    moves = [edit for edit in found.edits if isinstance(edit, Move)]
    assert len(moves) == len(found.edits) <= 2 * len(has)
    assert {old: found.groups[old] for old in has} == {old: turned[old] for old in has}
