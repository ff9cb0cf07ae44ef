"""Editing in place: at the end of a shard, inside it, or by a whole new set of files.

All three go by a journal. It is durable before the first byte changes, so that whatever cuts the
edit short, the checkpoint can be brought to the state before it or after it.
"""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from ckptkit import _native
from ckptkit.engine import preflight
from ckptkit.engine.measure import measured
from ckptkit.engine.patch import Piece, pieces
from ckptkit.engine.run import Outcome, on_shift
from ckptkit.errors import CkptError, EditError
from ckptkit.formats import absolute
from ckptkit.storage.changes import Applier, Change, Gone, Move, Runs, Tail, Whole
from ckptkit.storage.disk import Traffic
from ckptkit.storage.frames import VERSION, Begin, Commit
from ckptkit.storage.frames import Piece as PieceFrame
from ckptkit.storage.journal import Journal, read_backwards, read_frames, remove_journal
from ckptkit.storage.publish import Staging
from ckptkit.storage.sidecar import (
    JOURNAL,
    Lock,
    sidecar,
    staging_name,
    undo_numbers,
    undo_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ckptkit.engine.plan import Plan
    from ckptkit.engine.run import Means, Shift
    from ckptkit.formats import Format
    from ckptkit.model import Source
    from ckptkit.storage.disk import Disk, File

PIECE_SHARE: Final = 4
"""A piece takes one part in this many of the memory: the next one is made meanwhile."""

KEPT: Final = 1
"""Pieces that are kept in a journal: with more of them, those that are done are dropped."""

NEAR: Final = 16
"""Bytes between two changes of an index that are journalled as one."""


def piece_bytes(memory: int) -> int:
    """Return how many bytes of a journal a piece takes."""
    return memory // PIECE_SHARE


@contextmanager
def locked(source: Source, *, settled: bool = True) -> Iterator[None]:
    """Keep other editors of a checkpoint out.

    Args:
        source: The checkpoint.
        settled: Refuse one that a crash left half-edited.

    Raises:
        ConflictError: Another process edits it.
        NeedsRecoveryError: There is a journal.
        OSError: Its folder cannot be written in.
    """
    path = os.path.abspath(source.path)
    preflight.check_writable(os.path.dirname(path))
    with Lock(path):
        if settled:
            preflight.check_settled(path, str(source))
        yield


def applier(form: Format, source: Source, disk: Disk) -> Applier:
    """Return what makes the changes of a journal beside a checkpoint, and no others."""
    whole = absolute(source)
    folder, staging = os.path.dirname(whole.path), staging_name(whole.path)

    def allowed(path: str) -> bool:
        inner = os.path.relpath(path, folder).split(os.sep)
        staged = len(inner) == 2 and inner[0].startswith(staging) and inner[1].endswith(".part")
        return staged or form.owns(whole, path)

    return Applier(disk, folder, allowed)


def take_back(journal: File, apply: Applier) -> None:
    """Undo what a journal speaks of, the last first; return when that is durable."""
    for frame in read_backwards(journal):
        for change in reversed(frame.changes):
            apply.back(change)
    apply.sync()


def amend(plan: Plan, source: Source, means: Means) -> Amended:
    """Run a plan that edits a checkpoint where it is.

    Raises:
        ConflictError: The checkpoint changed since it was opened, is being edited, or shares
            files with another one.
        NeedsRecoveryError: An earlier edit of it was cut short.
        EditError: The memory does not suffice, or a kernel does not do what it said.
        OSError: The file system refuses.
    """
    ways: Mapping[str, Callable[[_Amendment], Amended]] = {
        "append": _append,
        "patch": _patch,
        "copy": _rewrite,
    }
    with locked(source):
        plan.check_sources()
        job = _Amendment(plan, source, means)
        changing = sorted(job.changing) if plan.how != "copy" else []
        shared = sum(os.path.getsize(path) for path in changing if preflight.is_shared(path))
        needed = plan.space_needed(means.memory) + shared
        preflight.check_space(job.folder, needed, plan.largest_file)
        preflight.check_links(changing, means.disk, break_links=plan.break_links)
        return ways[plan.how](job)


def go_on(plan: Plan, source: Source, means: Means, begin: Begin) -> Amended:
    """Go on with a patch that was cut short after a part of it was done; its lock is held.

    Raises:
        EditError: The memory does not suffice for the pieces that it was cut into.
    """
    job = _Amendment(plan, source, means)
    return _patch(job, begin)


@dataclass(frozen=True, slots=True)
class Amended:
    """What an edit in place did.

    Attributes:
        outcome: What running the work gave.
        written: Bytes of files that are new, or other than before.
        journalled: Bytes that went through the journal besides.
    """

    outcome: Outcome
    written: int
    journalled: int


class _Amendment:
    """One edit in place, while it runs."""

    def __init__(self, plan: Plan, source: Source, means: Means) -> None:
        self.plan = plan
        self.source = absolute(source)
        self.means = means
        self.disk = means.disk
        self.folder = os.path.dirname(self.source.path)
        self.path = sidecar(self.source.path, JOURNAL)
        self.applier = applier(plan.format, source, self.disk)

    @property
    def changing(self) -> set[str]:
        """The data files that bytes are written to."""
        placement = self.plan.placement
        return {placement.files[shard] for shard in placement.shard[~placement.stays].tolist()}

    def relative(self, path: str) -> str:
        """Return a path as the journal has it."""
        return os.path.relpath(path, self.folder)

    def begin(self) -> Begin:
        """Return the first frame."""
        plan = self.plan
        with self.disk.open(plan.placement.index) as file:
            found = _native.crc32c(file.read(0, file.size))
        _, *shards = plan.format.files(self.source, plan.before)
        sizes = {self.relative(os.path.abspath(path)): os.path.getsize(path) for path in shards}
        how = plan.how
        if how == "link":
            msg = "a link is never made in place"
            raise AssertionError(msg)
        return Begin(VERSION, how, self.relative(plan.placement.index), found, sizes, plan.edits)

    def metadata(self, sums: NDArray[np.uint32], *, splice: bool) -> tuple[Commit, list[Change]]:
        """Return what changes of the index, and of what goes with it.

        Args:
            sums: Checksum of every item.
            splice: Change the bytes where they are, if their number stays; else a new file
                takes the place of the old one, at once.
        """
        plan = self.plan
        sealed = plan.format.seal(plan.after, plan.placement, sums)
        changes: list[Change] = []
        for path, new in sealed.items():
            with self.disk.open(path) as file:
                old = bytes(file.read(0, file.size))
            alone = os.stat(path).st_nlink == 1
            if splice and alone and len(old) == len(new):
                changes += _splices(self.relative(path), old, new)
            elif old != new:
                changes.append(Whole(self.relative(path), old, new))
        return Commit(_native.crc32c(sealed[plan.placement.index])), changes

    def finish(self, changes: Sequence[Change]) -> None:
        """Make the last changes; return when they are durable."""
        for change in changes:
            self.applier.forward(change)
        self.applier.sync()

    def let_go(self, journal: Journal) -> None:
        """Remove the journal of an edit that is done, or keep it to undo the edit."""
        try:
            if self.plan.keep_undo:
                number = max(undo_numbers(self.source.path), default=0) + 1
                journal.keep(undo_path(self.source.path, number))
            else:
                journal.remove()
        except BaseException as error:
            if os.path.lexists(journal.path):
                error.add_note(self.last_advice)
            raise

    @property
    def advice(self) -> str:
        """What its user has to do where the journal stays."""
        return f"finish it or take it back: ckptkit recover {self.plan.destination}"

    @property
    def last_advice(self) -> str:
        """The same, where there is no way back any more."""
        return f"to finish it: ckptkit recover {self.plan.destination}"

    def back_out(self, journal: Journal, error: BaseException) -> None:
        """Take back what was done, or leave the journal to ``recover``."""
        try:
            journal.abandon()
            if os.path.lexists(journal.path):
                with self.disk.open(journal.path) as file:
                    self._take_back(file, error)
        except (OSError, CkptError):
            error.add_note(self.advice)
        finally:
            self.applier.close()

    def _take_back(self, file: File, error: BaseException) -> None:
        # What counts is what is in the file: an error may have come after a frame was dropped.
        begin = next(read_frames(file)).event
        if isinstance(begin, Begin) and begin.done:
            error.add_note(self.last_advice)
            return
        take_back(file, self.applier)
        remove_journal(file.path, self.disk)


def _splices(name: str, old: bytes, new: bytes) -> Iterator[Runs]:
    """Yield where two versions of a file differ, near places as one."""
    differs = np.flatnonzero(np.frombuffer(old, np.uint8) != np.frombuffer(new, np.uint8))
    if not len(differs):
        return
    breaks = np.flatnonzero(np.diff(differs) > NEAR) + 1
    for group in np.split(differs, breaks):
        start, end = int(group[0]), int(group[-1]) + 1
        offsets = np.array([start], np.int64)
        yield Runs(name, end - start, offsets, old[start:end], new[start:end])


# --- append ------------------------------------------------------------------------------------


def _append(job: _Amendment) -> Amended:
    """Write what is new behind the end of a shard, then an index that knows of it."""
    plan = job.plan
    begin = job.begin()
    grown = [Tail(job.relative(path), os.path.getsize(path)) for path in job.changing]
    journal = Journal(job.disk, job.path, begin, grown)
    try:
        journal.sync()
        outcome = plan.fill(plan.placement.files, job.means)
        for path in job.changing:
            with job.disk.open_to_change(path) as file:
                file.sync()
        commit, changes = job.metadata(outcome.checksums, splice=False)
        plan.check_sources(but=job.changing)
        journal.add(commit, changes)
        journal.sync()
        job.finish(changes)
    except BaseException as error:
        job.back_out(journal, error)
        raise
    job.let_go(journal)
    moved = outcome.traffic
    index = sum(len(change.new) for change in changes if isinstance(change, Whole))
    return Amended(outcome, moved.written + moved.copied + index, journal.written)


# --- patch -------------------------------------------------------------------------------------


def _patch(job: _Amendment, done: Begin | None = None) -> Amended:
    """Journal what changes, then change it, piece by piece."""
    plan, means = job.plan, job.means
    with plan.naming(), on_shift(plan.work, means) as shift:
        if done is None:
            limit = piece_bytes(means.memory)
            if plan.entangled and plan.bytes_journal > limit:
                msg = (
                    "a tensor is computed from another one that changes as well, so that all has to"
                    f" be in memory at a time: give more of it (--memory {4 * plan.bytes_journal})"
                    " or append"
                )
                raise EditError(msg)
            begin = msgspec.structs.replace(
                job.begin(), device=shift.settings.device, chunk=shift.chunk, piece=limit
            )
            journal = Journal(job.disk, job.path, begin)
        else:
            if shift.chunk != done.chunk or piece_bytes(means.memory) < done.piece:
                msg = f"this edit was begun with more memory: --memory {PIECE_SHARE * done.piece}"
                raise EditError(msg)
            # It takes the place of the one that the edit was begun with.
            journal = Journal(job.disk, job.path, done)
        byteorder = plan.after.columns.byteorder
        begun = journal.begun
        try:
            work, measuring = measured(plan.work, shift, means.memory, _ignore, whole=means.whole)
            found = pieces(work, plan.placement, byteorder, shift, begun.piece, begun.done)
            with closing(found):
                amended = _patch_pieces(job, journal, shift, found)
            amended.outcome.traffic.read += measuring.read
        except BaseException as error:
            job.back_out(journal, error)
            raise
    job.let_go(journal)
    return amended


def _ignore(nbytes: int) -> None:
    """Tell nobody: the journal is what a patch takes its time for."""


def _patch_pieces(
    job: _Amendment, journal: Journal, shift: Shift, found: Iterator[Piece]
) -> Amended:
    plan, placement = job.plan, job.plan.placement
    begin = journal.begun
    sums, number = dict(begin.sums), begin.done
    traffic = Traffic()
    done, total = 0, plan.work.bytes_computed
    last = Piece()
    for piece in found:
        if last.patches:
            journal.add(PieceFrame(last.sums), _runs(job, last))
            journal.sync()
            _write(job, last)
            job.applier.sync()
            number += 1
            if plan.repeatable and not plan.keep_undo and journal.nbytes > KEPT * begin.piece:
                journal.restart(msgspec.structs.replace(begin, done=number, sums=sums))
        last = piece
        for item, change in piece.sums.items():
            sums[item] = sums.get(item, 0) ^ change
        traffic.read += piece.read
        traffic.written += piece.changed
        done += piece.changed
        if job.means.progress is not None:
            job.means.progress(min(done, total), total)
    checksums = placement.checksum.copy()
    for item, change in sums.items():
        checksums[item] ^= np.uint32(change)
    commit, changes = job.metadata(checksums, splice=True)
    if last.patches:
        journal.add(PieceFrame(last.sums), _runs(job, last))
    journal.add(commit, changes)
    journal.sync()
    _write(job, last)
    job.finish(changes)
    metadata = sum(len(change.new) for change in changes if isinstance(change, Runs | Whole))
    outcome = Outcome(checksums, traffic, shift.device)
    return Amended(outcome, traffic.written + metadata, journal.written)


def _runs(job: _Amendment, piece: Piece) -> list[Runs]:
    return [
        Runs(job.relative(patch.path), patch.width, patch.offsets, patch.old, patch.new)
        for patch in piece.patches
    ]


def _write(job: _Amendment, piece: Piece) -> None:
    for runs in _runs(job, piece):
        job.applier.forward(runs)


# --- rewrite -----------------------------------------------------------------------------------


def _rewrite(job: _Amendment) -> Amended:
    """Make all files anew beside the old ones, then have them take their place."""
    plan, placement = job.plan, job.plan.placement
    begin = job.begin()
    with Staging(job.source.path, whole_folder=False, disk=job.disk) as staging:
        for path, size in zip(placement.files, placement.file_sizes, strict=True):
            _stage(staging, path, size)
        outcome = plan.fill(tuple(map(staging.staged, placement.files)), job.means)
        sealed = plan.format.seal(plan.after, placement, outcome.checksums)
        for path, content in sealed.items():
            _stage(staging, path, 0).write(content, 0)
        plan.check_sources()
        staging.settle()
        # What the journal is about to move has to be there when it has its name.
        job.disk.sync_folder(job.folder)
        moves = [
            Move(job.relative(path), job.relative(staging.staged(path)))
            for path in [*placement.files, *sealed]
        ]
        gone = [Gone(name) for name in begin.sizes if name not in {move.file for move in moves}]
        changes: list[Change] = [*moves, *gone]
        journal = Journal(job.disk, job.path, begin)
        try:
            journal.add(Commit(_native.crc32c(sealed[placement.index])), changes)
            journal.sync()
        except BaseException as error:
            journal.abandon()
            if os.path.lexists(job.path):
                _forget_commit(job, staging, error)
            raise
        # From here on there is only forward: files that moved cannot move back.
        root = staging.root
        staging.hand_over()
        try:
            job.finish(changes)
            job.disk.remove_folder(root)
            job.let_go(journal)
        except BaseException as error:
            journal.abandon()
            if os.path.lexists(job.path):
                error.add_note(job.advice)
            raise
    moved = outcome.traffic
    written = moved.written + moved.copied + sum(map(len, sealed.values()))
    return Amended(outcome, written, journal.written)


def _forget_commit(job: _Amendment, staging: Staging, error: BaseException) -> None:
    """Take back a commit that may count already; what it moves stays until that is certain."""
    try:
        remove_journal(job.path, job.disk)
    except OSError:
        staging.hand_over()
        error.add_note(job.advice)


def _stage(staging: Staging, path: str, size: int) -> File:
    file = staging.create(path, size)
    if os.path.exists(path):
        file.resemble(path)
    return file
