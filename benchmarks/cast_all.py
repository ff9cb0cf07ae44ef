"""cast_all: ``cast ** -> bfloat16`` of a large float32 checkpoint, which halves its bytes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import jobs
from benchmarks.data import EDITED, kernel
from benchmarks.jobs import BUDGET, SLACK
from benchmarks.trial import GIB, MIB, Contender, Trial, faster, peaks, within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.data import Inputs
    from benchmarks.trial import Job


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    source, count = inputs.large(), inputs.scale.tensors
    ours, theirs, copy = map(inputs.output, ("ckptkit", "tensorflow", "cp"))
    return [
        Trial(
            f"cast {inputs.large_bytes / GIB:g} GiB of float32 to bfloat16",
            (
                Contender(
                    "ckptkit",
                    partial(jobs.edit, source, ours, "cast ** -> bfloat16"),
                    makes=ours,
                    check=partial(check, source, ours, count),
                ),
                Contender("cp", partial(jobs.copy_files, source, copy), makes=copy, outside=True),
                Contender("tensorflow", partial(cast_all, source, theirs), makes=theirs),
            ),
            (
                within("ckptkit", "cp", 1.0),
                faster("ckptkit", "tensorflow", 5),
                peaks("ckptkit", BUDGET / MIB + SLACK),
            ),
            nbytes=inputs.large_bytes,
            floor="cp",
            incumbent="tensorflow",
            notes=("cp copies the source, which is twice what the others write.",),
        )
    ]


def cast_all(source: str, target: str) -> Job:
    """Return the same by restoring, casting and saving all."""
    tf = jobs.tensorflow()
    return jobs.rewrite(
        source,
        target,
        lambda tensors: {name: tf.cast(value, tf.bfloat16) for name, value in tensors.items()},
    )


def check(source: str, target: str, count: int) -> None:
    """See that TensorFlow reads what NumPy casts."""
    names = (kernel(0), EDITED, kernel(count - 1))
    jobs.check_computed(source, target, dict.fromkeys(names, _cast), count)


def _cast(values: NDArray[Any]) -> NDArray[Any]:
    import ml_dtypes

    return values.astype(ml_dtypes.bfloat16)
