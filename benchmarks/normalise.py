"""normalise: ``**/kernel = x / norm(x)`` over a large checkpoint: one pass measures, one edits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks import jobs
from benchmarks.data import EDITED, kernel
from benchmarks.jobs import BUDGET, SLACK
from benchmarks.trial import GIB, MIB, Contender, Trial, peaks, within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.data import Inputs
    from benchmarks.trial import Job

EDIT: Final = "**/kernel = x / norm(x)"

ROUNDING: Final = 2e-7
"""NumPy adds up squares in another order, which may move the norm to the next float32."""


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    source, count = inputs.large(), inputs.scale.tensors
    ours, theirs, copy = map(inputs.output, ("ckptkit", "tensorflow", "cp"))
    return [
        Trial(
            f"divide each of {count} tensors, {inputs.large_bytes / GIB:g} GiB, by its norm",
            (
                Contender(
                    "ckptkit",
                    partial(jobs.edit, source, ours, EDIT),
                    makes=ours,
                    check=partial(check, source, ours, count),
                ),
                Contender("cp", partial(jobs.copy_files, source, copy), makes=copy, outside=True),
                Contender("tensorflow", partial(normalise_all, source, theirs), makes=theirs),
            ),
            (
                within("ckptkit", "cp", 2.0),
                peaks("ckptkit", BUDGET / MIB + SLACK),
            ),
            nbytes=inputs.large_bytes,
            floor="cp",
            incumbent="tensorflow",
            notes=("TensorFlow adds up squares in float32; ckptkit does so in float64.",),
        )
    ]


def normalise_all(source: str, target: str) -> Job:
    """Return the same by restoring, dividing and saving all."""
    tf = jobs.tensorflow()
    return jobs.rewrite(
        source,
        target,
        lambda tensors: {name: value / tf.norm(value) for name, value in tensors.items()},
    )


def check(source: str, target: str, count: int) -> None:
    """See that TensorFlow reads what NumPy divides."""
    expected = dict.fromkeys((kernel(0), EDITED, kernel(count - 1)), _normalised)
    jobs.check_computed(source, target, expected, count, ROUNDING)


def _normalised(values: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    flat = values.reshape(-1).astype(np.float64)
    found: NDArray[Any] = values / np.sqrt(flat @ flat).astype(values.dtype)
    return found
