"""After an interruption: to the state before it or after it; and back by what an edit has kept."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ckptkit.engine.amend import go_on
from ckptkit.engine.amendment import applier, locked, take_back
from ckptkit.engine.run import MEMORY, Means
from ckptkit.errors import ConflictError, CorruptError, EditError, UnknownFormatError
from ckptkit.formats import absolute, find
from ckptkit.storage.changes import Picture, Replaced, Runs, holds, sum_of
from ckptkit.storage.disk import Disk
from ckptkit.storage.frames import Back, Begin, Commit
from ckptkit.storage.journal import (
    read_frames,
    remove_journal,
    settle_journal,
    turn_back,
)
from ckptkit.storage.publish import remove_staging
from ckptkit.storage.sidecar import (
    JOURNAL,
    sidecar,
    staging_folders,
    successor_of,
    undo_numbers,
    undo_path,
    unfinished,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ckptkit.engine.plan import Plan
    from ckptkit.engine.run import Progress
    from ckptkit.formats import Format
    from ckptkit.model import Source
    from ckptkit.storage.changes import Applier
    from ckptkit.storage.disk import File
    from ckptkit.storage.frames import Frame

    Again = Callable[[Format, Source, tuple[str, ...]], Plan]

Outcome = Literal["nothing", "back", "forward"]


@dataclass(frozen=True, slots=True)
class Recovery:
    """What recovering did.

    Attributes:
        path: The checkpoint.
        state: ``forward``: it is as after the edit; ``back``: as before it; ``nothing``: there
            was nothing to do.
        edits: The statements of the edit that was cut short.
        removed: Folders of interrupted copies to this place, which are gone now.
    """

    path: str
    state: Outcome
    edits: tuple[str, ...]
    removed: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {
            "path": self.path,
            "state": self.state,
            "edits": list(self.edits),
            "removed": list(self.removed),
        }


def recover(
    path: str,
    again: Again,
    memory: int = MEMORY,
    progress: Progress | None = None,
    disk: Disk | None = None,
) -> Recovery:
    """Bring a checkpoint to the state before or after an edit in place that was cut short.

    It may be interrupted itself, and started again. Staging folders that interrupted copies to
    this place have left are removed.

    Args:
        path: The checkpoint, or where a copy was to be.
        again: Makes the plan of a patch anew, from a format, a source and statements.
        memory: Bytes of staging memory, where the edit has to be gone on with.
        progress: Called with bytes done and bytes in all.
        disk: The file system.

    Raises:
        ConflictError: Another process edits it, or it was rewritten since.
        CorruptError: The journal is damaged.
        FileNotFoundError: There is nothing at the path, nor was there to be.
    """
    disk = disk or Disk()
    left = staging_folders(os.path.abspath(path))
    try:
        form, source = find(path)
    except (FileNotFoundError, UnknownFormatError):
        if not left:
            raise
        return Recovery(path, "nothing", (), _removed(left, disk))
    with locked(source, settled=False):
        means = Means(memory=memory, progress=progress, disk=disk)
        state, edits = _settle(form, source, again, means)
        _remove_unfinished(form, absolute(source), disk)
        # Not before: what was staged may be what the journal moves.
        left = sorted({*left, *staging_folders(os.path.abspath(source.path))})
        removed = _removed(left, disk)
    return Recovery(str(source), state, edits, removed)


def _remove_unfinished(form: Format, source: Source, disk: Disk) -> None:
    """Remove files that were to take the place of one of the checkpoint, and never did."""
    journal = os.path.basename(sidecar(source.path, JOURNAL))
    for folder in dict.fromkeys((os.path.dirname(source.path), source.folder)):
        for name in os.listdir(folder) if folder is not None else ():
            path = successor_of(name)
            mine = path is not None and form.owns(source, os.path.join(folder or "", path))
            if mine or name == os.path.basename(unfinished(journal)):
                disk.remove(os.path.join(folder or "", name))


def _removed(folders: Sequence[str], disk: Disk) -> tuple[str, ...]:
    return tuple(folder for folder in folders if remove_staging(folder, disk))


def _settle(
    form: Format, source: Source, again: Again, means: Means
) -> tuple[Outcome, tuple[str, ...]]:
    """Do what the journal of a checkpoint asks for, if there is one; the lock is held."""
    disk = means.disk
    path = sidecar(os.path.abspath(source.path), JOURNAL)
    try:
        file = disk.open_to_change(path)
    except FileNotFoundError:
        return "nothing", ()
    with file:
        settle_journal(file, disk)
        begin, events = _survey(file)
        if begin is None:
            # It was not durable, so nothing was changed by it.
            remove_journal(path, disk)
            return "back", ()
        _check_state(form, source, file, begin, disk)
        forward = Commit in events and Back not in events
        (_forward if forward else _back)(form, source, file, disk)
    if not forward and begin.done and Back not in events:
        plan = again(form, source, begin.edits)
        go_on(plan, source, replace(means, device=begin.device, chunk=begin.chunk), begin)
        return "forward", begin.edits
    remove_journal(path, disk)
    return "forward" if forward else "back", begin.edits


def _survey(file: File) -> tuple[Begin | None, set[type]]:
    """Return the first frame, and the kinds of all."""
    begin: Begin | None = None
    kinds: set[type] = set()
    for frame in read_frames(file):
        kinds.add(type(frame.event))
        if isinstance(frame.event, Begin):
            if begin is not None:
                msg = "a journal has one first frame, this has two"
                raise CorruptError(msg, path=file.path)
            begin = frame.event
        if begin is None:
            msg = "a journal starts with what the edit is, this does not"
            raise CorruptError(msg, path=file.path)
    return begin, kinds


def _check_state(form: Format, source: Source, journal: File, begin: Begin, disk: Disk) -> None:
    """Refuse a journal that is not about the checkpoint as it is now.

    The index tells: it is the one before the edit, the one after it, or partly each. So do the
    bytes that change, where the index has no checksums that would follow them.

    Raises:
        ConflictError: It is another one.
    """
    apply = applier(form, source, disk)
    known, ours = {begin.index_sum}, True
    spliced: list[Runs] = []
    for frame in read_frames(journal):
        ours = ours and _are_held(frame, apply, disk, done=False)
        if isinstance(frame.event, Commit):
            known.add(frame.event.index_sum)
            changes = (change for change in frame.changes if isinstance(change, Runs))
            spliced += [change for change in changes if change.file == begin.index]
    with disk.open(apply.path(begin.index)) as file:
        if sum_of(file, begin.state) not in known:
            ours = ours and bool(spliced) and _sum_before(file, begin, spliced) in known
    if not ours:
        msg = (
            "the checkpoint was written anew since the edit that was cut short; if it is as it"
            f" should be, remove {journal.path}"
        )
        raise ConflictError(msg, path=str(source))


def _sum_before(file: File, begin: Begin, spliced: Sequence[Runs]) -> int:
    """Return the sum of an index as it was before some of its bytes changed, or were about to."""
    picture = Picture(file, begin.state)
    for change in spliced:
        picture.put(change, back=True)
    return picture.sum


def _are_held(frame: Frame, apply: Applier, disk: Disk, *, done: bool) -> bool:
    """Tell whether files have the bytes that a frame speaks of."""
    for change in frame.changes:
        if isinstance(change, Runs | Replaced):
            with disk.open(apply.path(change.file)) as file:
                if not holds(file, change, done=done):
                    return False
    return True


def _forward(form: Format, source: Source, journal: File, disk: Disk) -> None:
    apply = applier(form, source, disk)
    try:
        for frame in read_frames(journal):
            for change in frame.changes:
                apply.forward(change)
        apply.sync()
    finally:
        apply.close()


def _back(form: Format, source: Source, journal: File, disk: Disk) -> None:
    apply = applier(form, source, disk)
    try:
        take_back(journal, apply)
    finally:
        apply.close()


# --- undo --------------------------------------------------------------------------------------


def undo(path: str, disk: Disk | None = None) -> Recovery:
    """Take back the latest edit in place that kept an undo: every file gets its bytes back.

    Raises:
        EditError: No undo is kept.
        ConflictError: The checkpoint changed since that edit, or another process edits it.
        NeedsRecoveryError: An edit in place was cut short.
    """
    disk = disk or Disk()
    form, source = find(path)
    whole = absolute(source)
    with locked(source):
        kept = _latest(whole, source)
        with disk.open_to_change(kept) as file:
            begin = _check_undo(form, source, file, disk)
            turn_back(file)
        journal = sidecar(whole.path, JOURNAL)
        try:
            disk.rename(kept, journal)
            disk.sync_folder(os.path.dirname(journal))
            with disk.open(journal) as file:
                _back(form, source, file, disk)
            remove_journal(journal, disk)
        except BaseException as error:
            if os.path.lexists(journal):
                error.add_note(f"to finish it: ckptkit recover {source}")
            raise
    return Recovery(str(source), "back", begin.edits, ())


def discard_undo(path: str, disk: Disk | None = None) -> tuple[str, ...]:
    """Remove all that is kept to undo edits of a checkpoint; return the paths."""
    disk = disk or Disk()
    _, source = find(path)
    whole = absolute(source)
    with locked(source):
        kept = tuple(undo_path(whole.path, number) for number in undo_numbers(whole.path))
        for one in kept:
            disk.remove(one)
        if kept:
            disk.sync_folder(os.path.dirname(whole.path))
    return kept


def _latest(whole: Source, source: Source) -> str:
    numbers = undo_numbers(whole.path)
    if not numbers:
        msg = "no undo is kept; edits keep one with --keep-undo"
        raise EditError(msg, path=str(source))
    return undo_path(whole.path, numbers[-1])


def _check_undo(form: Format, source: Source, kept: File, disk: Disk) -> Begin:
    """Refuse to undo what is not the latest edit of the checkpoint."""
    apply = applier(form, source, disk)
    events, ours = [], True
    for frame in read_frames(kept):
        events.append(frame.event)
        ours = ours and _are_held(frame, apply, disk, done=True)
    begins = [event for event in events if isinstance(event, Begin)]
    commits = [event for event in events if isinstance(event, Commit)]
    if len(begins) != 1 or len(commits) != 1 or begins[0].done:
        msg = "what is kept to undo the edit is damaged"
        raise CorruptError(msg, path=kept.path)
    with disk.open(apply.path(begins[0].index)) as file:
        found = sum_of(file, begins[0].state)
    if not ours or found != commits[0].index_sum:
        msg = (
            "the checkpoint changed since the edit that could be undone; if it is as it should be:"
            f" ckptkit undo --discard {source}"
        )
        raise ConflictError(msg, path=str(source))
    return begins[0]
