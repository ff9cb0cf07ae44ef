"""What became of tensors that edits renamed, left out, and added."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from ckptkit.formats.tensorflow.graph.following import Changes, changes


def catalog(tensors):
    names = [*tensors]
    return SimpleNamespace(names=names, rows=[*tensors.values()], single={}, position=names.index)


def follow(before, after):
    return changes(catalog(before), catalog(after))


def test_what_happens_to_names():
    three = {"a": 0, "b": 1, "c": 2}
    assert follow(three, dict(three)) is None
    assert follow(three, {"a": 0, "x": 1}) == Changes({"b": "x"}, {"c": None}, [])
    assert follow(three, {"b": 0, "a": 1, "c": 2}) == Changes({"a": "b", "b": "a"}, {}, [])
    assert follow(three, three | {"d": 0}) == Changes({}, {}, ["d"])
    assert follow(three, {"a": 0, "b": 1, "c": 7}) == Changes({}, {}, [])
    assert follow({"a": 0, "b": 0}, {"a": 0, "x": 0, "y": 0}) == Changes({"b": "x"}, {}, ["y"])


TENSORS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 5))


@given(TENSORS, TENSORS)
def test_every_name_is_accounted_for(before, after):
    found = follow(before, after)
    if before == after:
        assert found is None or list(before) != list(after)
        found = found or Changes({}, {}, [])
    stay = {name for name in before if after.get(name) == before[name]}
    assert all(before[old] == after[new] for old, new in found.moved.items())
    assert len({*found.moved.values()}) == len(found.moved)
    replaced = {name for name in before if name in after} - stay - {*found.moved.values()}
    assert {*after} == stay | {*found.moved.values()} | {*found.added} | replaced
    assert {*found.added}.isdisjoint(stay | {*found.moved.values()})
    assert not {*found.gone} & ({*found.moved} | stay)
    assert all(name in found.moved or name in found.gone or name in after for name in before)
