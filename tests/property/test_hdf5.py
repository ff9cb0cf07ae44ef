"""The reader of HDF5 metadata agrees with h5py about whatever h5py writes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import h5py
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ckptkit.formats.keras.hdf5 import reader as hdf5
from ckptkit.storage.disk import Disk
from tests.oracle import hdf5 as oracle

if TYPE_CHECKING:
    from pathlib import Path

    from ckptkit.formats.keras.hdf5.tree import Tree

NAMES = st.one_of(
    st.sampled_from(
        ["vars", "layers", "dense", "dense_1", "0", "1", "10", "2", "a\\b", "é", "x" * 90]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=8).filter(
        lambda name: name not in (".", "..")
    ),
)
SHAPES = st.lists(st.sampled_from([0, 1, 1, 2, 3, 5]), max_size=4).map(tuple)
INTEGERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i2", ">u4")
FLOATS = ("f2", "f4", "f8", ">f2", ">f4", ">f8", "bfloat16")
DTYPES = st.sampled_from((*INTEGERS, *FLOATS, "?", "c8", "c16", ">c8", "V1", "V2"))
CHUNKED = ("chunked", "gzip", "checked", "growing", "grid")
STORAGE = st.sampled_from(("plain", "plain", "plain", *CHUNKED, "compact", "late"))
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
ATTRIBUTES = st.dictionaries(
    TEXTS.filter(bool),
    st.one_of(
        TEXTS,
        st.integers(-(2**63), 2**63 - 1),
        st.integers(0, 2**64 - 1).map(np.uint64),
        st.integers(-128, 127).map(np.int8),
        st.floats(allow_nan=False),
        st.floats(allow_nan=False, width=16).map(np.float16),
        st.floats(allow_nan=False, width=32).map(lambda value: np.array(value, ">f4")[()]),
        st.booleans(),
        st.lists(TEXTS),
        st.lists(TEXTS, min_size=1).map(lambda texts: np.array([t.encode() for t in texts], "S")),
        TEXTS.map(lambda text: np.bytes_(text.encode())).filter(bool),
        st.just(h5py.Empty("f4")),
        st.just(np.zeros((0, 3))),
        st.just(np.arange(3)),
        st.just("long " * 3000),
    ),
    max_size=4,
)
LEAVES = st.tuples(DTYPES, SHAPES, STORAGE, ATTRIBUTES)
TREES = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=5),
    lambda inner: st.dictionaries(NAMES, inner | LEAVES, max_size=4),
    max_leaves=12,
)


def fill(group: h5py.Group, tree: dict, *, ordered: bool) -> None:
    for name, node in tree.items():
        if isinstance(node, dict):
            fill(group.create_group(name, track_order=ordered), node, ordered=ordered)
            continue
        dtype, shape, storage, attributes = node
        brain = dtype == "bfloat16"
        array = np.zeros(shape, "V2" if brain else dtype)
        options: dict = {}
        if shape and 0 not in shape and storage in CHUNKED:
            options["chunks"] = tuple(max(dim // 2, 1) for dim in shape)
            options["compression"] = "gzip" if storage == "gzip" else None
            options["fletcher32"] = storage == "checked"
            grows = {"growing": (None, *shape[1:]), "grid": (None,) * len(shape)}
            options["maxshape"] = grows.get(storage)
        if storage == "compact":
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_layout(h5py.h5d.COMPACT)
            space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
            made = h5py.Dataset(
                h5py.h5d.create(
                    group.id,
                    name.encode(),
                    h5py.h5t.py_create(array.dtype, logical=True),
                    space,
                    plist,
                )
            )
        elif storage == "late":
            made = group.create_dataset(name, shape, array.dtype)
        else:
            made = group.create_dataset(name, data=array, **options)
        for key, value in attributes.items():
            made.attrs[key] = value
        if brain:
            made.attrs["dtype"] = "bfloat16"
        else:
            made.attrs.pop("dtype", None)


def read(path: Path) -> Tree:
    with Disk().open(str(path)) as file:
        return hdf5.read_tree(file, 0, file.size)


def agree(path: Path) -> None:
    found, expected = read(path), oracle.tree(path)
    assert list(found.groups) == list(expected.groups)
    assert list(found.datasets) == list(expected.datasets)
    assert replace(found, metadata=()) == expected
    # Metadata and data share no byte, and lie in the file.
    ranges = [*found.metadata]
    ranges += {(d.offset, d.nbytes) for d in found.datasets.values() if d.layout == "contiguous"}
    ranges.sort()
    assert all(one[0] + one[1] <= two[0] for one, two in pairwise(ranges))
    assert ranges[-1][0] + ranges[-1][1] <= found.end


@given(
    TREES,
    ATTRIBUTES,
    st.sampled_from(["earliest", "latest", ("earliest", "v108"), "v112"]),
    st.booleans(),
    st.sampled_from([0, 0, 512, 2048]),
)
def test_the_reader_agrees_with_h5py(fresh, tree, attributes, libver, ordered, userblock) -> None:
    path = fresh() / "x.h5"
    with h5py.File(path, "w", libver=libver, track_order=ordered, userblock_size=userblock) as file:
        fill(file, tree, ordered=ordered)
        for key, value in attributes.items():
            file.attrs[key] = value
    agree(path)
