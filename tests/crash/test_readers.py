"""Who reads a checkpoint while something is appended to it sees it as before or as after."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import ckptkit
from ckptkit.storage.disk import Disk
from tests.crash.scenes import edit, read

EDITS = ("w *= 2", "b += 1", "copy b -> twin", "drop b", "cast twin -> float64", "w = 3")


@pytest.fixture
def folder(tmp_path):
    tensors = {
        "w": np.arange(60_000, dtype="float32").reshape(200, 300),
        "b": np.arange(500, dtype="float32"),
    }
    ckptkit.save(tmp_path / "m", tensors, layout=ckptkit.Layout(shards=2))
    return tmp_path


def load(tf, prefix):
    """Return the bits of all tensors, as TensorFlow reads them."""
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name).tobytes() for name in reader.get_variable_to_shape_map()}


def append(folder, statement, disk=None):
    edit(statement, how="append")(folder, disk)


class Watched(Disk):
    """Has somebody look at every call that changes something."""

    def __init__(self, look):
        super().__init__()
        self.look = look
        self.guard = threading.Lock()

    def about_to(self, call, path, new="", **details):
        with self.guard:
            self.look(call, new)


def seen(folder, look):
    """Return what ``look`` sees at every call of an append, before it and after it."""
    found = [look()]
    append(folder, EDITS[0], Watched(lambda *_: found.append(look())))
    found.append(look())
    return found


@pytest.mark.tensorflow
@pytest.mark.parametrize("by", ["tensorflow", "ckptkit"])
def test_at_every_call_all_is_old_or_all_is_new(tf, folder, by, unsynced):
    def look():
        return load(tf, folder / "m") if by == "tensorflow" else read(folder / "m")

    found = seen(folder, look)
    assert found[0] != found[-1]
    states = [one == found[-1] for one in found]
    assert all(one in (found[0], found[-1]) for one in found)
    # Once it is new it stays.
    assert states == sorted(states)


@pytest.mark.tensorflow
def test_who_opened_it_before_goes_on_with_the_old_values(tf, folder):
    reader = tf.train.load_checkpoint(str(folder / "m"))
    before = load(tf, folder / "m")
    append(folder, EDITS[0])
    for name in before:
        assert reader.get_tensor(name).tobytes() == before[name]
    assert load(tf, folder / "m") != before


@pytest.mark.tensorflow
def test_who_restores_all_the_time_sees_one_state_after_another(tf, folder):
    """Nobody knows in which order two threads run; whatever it is, nothing else is seen."""
    found, failed, done = [], [], threading.Event()

    def restore():
        try:
            while not done.is_set():
                found.append(load(tf, folder / "m"))
            found.append(load(tf, folder / "m"))
        except Exception as error:  # noqa: BLE001  it is what the test is about
            failed.append(error)

    states = [load(tf, folder / "m")]
    thread = threading.Thread(target=restore)
    thread.start()
    try:
        for statement in EDITS:
            append(folder, statement)
            states.append(load(tf, folder / "m"))
    finally:
        done.set()
        thread.join()
    assert failed == []
    order = [states.index(one) for one in found]
    assert order == sorted(order)
    assert order[-1] == len(EDITS)
