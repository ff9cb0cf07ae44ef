"""A server that edits checkpoints in children, and kills them; it never imports TensorFlow.

It reads one JSON object a line and answers each with another one. A job is ``{"way": ..., "folder":
..., "delay": seconds or null, "call": number or null}``; the answer tells whether the child was
killed and for how long it ran.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from pathlib import Path

import ckptkit
from ckptkit.engine import amend, run
from ckptkit.storage.disk import Disk
from tests.crash.disks import Killing

CHUNK, PIECE = 64 << 10, 300 << 10
"""Bytes of a step and of a piece of a journal."""


def edit(*statements, to=None, **options):
    def do(folder, disk):
        with ckptkit.open(folder / "m") as found:
            plan = found.edit(*statements).plan(None if to is None else folder / to, **options)
        return plan.run(device="numpy", disk=disk)

    return do


def undo(folder, disk):
    return ckptkit.undo(folder / "m", disk=disk)


WAYS = {
    "copy": edit("w *= 2", "b += 1", to="new"),
    "link": edit("w *= 2", "b += 1", to="new", how="link"),
    "append": edit("w *= 2", "cast b -> float64", how="append"),
    "patch": edit("w[:, 3:5] *= 2", "b += 1", how="patch"),
    "patch in pieces": edit("w *= 2", "v *= 3", how="patch"),
    "patch with undo": edit("w[:, 3:5] *= 2", "b += 1", how="patch", keep_undo=True),
    "compact": edit("w *= 2", how="copy", layout=ckptkit.Layout(shards=3)),
    "undo": undo,
}


def prepare(folder):
    """Make sizes small, where the folder asks for that, as it does for who recovers there."""
    run.MAX_CHUNK = CHUNK
    if "pieces" in folder.name:
        amend.piece_bytes = lambda _: PIECE


def child(job, ready):
    folder = Path(job["folder"])
    prepare(folder)
    disk = Disk() if job["call"] is None else Killing(job["call"])
    if job["call"] is not None:
        # A kill loses nothing of what the system was given, be it on the device or not.
        os.fsync = os.fdatasync = lambda fd: None
    os.write(ready, b"x")
    os.close(ready)
    WAYS[job["way"]](folder, disk)


def perform(job):
    """Run a job in a child, and kill it after a time, or have it kill itself at a call."""
    begun, ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(begun)
            child(job, ready)
            code = 0
        finally:
            os._exit(code)
    os.close(ready)
    os.read(begun, 1)
    os.close(begun)
    start = time.perf_counter()
    if job["delay"] is not None:
        fd = os.pidfd_open(pid)
        if not select.select([fd], [], [], job["delay"])[0]:
            os.kill(pid, signal.SIGKILL)
        os.close(fd)
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - start
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        return {"killed": False, "seconds": seconds, "failed": True}
    return {"killed": os.WIFSIGNALED(status), "seconds": seconds, "failed": False}


def main():
    for line in sys.stdin:
        sys.stdout.write(json.dumps(perform(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
