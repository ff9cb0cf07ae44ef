"""Virtual paths: values that are no byte range of a file, read as if they were one.

Such a path is that of a real file, then the kind of what is read in it, then whatever that kind
needs to find it, with NUL between them, which no real path has.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ckptkit.storage.disk import Disk, File, Stamp

SEPARATOR: Final = "\0"

_OPENERS: Final = {
    "hdf5": ("ckptkit.storage.datasets", "open_dataset"),
    "packed": ("ckptkit.storage.packed", "open_packed"),
    "tensorflow": ("ckptkit.storage.foreign", "open_foreign"),
}
"""Module and function that open each kind, imported where one is opened."""

_STAMPERS: Final = {"tensorflow": ("ckptkit.storage.foreign", "stamp_foreign")}
"""Module and function that tell size and time of change, of the kinds that are in no real file."""


def virtual_path(file: str, kind: str, *rest: str) -> str:
    """Return a virtual path.

    Args:
        file: The path of the real file.
        kind: What is read in it.
        rest: What finds it there; only the last may hold a separator.
    """
    return SEPARATOR.join((file, kind, *rest))


def is_virtual(path: str) -> bool:
    """Tell whether a path is a virtual one."""
    return SEPARATOR in path


def real_path(path: str) -> str:
    """Return the path of the file that a path, virtual or not, is about."""
    return path.partition(SEPARATOR)[0]


def open_virtual(disk: Disk, path: str) -> File:
    """Open what a virtual path stands for, for reading.

    Raises:
        CkptError: It is not there, is damaged, or is not read.
    """
    file, kind, rest = path.split(SEPARATOR, 2)
    module, name = _OPENERS[kind]
    opener: Callable[[Disk, str, str], File] = getattr(import_module(module), name)
    return opener(disk, file, rest)


def stamp_virtual(path: str) -> Stamp | None:
    """Return size and time of change of what is in no real file, None of what is in one."""
    file, kind, _ = path.split(SEPARATOR, 2)
    if kind not in _STAMPERS:
        return None
    module, name = _STAMPERS[kind]
    stamper: Callable[[str, str], Stamp] = getattr(import_module(module), name)
    return stamper(path, file)
