"""keras_patch: one kernel of a ``.keras`` where it is, journal and sync included."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks import jobs
from benchmarks.jobs import BUDGET, SLACK
from benchmarks.keras_editor import (
    ONCE,
    SAVES,
    dataset_multiplier,
    multiply,
    multiply_dataset,
    saver,
)
from benchmarks.keras_files import EDITED, check_archive, check_weights, kernel, kernel_bytes
from benchmarks.trial import MIB, Contender, Trial, faster, peaks

if TYPE_CHECKING:
    from benchmarks.data import Inputs
    from benchmarks.trial import Job

FLOOR = "pread, pwrite, fsync"


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    model, weights = inputs.keras_model(), inputs.keras_weights()
    theirs, name = inputs.output("editor"), kernel(EDITED)
    saved, nbytes = f"{theirs}.weights.h5", kernel_bytes(inputs.scale.units)
    return [
        Trial(
            f"halve a kernel of {nbytes / 1e6:.0f} MB of a .keras in place, patch",
            (
                Contender(
                    "ckptkit",
                    partial(jobs.edit, model, None, f"{name} *= 0.5", how="patch"),
                    check=partial(check_archive, model, 0.5),
                    after=partial(jobs.patch, model, f"{name} *= 2"),
                ),
                Contender(FLOOR, partial(rewrite, weights, name, nbytes)),
                Contender(
                    "h5py, .weights.h5",
                    partial(dataset_multiplier, weights, name, 0.5),
                    check=partial(check_weights, weights, 0.5),
                    after=partial(multiply_dataset, weights, name, 2),
                ),
                Contender(
                    SAVES,
                    partial(saver, model, saved, partial(multiply, path=name, factor=0.5)),
                    makes=theirs,
                    check=partial(check_weights, saved, 0.5),
                    most=1,
                ),
            ),
            (faster("ckptkit", SAVES, 50), peaks("ckptkit", BUDGET / MIB + SLACK)),
            nbytes=nbytes,
            floor=FLOOR,
            incumbent=SAVES,
            notes=(
                "pwrite and h5py write to a .weights.h5: no journal, no checksum of an archive.",
                ONCE,
            ),
        )
    ]


def rewrite(weights: str, name: str, nbytes: int) -> Job:
    """Return a write of the same bytes."""
    import h5py

    with h5py.File(weights, "r") as file:
        offset = file[name].id.get_offset()
    return jobs.rewrite_runs(weights, nbytes, [offset])
