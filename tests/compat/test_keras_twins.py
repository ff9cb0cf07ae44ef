"""Tensors that Keras stores twice stay the same tensor."""

from __future__ import annotations

import numpy as np
import pytest

import ckptkit
from tests.compat import keras_files as files
from tests.compat import keras_zoo as zoo
from tests.compat.keras_results import run

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("unsynced")]

HOWS = ("copy", "patch")


def check_twins(file, folder, how, one, other):
    """Edit one of two tensors that are one variable; the other one has to follow."""
    before = files.h5py_reads(file)
    assert before[one].tobytes() == before[other].tobytes()
    found = files.h5py_reads(run(file, folder, how, f"{one} *= 2"))
    changed = {name for name in before if before[name].tobytes() != found[name].tobytes()}
    assert changed == {one, other}
    assert all(np.array_equal(found[name], before[name] * 2) for name in changed)


TWINS = ("optimizer/vars/6", "optimizer/inner_optimizer/vars/2")


@pytest.mark.parametrize("pair", [TWINS, TWINS[::-1]])
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", ["weights", "zip"])
def test_the_twins_of_a_loss_scale_optimizer_stay_twins(tmp_path, kind, how, pair):
    check_twins(files.SAVERS[kind](zoo.trained("loss_scale"), tmp_path), tmp_path, how, *pair)


@pytest.mark.parametrize("edit", ["** *= 2", "optimizer/vars/*[...] *= 2"])
def test_a_glob_changes_both_twins_once(tmp_path, edit):
    file = files.save_weights(zoo.trained("loss_scale"), tmp_path)
    before = files.h5py_reads(file)
    found = files.h5py_reads(run(file, tmp_path, "copy", edit))
    for name in TWINS:
        assert np.array_equal(found[name], before[name] * 2)


@pytest.mark.parametrize(
    "edits",
    [
        ("drop optimizer/inner_optimizer/**",),
        (f"cast {TWINS[0]} -> float16",),
        (f"{TWINS[0]} = 1", f"{TWINS[1]} = 2"),
    ],
)
def test_twins_that_would_differ_are_refused(tmp_path, edits):
    file = files.save_weights(zoo.trained("loss_scale"), tmp_path)
    with ckptkit.open(file) as found, pytest.raises(ckptkit.EditError, match="same tensor"):
        found.edit(*edits).plan(tmp_path / "n.weights.h5")


@pytest.mark.parametrize("kind", ["weights", "zip"])
def test_weights_of_words_stay_twins(tmp_path, kind):
    file = files.SAVERS[kind](zoo.build("vocabulary"), tmp_path)
    pair = [n for n in files.h5py_reads(file) if "text" in n and n.endswith("idf_weights")]
    assert len(pair) == 2
    check_twins(file, tmp_path, "copy", *pair)
