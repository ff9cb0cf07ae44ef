"""Which checkpoint a path means: prefix, member file, folder with a state file, SavedModel."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from ckptkit.errors import CorruptError, UnknownFormatError, UnsupportedError
from ckptkit.model import Source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

INDEX: Final = ".index"
STATE_FILE: Final = "checkpoint"
"""What the state file of a folder is called."""

FOOTER_BYTES: Final = 48
"""A table ends in a footer of this length, so no index is shorter."""

MAGIC: Final = bytes.fromhex("57fb808b247547db")
"""What the footer of a table ends in."""

VARIABLES: Final = os.path.join("variables", "variables")
FINGERPRINT: Final = "fingerprint.pb"
_SAVED_MODEL: Final = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")
_DATA: Final = re.compile(r"(.*)\.data-([0-9]{5,10})-of-([0-9]{5,10})", re.DOTALL)


class DataFile(NamedTuple):
    """What the path of a data file says."""

    prefix: str
    shard: int
    shards: int


def shard_path(prefix: str, shard: int, count: int) -> str:
    """Return the path of a data file; it is computed, never stored."""
    return f"{prefix}.data-{shard:05d}-of-{count:05d}"


def data_file(path: str) -> DataFile | None:
    """Return which data file a path is, going by its name; None if it is none."""
    found = _DATA.fullmatch(path)
    if found is None:
        return None
    data = DataFile(found[1], int(found[2]), int(found[3]))
    return data if shard_path(*data) == path else None


def data_files(prefix: str) -> Iterator[tuple[DataFile, str]]:
    """Yield the data files that are there under a prefix, of whatever number, and their paths."""
    folder, name = os.path.split(prefix)
    if not name or not os.path.isdir(folder or "."):
        return
    for entry in os.listdir(folder or "."):
        found, path = data_file(entry), os.path.join(folder, entry)
        if found is not None and found.prefix == name and os.path.isfile(path):
            yield found, path


def unused_shards(prefix: str, count: int, used: Collection[str]) -> list[str]:
    """Return the data files that a bundle of so many shards has beside those that are used."""
    there = sorted(path for found, path in data_files(prefix) if found.shards == count)
    return [path for path in there if path not in used]


def prefix_of(path: str) -> str:
    """Return the prefix of the bundle that a path would be the index or a shard of."""
    shard = data_file(path)
    return shard.prefix if shard else path.removesuffix(INDEX)


def is_member(prefix: str, path: str) -> bool:
    """Tell whether a path is that of the index or of a shard of a bundle."""
    found = data_file(path)
    return path == prefix + INDEX or (found is not None and found.prefix == prefix)


def resolve(path: str) -> Source | None:
    """Return the bundle that a path stands for, or None where there is no sign of one.

    Raises:
        UnknownFormatError: The path is a folder that leaves open which checkpoint is meant.
        CorruptError: The state file of the folder names no checkpoint that is there.
    """
    shard, prefix = data_file(path), prefix_of(path)
    for candidate in (path, prefix):
        if os.path.isfile(candidate + INDEX):
            return source_of(candidate)
    if os.path.isdir(path):
        return _in_folder(path)
    if os.path.basename(path) in _SAVED_MODEL and os.path.isfile(path):
        return _in_folder(os.path.dirname(path) or os.curdir)
    if shard and os.path.isfile(path):
        msg = f"this is a data file, and the index beside it is missing: {prefix}{INDEX}"
        raise CorruptError(msg, path=path)
    return None


def source_of(prefix: str) -> Source:
    """Return a bundle as a source; the variables of a SavedModel stand for the whole of it."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(prefix)))
    if os.path.abspath(prefix) == os.path.join(folder, VARIABLES) and is_saved_model(folder):
        return Source(prefix, folder)
    return Source(prefix, None)


def is_saved_model(folder: str) -> bool:
    """Tell whether a folder holds the program of a SavedModel."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in _SAVED_MODEL)


def _in_folder(folder: str) -> Source | None:
    prefix = os.path.join(folder, VARIABLES)
    if os.path.isfile(prefix + INDEX):
        return Source(prefix, folder)
    if is_saved_model(folder):
        msg = f"a SavedModel without {VARIABLES}{INDEX}: it has no values outside its program"
        raise UnsupportedError(msg, path=folder)
    if os.path.isfile(os.path.join(folder, STATE_FILE)):
        prefix = latest_in(folder)
        return source_of(prefix) if os.path.isfile(prefix + INDEX) else None
    found = sorted(name for name in os.listdir(folder) if name.endswith(INDEX))
    if len(found) > 1:
        names = ", ".join(name.removesuffix(INDEX) for name in found[:5])
        msg = (
            f"the folder has {len(found)} checkpoints and no state file; name one: {names}"
            f" (all of them: ckptkit ls {folder} --all)"
        )
        raise UnknownFormatError(msg, path=folder)
    return source_of(os.path.join(folder, found[0].removesuffix(INDEX))) if found else None


def in_folder(folder: str, named: str) -> str | None:
    """Return the prefix that a state file means by a path, or None if that is no place for one.

    The file is text from somebody else: what leads out of its folder is not followed.
    """
    prefix = os.path.normpath(os.path.join(folder, os.fsdecode(named.encode())))
    inside = os.path.abspath(prefix).startswith(os.path.join(os.path.abspath(folder), ""))
    return prefix if named and "\0" not in named and inside else None


def is_there(prefix: str) -> bool:
    """Tell whether there is a checkpoint of that prefix: its index, or files of the first format.

    TensorFlow asks no more, and takes a folder for one.
    """
    from ckptkit.formats.tensorflow.v1.paths import is_first_format

    return os.path.isfile(prefix + INDEX) or os.path.exists(prefix) or is_first_format(prefix)


def latest_in(folder: str) -> str:
    """Return the prefix that the state file of a folder names.

    It may be one of TensorFlow's first format, which has no index.

    Raises:
        CorruptError: It names none that is there.
    """
    from ckptkit.formats.tensorflow.state import LATEST, read_state
    from ckptkit.formats.tensorflow.v1.paths import is_first_format

    state = os.path.join(folder, STATE_FILE)
    named = read_state(state).model_checkpoint_path
    if not named:
        msg = f"the state file has no {LATEST}"
        raise CorruptError(msg, path=state)
    prefix = in_folder(folder, named)
    if prefix is None:
        msg = (
            f"the state file names {named!r}, outside its folder; give the prefix itself, or, if"
            f" the folder was moved: ckptkit register --repair {folder}"
        )
        raise CorruptError(msg, path=state)
    if not os.path.isfile(prefix + INDEX) and not is_first_format(prefix):
        msg = (
            f"the state file names {named!r}, and there is no {os.path.basename(prefix)}{INDEX};"
            f" what there is: ckptkit ls {folder} --all"
        )
        raise CorruptError(msg, path=state)
    return prefix
