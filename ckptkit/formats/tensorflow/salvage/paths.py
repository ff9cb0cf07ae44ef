"""Which bundle a path means, where parts of it may be missing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from ckptkit.errors import CkptError, CorruptError, UnknownFormatError
from ckptkit.formats.tensorflow.paths import (
    INDEX,
    STATE_FILE,
    VARIABLES,
    data_file,
    data_files,
    is_saved_model,
    prefix_of,
    resolve,
    source_of,
)
from ckptkit.model import Source

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SHARDS: Final = 1 << 20
"""Data files of one bundle; no writer makes as many."""


def find_bundle(path: str) -> Source:
    """Return the bundle that a path stands for, even where its index or shards are missing.

    Raises:
        FileNotFoundError: There is nothing of a bundle.
        UnknownFormatError: It is left open which bundle is meant.
    """
    named = not os.path.isdir(path) or os.path.isfile(os.path.join(path, STATE_FILE))
    try:
        found = resolve(path) if named else None
    except CkptError:
        found = None
    if found is not None:
        return found
    if os.path.isdir(path):
        return _in_folder(path)
    for prefix in (path, prefix_of(path)):
        if shards_on_disk(prefix) or os.path.isfile(prefix + INDEX):
            return source_of(prefix)
    if os.path.lexists(path):
        msg = "not a TensorFlow checkpoint, nor what is left of one"
        raise UnknownFormatError(msg, path=path)
    raise FileNotFoundError(2, "nothing of a checkpoint of this name", path)


def _in_folder(folder: str) -> Source:
    prefix = os.path.join(folder, VARIABLES)
    if os.path.isfile(prefix + INDEX) or (is_saved_model(folder) and shards_on_disk(prefix)):
        return Source(prefix, folder)
    found = sorted(prefixes(folder))
    if len(found) == 1:
        return source_of(os.path.join(folder, found[0]))
    if found:
        names = ", ".join(found[:5])
        msg = f"the folder has what is left of {len(found)} checkpoints; name one: {names}"
        raise UnknownFormatError(msg, path=folder)
    raise FileNotFoundError(2, "nothing of a checkpoint in this folder", folder)


def prefixes(folder: str) -> set[str]:
    """Return the names of all bundles in a folder, whole or not."""
    found = set()
    for name in os.listdir(folder or "."):
        data = data_file(name)
        if data is not None and data.prefix:
            found.add(data.prefix)
        elif name.endswith(INDEX) and name != INDEX:
            found.add(name.removesuffix(INDEX))
    return found


def shards_on_disk(prefix: str) -> Mapping[int, Mapping[int, str]]:
    """Return the data files of a prefix: by number of shards, then by shard."""
    found: dict[int, dict[int, str]] = {}
    for data, path in data_files(prefix):
        if data.shard < data.shards <= MAX_SHARDS:
            found.setdefault(data.shards, {})[data.shard] = path
    return {count: dict(sorted(files.items())) for count, files in found.items()}


def check_index_file(path: str) -> None:
    """Refuse an index that is no file, such as a folder of that name.

    Raises:
        CorruptError: It is none.
    """
    if os.path.lexists(path) and not os.path.isfile(path):
        msg = "the index is not a file"
        raise CorruptError(msg, path=path)
