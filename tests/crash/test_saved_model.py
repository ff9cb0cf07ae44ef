"""A SavedModel appears as a whole folder or not at all."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptkit
from ckptkit.errors import ConflictError, EditError
from tests.crash.disks import Recording, Stopping
from tests.crash.forgetful import Volume, differing, materialise, record
from tests.oracle.varint import put_number

# What is synced is known from the calls; the device need not be kept busy with it.
pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.fixture
def model(tmp_path):
    """A SavedModel with an asset and a fingerprint, in a folder of its own."""
    folder = tmp_path / "in" / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "assets").mkdir()
    (tmp_path / "out").mkdir()
    ckptkit.save(folder / "variables" / "variables", {"w": np.arange(12.0), "b": np.arange(3)})
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")
    (folder / "fingerprint.pb").write_bytes(put_number(1, 7) + put_number(5, 8))
    (folder / "assets" / "words.txt").write_text("one two")
    return ckptkit.open(folder)


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def run(model, destination, disk):
    model.edit("w *= 2").plan(destination).run(device="numpy", disk=disk)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "fails"), KeyboardInterrupt()]
)
def test_nothing_is_left_after_an_error_at_any_call(model, tmp_path, error):
    disk = Recording()
    run(model, tmp_path / "whole", disk)
    before = files(tmp_path / "in")
    for at in range(len(disk.calls)):
        stopping = Stopping(at, error)
        with pytest.raises(type(error)):
            run(model, tmp_path / "out" / "new", stopping)
        assert os.listdir(tmp_path / "out") == [], stopping.calls[at]
    assert files(tmp_path / "in") == before


@pytest.fixture
def copied(model, tmp_path):
    """What a copy does to the disk, and what it then has made."""
    folders = Volume.of(tmp_path / "in", tmp_path / "out")
    history = record(lambda disk: run(model, tmp_path / "out" / "new", disk), folders)
    return history, files(tmp_path / "out" / "new")


def opens(tree, tmp_path, there, expected):
    """Tell whether the copy is there after a failure; if so it is whole. The source is."""
    materialise(tree, tmp_path, there)
    assert differing(files(there / "in"), files(tmp_path / "in")) == []
    if not (there / "out" / "new").exists():
        with pytest.raises(FileNotFoundError):
            ckptkit.open(there / "out" / "new")
        return False
    assert ckptkit.open(there / "out" / "new").verify().ok
    assert differing(files(there / "out" / "new"), expected) == []
    return True


def test_a_power_failure_at_any_call_leaves_all_or_nothing(copied, tmp_path, fresh):
    history, expected = copied
    trees = dict.fromkeys(tree for _, tree in history.states(draws=12))

    assert {opens(tree, tmp_path, fresh(), expected) for tree in trees} == {False, True}


@given(data=st.data())
def test_a_power_failure_that_is_drawn_leaves_all_or_nothing(copied, tmp_path, fresh, data):
    history, expected = copied
    _, tree = history.draw(data)

    opens(tree, tmp_path, fresh(), expected)


def test_the_folder_has_no_name_before_all_in_it_is_synced(copied, tmp_path):
    history, expected = copied
    destination = tmp_path / "out" / "new"
    for count, tree in history.namings():
        if str(destination) in tree.folders:
            held = tree.under(destination)
            assert differing(held, expected) == [], str(history.calls[count - 1])


def test_the_final_state_needs_no_further_sync(copied, tmp_path):
    history, expected = copied

    assert history.after().is_synced()
    tree = history.after().after_kill()
    assert differing(tree.under(tmp_path / "out" / "new"), expected) == []
    assert tree.folders >= {str(tmp_path / "out" / "new" / "variables")}


def test_a_sync_that_is_left_out_shows(copied, tmp_path):
    history, expected = copied
    destination = tmp_path / "out" / "new"

    def goes_wrong(history):
        for count, tree in history.states(draws=30):
            due = str(destination) in tree.folders or count == len(history.calls)
            if due and tree.under(destination) != expected:
                return True
        return False

    syncs = [call for call in history.calls if call.call in {"sync", "sync_folder"}]
    assert not goes_wrong(history)
    assert [call for call in syncs if not goes_wrong(history.without(call.__eq__))] == []


def test_an_existing_destination_is_refused(model, tmp_path):
    (tmp_path / "out" / "new").mkdir()
    with pytest.raises(EditError, match="the destination"):
        model.edit().plan(tmp_path / "out" / "new")


def test_a_destination_that_appears_meanwhile_is_not_touched(model, tmp_path):
    plan = model.edit().plan(tmp_path / "out" / "new")
    (tmp_path / "out" / "new").mkdir()
    with pytest.raises(ConflictError, match="appeared"):
        plan.run()
    assert os.listdir(tmp_path / "out") == ["new"]
    assert os.listdir(tmp_path / "out" / "new") == []


@pytest.mark.parametrize(
    "name", ["assets/words.txt", "saved_model.pb", "variables/variables.index"]
)
def test_a_file_of_the_model_that_changed_is_a_conflict(model, tmp_path, name):
    plan = model.edit("w *= 2").plan(tmp_path / "out" / "new")
    os.utime(os.path.join(str(model.source), name), ns=(1, 1))
    with pytest.raises(ConflictError, match="changed since"):
        plan.run(device="numpy")
    assert os.listdir(tmp_path / "out") == []
