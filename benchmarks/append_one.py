"""append_one: one tensor of a large checkpoint where it is, the way of writing being ``append``."""

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
    source, working, scale = inputs.large(), inputs.working(), inputs.scale
    one = inputs.matrix(scale.tensor_bytes)
    theirs, copy = map(inputs.output, ("tensorflow", "cp"))
    factors = [(EDITED, 0.5), (kernel(0), 1), (kernel(scale.tensors - 1), 1)]
    mib = scale.tensor_bytes // MIB
    return [
        Trial(
            f"edit {mib} MiB of {inputs.large_bytes / GIB:g} GiB in place, append",
            (
                Contender(
                    "ckptkit",
                    partial(jobs.edit, working, None, f"{EDITED} *= 0.5", how="append"),
                    check=partial(jobs.check_values, source, working, factors, scale.tensors),
                    after=partial(jobs.cut_back, source, working),
                ),
                Contender("cp", partial(jobs.copy_files, one, copy), makes=copy, outside=True),
                Contender("tensorflow", partial(halve_one, working, theirs), makes=theirs),
            ),
            (faster("ckptkit", "tensorflow", 20), moves("ckptkit", jobs.WRITTEN, mib + 1)),
            nbytes=scale.tensor_bytes,
            floor="cp",
            incumbent="tensorflow",
            notes=(f"cp copies a checkpoint of {mib} MiB; TensorFlow saves all at a new prefix.",),
        )
    ]
