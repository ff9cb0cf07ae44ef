"""The law of bulk edits: what is derived together is what is derived one by one, to the byte."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptkit
from ckptkit import CkptError, EditError, Layout, Map, Put, deriving
from tests.golden.handmade import Bundle, random_array
from tests.property.edited import contents
from tests.property.strategies import SEEDS, slicings

pytestmark = pytest.mark.usefixtures("unsynced")

DTYPES = ("float32", "float32", "float32", "float64", "bfloat16", "int32", "bool")
SHAPES = st.sampled_from([(), (0,), (1,), (3,), (3,), (2, 3), (4, 1, 2)])
NAMES = ("a/1", "a/2", "a/3", "b/1", "b/2", "c", "d/x/y", "e")


def ones(x):
    return np.ones_like(x)


EDITS = (
    "** *= 0.5",
    "** *= 0.5",
    "a/* += 1",
    "** = 0",
    "b/* = x * x - 1",
    "a/1 /= 4",
    'c = x + t("a/1")',
    '** = x + t("e")',
    "a/*[...] *= 2",
    "**[:1] += 1",
    "e[...] = 0",
    "cast ** -> bfloat16",
    "cast a/* -> float64",
    "cast ** -> int32",
    "cast c -> uint8",
    r"rename ^a/(\d) -> new/\1",
    "rename ^new/ -> a/",
    "rename / -> _",
    "drop b/*",
    "drop a/2",
    "keep a/*",
    "copy a/1 -> z",
    "copy e -> a/0",
    "copy a/0 -> b/9",
    Put("c", np.arange(3, dtype=np.float32)),
    Put("a/8", np.ones((2, 3), np.float32)),
    Map("a/*", ones),
)
"""Edits of everything, of some, of one, of a part; and those that move names about."""

LAYOUTS = (Layout(), Layout(), Layout(shards=2), Layout(max_shard_bytes=20), Layout(rules=("a/*",)))


@st.composite
def bundles(draw):
    made = Bundle(2, big_endian=draw(st.booleans()))
    for name in draw(st.permutations(NAMES)):
        values = random_array(draw(st.sampled_from(DTYPES)), draw(SHAPES), draw(SEEDS))
        slices = draw(slicings(values.shape)) if values.size and values.shape else [[]]
        if len(slices) > 1 and draw(st.booleans()):
            made.add_slices(name.encode(), values, slices, shards=(0, 1))
        else:
            made.add(name.encode(), values, shard=draw(st.sampled_from([0, 0, 1])))
    return made


@contextmanager
def one_by_one():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deriving, "MANY", 1 << 62)
        yield


def look(flat):
    every = range(len(flat))
    names = [flat.name(at) for at in every]
    pieces = [flat.piece(inputs, at) for inputs in flat.inputs for at in every]
    dtypes, ends = flat.chain.dtypes, flat.ends.tolist()
    return flat.first, flat.shard, flat.offset, flat.spec, dtypes, ends, names, pieces


def looks(catalog):
    shapes, dtypes = catalog.shapes(), catalog.dtypes()
    found = {
        name: (catalog.spec(name), dtypes[name], shapes[name], tensor)
        for name, tensor in catalog.items()
    }
    changed = catalog.changed
    assert set(changed) == {name for name in found if name in changed}
    assert len(changed) == len(set(changed))
    assert changed == {name: found[name][-1] for name in changed}
    return list(catalog.names), list(catalog.rows), found, set(changed)


def outcome(prefix, edits, target, how, layout):
    """Return all that there is to see of an edit, up to an error."""
    seen = []
    try:
        with ckptkit.open(prefix) as found:
            draft = found.edit()
            for edit in edits:
                draft = draft.edit(edit)
                seen.append(looks(draft.catalog))
            plan = draft.plan(target, how, layout)
            seen.append(
                (
                    plan.to_dict() | {"source": None, "destination": None},
                    list(map(look, plan.work.flats)),
                )
            )
            placement = plan.placement
            seen += [
                getattr(placement, name).tolist() for name in ("tensor", "part", "row", "size")
            ]
            seen += [getattr(placement, name).tolist() for name in ("shard", "offset", "stays")]
            report = plan.run(device="numpy")
            assert report.bytes_read == plan.bytes_read or how == "patch"
            seen.append(contents(target or prefix))
    except CkptError as error:
        assert isinstance(error, EditError)
        seen.append(error.message)
        return seen
    with ckptkit.open(target or prefix) as found:
        assert found.verify().ok
    return seen


@settings(max_examples=200)
@given(
    bundle=bundles(),
    edits=st.lists(st.sampled_from(EDITS), min_size=1, max_size=6),
    how=st.sampled_from(["copy", "copy", "link", "append", "patch"]),
    layout=st.sampled_from(LAYOUTS),
    chunk=st.sampled_from([8, 24, 100, 1 << 20]),
)
def test_derived_together_is_derived_one_by_one(fresh, tiny, bundle, edits, how, layout, chunk):
    tiny(chunk, 64)
    layout = layout if how == "copy" else Layout()
    folder = fresh()
    target = str(folder / "n") if how in {"copy", "link"} else None
    seen = []
    for together in (True, False):
        for path in folder.iterdir():
            path.unlink()
        prefix = bundle.write(folder / "m")
        with nullcontext() if together else one_by_one():
            seen.append(outcome(prefix, edits, target, how, layout))
    for one, other in zip(*seen, strict=True):
        assert one == other
