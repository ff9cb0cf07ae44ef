"""Which Keras checkpoint a path means: told by what is in a file, not by how its name ends."""

from __future__ import annotations

import os
from typing import Final, Literal

from ckptkit.errors import FormatError
from ckptkit.formats.keras.archive.reader import WEIGHTS, names_in
from ckptkit.model import Source
from ckptkit.storage.disk import Disk

Kind = Literal["hdf5", "archive", "folder", "shards"]
"""An HDF5 file; a ``.keras`` archive; its unzipped form; a map of shards."""

CONFIG: Final = "config.json"
METADATA: Final = "metadata.json"
MAP: Final = ".weights.json"

TEXTS: Final = {"config": CONFIG, "metadata": METADATA}
"""File names of what is written beside the weights, by role."""

_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_ARCHIVE: Final = b"PK\x03\x04"
_USER_BLOCKS: Final = (0, *(512 << n for n in range(12)))
"""Where HDF5 content may begin; a file may have something else in front."""

_MAP_BYTES: Final = 1 << 20


def resolve(path: str) -> Source | None:
    """Return the checkpoint that a path stands for, or None where it is none of Keras.

    Raises:
        FormatError: It is named as an archive of Keras, and is damaged.
    """
    if os.path.isdir(path):
        weights = os.path.join(path, WEIGHTS)
        whole = os.path.isfile(weights) and os.path.isfile(os.path.join(path, CONFIG))
        return Source(weights, path) if whole else None
    if not os.path.isfile(path) or _sniff(path) is None:
        return None
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.basename(path) == WEIGHTS and os.path.isfile(os.path.join(folder, CONFIG)):
        # The weights of an unzipped model stand for the whole of it.
        return Source(path, folder)
    return Source(path)


def kind_of(source: Source) -> Kind:
    """Return what kind of files a checkpoint is.

    Raises:
        FormatError: It is of none.
    """
    if source.folder is not None:
        return "folder"
    found = _sniff(source.path)
    if found is None:
        msg = "no HDF5 content, no archive of Keras, and no map of shards"
        raise FormatError(msg, path=source.path)
    return found


def _sniff(path: str) -> Kind | None:
    with open(path, "rb") as file:
        head = file.read(len(_HDF5))
        if head.startswith(_ARCHIVE) or (path.endswith(".keras") and head != _HDF5):
            return "archive" if _is_keras(path) else None
        if head.lstrip().startswith(b"{"):
            head += file.read(_MAP_BYTES)
            is_map = b'"weight_map"' in head and b".h5" in head
            return "shards" if is_map or path.endswith(MAP) else None
        for start in _USER_BLOCKS:
            file.seek(start)
            if file.read(len(_HDF5)) == _HDF5:
                return "hdf5"
    return None


def _is_keras(path: str) -> bool:
    """Tell whether an archive holds a model; a damaged one is told by its name.

    An edit that was cut short may have left members whose checksums disagree; it is one still.
    """
    try:
        with Disk().open(path) as file:
            names = names_in(file)
    except FormatError:
        if path.endswith(".keras"):
            raise
        return False
    return WEIGHTS in names or path.endswith(".keras")
