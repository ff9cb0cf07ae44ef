"""Bulk edits: no object for a tensor, whatever the number of them; and what else they keep."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import ckptkit
from ckptkit import model
from ckptkit.model import Derived

COUNT = 500


@pytest.fixture
def prefix(tmp_path):
    values = {f"layer/{at:03d}": np.full((4, 4), at, np.float32) for at in range(COUNT)}
    ckptkit.save(tmp_path / "m", {**values, "step": np.int64(7)})
    return str(tmp_path / "m")


@pytest.fixture
def made(monkeypatch):
    """Count the objects that are made for tensors and their pieces."""
    counts = dict.fromkeys(("Tensor", "Stored", "Piece", "Extent", "Derived"), 0)

    def counted(name):
        kind = getattr(model, name)
        begin = kind.__init__

        def init(self, *args, **kwargs):
            counts[name] += 1
            begin(self, *args, **kwargs)

        monkeypatch.setattr(kind, "__init__", init)

    for name in counts:
        counted(name)
    return counts


@pytest.mark.parametrize("how", ["copy", "link", "append", "patch"])
def test_no_tensor_is_made_for_edits_of_all(prefix, made, how):
    target = f"{prefix}2" if how in {"copy", "link"} else None
    edits = ["** *= 0.5", "layer/* += 1", "layer/* = x * x"]
    if target is not None:
        edits += ["drop layer/00*", "rename layer -> block"]
    with ckptkit.open(prefix) as found:
        plan = found.edit(*edits).plan(target, how)
        plan.run(device="numpy")
    assert sum(made.values()) < 20
    assert plan.tensors_changed == (COUNT if target is None else COUNT - 10)
    assert len(plan.work.flats) == 1
    with ckptkit.open(target or prefix) as found:
        assert found.verify().ok
        for at in (10, 11, COUNT - 1):
            name = f"layer/{at:03d}" if target is None else f"block/{at:03d}"
            assert np.array_equal(found[name], np.full((4, 4), (at * 0.5 + 1) ** 2, np.float32))


def test_tensors_are_made_when_somebody_looks(prefix, made):
    with ckptkit.open(prefix) as found:
        draft = found.edit("layer/* *= 0.5", "cast layer/1* -> bfloat16", "step = 3")
    changed = draft.catalog.changed
    assert len(changed) == COUNT + 1
    assert "step" in changed
    assert "nothing" not in changed
    assert "layer/000" in changed
    assert made["Derived"] == 1
    tensor = changed["layer/100"]
    assert isinstance(tensor.source, Derived)
    assert tensor == draft.catalog["layer/100"]
    assert (
        draft.catalog.spec("layer/100").dtype == draft.catalog.dtypes()["layer/100"] == "bfloat16"
    )
    assert draft.catalog.dtypes()["layer/200"] == "float32"
    with pytest.raises(KeyError):
        changed["nothing"]


def test_a_bulk_edit_goes_through_a_pickle(prefix):
    with ckptkit.open(prefix) as found:
        catalog = found.edit("** *= 0.5", "copy layer/001 -> again", "drop layer/01*").catalog
    again = pickle.loads(pickle.dumps(catalog))  # noqa: S301  our own
    assert dict(again) == dict(catalog)
    assert again["again"] == again["layer/001"]


def test_a_damaged_tensor_among_many_is_named(prefix, tmp_path):
    path = tmp_path / "m.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[64 * 123 + 5] ^= 1
    path.write_bytes(content)
    with ckptkit.open(prefix) as found:
        plan = found.edit("** *= 0.5").plan(tmp_path / "n")
        with pytest.raises(ckptkit.CorruptError) as caught:
            plan.run(device="numpy")
    assert caught.value.tensor == "layer/123"
    assert caught.value.offset == 64 * 123
    assert "expected" in caught.value.message
