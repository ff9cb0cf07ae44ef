"""keras_ls: open a ``.keras``, list names, shapes and dtypes, and count what is read."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks import jobs
from benchmarks.cold_start import program
from benchmarks.keras_editor import EDITOR, ONCE, opener
from benchmarks.keras_files import LAYERS, OBJECTS, kernel_bytes, shapes
from benchmarks.open_many import list_all
from benchmarks.trial import Contender, Extra, Target, Trial, faster

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.data import Inputs
    from benchmarks.trial import Job

FLOOR: Final = "h5py, .weights.h5"
COMMAND: Final = "ckptkit ls, whole process"

PAGE: Final = 4096
"""Bytes that are read of a file at least, wherever something is in it."""


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    model, weights, units = inputs.keras_model(), inputs.keras_weights(), inputs.scale.units
    return [
        Trial(
            f"names, shapes and dtypes of a .keras of {kernel_bytes(units) * LAYERS / 1e9:.2g} GB",
            (
                Contender(
                    "ckptkit",
                    partial(counted, partial(list_all, model)),
                    check=partial(check, model, units),
                ),
                Contender(FLOOR, partial(counted, partial(lister, weights))),
                Contender(EDITOR, partial(counted, partial(opener, model)), most=1),
                Contender(COMMAND, partial(program, ["-m", "ckptkit", "ls", model]), outside=True),
            ),
            (
                faster("ckptkit", EDITOR, 100),
                _reads("ckptkit", OBJECTS * PAGE / 1024),
            ),
            floor=FLOOR,
            incumbent=EDITOR,
            rounds=4,
            notes=(
                f"{OBJECTS} groups and datasets have metadata, each in pages of {PAGE} bytes.",
                ONCE,
            ),
        )
    ]


def _reads(subject: str, kib: float) -> Target:
    return Target(
        f"{subject}: {jobs.READ}",
        "<=",
        kib,
        "KiB",
        lambda found: found[subject].fact(jobs.READ) / 1024,
    )


def counted(setup: Callable[[], Job]) -> Job:
    """Return a job that tells how many bytes this process asked the system for meanwhile."""
    job = setup()

    def counting() -> Extra:
        _, before = _bytes_read()
        given = job()
        # What was read to know what was read before counts as well.
        own, after = _bytes_read()
        del given
        return Extra(facts={jobs.READ: after - before - own})

    return counting


def _bytes_read() -> tuple[int, int]:
    """Return how many bytes it takes to know, and how many were read before."""
    descriptor = os.open("/proc/self/io", os.O_RDONLY)
    found = os.read(descriptor, PAGE)
    os.close(descriptor)
    return len(found), int(found.split()[1])


def lister(path: str) -> Job:
    """Return a listing of the datasets of an HDF5 file with h5py."""
    import h5py

    def job() -> dict[str, tuple[tuple[int, ...], Any]]:
        found = {}

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = item.shape, item.dtype

        with h5py.File(path, "r") as file:
            file.visititems(note)
        return found

    return job


def check(path: str, units: tuple[int, int]) -> None:
    """See that the listing is what was written.

    Raises:
        ValueError: It is not.
    """
    _, found, dtypes = list_all(path)()
    if dict(found) != shapes(units) or {*dtypes.values()} != {"float32"}:
        msg = f"{path} is listed as {dict(found)}"
        raise ValueError(msg)
