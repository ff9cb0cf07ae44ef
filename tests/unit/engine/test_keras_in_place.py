"""Keras files that are edited where they are: links, other names, nothing at all, an older undo."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

import ckptkit
from ckptkit.errors import ConflictError, EditError
from tests.crash import keras_files as made

pytestmark = pytest.mark.usefixtures("unsynced")

KERNEL, BIAS = "layers/dense/vars/0", "layers/dense/vars/1"
SAVE = {"m.keras": made.save_archive, "m.weights.h5": made.save_weights}


@pytest.fixture(params=SAVE)
def path(request, tmp_path):
    SAVE[request.param](tmp_path / request.param, made.dense_model())
    return tmp_path / request.param


def patch(path, *edits, **options):
    with ckptkit.open(path) as found:
        plan = found.edit(*edits).plan(None, "patch", **options)
    plan.run(device="numpy")
    return plan


def test_a_file_with_another_name_is_refused(path):
    other = path.with_name(f"other-{path.name}")
    os.link(path, other)
    before = path.read_bytes()
    with pytest.raises(ConflictError, match="has another name as well"):
        patch(path, f"{KERNEL} *= 2")
    assert path.read_bytes() == before
    patch(path, f"{KERNEL} *= 2", break_links=True)
    assert other.read_bytes() == before
    assert path.read_bytes() != before
    assert sorted(one.name for one in path.parent.iterdir()) == sorted([path.name, other.name])


def test_a_link_to_a_file_elsewhere_is_refused(path):
    link = path.with_name(f"link-{path.name}")
    link.symlink_to(path)
    before = path.read_bytes()
    with pytest.raises(ConflictError, match="has another name as well"):
        patch(link, f"{KERNEL} *= 2")
    assert path.read_bytes() == before


def test_a_file_is_as_long_as_its_plan_says(tmp_path):
    for length in range(1, 400, 57):
        path = tmp_path / f"m-{length}.weights.h5"
        made.save_weights(path, made.dense_model())
        plan = patch(path, f"rename ^{KERNEL}$ -> {'n' * length}/vars/0")
        assert path.stat().st_size == plan.placement.file_sizes[0]
        assert f"{'n' * length}/vars/0" in made.arrays_in(path)


def test_an_undo_is_that_of_the_latest_edit(path):
    patch(path, f"{KERNEL}[:, 1] *= 2", keep_undo=True)
    between = path.read_bytes()
    patch(path, f"{KERNEL}[:, 1:3] *= 2")
    after = path.read_bytes()
    with pytest.raises(ConflictError, match="changed since the edit that could be undone"):
        ckptkit.undo(path)
    assert path.read_bytes() == after
    path.write_bytes(between)
    assert ckptkit.undo(path).state == "back"


def test_nothing_is_edited_in_a_tensor_without_elements(tmp_path):
    path = tmp_path / "m.weights.h5"
    made.save_weights(path, {"layers/dense": {"0": np.zeros((0, 3), "f4"), "1": np.ones(2, "f4")}})
    patch(path, f"{KERNEL} += 2", f"{BIAS} += 2")
    found = made.arrays_in(path)
    assert found[KERNEL].shape == (0, 3)
    np.testing.assert_array_equal(found[BIAS], [3, 3])


@pytest.fixture
def tied(tmp_path):
    """A file in which two names stand for one dataset, and two more for one group."""
    path = tmp_path / "m.weights.h5"
    made.save_weights(path, made.dense_model())
    with h5py.File(path, "r+") as file:
        file["layers/tied/vars/0"] = file[KERNEL]
        file["layers/alias"] = file["layers/dense_1"]
    return path


def test_values_that_have_two_names_are_not_patched(tied):
    before = tied.read_bytes()
    for name in (KERNEL, "layers/tied/vars/0", "layers/alias/vars/0"):
        with pytest.raises(EditError, match="another name stands for the same bytes"):
            patch(tied, f"{name} *= 2")
    assert tied.read_bytes() == before


def test_one_of_two_names_can_go_or_change(tied):
    kernel = made.arrays_in(tied)[KERNEL]
    patch(tied, r"rename ^layers/tied/vars/0$ -> layers/new/vars/0")
    with h5py.File(tied, "r") as file:
        assert file["layers/new/vars/0"] == file[KERNEL]
    patch(tied, "drop layers/new/**")
    with h5py.File(tied, "r") as file:
        assert "layers/new" not in file
        np.testing.assert_array_equal(file[KERNEL][()], kernel)


def test_a_copy_gives_each_of_two_names_values_of_its_own(tied):
    kernel = made.arrays_in(tied)[KERNEL]
    target = tied.with_name("new.weights.h5")
    with ckptkit.open(tied) as found:
        found.edit("layers/tied/vars/0 *= 2").plan(target).run(device="numpy")
    with h5py.File(target, "r") as file:
        np.testing.assert_array_equal(file[KERNEL][()], kernel)
        np.testing.assert_array_equal(file["layers/tied/vars/0"][()], kernel * 2)
    with ckptkit.open(target) as found:
        assert found.verify().ok
