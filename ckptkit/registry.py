"""The register of a folder: its state file, which says what checkpoints there are, and the latest.

It is replaced at once, and by one process at a time: who reads it finds the old one or the new one.
"""

from __future__ import annotations

import errno
import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from ckptkit.checkpoint import open  # noqa: A004  it opens, as gzip.open does
from ckptkit.errors import CorruptError, EditError
from ckptkit.formats.tensorflow.paths import INDEX, STATE_FILE, in_folder, is_there
from ckptkit.formats.tensorflow.state import STATE_BYTES, State, read_state
from ckptkit.formats.tensorflow.v1.paths import is_first_format
from ckptkit.storage.disk import Disk
from ckptkit.storage.sidecar import Lock

if TYPE_CHECKING:
    from collections.abc import Callable

    Changed = tuple[State, tuple["Change", ...]]

What = Literal["latest", "relative", "twice", "gone", "left out", "unknown"]

FORMATS: Final = "tensorflow"
"""What the names of formats begin with whose checkpoints a state file names."""


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one entry of a state file.

    Attributes:
        path: The entry as it stood there.
        now: As it stands there now; None where it does not any more.
        what: ``latest``: the checkpoint is registered, as the latest; ``relative``: its path is,
            now; ``twice``: it was there twice; ``gone``: its checkpoint is not there, and it stays;
            ``left out``: so it went; ``unknown``: no entry, but a field that TensorFlow does not
            know, for which it ignores the file.
    """

    path: str
    now: str | None
    what: What


@dataclass(frozen=True, slots=True)
class Registration:
    """What became of a state file.

    Attributes:
        path: The state file.
        latest: The checkpoint that it names as the latest.
        changes: What became of its entries.
        written: It is another one than before.
    """

    path: str
    latest: str
    changes: tuple[Change, ...]
    written: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def register(
    *paths: str | os.PathLike[str], dry_run: bool = False, disk: Disk | None = None
) -> Registration:
    """Enter checkpoints in the state file beside them; the last one given becomes the latest.

    Each is entered with a relative path, at the end of the list, where it is once afterwards. If
    the others have timestamps it gets one: when its index was made. A state file that is missing
    is made. ``tf.train.latest_checkpoint`` finds the checkpoint from then on.

    Args:
        paths: TensorFlow checkpoints of one folder.
        dry_run: Write nothing.
        disk: The file system; tests put another one here.

    Raises:
        EditError: One of them is none that a state file could name, or lies elsewhere.
        CorruptError: The state file is damaged.
        CkptError: One of them does not open.
    """
    entered = [_prefix(os.fspath(path)) for path in paths]
    if not entered:
        msg = "there is nothing to register"
        raise EditError(msg)
    folder = os.path.dirname(entered[0][0])
    for prefix, _ in entered:
        if os.path.dirname(prefix) != folder:
            msg = f"a state file is about one folder, and this is not in {folder}"
            raise EditError(msg, path=prefix)

    def change(state: State) -> Changed:
        changes = []
        for prefix, time in entered:
            known = {path for path, _ in state.entries() if in_folder(folder, path) == prefix}
            name = os.path.basename(prefix)
            state = state.with_latest(name, time, known)
            changes.append(Change(prefix, name, "latest"))
        return state, tuple(changes)

    return _rewritten(folder, change, dry_run=dry_run, disk=disk, missing=State())


def other_than_named(format_name: str, folder: str | None) -> str | None:
    """Return what a checkpoint is that no state file names, None if one may name it.

    Args:
        format_name: The name of its format.
        folder: That of a SavedModel, of which it is a part.
    """
    if not format_name.startswith(FORMATS):
        return f"a {format_name} file"
    return None if folder is None else "a SavedModel"


def check_place(prefix: str) -> None:
    """Refuse what could not be registered once it is written.

    Raises:
        EditError: Its name is none for a state file.
        CorruptError: The state file beside it is damaged.
    """
    _check_name(prefix)
    path = os.path.join(os.path.dirname(os.path.abspath(prefix)), STATE_FILE)
    if os.path.lexists(path):
        _read(path)


def repair_state(
    folder: str | os.PathLike[str],
    *,
    prune: bool = False,
    dry_run: bool = False,
    disk: Disk | None = None,
) -> Registration:
    """Have the state file of a folder that was moved name what lies in it.

    An entry that is an absolute path, or leads out of the folder, or to nothing, becomes relative
    if there is a checkpoint of that name in the folder.

    Args:
        folder: The folder.
        prune: Leave entries out whose checkpoint is not in the folder.
        dry_run: Write nothing.
        disk: The file system; tests put another one here.

    Raises:
        CorruptError: The state file is damaged.
        EditError: No checkpoint is left of those that it names.
        FileNotFoundError: There is none.
    """
    where = os.path.abspath(folder)

    def change(state: State) -> Changed:
        return _repaired(where, state, prune=prune)

    return _rewritten(where, change, dry_run=dry_run, disk=disk)


# --- what is entered ---------------------------------------------------------------------------


def _prefix(path: str) -> tuple[str, float]:
    """Return the absolute prefix of a checkpoint, and when it was made in seconds since 1970."""
    with open(path) as checkpoint:
        source, format_name = checkpoint.source, checkpoint.format
        time = checkpoint.stamps[0].changed / 1e9
    other = other_than_named(format_name, source.folder)
    if other is not None:
        msg = f"a state file names TensorFlow checkpoints, and this is {other}"
        raise EditError(msg, path=path)
    prefix = os.path.abspath(source.path)
    _check_name(prefix)
    return prefix, time


def _check_name(prefix: str) -> None:
    name = os.path.basename(prefix)
    try:
        name.encode()
    except UnicodeEncodeError:
        msg = "a state file is UTF-8, and this name is not: it cannot be registered"
        raise EditError(msg, path=prefix) from None
    if name == STATE_FILE:
        msg = f"{STATE_FILE!r} is the name of the state file itself: it cannot be registered"
        raise EditError(msg, path=prefix)


# --- what is repaired --------------------------------------------------------------------------


def _repaired(folder: str, state: State, *, prune: bool) -> Changed:
    changes: dict[str, Change] = {}
    kept: dict[str, float | None] = {}
    for path, time in state.entries():
        now, what = _right(folder, path)
        if what == "gone" and prune:
            changes[path] = Change(path, None, "left out")
            continue
        if what is not None:
            changes[path] = Change(path, now, what)
        if now in kept:
            changes.setdefault(path, Change(path, now, "twice"))
        # The later of two has the time that counts, and the place.
        kept.pop(now, None)
        kept[now] = time
    if not kept:
        msg = f"none of those that it names is left; what there is: ckptkit ls {folder} --all"
        raise EditError(msg, path=os.path.join(folder, STATE_FILE))
    latest, _ = _right(folder, state.model_checkpoint_path)
    times = tuple(time for time in kept.values() if time is not None)
    repaired = replace(
        state,
        model_checkpoint_path=latest if latest in kept else next(reversed(kept)),
        all_model_checkpoint_paths=tuple(kept),
        all_model_checkpoint_timestamps=times if len(times) == len(kept) else (),
    )
    return repaired, tuple(changes.values())


def _right(folder: str, path: str) -> tuple[str, What | None]:
    """Return how an entry is to be, and what is to be said of it."""
    prefix = in_folder(folder, path)
    there = prefix is not None and is_there(prefix)
    if there and not os.path.isabs(path):
        return path, None
    name = os.path.basename(path)
    if in_folder(folder, name) is not None and _lies_there(os.path.join(folder, name)):
        return name, "relative"
    if prefix is not None and there:
        return os.path.relpath(prefix, folder), "relative"
    return path, "gone"


def _lies_there(prefix: str) -> bool:
    """Tell whether there is a checkpoint, and not only a folder that TensorFlow takes for one."""
    return os.path.isfile(prefix + INDEX) or is_first_format(prefix)


# --- what is written ---------------------------------------------------------------------------


def _rewritten(
    folder: str,
    change: Callable[[State], Changed],
    *,
    dry_run: bool,
    disk: Disk | None,
    missing: State | None = None,
) -> Registration:
    """Give a state file other contents, at once and durably.

    Args:
        folder: Where it is.
        change: Says how what it says is to be, and why.
        dry_run: Write nothing.
        disk: The file system.
        missing: What it says if there is none; None where there has to be one.
    """
    path = os.path.join(folder, STATE_FILE)
    if missing is None and not os.path.lexists(path):
        raise FileNotFoundError(errno.ENOENT, "no state file", path)
    if dry_run:
        return _changed(path, change, missing)[0]
    disk = disk or Disk()
    with Lock(path, wait=True):
        done, content = _changed(path, change, missing)
        if done.written:
            with disk.replacement(path) as file:
                file.write(content, 0)
            disk.sync_folder(folder)
    return done


def _changed(
    path: str, change: Callable[[State], Changed], missing: State | None
) -> tuple[Registration, bytes]:
    there = missing is None or os.path.lexists(path)
    before = _read(path) if there or missing is None else missing
    after, changes = change(before)
    content = after.render()
    if len(content) > STATE_BYTES:
        msg = f"the state file would have {len(content)} bytes, {STATE_BYTES} is the most"
        raise EditError(msg, path=path)
    written = not there or content != before.render()
    changes = (*changes, *(Change(field, field, "unknown") for field in after.unknown))
    return Registration(path, after.model_checkpoint_path, changes, written), content


def _read(path: str) -> State:
    try:
        return read_state(path)
    except CorruptError as error:
        error.add_note("nothing was registered; to begin anew, remove the state file")
        raise
