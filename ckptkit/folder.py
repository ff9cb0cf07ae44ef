"""A folder of checkpoints: what lies in it, and what its state file says of that."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ckptkit.checkpoint import Checkpoint, open  # noqa: A004  it opens, as gzip.open does
from ckptkit.errors import CkptError, UnknownFormatError
from ckptkit.formats.tensorflow.paths import STATE_FILE, in_folder, is_saved_model, is_there
from ckptkit.formats.tensorflow.state import State, read_state
from ckptkit.storage.sidecar import is_sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Found:
    """One checkpoint of a folder.

    Attributes:
        path: Its prefix, its file or its folder: what :func:`ckptkit.open` takes.
        format: The name of its format; None where it does not open.
        tensors: How many it has; None where it does not open.
        nbytes: Bytes that these take; None where it does not open.
        registered: The state file names it.
        latest: The state file says that it is the latest.
        timestamp: When it was made, in seconds since 1970, as the state file has it.
        error: Why it does not open, or is not there.
    """

    path: str
    format: str | None = None
    tensors: int | None = None
    nbytes: int | None = None
    registered: bool = False
    latest: bool = False
    timestamp: float | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def checkpoints(folder: str | os.PathLike[str]) -> tuple[Found, ...]:
    """List the checkpoints of a folder: of every one, the index is read.

    First come those that the state file names, in its order, also where they are gone; then what
    else lies there, by name: TensorFlow checkpoints, SavedModels, Keras files. What lies in
    folders of the folder is not looked for.

    Args:
        folder: The folder.

    Returns:
        One that is damaged has an ``error``; a state file that is damaged, too, is an entry.

    Raises:
        OSError: The folder cannot be listed.
    """
    folder = os.fspath(folder)
    names = sorted(os.listdir(folder), key=_in_order)
    state, found = State(), []
    if STATE_FILE in names:
        path = os.path.join(folder, STATE_FILE)
        try:
            state = read_state(path)
        except (CkptError, OSError) as error:
            found.append(Found(path, error=_told(error)))
    found += _named(folder, state)
    known = {os.path.abspath(one.path) for one in found}
    others = [one for one in _lying(folder, names) if os.path.abspath(one.path) not in known]
    return (*found, *others)


def _named(folder: str, state: State) -> Iterator[Found]:
    """Yield what a state file names; each is opened once, however often it is named."""
    opened: dict[str, Found] = {}
    for named, timestamp in state.entries():
        prefix = in_folder(folder, named)
        key = named if prefix is None else prefix
        if key not in opened:
            opened[key] = _registered(folder, named, prefix)
        latest = named == state.model_checkpoint_path
        yield replace(opened[key], registered=True, latest=latest, timestamp=timestamp)


def _registered(folder: str, named: str, prefix: str | None) -> Found:
    if prefix is None:
        return Found(named, error="registered, but not in this folder")
    shown = os.path.join(folder, os.path.relpath(prefix, folder))
    if not is_there(prefix):
        return Found(shown, error="registered, but not there")
    try:
        with open(prefix) as checkpoint:
            return _opened(checkpoint, shown)
    except (CkptError, OSError) as error:
        return Found(shown, error=_told(error))


def _opened(checkpoint: Checkpoint, path: str) -> Found:
    nbytes = sum(checkpoint.catalog.columns.size)
    return Found(path, checkpoint.format, len(checkpoint), nbytes)


def _lying(folder: str, names: list[str]) -> Iterator[Found]:
    """Yield what lies in a folder, one for each checkpoint."""
    found: dict[str, Found] = {}
    parts: set[str] = set()
    for name in names:
        path = os.path.join(folder, name)
        if is_sidecar(name) or name == STATE_FILE or os.path.abspath(path) in parts:
            continue
        try:
            with open(path) as checkpoint:
                source = checkpoint.source
                if os.path.isdir(path) and not _is_itself(path, source.folder):
                    continue
                itself = os.path.abspath(source.path)
                files = {os.path.abspath(known.path) for known in checkpoint.stamps}
                # A shard of Keras opens by itself, and may come before the map that it belongs to.
                parts |= files - {itself}
                own = os.path.abspath(str(source))
                shown = os.path.join(folder, os.path.relpath(own, folder))
                found.setdefault(itself, _opened(checkpoint, shown))
        except UnknownFormatError:
            continue
        except FileNotFoundError:
            # It went away meanwhile, or a link leads nowhere.
            continue
        except (CkptError, OSError) as error:
            if os.path.isfile(path) or is_saved_model(path):
                itself = _prefix_of(path)
                found.setdefault(os.path.abspath(itself), Found(itself, error=_told(error)))
    yield from (one for path, one in found.items() if path not in parts)


def _is_itself(path: str, folder: str | None) -> bool:
    return folder is not None and os.path.abspath(path) == os.path.abspath(folder)


def _prefix_of(path: str) -> str:
    """Return what the files of one damaged checkpoint have in common."""
    prefix = re.sub(r"\.index\Z|\.data-\d{5,}-of-\d{5,}\Z", "", path)
    return re.sub(r"-\d{5}-of-(\d{5})\Z", r"-?????-of-\1", prefix)


def _told(error: CkptError | OSError) -> str:
    if isinstance(error, CkptError):
        return error.message if error.tensor is None else f"{error.tensor!r}: {error.message}"
    return error.strerror or str(error)


def _in_order(name: str) -> tuple[tuple[str, int], ...]:
    """Return what sorts ``m-9`` before ``m-10``."""
    parts = re.split(r"(\d{1,18})", name)
    return tuple(zip(parts[::2], [*map(int, parts[1::2]), -1], strict=True))
