"""Laws of new HDF5 files and of edited links: h5py finds what was wanted."""

from __future__ import annotations

import shutil

import h5py
import ml_dtypes
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ckptkit.formats.keras.hdf5.overlay import Overlay
from ckptkit.formats.keras.hdf5.regrouping import Attribute, Make, Move, Remove
from ckptkit.formats.keras.hdf5.relink import relink
from ckptkit.formats.keras.hdf5.skeleton import Wanted, WantedGroup, build
from ckptkit.storage.disk import Disk
from tests.oracle.skeletons import content, everything, materialise, patched, walk

NAMES = st.sampled_from(["vars", "0", "1", "10", "2", "dense", "dense_1", "a:0", "\u00fc", "x\\y"])
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
DTYPES = st.sampled_from(
    ["float16", "float32", "float64", "int8", "uint16", "int64", "bool", "complex64", "bfloat16"]
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
VALUES = st.one_of(
    TEXTS,
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(TEXTS, max_size=4).map(tuple),
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["name", "note", "list", "\u00e4"]), VALUES, max_size=3
)


@st.composite
def trees(draw):
    """Draw groups, and datasets in them."""
    groups, taken = [""], {""}
    for _ in range(draw(st.integers(0, 6))):
        path = inside(draw(st.sampled_from(groups)), draw(NAMES))
        if path not in taken:
            groups.append(path)
            taken.add(path)
    wanted = []
    for _ in range(draw(st.integers(0, 8))):
        path = inside(draw(st.sampled_from(groups)), draw(NAMES))
        if path not in taken:
            wanted.append(Wanted(path, draw(DTYPES), draw(SHAPES)))
            taken.add(path)
    return [WantedGroup(path, None, draw(ATTRIBUTES)) for path in groups], wanted


def inside(group, name):
    return f"{group}/{name}" if group else name


def values(wanted):
    rng = np.random.default_rng(len(wanted.path))
    dtype = ml_dtypes.bfloat16 if wanted.dtype == "bfloat16" else wanted.dtype
    return rng.integers(0, 9, wanted.shape).astype(dtype)


def plain(value):
    """Return an attribute as the values of a tree are."""
    if isinstance(value, np.ndarray):
        return tuple(value.tolist())
    return value.item() if isinstance(value, np.generic) else value


@given(trees())
def test_what_is_built_is_what_was_wanted(fresh, tree):
    groups, wanted = tree
    skeleton = build([], wanted, groups)
    assert skeleton == build([], wanted, groups)
    data = {one.path: values(one) for one in wanted}
    path = materialise(skeleton, fresh() / "x.h5", data)
    with h5py.File(path) as file:
        for group in groups:
            node = file[group.path or "/"]
            assert {name: plain(one) for name, one in node.attrs.items()} == group.attributes
        for one in wanted:
            node = file[one.path]
            assert node.shape == one.shape
            found = node[()].view(ml_dtypes.bfloat16) if one.dtype == "bfloat16" else node[()]
            np.testing.assert_array_equal(found, data[one.path])
            assert dict(node.attrs) == ({"dtype": "bfloat16"} if one.dtype == "bfloat16" else {})
        count = []
        file.visit(count.append)
        assert len(count) == len(groups) - 1 + len(wanted)
    tree = content(path).tree
    assert set(tree.groups) == {group.path for group in groups}
    assert {one.path: (one.dtype, one.shape) for one in tree.datasets.values()} == {
        one.path: (one.dtype, one.shape) for one in wanted
    }
    for name, (offset, length) in skeleton.extents.items():
        if length:
            assert (tree.datasets[name].offset, tree.datasets[name].nbytes) == (offset, length)


@given(trees())
def test_a_copy_is_the_same(fresh, tree):
    groups, wanted = tree
    folder = fresh()
    data = {one.path: values(one) for one in wanted}
    first = materialise(build([], wanted, groups), folder / "1.h5", data)
    again = build([content(first)], *everything(content(first)))
    assert walk(materialise(again, folder / "2.h5", data)) == walk(first)


class Names:
    """The paths of a file while it is edited: which there are, and which are groups."""

    def __init__(self, tree):
        self.groups = set(tree.groups)
        self.datasets = set(tree.datasets)

    def all(self):
        return sorted((self.groups | self.datasets) - {""})

    def rename(self, old, new):
        for kind in (self.groups, self.datasets):
            for path in [path for path in kind if f"{path}/".startswith(f"{old}/")]:
                kind.remove(path)
                if new is not None:
                    kind.add(new + path[len(old) :])

    def draw(self, draw):
        """Draw an edit that can be done, and do it here."""
        kind = draw(st.sampled_from(["make", "move", "move", "move", "remove", "attribute"]))
        target = inside(draw(st.sampled_from(sorted(self.groups))), draw(NAMES))
        free = target not in self.groups | self.datasets
        if kind == "make" and free:
            self.groups.add(target)
            return Make(target)
        if kind == "attribute":
            path = draw(st.sampled_from(["", *self.all()]))
            name = draw(st.sampled_from(["name", "note", "fresh"]))
            value = st.one_of(TEXTS, st.integers(-9, 9), st.floats(-1, 1), st.none())
            return Attribute(path, name, draw(value))
        if not self.all():
            return None
        path = draw(st.sampled_from(self.all()))
        if kind == "move" and free and not f"{target}/".startswith(f"{path}/"):
            self.rename(path, target)
            return Move(path, target)
        if kind == "remove":
            self.rename(path, None)
            return Remove(path)
        return None


def by_h5py(path, edits):
    with h5py.File(path, "r+") as file:
        for edit in edits:
            match edit:
                case Make(made):
                    file.create_group(made)
                case Move(old, new):
                    file.move(old, new)
                case Remove(gone):
                    del file[gone]
                case Attribute(holder, name, None):
                    file[holder or "/"].attrs.pop(name, None)
                case Attribute(holder, name, value):
                    file[holder or "/"].attrs[name] = value


@given(trees(), st.sampled_from(["earliest", "latest"]), st.sampled_from([0, 77]), st.data())
def test_links_are_edited_as_by_h5py(fresh, tree, libver, start, data):
    groups, wanted = tree
    folder = fresh()
    path, copy = folder / "1.h5", folder / "2.h5"
    with h5py.File(path, "w", libver=libver) as file:
        for group in groups:
            file.require_group(group.path or "/").attrs.update(group.attributes)
        for one in wanted:
            stored = values(one)
            stored = stored.view("V2") if one.dtype == "bfloat16" else stored
            chunks = True if stored.size > 20 else None
            file.create_dataset(one.path, data=stored, chunks=chunks)
    shutil.copyfile(path, copy)
    whole = folder / "whole"
    whole.write_bytes(bytes(start) + path.read_bytes())
    found = content(whole, start)
    names = Names(content(path).tree)
    drawn = [names.draw(data.draw) for _ in range(data.draw(st.integers(0, 12)))]
    edits = [edit for edit in drawn if edit is not None]
    by_h5py(copy, edits)
    assert walk(patched(found, relink(found, edits), folder / "3.h5")) == walk(copy)


@given(
    st.binary(max_size=60),
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(0, 80), st.binary(min_size=1, max_size=30)),
            st.tuples(st.just("zeros"), st.integers(0, 80), st.integers(1, 30).map(bytes)),
            st.tuples(st.just("truncate"), st.integers(0, 90), st.just(b"")),
        ),
        max_size=12,
    ),
)
def test_an_overlay_is_a_file(fresh, under, steps):
    path = fresh() / "under"
    path.write_bytes(b"before" + under)
    file = Disk().open(str(path))
    overlay, fresh_one = Overlay(file, 6, len(under)), Overlay()
    fresh_one.muted = True
    patched_bytes, zeros = bytearray(under), bytearray()
    for what, at, raw in steps:
        for one, model in ((overlay, patched_bytes), (fresh_one, zeros)):
            if what == "truncate":
                one.truncate(at)
                del model[at:]
                model.extend(bytes(at - len(model)))
                continue
            one.seek(at)
            one.write(raw)
            model.extend(bytes(max(at + len(raw) - len(model), 0)))
            model[at : at + len(raw)] = raw
    for one, model in ((overlay, patched_bytes), (fresh_one, zeros)):
        assert one.seek(0, 2) == one.size == len(model)
        one.seek(0)
        assert one.read() == bytes(model)
        runs = one.runs()
        ends = [start + len(run) for start, run in runs]
        assert all(end <= start for end, (start, _) in zip(ends, runs[1:], strict=False))
        assert all(bytes(model[start : start + len(run)]) == run for start, run in runs)
    rebuilt = bytearray(len(zeros))
    for start, run in fresh_one.runs():
        rebuilt[start : start + len(run)] = run
    assert rebuilt == zeros
    if not any(what == "truncate" for what, _, _ in steps):
        result = bytearray(under) + bytes(len(patched_bytes) - len(under))
        for start, run in overlay.changes():
            assert run[0] != result[start] or start >= len(under)
            result[start : start + len(run)] = run
        assert result == patched_bytes
