"""A SavedModel appears as a whole folder or not at all."""

from __future__ import annotations

import errno
import itertools
import os

import numpy as np
import pytest

import ckptkit
from ckptkit.errors import ConflictError, EditError
from tests.crash.disks import Recording, Stopping
from tests.oracle.varint import put_number


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


class Device:
    """Folders and files after a power failure: what was synced, and any subset of the rest."""

    def __init__(self, root):
        self.root = str(root)
        self.now = {self.root: 0}
        self.clean: dict[int, bool] = {}
        self.kept: list[tuple] = []
        self.pending: list[tuple] = []

    def replay(self, calls):
        for number, (call, path, new) in enumerate(calls, start=1):
            if call in {"create", "make_folder"}:
                self.now[path] = number
                if call == "create":
                    self.clean[number] = False
                self._change(path, number)
            elif call in {"write", "copy", "resize"}:
                self.clean[self.now[path]] = False
            elif call == "sync":
                self.clean[self.now[path]] = True
            elif call == "rename":
                moved = self.now[path]
                inside = [old for old in self.now if old.startswith(path + os.sep)]
                for old in [*inside, path]:
                    self.now[new + old[len(path) :]] = self.now.pop(old)
                source = (self.now[os.path.dirname(path)], os.path.basename(path))
                self._change(new, moved, source)
            elif call == "sync_folder" and path in self.now:
                folder = self.now[path]
                self.kept += [change for change in self.pending if change[0] == folder]
                self.pending = [change for change in self.pending if change[0] != folder]
        return self

    def _change(self, path, node, source=None):
        folder = self.now[os.path.dirname(path)]
        self.pending.append((folder, os.path.basename(path), node, source))

    def states(self):
        """Yield trees: path to node, from the root, for every subset of what is not synced."""
        for chosen in itertools.product([False, True], repeat=len(self.pending)):
            folders: dict[int, dict[str, int]] = {}
            extra = [change for change, kept in zip(self.pending, chosen, strict=True) if kept]
            for folder, name, node, source in [*self.kept, *extra]:
                if source is not None:
                    folders.setdefault(source[0], {}).pop(source[1], None)
                folders.setdefault(folder, {})[name] = node
            yield dict(self._walk(folders, 0, self.root))

    def _walk(self, folders, node, path):
        for name, child in folders.get(node, {}).items():
            yield os.path.join(path, name), child
            yield from self._walk(folders, child, os.path.join(path, name))


def test_a_power_failure_at_any_call_leaves_all_or_nothing(model, tmp_path):
    disk = Recording()
    destination = tmp_path / "out" / "new"
    run(model, destination, disk)
    expected = {os.path.join(destination, name) for name in files(destination)}
    seen = set()
    for count in range(len(disk.calls) + 1):
        device = Device(tmp_path / "out").replay(disk.calls[:count])
        for state in device.states():
            appeared = str(destination) in state
            seen.add(appeared)
            if appeared:
                held = {path for path, node in state.items() if device.clean.get(node)}
                assert expected <= held, disk.calls[:count]
    assert seen == {False, True}
    assert all(str(destination) in state for state in device.states())


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
