"""patch_column: a column of a large kernel where it is, the way of writing being ``patch``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks import jobs
from benchmarks.data import SQUARE, files, square
from benchmarks.trial import MIB, Contender, Trial, faster, moves

if TYPE_CHECKING:
    from benchmarks.data import Inputs
    from benchmarks.trial import Job

COLUMN: Final = 1
FACTOR: Final = 1.5
PAGE: Final = 4096
"""Bytes that a file system reads at least."""


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    prefix, side = inputs.square(), inputs.scale.side
    theirs = inputs.output("tensorflow")
    column = f"{SQUARE}[:, {COLUMN}]"
    return [
        Trial(
            f"multiply a column of float32 [{side}, {side}] in place, patch",
            (
                Contender(
                    "ckptkit",
                    partial(jobs.edit, prefix, None, f"{column} *= {FACTOR}", how="patch"),
                    check=partial(check, prefix, side),
                    after=partial(jobs.patch, prefix, f"{column} /= {FACTOR}"),
                ),
                Contender("pread, pwrite, fsync", partial(rewrite_column, prefix, side)),
                Contender("tensorflow", partial(multiply_column, prefix, theirs), makes=theirs),
            ),
            (
                faster("ckptkit", "tensorflow", 50),
                moves("ckptkit", jobs.READ, side * PAGE / MIB),
            ),
            floor="pread, pwrite, fsync",
            incumbent="tensorflow",
            notes=("pwrite writes what is there, without a journal, from a loop in Python.",),
        )
    ]


def rewrite_column(prefix: str, side: int) -> Job:
    """Return a write of the bytes of the column."""
    (data,) = (path for path in files(prefix) if not path.endswith(".index"))
    return jobs.rewrite_runs(data, 4, [4 * (row * side + COLUMN) for row in range(side)])


def multiply_column(source: str, target: str) -> Job:
    """Return the same by restoring the tensor, and saving it anew."""
    tf = jobs.tensorflow()

    def change(tensors: dict[str, Any]) -> dict[str, Any]:
        values = tensors[SQUARE]
        column = values[:, COLUMN : COLUMN + 1] * FACTOR
        changed = tf.raw_ops.TensorStridedSliceUpdate(
            input=values,
            begin=[0, COLUMN],
            end=[0, COLUMN + 1],
            strides=[1, 1],
            value=column,
            begin_mask=1,
            end_mask=1,
        )
        return {SQUARE: changed}

    return jobs.rewrite(source, target, change)


def check(prefix: str, side: int) -> None:
    """See that TensorFlow reads what NumPy computes, and that the checksum holds.

    Raises:
        ValueError: It does not.
    """
    import numpy as np

    expected = square(side)
    expected[:, COLUMN] *= np.float32(FACTOR)
    if not np.array_equal(expected, jobs.tensor(prefix, SQUARE)):
        msg = f"the column of {prefix} is not {FACTOR} times what it was, or not it alone"
        raise ValueError(msg)
    jobs.check_sound(prefix)
