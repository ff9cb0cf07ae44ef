"""Real faults: a full disk, a read-only one, signals, and a reader beside a writer."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit.engine import preflight
from ckptkit.storage.sidecar import sidecar

W = np.arange(400_000, dtype=np.float32).reshape(400, 1000)


def save(folder):
    ckptkit.save(folder / "m", {"w": W, "b": W[0]})
    return str(folder / "m")


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def run(model, how, **options):
    target = f"{model}-new" if how in {"link", "fresh"} else None
    with ckptkit.open(model) as found:
        plan = found.edit("w *= 2", "b = 1").plan(target, "copy" if how == "fresh" else how)
        return plan.run(device="numpy", **options)


@pytest.fixture
def small(tmp_path):
    """Give a file system of little room."""
    mounted = []

    def mount(nbytes):
        folder = tmp_path / f"small-{len(mounted)}"
        folder.mkdir()
        line = ["mount", "-t", "tmpfs", "-o", f"size={nbytes}", "tmpfs", str(folder)]
        if subprocess.run(line, check=False, capture_output=True).returncode:
            pytest.skip("file systems cannot be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("how", ["fresh", "link", "append", "patch", "copy"])
def test_a_full_disk_leaves_everything_as_it_was(small, how, monkeypatch):
    folder = small(2 << 20)
    model = save(folder)
    before = files(folder)
    with pytest.raises(OSError, match="are free") as told:
        run(model, how)
    assert told.value.errno == errno.ENOSPC
    assert files(folder) == before
    monkeypatch.setattr(preflight, "check_space", lambda *_: None)
    with pytest.raises(OSError, match="No space left") as told:
        run(model, how)
    assert told.value.errno == errno.ENOSPC
    assert files(folder) == before
    assert ckptkit.open(model).verify().ok


def test_a_resumable_copy_goes_on_when_there_is_room(small, monkeypatch):
    folder = small(2 << 20)
    model = save(folder)
    with monkeypatch.context() as patched:
        patched.setattr(preflight, "check_space", lambda *_: None)
        with pytest.raises(OSError, match="No space left") as told:
            run(model, "fresh", resume=True)
    assert "--resume" in told.value.__notes__[0]
    subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)
    run(model, "fresh", resume=True)
    np.testing.assert_array_equal(ckptkit.open(f"{model}-new")["w"].read(), W * 2)


@pytest.mark.parametrize("how", ["fresh", "link", "append", "patch", "copy"])
def test_a_read_only_disk_is_told_before_anything(small, how):
    folder = small(8 << 20)
    model = save(folder)
    before = files(folder)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    with pytest.raises(OSError, match="read-only") as told:
        run(model, how)
    assert told.value.errno == errno.EROFS
    assert files(folder) == before


@pytest.mark.parametrize("how", ["fresh", "append", "patch", "copy"])
def test_signals_that_come_all_the_time_change_nothing(tmp_path, how):
    model = save(tmp_path)
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        run(model, how)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen
    with ckptkit.open(f"{model}-new" if how == "fresh" else model) as found:
        np.testing.assert_array_equal(found["w"].read(), W * 2)
        assert found.verify().ok


# --- Ctrl-C ------------------------------------------------------------------------------------

STOPPED = """
import os, signal, sys
from ckptkit.cli import main
from ckptkit.engine import overwrite, run
from ckptkit.storage import disk

calls = 0
small, at, number = sys.argv[1] == "small", int(sys.argv[2]), getattr(signal, sys.argv[3])
if small:
    run.MAX_CHUNK, overwrite.piece_bytes = 50_000, lambda *_, **__: 200_000

class Disk(disk.Disk):
    def about_to(self, call, path, new="", **details):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), number)

import ckptkit.engine.plan as plan
plan.Disk = Disk
sys.exit(main(sys.argv[4:]))
"""


def stopped(model, at, name, *line, pieces="one"):
    given = [sys.executable, "-c", STOPPED, pieces, str(at), name, "edit", model, *line]
    return subprocess.run(
        [*given, "-e", "w *= 2", "-e", "b = 1", "--device", "numpy", "-q"],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(model).parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("how", ["append", "patch", "copy"])
def test_who_stops_an_edit_in_place_finds_it_as_it_was(tmp_path, name, code, how):
    model = save(tmp_path)
    before = files(tmp_path)
    for at in (1, 4):
        done = stopped(model, at, name, "--in-place", "--how", how)
        assert done.returncode == code, done.stderr
        assert files(tmp_path) == before


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_who_stops_an_edit_whose_old_bytes_are_gone_is_told_what_to_do(tmp_path, name, code):
    model = save(tmp_path)
    done = stopped(model, 150, name, "--in-place", "--how", "patch", pieces="small")
    assert done.returncode == code
    assert f"to finish it: ckptkit recover {model}" in done.stderr
    assert os.path.lexists(sidecar(model, "journal"))
    # With the sizes of its steps, which this process does not have by itself.
    with pytest.raises(ckptkit.NeedsRecoveryError):
        ckptkit.open(model)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_who_stops_a_copy_keeps_what_was_asked_for(tmp_path, name, code):
    (tmp_path / "in").mkdir()
    model = save(tmp_path / "in")
    target = str(tmp_path / "out" / "n")
    (tmp_path / "out").mkdir()
    assert stopped(model, 6, name, target).returncode == code
    assert files(tmp_path / "out") == {}
    done = stopped(model, 8, name, target, "--resume")
    assert done.returncode == code
    assert "run it again with --resume" in done.stderr
    assert [entry.name[:11] for entry in (tmp_path / "out").iterdir()] == [".n.ckptkit-"]
    assert stopped(model, 10**6, name, target, "--resume").returncode == 0
    assert ckptkit.open(target).verify().ok


# --- a reader beside a writer ------------------------------------------------------------------


@pytest.mark.tensorflow
def test_tensorflow_reads_the_old_or_the_new_state_while_we_append(tf, tmp_path):
    model = save(tmp_path)
    seen, wrong = set(), []
    done = threading.Event()

    def read():
        while not done.is_set():
            try:
                reader = tf.train.load_checkpoint(model)
            except RuntimeError as error:
                # It asks for the length of the index by name, then opens it by name: between the
                # two the new one may have taken the name. Asked again, it opens that.
                assert "bad magic number" in str(error)
                continue
            values = reader.get_tensor("b")
            whole = reader.get_tensor("w")
            if len(set(values.tolist())) != 1 or whole[1, 1] != values[0] + 1:
                wrong.append(values)
            seen.add(float(values[0]))

    with ckptkit.open(model) as found:
        found.edit("b = 0", "w = 1").plan(how="append").run(device="numpy")
    thread = threading.Thread(target=read)
    thread.start()
    try:
        for number in range(1, 25):
            with ckptkit.open(model) as found:
                edits = (f"b = {number}", f"w = {number + 1}")
                found.edit(*edits).plan(how="append").run(device="numpy")
    finally:
        done.set()
        thread.join()
    assert not wrong
    assert seen <= {float(number) for number in range(25)}
    assert tf.train.load_checkpoint(model).get_tensor("b")[0] == 24
