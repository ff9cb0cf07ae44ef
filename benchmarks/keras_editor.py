"""What the scripts of others do with Keras files: ``KerasFileEditor``, and h5py."""

from __future__ import annotations

import io
import os
import time
from contextlib import redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from benchmarks import jobs
from benchmarks.trial import Extra

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.trial import Job

    Change = Callable[[Any], object]

EDITOR: Final = "KerasFileEditor"

SAVES: Final = f"{EDITOR} to .weights.h5"
"""It cannot write a ``.keras``: what a user gets has to be put into one yet, by other means."""

ONCE: Final = f"{EDITOR} ran once, without a warm-up: on a .keras it takes long."


def opener(path: str) -> Job:
    """Return the opening of a file with it, which reads all of it."""
    import h5py  # noqa: F401  so that it is not timed

    jobs.tensorflow()
    from keras.saving import KerasFileEditor

    def job() -> object:
        # It writes to the terminal, where our tables are.
        with redirect_stdout(io.StringIO()):
            return KerasFileEditor(path)

    return job


def saver(source: str, target: str, change: Change) -> Job:
    """Return opening, changing and saving, which is synced in the end, as ours is.

    Args:
        source: What is opened.
        target: Where to: a ``.weights.h5``.
        change: What is done to the editor; it travels to another process, as jobs do.
    """
    opened = cast("Callable[[], Any]", opener(source))

    def job() -> Extra:
        began = time.perf_counter()
        os.makedirs(os.path.dirname(target), exist_ok=True)
        editor = opened()
        change(editor)
        editor.save(target)
        unsynced = time.perf_counter() - began
        del editor
        jobs.sync([target])
        return Extra(laps={jobs.UNSYNCED: unsynced})

    return job


def multiply(editor: Any, *, path: str, factor: float) -> None:
    """Multiply a variable where the editor holds it, which has no groups ``vars``.

    Args:
        editor: The one that is open.
        path: Of the variable in the file.
        factor: What it is multiplied by.
    """
    *groups, name = (part for part in path.split("/") if part != "vars")
    found = editor.weights_dict
    for group in groups:
        found = found[group]
    found[name] *= factor


def rename(editor: Any, *, names: Sequence[tuple[str, str]]) -> None:
    """Give objects other names.

    Args:
        editor: The one that is open.
        names: The path of each, and its new name.
    """
    for path, name in names:
        editor.rename_object(path, name)


def dataset_multiplier(path: str, name: str, factor: float) -> Job:
    """Return the same of a dataset with h5py, where it is."""
    import h5py  # noqa: F401  so that it is not timed

    return partial(multiply_dataset, path, name, factor)


def multiply_dataset(path: str, name: str, factor: float) -> None:
    """Read a dataset, multiply it, write it where it was, sync.

    Args:
        path: Of an HDF5 file.
        name: Path of the dataset in it.
        factor: What it is multiplied by.
    """
    import h5py

    with h5py.File(path, "r+") as file:
        dataset = file[name]
        values = dataset[()]
        values *= factor
        dataset[...] = values
    jobs.sync([path])


def mover(path: str, moves: Sequence[tuple[str, str]]) -> Job:
    """Return the same of groups with h5py, where they are."""
    import h5py  # noqa: F401  so that it is not timed

    return partial(move_groups, path, moves)


def move_groups(path: str, moves: Sequence[tuple[str, str]]) -> None:
    """Move groups, sync.

    Args:
        path: Of an HDF5 file.
        moves: Paths in it, from and to.
    """
    import h5py

    with h5py.File(path, "r+") as file:
        for old, new in moves:
            file.move(old, new)
    jobs.sync([path])
