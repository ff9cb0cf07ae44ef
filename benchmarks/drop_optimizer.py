"""drop_optimizer: two thirds of a large checkpoint left out, new prefix, no tensor byte written."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import jobs
from benchmarks.data import files, trained
from benchmarks.trial import GIB, Contender, Target, Trial, takes

if TYPE_CHECKING:
    from benchmarks.data import Inputs
    from benchmarks.trial import Job, Outcomes

DROPPED: Final = "**/Adam/*"
KEPT: Final = "*/kernel"


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    source, count = inputs.trained(), inputs.scale.tensors
    ours, theirs = map(inputs.output, ("ckptkit", "tensorflow"))
    kept = [name for name in map(trained, range(count)) if name.endswith("/kernel")]
    dropped = (count - len(kept)) * inputs.scale.tensor_bytes
    return [
        Trial(
            f"drop {dropped / GIB:.2g} of {inputs.large_bytes / GIB:g} GiB, link",
            (
                Contender(
                    "ckptkit",
                    partial(jobs.edit, source, ours, f"drop {DROPPED}", how="link"),
                    makes=ours,
                    check=partial(check, source, ours, kept),
                ),
                Contender("tensorflow", partial(save_kept, source, theirs), makes=theirs),
            ),
            (
                takes("ckptkit", 50),
                Target("ckptkit: tensor bytes written", "<=", 0, "", _beyond_index),
            ),
            incumbent="tensorflow",
            notes=("TensorFlow restores and saves only what is kept.",),
        )
    ]


def _beyond_index(found: Outcomes) -> float:
    return found["ckptkit"].fact(jobs.WRITTEN) - found["ckptkit"].fact(jobs.INDEX)


def save_kept(source: str, target: str) -> Job:
    """Return the same by restoring and saving the rest."""
    return jobs.rewrite(source, target, lambda tensors: tensors, KEPT)


def check(source: str, target: str, kept: list[str]) -> None:
    """See that TensorFlow reads what is kept, and that every data file is the source's.

    Raises:
        ValueError: It reads something else, or a file is another one.
    """
    jobs.check_values(source, target, [(name, 1) for name in kept], len(kept))
    for path in files(target):
        if not path.endswith(".index") and not os.path.samefile(
            path, source + path.removeprefix(target)
        ):
            msg = f"{path} is no link to a file of {source}"
            raise ValueError(msg)
