"""What a path looks like that no format claims: the word that helps whoever gave it."""

from __future__ import annotations

import os
import re
import stat
from typing import Final, NoReturn

from ckptkit.errors import CorruptError, UnknownFormatError

LOOK: Final = 256
"""Bytes at the start of a file that are looked at."""

_UNKNOWN: Final = "not a checkpoint of a format that ckptkit knows"
_META: Final = ".meta"

_TABLE: Final = re.compile(
    rb"\0\0[\x80-\xff]{0,4}[\x00-\x7f](\x0a[\x80-\xff]{0,4}[\x00-\x7f][\x0a\x12]|\x08.{1,3}\x1a\x02)",
    re.DOTALL,
)
"""The first record of a table: an empty key, and a message that describes tensors or shards."""

_LOOKS: Final = (
    (re.compile(rb"\0*\Z"), "it holds nothing but zeros; it was not written to the end"),
    (
        re.compile(rb"version https://git-lfs\.github\.com/spec/"),
        "a pointer of Git LFS where the file should be; to fetch that: git lfs pull",
    ),
    (
        re.compile(rb"\s*<(!doctype html|html|\?xml)", re.IGNORECASE),
        "a web page, as a failed download leaves it",
    ),
    (re.compile(rb"\s*(all_)?model_checkpoint_paths?\s*:"), "a state file; give its folder"),
)
"""How files start that lie where somebody expects a checkpoint, and what to say."""


def refuse(path: str) -> NoReturn:
    """Raise the error for a path that no format claims.

    Raises:
        UnknownFormatError: There is something, of no known format.
        CorruptError: There is the beginning of a checkpoint of TensorFlow.
        FileNotFoundError: There is nothing.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(2, "no checkpoint of this name", path)
    if not os.path.exists(path):
        raise FileNotFoundError(2, "a link that leads nowhere", path)
    clue = _of_folder(path) if os.path.isdir(path) else _of_file(path)
    msg = f"{_UNKNOWN}: {clue}" if clue else _UNKNOWN
    raise UnknownFormatError(msg, path=path)


def _of_folder(path: str) -> str:
    if not os.listdir(path):
        return "an empty folder"
    return f"a folder with neither a state file nor one checkpoint; see: ckptkit ls {path} --all"


def _of_file(path: str) -> str:
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        return "no plain file"
    if not found.st_size:
        return "an empty file"
    with open(path, "rb") as file:
        start = file.read(LOOK)
    if _TABLE.match(start):
        msg = "it begins as a table of TensorFlow does, and does not end as one: it was cut short"
        raise CorruptError(msg, path=path, offset=found.st_size)
    if path.endswith(_META):
        return f"the graph beside a checkpoint; give the prefix, {path.removesuffix(_META)}"
    return next((text for look, text in _LOOKS if look.match(start)), "")
