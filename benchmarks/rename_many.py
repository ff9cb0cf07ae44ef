"""rename_many: rename all of a million tensors by a regular expression, new checkpoint."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import jobs
from benchmarks.trial import Contender, Job, Trial, faster

if TYPE_CHECKING:
    from benchmarks.data import Inputs

REGEX: Final = r"^model/layer_(\d+)/part_(\d+)"
TEMPLATE: Final = r"encoder/\2/block_\1"
ONCE: Final = 100_000
"""From so many tensors on, TensorFlow takes so long that one sample has to do."""


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    source, count = inputs.many(), inputs.scale.many
    ours, theirs, copy = map(inputs.output, ("ckptkit", "tensorflow", "cp"))
    most = 1 if count >= ONCE else None
    return [
        Trial(
            f"rename {count:,} tensors",
            (
                Contender(
                    "ckptkit",
                    partial(rename, source, ours),
                    makes=ours,
                    check=partial(check, source, ours),
                ),
                Contender("cp", partial(jobs.copy_files, source, copy), makes=copy, outside=True),
                Contender(
                    "tensorflow", partial(rename_restored, source, theirs), makes=theirs, most=most
                ),
            ),
            (faster("ckptkit", "tensorflow", 50),),
            floor="cp",
            incumbent="tensorflow",
            notes=("TensorFlow ran once, without a warm-up: it takes minutes.",) if most else (),
        )
    ]


def rename(source: str, target: str) -> Job:
    """Return the edit."""
    import ckptkit

    def job() -> None:
        with ckptkit.open(source) as checkpoint:
            checkpoint.edit(f"rename {REGEX} -> {TEMPLATE}").plan(target).run()

    return job


def rename_restored(source: str, target: str) -> Job:
    """Return the same by restoring all, and saving all under new names."""
    substitute = partial(re.compile(REGEX).sub, TEMPLATE)
    return jobs.rewrite(
        source,
        target,
        lambda tensors: {substitute(name): value for name, value in tensors.items()},
    )


def check(source: str, target: str) -> None:
    """See that TensorFlow finds the new names, and some values where they should be.

    Raises:
        ValueError: It does not.
    """
    tf = jobs.tensorflow()
    before, after = tf.train.load_checkpoint(source), tf.train.load_checkpoint(target)
    old = sorted(before.get_variable_to_shape_map())
    new = [re.sub(REGEX, TEMPLATE, name) for name in old]
    if set(new) != set(after.get_variable_to_shape_map()):
        msg = f"{target} has other names than expected"
        raise ValueError(msg)
    step = max(len(old) // 100, 1)
    for one, other in zip(old[::step], new[::step], strict=True):
        if before.get_tensor(one).tobytes() != after.get_tensor(other).tobytes():
            msg = f"{other} of {target} has not the values of {one}"
            raise ValueError(msg)
