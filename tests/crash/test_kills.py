"""``kill -9`` at random times: TensorFlow reads the state before or the state after, each time."""

from __future__ import annotations

import os
import random
import shutil
import statistics

import numpy as np
import pytest

import ckptkit
from ckptkit.errors import NeedsRecoveryError
from tests.crash.killed import Jobs, which

ROUNDS = 40
"""Kills of each job; of eight of them that makes more than 300."""

pytestmark = pytest.mark.tensorflow


def values():
    rng = np.random.default_rng(5)
    return {
        "w": rng.standard_normal((300, 200)).astype(np.float32),
        "v": rng.standard_normal((300, 200)).astype(np.float32),
        "b": rng.standard_normal(500).astype(np.float32),
        "rest": rng.standard_normal(50_000),
    }


def edited():
    new = values()
    new["w"][:, 1] *= np.float32(1.5)
    new["v"] *= np.float32(0.5)
    new["b"][:] = 3
    return new


@pytest.fixture(scope="module")
def jobs():
    process = Jobs()
    yield process
    process.close()


@pytest.fixture(scope="module")
def pristine(tmp_path_factory, jobs):
    """A checkpoint, and one whose latest edit can be undone."""
    plain = tmp_path_factory.mktemp("plain") / "in"
    plain.mkdir()
    ckptkit.save(plain / "m", values(), layout=ckptkit.Layout(shards=2))
    undoable = plain.parent / "undoable"
    shutil.copytree(plain, undoable)
    jobs.run("keep", undoable)
    return {"plain": plain, "undoable": undoable}


def state(tf, prefix):
    """Return whether TensorFlow finds the values before or after; fail if it finds others."""
    reader = tf.train.load_checkpoint(str(prefix))
    found = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    return which(found, values(), edited())


def delays(jobs, job, source, tmp_path, rng):
    """Yield times within what the job takes, which is measured."""
    taken = []
    for number in range(3):
        folder = tmp_path / f"measured-{number}"
        shutil.copytree(source, folder)
        taken.append(jobs.run(job, folder)[1])
    for _ in range(ROUNDS):
        yield rng.uniform(0, 1.1 * statistics.median(taken))


@pytest.mark.parametrize("job", ["append", "patch", "pieces", "compact", "keep", "undo"])
def test_an_edit_in_place_is_done_or_not(tf, jobs, pristine, tmp_path, job):
    rng = random.Random(job)
    source = pristine["undoable" if job == "undo" else "plain"]
    killed = 0
    for number, after in enumerate(delays(jobs, job, source, tmp_path, rng)):
        folder = tmp_path / str(number)
        shutil.copytree(source, folder)
        was_killed, _ = jobs.run(job, folder, after)
        killed += was_killed
        prefix = folder / "m"
        try:
            ckptkit.open(prefix).close()
        except NeedsRecoveryError:
            # Recovery is killed as well, where it does not get through in time.
            for _ in range(2):
                jobs.run("recover", folder, rng.uniform(0, 0.03))
            ckptkit.recover(prefix)
        assert state(tf, prefix) in {"before", "after"}
        assert ckptkit.open(prefix).verify().ok
        ckptkit.recover(prefix)
        hidden = {name for name in os.listdir(folder) if name[0] == "." and "-undo-" not in name}
        assert hidden <= {".m.ckptkit-lock"}
        shutil.rmtree(folder)
    assert killed


@pytest.mark.parametrize("job", ["copy", "link", "resume"])
def test_a_new_checkpoint_is_there_whole_or_not_at_all(tf, jobs, pristine, tmp_path, job):
    rng = random.Random(job)
    killed = 0
    for number, after in enumerate(delays(jobs, job, pristine["plain"], tmp_path, rng)):
        folder = tmp_path / str(number)
        shutil.copytree(pristine["plain"], folder)
        was_killed, _ = jobs.run(job, folder, after)
        killed += was_killed
        if job == "resume" and not (folder / "n.index").exists():
            if any(folder.glob("n.data-*")):
                # Half of the names are there; the message says to recover first.
                ckptkit.recover(folder / "n")
            jobs.run(job, folder)
            assert state(tf, folder / "n") == "after"
        assert state(tf, folder / "m") == "before"
        if (folder / "n.index").exists():
            assert state(tf, folder / "n") == "after"
            assert ckptkit.open(folder / "n").verify().ok
        elif was_killed:
            with pytest.raises((FileNotFoundError, ckptkit.CorruptError)):
                ckptkit.open(folder / "n")
        shutil.rmtree(folder)
    assert killed
