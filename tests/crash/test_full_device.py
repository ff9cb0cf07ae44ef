"""A device that is full by the page: whichever is the first page that is missing."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import subprocess

import pytest

import ckptkit
from ckptkit.engine import preflight
from ckptkit.errors import NeedsRecoveryError
from tests.crash.forgetful import Volume, differing, materialise
from tests.crash.scene import hidden, play, prepared, visible
from tests.crash.scenes import SCENES

PAGES = 300
"""More than any of the edits takes."""


def run(*line):
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.fixture
def device(tmp_path):
    """A folder of a small file system of our own."""
    place = tmp_path / "device"
    place.mkdir()
    mounted = run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place))
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place / "in"
    # What failed refers to itself, and to files, until somebody looks.
    gc.collect()
    run("umount", "-l", str(place))


@contextlib.contextmanager
def only(pages, folder):
    """Leave so many pages of a file system free."""
    found = os.statvfs(folder)
    ballast = folder.parent / "ballast"
    with open(ballast, "xb") as file:
        os.posix_fallocate(file.fileno(), 0, (found.f_bavail - pages) * found.f_frsize)
    try:
        yield
    finally:
        ballast.unlink()


def needs_recovery(path):
    try:
        ckptkit.open(path).close()
    except NeedsRecoveryError:
        return True
    except FileNotFoundError:
        pass
    return False


@pytest.mark.parametrize("name", SCENES)
def test_a_full_device_is_told_and_leaves_all_as_it_was(name, tmp_path, device, monkeypatch):
    scene = SCENES[name]
    scene.prepare(monkeypatch)
    played = play(scene, tmp_path / "played")
    before = prepared(scene, device)
    kept, original = hidden(device), Volume.of(device).after_kill()
    # Whose old bytes are gone, and what is itself the way back, cannot go back.
    may_stay = bool(scene.pieces) or scene.undoes
    monkeypatch.setattr(preflight, "check_space", lambda *_: None)
    for pages in range(PAGES):
        with only(pages, device):
            try:
                scene.do(device, None)
            except OSError as error:
                assert error.errno == errno.ENOSPC
                told = " ".join(getattr(error, "__notes__", []))
            else:
                break
        stays = needs_recovery(device / scene.result)
        assert not stays or f"ckptkit recover {device / scene.result}" in told
        if stays and may_stay:
            ckptkit.recover(device / scene.result)
            assert visible(device) in (played.before, played.after)
            shutil.rmtree(device)
            materialise(original, device, device)
        assert differing(visible(device), before) == [], f"{pages} pages are free"
        assert hidden(device) == kept, f"{pages} pages are free"
    # What is next to nothing finds room in the last page of a file.
    assert pages or scene.undoes
    assert differing(visible(device), played.after) == []
