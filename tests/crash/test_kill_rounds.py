"""``kill -9`` in earnest, at random times, many times; TensorFlow reads what is there then."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit.engine import amend, run
from ckptkit.errors import NeedsRecoveryError
from tests.crash import killing
from tests.crash.disks import Recording
from tests.crash.forgetful import differing
from tests.crash.scenes import files, hidden, visible

pytestmark = pytest.mark.tensorflow

ROUNDS = 40
"""Of each way; half of them killed at a call, half at a time."""

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server():
    """What forks the children: it is small, and quick to fork."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.killing"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def perform(way, folder, delay=None, call=None):
            job = {"way": way, "folder": str(folder), "delay": delay, "call": call}
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            done = json.loads(process.stdout.readline())
            assert not done["failed"]
            return done

        yield perform
        process.stdin.close()


def values_in(tf, path):
    """Return the bits of all tensors, as TensorFlow reads them."""
    reader = tf.train.load_checkpoint(str(path))
    return {name: reader.get_tensor(name).tobytes() for name in reader.get_variable_to_shape_map()}


@pytest.fixture
def small(monkeypatch):
    """Undo what the sizes of a server are set to, should a test set them here as well."""
    monkeypatch.setattr(run, "MAX_CHUNK", run.MAX_CHUNK)
    monkeypatch.setattr(amend, "piece_bytes", amend.piece_bytes)


@pytest.fixture
def ends(tf, way, tmp_path, small):
    """The folder before, its tensors and those of the result, and how many calls it takes."""
    rng = np.random.default_rng(3)
    before = tmp_path / f"before-{way.replace(' ', '-')}"
    before.mkdir()
    tensors = {
        "w": rng.standard_normal((400, 256)).astype("float32"),
        "v": rng.standard_normal((300, 256)).astype("float32"),
        "b": rng.standard_normal(3000).astype("float32"),
        "n": np.arange(50),
    }
    ckptkit.save(before / "m", tensors, layout=ckptkit.Layout(shards=2))
    killing.prepare(before)
    if way == "undo":
        killing.WAYS["patch with undo"](before, None)
    after = tmp_path / "after"
    shutil.copytree(before, after)
    disk = Recording()
    killing.WAYS[way](after, disk)
    return before, values_in(tf, before / "m"), values_in(tf, after / result_of(way)), disk.calls


def result_of(way):
    return "new" if way in {"copy", "link"} else "m"


def outcome(tf, way, folder, before, after):
    """Recover what was killed, and tell what is there; TensorFlow has to agree."""
    path, recovered = folder / result_of(way), "nothing"
    try:
        ckptkit.open(path).close()
    except NeedsRecoveryError:
        recovered = ckptkit.recover(path).state
    except FileNotFoundError:
        assert way in {"copy", "link"}
        assert values_in(tf, folder / "m") == before
        return "before", recovered
    found = values_in(tf, path)
    assert found in (before, after)
    return "after" if found == after else "before", recovered


@pytest.mark.parametrize("way", killing.WAYS)
def test_what_is_killed_is_as_before_or_as_after(tf, server, way, ends, fresh, record_property):
    folder, before, after, calls = ends
    draw = random.Random(way)
    took = []
    for _ in range(3):
        there = fresh() / folder.name
        shutil.copytree(folder, there)
        took.append(server(way, there)["seconds"])
    found = Counter()
    for number in range(ROUNDS):
        there = fresh() / folder.name
        shutil.copytree(folder, there)
        if number % 2:
            # The end is where it matters most.
            call = max(draw.randrange(len(calls)), draw.randrange(len(calls)))
            done = server(way, there, call=call)
        else:
            done = server(way, there, delay=draw.uniform(0.1, 1.1) * min(took))
        state, recovered = outcome(tf, way, there, before, after)
        found[state, recovered, done["killed"]] += 1
        if not done["killed"]:
            assert state == "after"
        cleared(way, folder, there, state)
        shutil.rmtree(there.parent)
    # How often what came out is up to the machine, all but this.
    record_property("found", {str(key): count for key, count in found.items()})
    assert any(was_killed for _, _, was_killed in found), found


def cleared(way, folder, there, state):
    """See that nothing is left in the way: of a new edit, nor of the eye."""
    try:
        assert ckptkit.recover(there / result_of(way)).state == "nothing"
    except FileNotFoundError:
        assert state == "before"
    assert [name for name in hidden(there) if "-undo-" not in name] == []
    if way in {"copy", "link"}:
        kept = {name: text for name, text in files(there).items() if name[0] == "m"}
        assert differing(kept, visible(folder)) == []
    elif state == "before":
        assert differing(visible(there), visible(folder)) == []
    assert not os.path.lexists(there / ".m.ckptkit-lock")
