"""The power fails while a checkpoint is edited where it is, at any call, and again meanwhile.

What POSIX allows, and the journal therefore has to bear: names and bytes that were not synced are
there or not, in any combination; so also names of the same folder, of which a later one may be
there and an earlier one not. All states are compared to the byte.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptkit
from ckptkit.errors import CkptError, NeedsRecoveryError
from tests.crash.forgetful import History, Volume, materialise, record
from tests.crash.scene import play, prepared, settle
from tests.crash.scenes import SCENES
from tests.crash.tensorflow_scenes import MANY

# What is synced is known from the calls; the device need not be kept busy with it.
pytestmark = pytest.mark.usefixtures("unsynced")

FEW = 12
"""Examples of what takes long."""

FEWER = 5
"""Examples of what takes longer."""


@pytest.fixture(params=SCENES)
def scene(request, monkeypatch):
    found = SCENES[request.param]
    found.prepare(monkeypatch)
    return found


@pytest.fixture
def played(scene, tmp_path):
    return play(scene, tmp_path / "played")


@pytest.fixture
def history(scene, tmp_path):
    """What the edit does to the disk."""
    prepared(scene, tmp_path / "in")
    return record(lambda disk: scene.do(tmp_path / "in", disk), Volume.of(tmp_path / "in"))


def needs_recovery(path):
    try:
        ckptkit.open(path).close()
    except NeedsRecoveryError:
        return True
    except FileNotFoundError:
        pass
    return False


def recovering(scene, folder, before=None):
    """Recover what is in a folder; return what that does to the disk."""
    return record(
        lambda disk: ckptkit.recover(folder / scene.result, disk=disk), before or Volume.of(folder)
    )


# --- once --------------------------------------------------------------------------------------


def test_a_power_failure_at_any_call_leaves_before_or_after(played, history, tmp_path, fresh):
    draws = FEWER if played.scene.pieces else FEW
    for tree in dict.fromkeys(tree for _, tree in history.states(draws=draws)):
        settle(played, materialise(tree, tmp_path / "in", fresh()))
    assert {state for _, state in played.found} == {"before", "after"}


def test_any_names_may_be_lost(played, history, tmp_path, fresh):
    for tree in dict.fromkeys(tree for _, tree in history.namings()):
        settle(played, materialise(tree, tmp_path / "in", fresh()))


@given(data=st.data())
def test_a_power_failure_that_is_drawn_leaves_before_or_after(
    played, history, tmp_path, fresh, data
):
    _, tree = history.draw(data)
    settle(played, materialise(tree, tmp_path / "in", fresh()))


def test_a_finished_edit_needs_no_further_sync(played, history, tmp_path, fresh):
    assert history.after().is_synced()
    there = materialise(history.after().after_kill(), tmp_path / "in", fresh())
    assert settle(played, there) == ("nothing", "after")


LEFT_OUT = (
    "patch",
    "append",
    "undo of append",
    "model, append",
    "weights, longer names with undo",
    "archive, patch",
)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_sync_that_is_left_out_shows(name, tmp_path, fresh):
    scene = SCENES[name]
    played = play(scene, tmp_path / "played")
    prepared(scene, tmp_path / "in")
    before = Volume.of(tmp_path / "in")
    history = record(lambda disk: scene.do(tmp_path / "in", disk), before)

    def goes_wrong(number):
        calls = history.calls[:number] + history.calls[number + 1 :]
        without = History(history.before, calls)
        for tree in dict.fromkeys(t for _, t in [*without.states(draws=4), *without.namings()]):
            try:
                settle(played, materialise(tree, tmp_path / "in", fresh()))
            except (AssertionError, CkptError):
                return True
        return False

    syncs = [at for at, call in enumerate(history.calls) if call.call.startswith("sync")]
    # Should the journal come back, it says of what is durable that it is to be done.
    assert [at for at in syncs if not goes_wrong(at)] == [len(history.calls) - 1]


def test_a_kill_while_the_journal_goes_round_leaves_before_or_after(monkeypatch, tmp_path, fresh):
    """What it says of checksums grows from round to round, and may not reach what still counts."""
    MANY.prepare(monkeypatch)
    played = play(MANY, tmp_path / "played")
    prepared(MANY, tmp_path / "in")
    before = Volume.of(tmp_path / "in")
    history = record(lambda disk: MANY.do(tmp_path / "in", disk), before)
    for count, tree in history.states(draws=0):
        # What it writes at a time, it writes in several calls.
        if count % 2:
            settle(played, materialise(tree, tmp_path / "in", fresh()))


# --- twice -------------------------------------------------------------------------------------


def half_done(scene, history, tmp_path, fresh):
    """Return some states that need recovery: with the first and the last calls, and between."""
    found = {}
    for count, tree in history.states(draws=2, seed=5):
        there = materialise(tree, tmp_path / "in", fresh())
        if needs_recovery(there / scene.result):
            found.setdefault(count, tree)
    trees = list(found.values())
    random.Random(len(trees)).shuffle(trees)
    return trees[:3]


def test_a_power_failure_during_recovery_leaves_before_or_after(
    scene, played, history, tmp_path, fresh
):
    for tree in half_done(scene, history, tmp_path, fresh):
        there = materialise(tree, tmp_path / "in", fresh())
        again = recovering(scene, there)
        assert again.after().is_synced()
        for left in dict.fromkeys(left for _, left in again.states(draws=3)):
            settle(played, materialise(left, there, fresh()))


@settings(max_examples=FEW)
@given(data=st.data())
def test_power_failures_that_are_drawn_leave_before_or_after(
    scene, played, history, tmp_path, fresh, data
):
    _, tree = history.draw(data)
    there = materialise(tree, tmp_path / "in", fresh())
    for _ in range(2):
        if not needs_recovery(there / scene.result):
            break
        _, tree = recovering(scene, there).draw(data)
        there = materialise(tree, there, fresh())
    settle(played, there)


def test_a_power_failure_after_a_kill_and_during_recovery_leaves_before_or_after(
    scene, played, history, tmp_path, fresh
):
    """A kill loses nothing, but what it leaves is not all on the device: recovery has to care."""
    counts = [n for n in range(len(history.calls)) if not history.after(n).is_synced()]
    if scene.pieces:
        counts = random.Random(1).sample(counts, min(FEWER, len(counts)))
    for count in counts:
        there = fresh()
        killed = history.after(count).moved(tmp_path / "in", there)
        materialise(killed.after_kill(), there, there)
        if not needs_recovery(there / scene.result):
            continue
        again = recovering(scene, there, killed)
        for left in dict.fromkeys(left for _, left in again.states(draws=1, seed=count)):
            settle(played, materialise(left, there, fresh()))
