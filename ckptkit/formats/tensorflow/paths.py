"""Which checkpoint a path means: prefix, member file, folder with a state file, SavedModel."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from ckptkit.errors import CorruptError, UnknownFormatError, UnsupportedError
from ckptkit.model import Source

if TYPE_CHECKING:
    from collections.abc import Collection

INDEX: Final = ".index"
STATE_FILE: Final = "checkpoint"
STATE_BYTES: Final = 1 << 20
"""A state file longer than this is none."""

FOOTER_BYTES: Final = 48
"""A table ends in a footer of this length, so no index is shorter."""

VARIABLES: Final = os.path.join("variables", "variables")
FINGERPRINT: Final = "fingerprint.pb"
_SAVED_MODEL: Final = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")
_SHARD: Final = re.compile(r"\.data-\d{5,}-of-\d{5,}\Z")
_MEMBER: Final = re.compile(r"\.index|\.data-\d{5,}-of-\d{5,}")
_STATE_PATH: Final = re.compile(
    r'^\s*model_checkpoint_path\s*:\s*("(?:[^"\\\n]|\\.)*")', re.MULTILINE
)
_ESCAPE: Final = re.compile(rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|(.))", re.DOTALL)
_NAMED_ESCAPES: Final = {
    b"n": b"\n",
    b"t": b"\t",
    b"r": b"\r",
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"v": b"\v",
}


def shard_path(prefix: str, shard: int, count: int) -> str:
    """Return the path of a data file; it is computed, never stored."""
    return f"{prefix}.data-{shard:05d}-of-{count:05d}"


def unused_shards(prefix: str, count: int, used: Collection[str]) -> list[str]:
    """Return the data files that a bundle of so many shards has beside those that are used."""
    folder, name = os.path.split(prefix)
    pattern = re.compile(re.escape(name) + rf"\.data-\d{{5,}}-of-{count:05d}")
    there = (entry for entry in os.listdir(folder or ".") if pattern.fullmatch(entry))
    paths = sorted(os.path.join(folder, entry) for entry in there)
    return [path for path in paths if path not in used and os.path.isfile(path)]


def is_member(prefix: str, path: str) -> bool:
    """Tell whether a path is that of the index or of a shard of a bundle."""
    return path.startswith(prefix) and _MEMBER.fullmatch(path[len(prefix) :]) is not None


def resolve(path: str) -> Source | None:
    """Return the bundle that a path stands for, or None where there is no sign of one.

    Raises:
        UnknownFormatError: The path is a folder that leaves open which checkpoint is meant.
        CorruptError: The state file of the folder names no checkpoint that is there.
        UnsupportedError: It is a checkpoint of TensorFlow's first format.
    """
    shard = _SHARD.search(path)
    prefix = path[: shard.start()] if shard else path.removesuffix(INDEX)
    for candidate in (path, prefix):
        if os.path.isfile(candidate + INDEX):
            return _bundle(candidate)
    if os.path.isdir(path):
        return _in_folder(path)
    if shard and os.path.isfile(path):
        msg = f"this is a data file, and the index beside it is missing: {prefix}{INDEX}"
        raise CorruptError(msg, path=path)
    if os.path.isfile(path) and _is_table(path):
        msg = "this is a checkpoint of TensorFlow's first format (V1), which is not read yet"
        raise UnsupportedError(msg, path=path)
    return None


def _bundle(prefix: str) -> Source:
    """Return a source; the variables of a SavedModel stand for the whole of it."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(prefix)))
    if os.path.abspath(prefix) == os.path.join(folder, VARIABLES) and _is_saved_model(folder):
        return Source(prefix, folder)
    return Source(prefix, None)


def _is_saved_model(folder: str) -> bool:
    return any(os.path.isfile(os.path.join(folder, name)) for name in _SAVED_MODEL)


def _is_table(path: str) -> bool:
    """Tell whether a file ends like a table does."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size < FOOTER_BYTES:
            return False
        file.seek(-8, os.SEEK_END)
        return file.read() == bytes.fromhex("57fb808b247547db")


def _in_folder(folder: str) -> Source | None:
    prefix = os.path.join(folder, VARIABLES)
    if os.path.isfile(prefix + INDEX):
        return Source(prefix, folder)
    if os.path.isfile(os.path.join(folder, STATE_FILE)):
        return _bundle(_latest(folder))
    found = sorted(name for name in os.listdir(folder) if name.endswith(INDEX))
    if len(found) > 1:
        names = ", ".join(name.removesuffix(INDEX) for name in found[:5])
        msg = f"the folder has {len(found)} checkpoints and no state file; name one: {names}"
        raise UnknownFormatError(msg, path=folder)
    return _bundle(os.path.join(folder, found[0].removesuffix(INDEX))) if found else None


def _latest(folder: str) -> str:
    """Return the prefix that the state file of a folder names.

    The file is text from somebody else: a path that leads out of the folder is not followed.
    """
    state = os.path.join(folder, STATE_FILE)
    with open(state, "rb") as file:
        text = file.read(STATE_BYTES + 1)
    if len(text) > STATE_BYTES:
        msg = f"a state file has at most {STATE_BYTES} bytes"
        raise CorruptError(msg, path=state)
    found = _STATE_PATH.search(text.decode("utf-8", "surrogateescape"))
    if found is None:
        msg = "the state file has no model_checkpoint_path"
        raise CorruptError(msg, path=state)
    named = os.fsdecode(_unescape(found[1][1:-1]))
    prefix = os.path.normpath(os.path.join(folder, named))
    inside = os.path.abspath(prefix).startswith(os.path.join(os.path.abspath(folder), ""))
    if "\0" in named or not inside:
        msg = f"the state file names {named!r}, outside its folder; give the prefix itself"
        raise CorruptError(msg, path=state)
    if not os.path.isfile(prefix + INDEX):
        msg = f"the state file names {named!r}, and there is no {os.path.basename(prefix)}{INDEX}"
        raise CorruptError(msg, path=state)
    return prefix


def _unescape(text: str) -> bytes:
    """Undo the escapes of a protobuf text string."""

    def one(match: re.Match[bytes]) -> bytes:
        if match[1]:
            return bytes([int(match[1], 8) & 0xFF])
        if match[2]:
            return bytes([int(match[2], 16)])
        return _NAMED_ESCAPES.get(match[3], match[3])

    return _ESCAPE.sub(one, text.encode("utf-8", "surrogateescape"))
