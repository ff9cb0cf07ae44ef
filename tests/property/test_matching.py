"""Laws of matching: by name order does not count, and nothing is used twice or guessed."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from ckptkit.matching import Entry, match
from ckptkit.model import TensorSpec

SHAPES = st.sampled_from([(), (2,), (3,), (2, 3)])
LAYERS = st.lists(st.lists(SHAPES, min_size=1, max_size=3), max_size=6)
WAYS = st.sampled_from(["name", "shape", "order"])
DTYPES = st.sampled_from(["float32", "float16", "int8", "string"])


def model(layers, named, *, slots=False, dtype="float32"):
    """The tensors of a model with these layers: the shapes of each by its name."""
    entries = [
        Entry(
            f"layers/dense_{at}/vars/{key}",
            f"{name}/{key}" if named else None,
            TensorSpec(dtype, shape),
        )
        for at, (name, shapes) in enumerate(layers)
        for key, shape in enumerate(shapes)
    ]
    if slots:
        entries += [
            Entry(f"optimizer/vars/{at}", None, entry.spec) for at, entry in enumerate(entries)
        ]
    return entries


def partners(found):
    return {pair.new: pair.old for pair in found.pairs}


@st.composite
def models(draw):
    layers = [(f"n{at}", shapes) for at, shapes in enumerate(draw(LAYERS))]
    return model(layers, draw(st.booleans()), slots=draw(st.booleans()), dtype=draw(DTYPES))


@given(models(), models(), WAYS)
def test_each_tensor_is_used_once_or_has_a_reason(old, new, by):
    found = match(old, new, by)
    for side, paired, left in [
        (new, [pair.new for pair in found.pairs], found.unmatched_new),
        (old, [pair.old for pair in found.pairs], found.unmatched_old),
    ]:
        assert sorted([*paired, *(one.name for one in left)]) == sorted(one.name for one in side)
        assert all(one.reason for one in left)
    specs = {entry.name: entry.spec for entry in old}
    wanted = {entry.name: entry.spec for entry in new}
    for pair in found.pairs:
        assert specs[pair.old].shape == wanted[pair.new].shape
        assert bool(pair.note) == (specs[pair.old].dtype != wanted[pair.new].dtype)


@given(LAYERS, st.data())
def test_by_name_neither_order_nor_insertion_counts(shapes, data):
    layers = [(f"n{at}", one) for at, one in enumerate(shapes)]
    more = [(f"m{at}", one) for at, one in enumerate(data.draw(LAYERS))]
    old = model(layers, named=True)
    new = model(data.draw(st.permutations(layers + more)), named=True)
    labels = {entry.name: entry.label for entry in [*old]}
    found = match(old, new, "name")
    assert found.unmatched_old == ()
    told = {entry.name: entry.label for entry in new}
    assert {told[a]: labels[b] for a, b in partners(found).items()} == {
        label: label for label in labels.values()
    }


@given(models(), WAYS)
def test_a_checkpoint_matches_itself(entries, by):
    found = match(entries, entries, by)
    assert partners(found) == {entry.name: entry.name for entry in entries}


def aligned(old, new):
    """Yield all pairings of equal things in order that are as long as any."""
    for size in range(min(len(old), len(new)), -1, -1):
        found = [
            {*zip(one, other, strict=True)}
            for one in combinations(range(len(old)), size)
            for other in combinations(range(len(new)), size)
            if all(old[i] == new[j] for i, j in zip(one, other, strict=True))
        ]
        if found:
            return found
    return []


@given(LAYERS, LAYERS)
def test_by_shape_only_what_every_alignment_has_is_paired(old, new):
    one, other = (
        model([(f"n{at}", shapes) for at, shapes in enumerate(side)], named=False)
        for side in (old, new)
    )
    sure = set.intersection(*aligned(old, new))
    assert partners(match(one, other, "shape")) == {
        f"layers/dense_{j}/vars/{key}": f"layers/dense_{i}/vars/{key}"
        for i, j in sure
        for key in range(len(old[i]))
    }
