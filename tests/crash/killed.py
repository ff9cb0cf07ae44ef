"""A process that forks for every job, so that starting one costs little, and has it killed.

It reads lines of JSON, ``{"job": name, "folder": path, "after": seconds or null}``, and answers
each with ``{"killed": bool, "seconds": float}``. It must not import TensorFlow, whose threads do
not outlive a fork.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import h5py  # noqa: F401  once here rather than in every child

import ckptkit
from ckptkit.engine import overwrite, queue, run

EDITS = ("w[:, 1] *= 1.5", "v *= 0.5", "b = 3")
"""What every job does; a copy of TensorFlow's values is compared with the same in NumPy."""

KERAS = ("layers/dense/vars/0[:, 1] *= 1.5", "optimizer/vars/2 *= 0.5", "layers/dense/vars/1 = 3")
"""The same for files of Keras."""


def edits_of(path):
    return EDITS if path.endswith("/m") else KERAS


def checkpoint(folder):
    """Return the one that is in a folder."""
    names = (name for name in sorted(os.listdir(folder)) if not name.startswith("."))
    return f"{folder}/{next(names).removesuffix('.index').partition('.data-')[0]}"


def in_place(how, **options):
    def job(folder):
        path = checkpoint(folder)
        with ckptkit.open(path) as found:
            found.edit(*edits_of(path)).plan(how=how, **options).run(device="numpy")

    return job


def anew(how):
    def job(folder):
        with ckptkit.open(f"{folder}/m") as found:
            found.edit(*EDITS).plan(f"{folder}/n", how).run(device="numpy")

    return job


def resumed(folder):
    with ckptkit.open(f"{folder}/m") as found:
        found.edit(*EDITS).plan(f"{folder}/n", "copy").run(device="numpy", resume=True)


def in_pieces(folder):
    run.MAX_CHUNK = 16 << 10
    overwrite.piece_bytes = lambda *_, **__: 100 << 10
    overwrite.TOGETHER = 0
    overwrite.WIDE = 300
    in_place("patch")(folder)


def in_steps(folder):
    run.MAX_CHUNK = queue.COPY = 16 << 10
    resumed(folder)


JOBS = {
    "copy": anew("copy"),
    "link": anew("link"),
    "append": in_place("append"),
    "patch": in_place("patch"),
    "pieces": in_pieces,
    "compact": in_place("copy"),
    "keep": in_place("patch", keep_undo=True),
    "undo": lambda folder: ckptkit.undo(checkpoint(folder)),
    "recover": lambda folder: ckptkit.recover(checkpoint(folder)),
    "resume": in_steps,
}


def _serve():
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        child = os.fork()
        if child == 0:
            if asked["after"] is not None:
                killer = threading.Timer(asked["after"], os.kill, (os.getpid(), signal.SIGKILL))
                killer.daemon = True
                killer.start()
            code = 1
            try:
                JOBS[asked["job"]](asked["folder"])
                code = 0
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        assert killed or os.WEXITSTATUS(status) == 0, asked
        answer = {"killed": killed, "seconds": time.perf_counter() - began}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def which(found, before, after):
    """Return whether arrays are those before or after, in every bit; fail if they are others."""
    for name, expected in (("before", before), ("after", after)):
        if found.keys() == expected.keys() and all(
            found[key].tobytes() == expected[key].tobytes() for key in found
        ):
            return name
    raise AssertionError(sorted(found))


class Jobs:
    """Talks to such a process."""

    def __init__(self):
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.killed"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        )

    def run(self, job, folder, after=None):
        """Do a job, and kill it after some seconds; return whether it was, and how long it took."""
        asked = {"job": job, "folder": str(folder), "after": after}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["killed"], answer["seconds"]

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


if __name__ == "__main__":
    _serve()
