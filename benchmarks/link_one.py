"""link_one: one tensor of a large checkpoint, to a new prefix that shares its other files."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks import jobs
from benchmarks.data import EDITED, kernel
from benchmarks.edit_one import halve_one
from benchmarks.trial import GIB, MIB, Contender, Trial, faster, moves

if TYPE_CHECKING:
    from benchmarks.data import Inputs


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    source, scale = inputs.large(), inputs.scale
    one = inputs.matrix(scale.tensor_bytes)
    ours, theirs, copy = map(inputs.output, ("ckptkit", "tensorflow", "cp"))
    factors = [(EDITED, 0.5), (kernel(0), 1), (kernel(scale.tensors - 1), 1)]
    mib = scale.tensor_bytes // MIB
    return [
        Trial(
            f"edit {mib} MiB of {inputs.large_bytes / GIB:g} GiB, link",
            (
                Contender(
                    "ckptkit",
                    partial(jobs.edit, source, ours, f"{EDITED} *= 0.5", how="link"),
                    makes=ours,
                    check=partial(jobs.check_values, source, ours, factors, scale.tensors),
                ),
                Contender("cp", partial(jobs.copy_files, one, copy), makes=copy, outside=True),
                Contender("tensorflow", partial(halve_one, source, theirs), makes=theirs),
            ),
            (faster("ckptkit", "tensorflow", 20), moves("ckptkit", jobs.WRITTEN, mib + 1)),
            nbytes=scale.tensor_bytes,
            floor="cp",
            incumbent="tensorflow",
            notes=(f"cp copies a checkpoint of {mib} MiB; TensorFlow restores and saves all.",),
        )
    ]
