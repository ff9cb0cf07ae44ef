"""cold_start: ``ckptkit ls`` on a small checkpoint, the whole process."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.trial import Contender, Extra, Job, Trial, counts, takes

if TYPE_CHECKING:
    from benchmarks.data import Inputs

FORBIDDEN: Final = frozenset({"tensorflow", "keras", "h5py"})
HEAVY: Final = "heavy modules imported"
LIST: Final = "import sys, tensorflow as tf; print(*tf.train.list_variables(sys.argv[1]))"


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    prefix = inputs.tiny()
    return [
        Trial(
            "ckptkit ls on a small checkpoint, whole process",
            (
                Contender("ckptkit ls", partial(listing, prefix), outside=True),
                Contender("python -c pass", partial(program, ["-c", "pass"]), outside=True),
                Contender("import numpy", partial(program, ["-c", "import numpy"]), outside=True),
                Contender(
                    "tensorflow", partial(program, ["-c", LIST, prefix]), most=1, outside=True
                ),
            ),
            (
                takes("ckptkit ls", 150),
                counts("ckptkit ls", HEAVY, 0),
            ),
            floor="python -c pass",
            incumbent="tensorflow",
            rounds=4,
        )
    ]


def listing(prefix: str) -> Job:
    """Return ``ckptkit ls``, after a look at what it imports."""
    script = os.path.join(os.path.dirname(sys.executable), "ckptkit")
    traced = [sys.executable, "-X", "importtime", script, "ls", prefix]
    output = subprocess.run(traced, check=True, capture_output=True, text=True).stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in output.splitlines()}
    found = Extra(facts={HEAVY: len(imported & FORBIDDEN)})

    def job() -> Extra:
        subprocess.run([script, "ls", prefix], check=True, stdout=subprocess.DEVNULL)
        return found

    return job


def program(args: list[str]) -> Job:
    """Return a run of Python."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, *args]

    def job() -> None:
        subprocess.run(command, check=True, capture_output=True, env=environment)

    return job
