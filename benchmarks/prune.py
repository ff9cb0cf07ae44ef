"""prune: the smaller half of all magnitudes of a large checkpoint set to 0, exactly."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import jobs
from benchmarks.jobs import BUDGET, SLACK
from benchmarks.trial import GIB, MIB, Contender, Trial, peaks, within

if TYPE_CHECKING:
    from benchmarks.data import Inputs
    from benchmarks.trial import Job


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    source = inputs.large()
    ours, theirs, copy = map(inputs.output, ("ckptkit", "numpy.partition", "cp"))
    return [
        Trial(
            f"prune the smaller half of {inputs.large_bytes / GIB:g} GiB, all tensors together",
            (
                Contender(
                    "ckptkit",
                    partial(jobs.edit, source, ours, "prune ** -> 50%"),
                    makes=ours,
                    check=partial(check, source, ours),
                ),
                Contender("cp", partial(jobs.copy_files, source, copy), makes=copy, outside=True),
                Contender(
                    "numpy.partition",
                    partial(prune_all, source, theirs),
                    makes=theirs,
                    check=partial(check, source, theirs),
                    most=1,
                ),
            ),
            (
                within("ckptkit", "cp", 3.0),
                peaks("ckptkit", BUDGET / MIB + SLACK),
            ),
            nbytes=inputs.large_bytes,
            floor="cp",
            incumbent="numpy.partition",
            notes=("numpy.partition holds all values, and all magnitudes; it runs once.",),
        )
    ]


def prune_all(source: str, target: str) -> Job:
    """Return the same with all values in memory, and their magnitudes in one more array."""
    import numpy as np

    import ckptkit

    def job() -> None:
        with ckptkit.open(source) as checkpoint:
            values = {name: tensor.read() for name, tensor in checkpoint.items()}
        magnitudes = np.concatenate([np.abs(value).reshape(-1) for value in values.values()])
        half = magnitudes.size // 2
        magnitudes.partition(half)
        least = magnitudes[half]
        del magnitudes
        for value in values.values():
            value[np.abs(value) < least] = 0
        os.makedirs(os.path.dirname(target), exist_ok=True)
        ckptkit.save(target, values)

    return job


def check(source: str, target: str) -> None:
    """See that TensorFlow reads 0 for all below one magnitude, that of the middle element.

    Raises:
        ValueError: It reads something else.
    """
    import numpy as np

    tf = jobs.tensorflow()
    before, after = tf.train.load_checkpoint(source), tf.train.load_checkpoint(target)
    names = sorted(before.get_variable_to_shape_map())
    magnitudes = (np.abs(after.get_tensor(name)) for name in names)
    least = min(found[found > 0].min() for found in magnitudes)
    total = below = upto = 0
    for name in names:
        given, found = before.get_tensor(name), after.get_tensor(name)
        small = np.abs(given) < least
        if not np.array_equal(np.where(small, np.float32(0), given), found):
            msg = f"{name} of {target} is not that of {source} without what is below {least}"
            raise ValueError(msg)
        total += given.size
        below += int(small.sum())
        upto += int((np.abs(given) <= least).sum())
    if not below <= total // 2 < upto:
        msg = f"{below} of {total} elements are below {least}, {upto} with those that equal it"
        raise ValueError(msg)
    jobs.check_sound(target)
