"""edit_all: ``** *= 0.5`` over a large checkpoint, on TensorFlow's CPU device and on NumPy."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import jobs
from benchmarks.data import EDITED, kernel
from benchmarks.jobs import BUDGET, SLACK
from benchmarks.trial import GIB, MIB, Contender, Trial, faster, peaks, within

if TYPE_CHECKING:
    from benchmarks.data import Inputs
    from benchmarks.trial import Job

DEVICES: Final = ("cpu", "numpy")


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    source = inputs.large()
    theirs, copy = map(inputs.output, ("tensorflow", "cp"))
    ours = {device: f"ckptkit {device}" for device in DEVICES}
    mib = BUDGET // MIB + SLACK
    return [
        Trial(
            f"halve {inputs.large_bytes / GIB:g} GiB of float32",
            (
                *(_ckptkit(inputs, name, device) for device, name in ours.items()),
                Contender("cp", partial(jobs.copy_files, source, copy), makes=copy, outside=True),
                Contender("tensorflow", partial(halve_all, source, theirs), makes=theirs),
            ),
            tuple(
                target
                for name in ours.values()
                for target in (
                    within(name, "cp", 1.3),
                    faster(name, "tensorflow", 3),
                    peaks(name, mib, above="tensorflow"),
                )
            ),
            nbytes=inputs.large_bytes,
            floor="cp",
            incumbent="tensorflow",
            notes=("On the cpu device TensorFlow is imported before the clock starts.",),
        )
    ]


def _ckptkit(inputs: Inputs, name: str, device: str) -> Contender:
    source, target, count = inputs.large(), inputs.output(name), inputs.scale.tensors
    factors = [(tensor, 0.5) for tensor in (kernel(0), EDITED, kernel(count - 1))]
    return Contender(
        name,
        partial(jobs.edit, source, target, "** *= 0.5", device=device),
        makes=target,
        check=partial(jobs.check_values, source, target, factors, count),
    )


def halve_all(source: str, target: str) -> Job:
    """Return the same by restoring, multiplying and saving all."""
    return jobs.rewrite(
        source, target, lambda tensors: {name: value * 0.5 for name, value in tensors.items()}
    )
