"""The checkpoint that commands list, show and edit in tests, its values, commands as processes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

import ckptkit

KERNEL = np.arange(12, dtype=np.float32).reshape(4, 3)
TENSORS = {
    "dense/bias": np.array([0, np.nan, np.inf], np.float32),
    "dense/kernel": KERNEL,
    "note": "hello",
    "step": np.int64(7),
}


def values(path):
    """Return the values of a checkpoint, in which nothing is wrong."""
    with ckptkit.open(path) as found:
        assert found.verify().ok
        return {name: found[name].read() for name in found}


def process(*args, **options):
    """Run a command line in a process of its own."""
    command = [sys.executable, "-m", "ckptkit", *map(str, args)]
    return subprocess.run(command, capture_output=True, check=False, **options)


LOADED = "import sys; from ckptkit.cli import main; print(main(sys.argv[1:]), *sys.modules)"


def loaded(*args):
    """Run a command line in a process of its own; return the modules that it took."""
    command = [sys.executable, "-c", LOADED, *map(str, args)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    code, *modules = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stdout
    return set(modules)
