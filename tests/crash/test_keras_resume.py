"""A copy of a Keras file that was interrupted goes on where it stopped."""

from __future__ import annotations

import errno
import os

import pytest

import ckptkit
from ckptkit.engine import queue, run
from tests.crash import keras_files as made
from tests.crash.disks import Recording, Stopping

pytestmark = pytest.mark.usefixtures("unsynced")

KINDS = {
    "m.keras": (made.save_archive, "n.keras"),
    "m.weights.h5": (made.save_weights, "n.weights.h5"),
    "m.weights.json": (made.save_shards, "n.weights.json"),
    "m": (made.save_folder, "n"),
}

EDITS = {
    "values": ("layers/dense/vars/0 *= 2", "layers/dense_1/vars/0[3:9] += 1"),
    "dtypes": ("cast layers/dense/vars/* -> float16", "drop optimizer/**"),
}


@pytest.fixture(autouse=True)
def many_steps(monkeypatch):
    monkeypatch.setattr(run, "MAX_CHUNK", 800)
    monkeypatch.setattr(queue, "COPY", 1500)
    monkeypatch.setattr("ckptkit.engine.program.BLOCK", 800)
    monkeypatch.setattr("ckptkit.engine.steps.LIGHT", 800)


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("edits", EDITS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_interruption_at_any_call_is_gone_on_from(fresh, kind, edits):
    save, name = KINDS[kind]
    source = fresh() / kind
    save(source, made.dense_model())

    def copy(folder, disk=None):
        with ckptkit.open(source) as found:
            plan = found.edit(*EDITS[edits]).plan(folder / name, "copy")
            return plan.run(device="numpy", disk=disk, resume=True)

    whole, disk = fresh(), Recording()
    copy(whole, disk)
    expected = files(whole)
    resumed = 0
    for at in range(len(disk.calls)):
        folder = fresh()
        with pytest.raises(OSError, match="stops"):
            copy(folder, Stopping(at, OSError(errno.EIO, "stops")))
        if not os.path.lexists(folder / name):
            resumed += copy(folder).bytes_resumed
        assert files(folder) == expected, disk.calls[at]
    assert resumed
