"""A device that is full, one that is read-only, and signals: real ones, not made up by a disk."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import ckptkit
from ckptkit.engine import amend, preflight, run
from ckptkit.errors import NeedsRecoveryError
from tests.crash.disks import Recording
from tests.crash.forgetful import Volume, differing, materialise
from tests.crash.scenes import edit, hidden, undo, visible

WAYS = {
    "copy": edit("w *= 2", "b += 1", to="new"),
    "link": edit("w *= 2", "b += 1", to="new", how="link"),
    "append": edit("w *= 2", "copy b -> twin", how="append"),
    "patch": edit("w[:, 3:5] *= 2", "b += 1", how="patch"),
    "patch with undo": edit("w *= 2", "b += 1", how="patch", keep_undo=True),
    "patch in pieces": edit("w *= 2", "v *= 3", how="patch"),
    "broken links": edit("w *= 2", how="patch", break_links=True),
    "compact": edit("w *= 2", how="copy", layout=ckptkit.Layout(shards=3)),
    "model, append": edit("w *= 2", how="append"),
    "undo of append": undo,
}
CHUNK, PIECE = 4000, 20_000


def make(way, folder):
    """Make what is there before."""
    rng = np.random.default_rng(4)
    tensors = {
        "w": rng.standard_normal((100, 60)).astype("float32"),
        "v": rng.standard_normal((90, 60)).astype("float32"),
        "b": np.arange(500.0),
    }
    prefix = folder / "m"
    if way == "model, append":
        prefix = folder / "m" / "variables" / "variables"
        prefix.parent.mkdir(parents=True)
        (folder / "m" / "saved_model.pb").write_bytes(b"\x08\x01")
    ckptkit.save(prefix, tensors, layout=ckptkit.Layout(shards=2))
    if way == "undo of append":
        edit("w *= 2", how="append", keep_undo=True)(folder, None)
    if way == "broken links":
        edit("rename ^v$ -> u", to="other", how="link")(folder, None)


def needs_recovery(path):
    try:
        ckptkit.open(path).close()
    except NeedsRecoveryError:
        return True
    return False


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    if request.param == "patch in pieces":
        monkeypatch.setattr(run, "MAX_CHUNK", CHUNK)
        monkeypatch.setattr(amend, "piece_bytes", lambda _: PIECE)
    return request.param


@pytest.fixture
def after(way, tmp_path):
    """The files that an edit leaves which nobody disturbs."""
    (tmp_path / "after").mkdir()
    make(way, tmp_path / "after")
    WAYS[way](tmp_path / "after", None)
    return visible(tmp_path / "after")


# --- a full device -----------------------------------------------------------------------------


def mount(*arguments):
    done = subprocess.run(
        ["mount", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.strip() if done.returncode else ""


@pytest.fixture
def device(tmp_path):
    """A folder of a small file system of our own."""
    place = tmp_path / "device"
    place.mkdir()
    refused = mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place))
    if refused:
        pytest.skip(f"no file system can be mounted here: {refused}")
    (place / "run").mkdir()
    yield place / "run"
    # What failed refers to itself, and to files, until somebody looks.
    gc.collect()
    # Should something still hold a file of it, then until it lets go.
    subprocess.run(["umount", "-l", place], check=True)


@contextlib.contextmanager
def only(pages, device):
    """Leave so many pages of a file system free."""
    found = os.statvfs(device)
    ballast = device.parent / "ballast"
    with open(ballast, "xb") as file:
        os.posix_fallocate(file.fileno(), 0, (found.f_bavail - pages) * found.f_frsize)
    try:
        yield
    finally:
        ballast.unlink()


def test_a_full_device_is_told_and_leaves_all_as_it_was(way, after, device, monkeypatch):
    """Whichever page is the first that is missing."""
    monkeypatch.setattr(preflight, "check_space", lambda *_: None)
    make(way, device)
    before, kept = visible(device), hidden(device)
    original = Volume.of(device).after_kill()
    # An edit that goes round in its journal, and one that is taken back, cannot always go back.
    may_stay = way in {"patch in pieces", "undo of append"}
    for pages in range(200):
        with only(pages, device):
            try:
                WAYS[way](device, None)
            except OSError as error:
                assert error.errno == errno.ENOSPC
                told = " ".join(getattr(error, "__notes__", []))
            else:
                break
        if may_stay and needs_recovery(device / "m"):
            assert f"ckptkit recover {device / 'm'}" in told
            ckptkit.recover(device / "m")
            assert visible(device) in (before, after)
            for path in device.iterdir():
                path.unlink()
            materialise(original, device, device)
        assert differing(visible(device), before) == [], pages
        assert hidden(device) == kept, pages
    assert pages
    assert differing(visible(device), after) == []


def test_a_full_device_is_told_before_the_first_byte(way, device):
    if WAYS[way] is undo:
        pytest.skip("what undoing needs is next to nothing")
    make(way, device)
    before, kept, disk = visible(device), hidden(device), Recording()
    with only(12, device), pytest.raises(OSError, match="are needed here") as caught:
        WAYS[way](device, disk)
    assert caught.value.errno == errno.ENOSPC
    assert "free" in str(caught.value)
    assert disk.calls == []
    assert visible(device) == before
    assert hidden(device) == kept


def test_a_read_only_device_is_told_before_anything(way, device):
    make(way, device)
    before, kept, disk = visible(device), hidden(device), Recording()
    assert not mount("-o", "remount,ro", str(device.parent))
    try:
        with pytest.raises(OSError, match=r"read-only|permission") as caught:
            WAYS[way](device, disk)
    finally:
        mount("-o", "remount,rw", str(device.parent))
    assert caught.value.errno in {errno.EROFS, errno.EACCES}
    assert disk.calls == []
    assert visible(device) == before
    assert hidden(device) == kept


# --- signals -----------------------------------------------------------------------------------


def test_signals_that_arrive_all_the_time_do_no_harm(way, after, fresh, unsynced):
    heard = 0

    def hear(*_):
        nonlocal heard
        heard += 1

    handler = signal.signal(signal.SIGALRM, hear)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        while heard < 100:
            folder = fresh()
            make(way, folder)
            WAYS[way](folder, None)
            assert differing(visible(folder), after) == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


HELD_CALL = f"""
import sys
from ckptkit.engine import amend, run
from ckptkit.storage.disk import Disk

at, count = int(sys.argv[1]), 0

def held(self, call, path, new="", **details):
    global count
    count += 1
    if count == at:
        print("working", flush=True)
        sys.stdin.read()

Disk.about_to = held
if sys.argv[2] == "pieces":
    run.MAX_CHUNK, amend.piece_bytes = {CHUNK}, lambda _: {PIECE}
from ckptkit.cli import main
sys.exit(main(sys.argv[3:]))
"""

LINES = {
    "append": ("-e", "w *= 2", "-e", "copy b -> twin", "--how", "append"),
    "patch": ("-e", "w[:, 3:5] *= 2", "-e", "b += 1", "--how", "patch"),
    "patch in pieces": ("-e", "w *= 2", "-e", "v *= 3", "--how", "patch"),
    "compact": ("-e", "w *= 2", "--how", "copy", "--shards", "3"),
}


@pytest.mark.parametrize("way", LINES, indirect=True)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_takes_the_edit_back_or_says_what_to_do(way, after, fresh, number, code):
    folder, disk = fresh(), Recording()
    make(way, folder)
    WAYS[way](folder, disk)
    calls = len(disk.calls)
    # Not at the same ones: all of them are tried with errors.
    first = 2 if number == signal.SIGINT else calls // 8
    for at in range(first, calls, calls // 3):
        folder = fresh()
        make(way, folder)
        before = visible(folder)
        line = ("edit", str(folder / "m"), "--in-place", "--device", "numpy", "-q", *LINES[way])
        errors = interrupted(at, way, line, number, code)
        word = "interrupted" if number == signal.SIGINT else "terminated"
        assert errors.startswith(f"ckptkit: error: {word}\n"), errors
        if needs_recovery(folder / "m"):
            assert f"ckptkit recover {folder / 'm'}" in errors
            state = ckptkit.recover(folder / "m").state
            assert differing(visible(folder), after if state == "forward" else before) == []
        else:
            assert differing(visible(folder), before) == []
        assert hidden(folder) == []


def interrupted(at, way, line, number, code):
    """Start an edit, send it a signal at one of its calls, and return what it has to say."""
    pieces = "pieces" if "pieces" in way else "whole"
    with subprocess.Popen(
        [sys.executable, "-c", HELD_CALL, str(at), pieces, *line],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout.readline() == "working\n"
        running.send_signal(number)
        running.stdin.close()
        assert running.wait() == code
        return running.stderr.read()
