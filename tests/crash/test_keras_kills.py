"""``kill -9`` at random times: h5py and zipfile find the state before or the state after."""

from __future__ import annotations

import random
import shutil
import statistics

import numpy as np
import pytest

import ckptkit
from ckptkit.errors import NeedsRecoveryError
from tests.crash import keras_files as made
from tests.crash.killed import Jobs, which

ROUNDS = 14
"""Kills of each job on each kind of file."""


def weights():
    rng = np.random.default_rng(5)
    return {
        "layers/dense": {
            "0": rng.standard_normal((300, 200)).astype(np.float32),
            "1": rng.standard_normal(200).astype(np.float32),
        },
        "layers/rest": {"0": rng.standard_normal(50_000)},
        "optimizer": {
            "0": np.int64(7),
            "1": np.float32(0.1),
            "2": rng.standard_normal((300, 200)).astype(np.float32),
        },
    }


def values():
    return {
        f"{path}/vars/{key}": np.asarray(array)
        for path, variables in weights().items()
        for key, array in variables.items()
    }


def edited():
    new = values()
    new["layers/dense/vars/0"][:, 1] *= np.float32(1.5)
    new["optimizer/vars/2"] *= np.float32(0.5)
    new["layers/dense/vars/1"][:] = 3
    return new


@pytest.fixture(scope="module")
def jobs():
    process = Jobs()
    yield process
    process.close()


@pytest.fixture(scope="module", params=[".weights.h5", ".keras"])
def pristine(request, tmp_path_factory, jobs):
    """A file, and one whose latest edit can be undone."""
    plain = tmp_path_factory.mktemp("plain") / "in"
    plain.mkdir()
    save = made.save_archive if request.param == ".keras" else made.save_weights
    save(plain / f"m{request.param}", weights())
    undoable = plain.parent / "undoable"
    shutil.copytree(plain, undoable)
    jobs.run("keep", undoable)
    return {"plain": plain, "undoable": undoable, "name": f"m{request.param}"}


def state(path):
    """Return whether the values are those before or after; fail if they are others."""
    return which(made.arrays_in(made.content_of(path)), values(), edited())


@pytest.mark.parametrize("job", ["patch", "pieces", "compact", "keep", "undo"])
def test_an_edit_in_place_is_done_or_not(jobs, pristine, tmp_path, job):
    rng = random.Random(job)
    source = pristine["undoable" if job == "undo" else "plain"]
    taken, killed = [], 0
    for number in range(3 + ROUNDS):
        folder = tmp_path / str(number)
        shutil.copytree(source, folder)
        path = folder / pristine["name"]
        if number < 3:
            taken.append(jobs.run(job, folder)[1])
            assert state(path) == ("before" if job == "undo" else "after")
            continue
        was_killed, _ = jobs.run(job, folder, rng.uniform(0, 1.1 * statistics.median(taken)))
        killed += was_killed
        try:
            ckptkit.open(path).close()
        except NeedsRecoveryError:
            # Recovery is killed as well, where it does not get through in time.
            for _ in range(2):
                jobs.run("recover", folder, rng.uniform(0, 0.03))
            ckptkit.recover(path)
        assert state(path) in {"before", "after"}
        assert ckptkit.open(path).verify().ok
        ckptkit.recover(path)
        hidden = {one.name for one in folder.glob(".*") if "-undo-" not in one.name}
        assert hidden <= {f".{path.name}.ckptkit-lock"}
        shutil.rmtree(folder)
    assert killed
