"""edit_one: one tensor of a large checkpoint, the way of writing being ``copy``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks import jobs
from benchmarks.data import EDITED, kernel
from benchmarks.trial import GIB, MIB, Contender, Trial, faster, within

if TYPE_CHECKING:
    from benchmarks.data import Inputs
    from benchmarks.trial import Job


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    source, scale = inputs.large(), inputs.scale
    ours, theirs, copy = map(inputs.output, ("ckptkit", "tensorflow", "cp"))
    factors = [(EDITED, 0.5), (kernel(0), 1), (kernel(scale.tensors - 1), 1)]
    checked = partial(jobs.check_values, source, ours, factors, scale.tensors)
    return [
        Trial(
            f"edit {scale.tensor_bytes // MIB} MiB of {inputs.large_bytes / GIB:g} GiB, copy",
            (
                Contender(
                    "ckptkit",
                    partial(jobs.edit, source, ours, f"{EDITED} *= 0.5"),
                    makes=ours,
                    check=checked,
                ),
                Contender("cp", partial(jobs.copy_files, source, copy), makes=copy, outside=True),
                Contender("tensorflow", partial(halve_one, source, theirs), makes=theirs),
            ),
            (within("ckptkit", "cp", 1.15), faster("ckptkit", "tensorflow", 3)),
            nbytes=inputs.large_bytes,
            floor="cp",
            incumbent="tensorflow",
        )
    ]


def halve_one(source: str, target: str) -> Job:
    """Return the same by restoring and saving all."""
    return jobs.rewrite(source, target, lambda tensors: {**tensors, EDITED: tensors[EDITED] * 0.5})
