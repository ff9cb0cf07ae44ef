"""keras_copy: one kernel of a ``.keras``, to a new ``.keras``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks import jobs
from benchmarks.jobs import BUDGET, SLACK
from benchmarks.keras_editor import ONCE, SAVES, multiply, saver
from benchmarks.keras_files import (
    EDITED,
    LAYERS,
    check_archive,
    check_weights,
    kernel,
    kernel_bytes,
)
from benchmarks.trial import MIB, Contender, Trial, faster, peaks, within

if TYPE_CHECKING:
    from benchmarks.data import Inputs


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    model = inputs.keras_model()
    ours, theirs, copy = map(inputs.output, ("ckptkit", "editor", "cp"))
    made, saved = f"{ours}.keras", f"{theirs}.weights.h5"
    name, one = kernel(EDITED), kernel_bytes(inputs.scale.units)
    return [
        Trial(
            f"halve a kernel of {one / 1e6:.0f} MB of a .keras of {LAYERS} such, copy",
            (
                Contender(
                    "ckptkit",
                    partial(jobs.edit, model, made, f"{name} *= 0.5"),
                    makes=ours,
                    check=partial(check_archive, made, 0.5),
                ),
                Contender(
                    "cp",
                    partial(jobs.copy_files, model.removesuffix(".keras"), copy),
                    makes=copy,
                    outside=True,
                ),
                Contender(
                    SAVES,
                    partial(saver, model, saved, partial(multiply, path=name, factor=0.5)),
                    makes=theirs,
                    check=partial(check_weights, saved, 0.5),
                    most=1,
                ),
            ),
            (
                within("ckptkit", "cp", 1.3),
                faster("ckptkit", SAVES, 10),
                peaks("ckptkit", BUDGET / MIB + SLACK),
            ),
            nbytes=one * LAYERS,
            floor="cp",
            incumbent=SAVES,
            notes=(ONCE,),
        )
    ]
