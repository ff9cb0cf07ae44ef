"""An error or an interrupt at any call of an edit in place: taken back at once, or by recovery."""

from __future__ import annotations

import errno
import os

import pytest

import ckptkit
from ckptkit.storage.sidecar import sidecar
from tests.crash.disks import Broken, Recording, Stopping
from tests.crash.forgetful import Volume, differing, materialise
from tests.crash.scene import (
    hidden,
    play,
    prepared,
    settle,
    state_of,
    stem_of,
    visible,
)
from tests.crash.scenes import SCENES

pytestmark = pytest.mark.usefixtures("unsynced")

ERRORS = {
    "error": lambda at: OSError(errno.ENOSPC if at % 2 else errno.EIO, "the disk fails here"),
    "Ctrl-C": lambda _: KeyboardInterrupt(),
}


@pytest.fixture(params=SCENES)
def scene(request, monkeypatch):
    found = SCENES[request.param]
    found.prepare(monkeypatch)
    return found


@pytest.fixture
def played(scene, tmp_path):
    return play(scene, tmp_path / "played")


@pytest.fixture
def again(scene, tmp_path, fresh):
    """Gives what is there before, as often as it is wanted."""
    before = prepared(scene, tmp_path / "in")
    tree = Volume.of(tmp_path / "in").after_kill()

    def there():
        folder = materialise(tree, tmp_path / "in", fresh())
        assert visible(folder) == before
        return folder

    return there


@pytest.fixture
def calls(scene, again):
    disk = Recording()
    scene.do(again(), disk)
    return disk.calls


def journal_of(scene, folder):
    return sidecar(str(stem_of(folder / scene.result)), "journal")


def fails(scene, folder, disk, error):
    """Do it, on a disk that fails; return what the user is told beside the error."""
    with pytest.raises(type(error)) as caught:
        scene.do(folder, disk)
    assert caught.value is error
    return " ".join(getattr(error, "__notes__", []))


def check(played, folder, told, hidden_before, *, last):
    """See that all is as before, or that the user is told to recover, which then works."""
    scene = played.scene
    if os.path.lexists(journal_of(scene, folder)):
        assert f"ckptkit recover {folder / scene.result}" in told
        said, _ = settle(played, folder)
        assert said in {"back", "forward"}
        return said
    assert "recover" not in told
    if last:
        # It was done, but for the word of the device; what is new is taken away again.
        assert state_of(played, folder) == "after" or scene.is_new
        return "done"
    assert differing(visible(folder), played.before) == []
    assert hidden(folder) == hidden_before
    return "before"


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_at_any_call_is_taken_back_or_told(scene, played, again, calls, error):
    found = set()
    for at in range(len(calls)):
        folder = again()
        hidden_before = hidden(folder)
        raised = ERRORS[error](at)
        told = fails(scene, folder, Stopping(at, raised), raised)
        last = at == len(calls) - 1
        try:
            found.add(check(played, folder, told, hidden_before, last=last))
        except AssertionError as failed:
            failed.add_note(f"call {at} of {len(calls)}: {calls[at]}; told: {told}")
            raise
    assert found & {"before", "back"}


def test_a_disk_that_fails_from_a_call_on_is_recovered_on_another(scene, played, again, calls):
    for at in range(len(calls)):
        folder = again()
        error = OSError(errno.EIO, "the disk fails from here on")
        told = fails(scene, folder, Broken(at, error), error)
        try:
            if os.path.lexists(journal_of(scene, folder)):
                assert f"ckptkit recover {folder / scene.result}" in told
            settle(played, folder)
        except AssertionError as failed:
            failed.add_note(f"call {at} of {len(calls)}: {calls[at]}; told: {told}")
            raise


def test_an_error_while_recovering_can_be_recovered_from(scene, played, again, calls):
    """Of edits that a broken disk left."""
    often = 2 if scene.pieces else 4
    for at in range(len(calls) // 4, len(calls), len(calls) // often):
        folder = again()
        error = OSError(errno.EIO, "the disk fails from here on")
        fails(scene, folder, Broken(at, error), error)
        tree = Volume.of(folder).after_kill()
        if not os.path.lexists(journal_of(scene, folder)):
            continue
        disk = Recording()
        ckptkit.recover(folder / scene.result, disk=disk)
        for again_at in range(0, len(disk.calls), 4 // often):
            there = materialise(tree, folder, folder.with_name(f"{folder.name}-{again_at}"))
            with pytest.raises(OSError, match="while recovering"):
                ckptkit.recover(
                    there / scene.result,
                    disk=Stopping(again_at, OSError(errno.EIO, "while recovering")),
                )
            settle(played, there)


@pytest.mark.parametrize("scene", [s for s in SCENES if SCENES[s].undoes], indirect=True)
def test_an_undo_that_fails_can_be_done_again(scene, played, again, calls):
    for at in range(len(calls) - 1):
        folder = again()
        error = OSError(errno.EIO, "the disk fails here")
        fails(scene, folder, Stopping(at, error), error)
        if os.path.lexists(journal_of(scene, folder)):
            ckptkit.recover(folder / scene.name)
        else:
            ckptkit.undo(folder / scene.name)
        assert differing(visible(folder), played.after) == []
