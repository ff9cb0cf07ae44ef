"""keras_rename: two objects of a ``.weights.h5`` where they are, journal and sync included."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import jobs
from benchmarks.keras_editor import SAVES, move_groups, mover, rename, saver
from benchmarks.keras_files import LAYERS, NAMES, check_weights, kernel_bytes
from benchmarks.trial import Contender, Trial, faster

if TYPE_CHECKING:
    from benchmarks.data import Inputs

RENAMED: Final = {2: "encoder", 5: "decoder"}
"""Layers, and what they are called afterwards."""


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    weights, theirs = inputs.keras_weights(), inputs.output("editor")
    saved, names = f"{theirs}.weights.h5", {**NAMES, **RENAMED}
    forth = [(f"layers/{NAMES[number]}", name) for number, name in RENAMED.items()]
    moves = [(path, f"layers/{name}") for path, name in forth]
    back = [(new, old) for old, new in moves]
    gigabytes = kernel_bytes(inputs.scale.units) * LAYERS / 1e9
    return [
        Trial(
            f"rename 2 of {LAYERS} layers of a .weights.h5 of {gigabytes:.2g} GB in place, patch",
            (
                Contender(
                    "ckptkit",
                    partial(jobs.edit, weights, None, *map(statement, moves), how="patch"),
                    check=partial(check_weights, weights, names=names),
                    after=partial(jobs.patch, weights, *map(statement, back)),
                ),
                Contender(
                    "h5py move",
                    partial(mover, weights, moves),
                    check=partial(check_weights, weights, names=names),
                    after=partial(move_groups, weights, back),
                ),
                Contender(
                    SAVES,
                    partial(saver, weights, saved, partial(rename, names=forth)),
                    makes=theirs,
                    check=partial(check_weights, saved, names=names),
                    most=2,
                ),
            ),
            (faster("ckptkit", SAVES, 100),),
            floor="h5py move",
            incumbent=SAVES,
            rounds=2,
            notes=("h5py moves without a journal.",),
        )
    ]


def statement(move: tuple[str, str]) -> str:
    """Return the edit that gives all that is in a group another path."""
    old, new = move
    return f"rename ^{old}/ -> {new}/"
