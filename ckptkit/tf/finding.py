"""Which checkpoint a folder has: its state file, as TensorFlow reads it."""

from __future__ import annotations

import glob
import logging
import os
from typing import TYPE_CHECKING, Final

from ckptkit.errors import CorruptError
from ckptkit.formats.tensorflow.paths import INDEX, STATE_FILE
from ckptkit.formats.tensorflow.state import read_state
from ckptkit.tf.reader import CheckpointReader, text_of

if TYPE_CHECKING:
    from ckptkit.tf.reader import Path

_LOG: Final = logging.getLogger("ckptkit.tf")


def latest_checkpoint(
    checkpoint_dir: str | os.PathLike[str], latest_filename: str | None = None
) -> str | None:
    """Return the prefix of the latest checkpoint of a folder, as ``tf.train.latest_checkpoint``.

    As TensorFlow does, this goes by the state file alone, which may name a checkpoint that is
    elsewhere; :func:`ckptkit.open` follows no path out of the folder.

    Args:
        checkpoint_dir: The folder.
        latest_filename: The name of the state file; ``checkpoint`` by default.

    Returns:
        The prefix, which starts with the folder unless it is absolute; None if there is no state
        file, if it does not parse, has a field that TensorFlow does not know, or if what it names
        is not there.

    Raises:
        ValueError: The state file names no latest checkpoint.
    """
    folder = os.fspath(checkpoint_dir)
    state = os.path.join(folder, STATE_FILE if latest_filename is None else latest_filename)
    try:
        found = read_state(state)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        if isinstance(error, CorruptError):
            _LOG.warning("%s; the state file is ignored", error)
        return None
    except OSError as error:
        _LOG.warning("%s; the state file is ignored", error)
        return None
    if found.unknown:
        _LOG.warning("%s: %s is no field; the state file is ignored", state, found.unknown[0])
        return None
    named = found.model_checkpoint_path
    if not named:
        msg = f"Invalid checkpoint state loaded from {folder}"
        raise ValueError(msg)
    prefix = os.path.join(folder, named)
    if checkpoint_exists(prefix):
        return prefix
    _LOG.error("there is no checkpoint %s, which %s names", prefix, state)
    return None


def checkpoint_exists(checkpoint_prefix: str) -> bool:
    """Tell whether there is a checkpoint of a prefix, or a file of the first format.

    As in TensorFlow, the prefix may be a pattern.
    """
    return any(map(_matches, (checkpoint_prefix + INDEX, checkpoint_prefix)))


def _matches(pattern: str) -> bool:
    if not pattern or "\0" in pattern:
        return False
    return os.path.lexists(pattern) or next(glob.iglob(pattern), None) is not None


def load_checkpoint(ckpt_dir_or_file: Path) -> CheckpointReader:
    """Return a reader of a checkpoint, or of the latest one of a folder.

    Raises:
        ValueError: The folder has no state file, or what that names is not there.
        NotFoundError: There is no such checkpoint.
        DataLossError: It is damaged, or none.
    """
    path = ckpt_dir_or_file
    path = text_of(os.fspath(path) if isinstance(path, os.PathLike) else path)
    if "\0" in path or not os.path.isdir(path):
        return CheckpointReader(path)
    prefix = latest_checkpoint(path)
    if prefix is None:
        msg = f"Couldn't find 'checkpoint' file or checkpoints in given directory {path}"
        raise ValueError(msg)
    return CheckpointReader(prefix)


def list_variables(ckpt_dir_or_file: Path) -> list[tuple[str, list[int]]]:
    """Return names and shapes of all tensors, sorted by name.

    Raises:
        ValueError: As :func:`load_checkpoint`.
        OpError: Likewise.
    """
    return load_checkpoint(ckpt_dir_or_file).listing.variables()


def load_variable(ckpt_dir_or_file: Path, name: str) -> object:
    """Return the values of a tensor; ``:0`` at the end of the name is left out.

    Raises:
        ValueError: As :func:`load_checkpoint`.
        OpError: Likewise, and as :meth:`CheckpointReader.get_tensor`.
    """
    return load_checkpoint(ckpt_dir_or_file).get_tensor(text_of(name).removesuffix(":0"))
