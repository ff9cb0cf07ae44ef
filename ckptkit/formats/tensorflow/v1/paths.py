"""Which checkpoint of the first format a path means: a file, a shard, a prefix, or a pattern."""

from __future__ import annotations

import os
import re
from typing import Final

from ckptkit.errors import CorruptError, UnknownFormatError
from ckptkit.formats.tensorflow.paths import FOOTER_BYTES, MAGIC
from ckptkit.model import Source

_SHARD: Final = re.compile(r"-([0-9]{5})-of-([0-9]{5})\Z")
_PATTERN: Final = re.compile(r"-\?{5}-of-([0-9]{5})\Z")
_ANY: Final = "?????"


def is_first_format(path: str) -> bool:
    """Tell whether a path is that of files of the first format, if only of two checkpoints."""
    try:
        return resolve(path) is not None
    except UnknownFormatError:
        return True


def resolve(path: str) -> Source | None:
    """Return the checkpoint that a path stands for, None where there is no sign of one.

    The path of a checkpoint in shards is the pattern that TensorFlow's own Saver returns.

    Raises:
        UnknownFormatError: There are shards of several checkpoints of this name.
    """
    pattern = _PATTERN.search(path)
    if pattern is not None and not os.path.lexists(path):
        return Source(path) if _some_shard(path[: pattern.start()], int(pattern[1])) else None
    if os.path.isfile(path):
        if not _is_table(path):
            return None
        shard = _SHARD.search(path)
        return Source(path) if shard is None else Source(_pattern(path[: shard.start()], shard[2]))
    counts = [] if os.path.isdir(path) else sorted(_counts(path))
    if len(counts) > 1:
        names = ", ".join(os.path.basename(_pattern(path, count)) for count in counts)
        msg = f"there are shards of {len(counts)} checkpoints of this name; give one of {names}"
        raise UnknownFormatError(msg, path=path)
    return Source(_pattern(path, counts[0])) if counts else None


def files_of(source: Source) -> list[str]:
    """Return the path of every file of a checkpoint.

    Raises:
        CorruptError: A shard is missing, or none can be.
    """
    pattern = _PATTERN.search(source.path)
    if pattern is None:
        return [source.path]
    prefix, count = source.path[: pattern.start()], int(pattern[1])
    if not count:
        msg = "a checkpoint has at least one shard"
        raise CorruptError(msg, path=source.path)
    paths = [f"{prefix}-{number:05d}-of-{count:05d}" for number in range(count)]
    for number, path in enumerate(paths):
        if not os.path.isfile(path):
            msg = f"shard {number} of {count} is missing, and with it the slices that it holds"
            raise CorruptError(msg, path=path)
    return paths


def _pattern(prefix: str, count: str) -> str:
    return f"{prefix}-{_ANY}-of-{count}"


def _some_shard(prefix: str, count: int) -> bool:
    return any(int(found) == count for found in _counts(prefix))


def _counts(prefix: str) -> set[str]:
    """Return the numbers of shards that files beside one another say they are."""
    folder, name = os.path.split(prefix)
    if not name or not os.path.isdir(folder or "."):
        return set()
    found: set[str] = set()
    for entry in os.listdir(folder or "."):
        shard = _SHARD.search(entry)
        if shard is None or entry[: shard.start()] != name or shard[2] in found:
            continue
        if _is_table(os.path.join(folder, entry)):
            found.add(shard[2])
    return found


def _is_table(path: str) -> bool:
    """Tell whether a file ends as a table does."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size < FOOTER_BYTES:
            return False
        file.seek(-len(MAGIC), os.SEEK_END)
        return file.read() == MAGIC
