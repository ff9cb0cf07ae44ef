"""The state file is the old one or the new one, whatever fails, and whenever."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptkit
from ckptkit.formats.tensorflow.state import State, read_state
from tests.crash.disks import Broken, Recording, Stopping
from tests.crash.forgetful import Volume, materialise, record

# What is synced is known from the calls; the device need not be kept busy with it.
pytestmark = pytest.mark.usefixtures("unsynced")

OLD = State("/old/m-1", ("/old/m-1",), (5.0,), 3.0, ("# so",))
NEW = {
    "register": State("m-2", ("/old/m-1", "m-2"), (5.0, 60.0), 3.0, ("# so",)),
    "register, first": State("m-2", ("m-2",)),
    "repair": State("m-1", ("m-1",), (5.0,), 3.0, ("# so",)),
}


def make(folder, what):
    """Make two checkpoints, and a state file unless it is to be the first."""
    for step in (1, 2):
        ckptkit.save(folder / f"m-{step}", {"w": [step]})
        os.utime(folder / f"m-{step}.index", (0, 30 * step))
    if what != "register, first":
        (folder / "checkpoint").write_bytes(OLD.render())
    return folder


def do(folder, what, disk):
    if what == "repair":
        ckptkit.repair_state(folder, disk=disk)
    else:
        ckptkit.register(folder / "m-2", disk=disk)


def now(folder):
    path = folder / "checkpoint"
    return read_state(str(path)) if path.exists() else None


def before(what):
    return None if what == "register, first" else OLD


@pytest.fixture(params=NEW)
def what(request):
    return request.param


@pytest.fixture
def history(tmp_path, what):
    (tmp_path / "in").mkdir()
    make(tmp_path / "in", what)
    volume = Volume.of(tmp_path / "in")
    return record(lambda disk: do(tmp_path / "in", what, disk), volume)


def settle(tree, tmp_path, there, what):
    """Tell what is there after a failure; registering then goes on."""
    materialise(tree, tmp_path / "in", there)
    found = now(there)
    assert found in {before(what), NEW[what]}
    for step in (1, 2):
        assert ckptkit.open(there / f"m-{step}").verify().ok
        os.utime(there / f"m-{step}.index", (0, 30 * step))
    do(there, what, None)
    assert now(there) == NEW[what]
    return found


def test_a_power_failure_at_any_call_leaves_the_old_or_the_new(history, what, tmp_path, fresh):
    trees = dict.fromkeys(tree for _, tree in [*history.states(), *history.namings()])
    found = [settle(tree, tmp_path, fresh(), what) for tree in trees]
    assert before(what) in found
    assert NEW[what] in found


@given(data=st.data())
def test_a_power_failure_that_is_drawn_leaves_the_old_or_the_new(
    history, what, tmp_path, fresh, data
):
    _, tree = history.draw(data)
    settle(tree, tmp_path, fresh(), what)


def test_what_is_done_needs_no_further_sync(history, what, tmp_path, fresh):
    assert history.after().is_synced()
    assert settle(history.after().after_kill(), tmp_path, fresh(), what) == NEW[what]


def test_a_sync_that_is_left_out_shows(history, what, tmp_path, fresh):
    def goes_wrong(without):
        for count, tree in without.states(draws=20):
            there = materialise(tree, tmp_path / "in", fresh())
            whole = {None, before(what), NEW[what]} if before(what) is None else {OLD, NEW[what]}
            try:
                found = now(there)
            except ckptkit.CorruptError:
                return True
            if found not in whole or (count == len(without.calls) and found != NEW[what]):
                return True
        return False

    syncs = [call for call in history.calls if call.call in {"sync", "sync_folder"}]
    assert len(syncs) == 2
    assert not goes_wrong(history)
    assert [call for call in syncs if not goes_wrong(history.without(call.__eq__))] == []


@pytest.mark.parametrize("disk", [Stopping, Broken])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "fails"), KeyboardInterrupt()]
)
def test_an_error_at_any_call_leaves_the_old_or_the_new(what, disk, error, fresh):
    recording = Recording()
    do(make(fresh(), what), what, recording)
    for at in range(len(recording.calls)):
        folder = make(fresh(), what)
        stopping = disk(at, error)
        with pytest.raises(type(error)):
            do(folder, what, stopping)
        renamed = any(call == "rename" for call, *_ in stopping.calls[:at])
        assert now(folder) == (NEW[what] if renamed else before(what))
        left = {name for name in os.listdir(folder) if name.startswith(".")}
        assert left <= ({".checkpoint.ckptkit-new"} if disk is Broken else set())
        do(folder, what, None)
        assert now(folder) == NEW[what]
