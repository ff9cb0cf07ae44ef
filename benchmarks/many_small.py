"""many_small: ``** *= 0.5`` over hundreds of thousands of tensors of 64 bytes, new checkpoint."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import jobs
from benchmarks.data import part
from benchmarks.edit_all import halve_all
from benchmarks.trial import Contender, Trial, faster

if TYPE_CHECKING:
    from benchmarks.data import Inputs

ONCE: Final = 100_000
"""From so many tensors on, TensorFlow takes so long that two samples have to do."""


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    source, count = inputs.vectors(), inputs.scale.vectors
    ours, theirs, copy = map(inputs.output, ("ckptkit", "tensorflow", "cp"))
    factors = [(part(number), 0.5) for number in range(0, count, max(count // 100, 1))]
    most = 2 if count >= ONCE else None
    return [
        Trial(
            f"halve {count:,} tensors of 64 bytes",
            (
                Contender(
                    "ckptkit",
                    partial(jobs.edit, source, ours, "** *= 0.5"),
                    makes=ours,
                    check=partial(jobs.check_values, source, ours, factors, count),
                ),
                Contender("cp", partial(jobs.copy_files, source, copy), makes=copy, outside=True),
                Contender(
                    "tensorflow", partial(halve_all, source, theirs), makes=theirs, most=most
                ),
            ),
            (faster("ckptkit", "tensorflow", 50),),
            floor="cp",
            incumbent="tensorflow",
            notes=("TensorFlow's first time, which takes twice as long, is its warm-up.",),
        )
    ]
