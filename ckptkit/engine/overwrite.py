"""Editing bytes where they are: journalled piece by piece, and replaced meanwhile."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from ckptkit.engine.amendment import Amended, Amendment
from ckptkit.engine.measure import measured
from ckptkit.engine.patch import Piece, pieces
from ckptkit.engine.run import Outcome, Shift, on_shift
from ckptkit.errors import EditError
from ckptkit.storage.changes import Change, Replaced, Runs, Whole
from ckptkit.storage.disk import Traffic
from ckptkit.storage.frames import Begin
from ckptkit.storage.frames import Piece as PieceFrame
from ckptkit.storage.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

PIECE_SHARE: Final = 12
"""A piece takes one part in this many of the memory.

Three of them are on their way at a time, and small ones keep processor and device both busy.
"""

WHOLE_SHARE: Final = 4
"""The same of an edit that has to be one piece."""

KEPT: Final = 1
"""Pieces that are kept in a journal: with more of them, those that are done are dropped."""

TOGETHER: Final = 1 << 20
"""Bytes that the last piece may change to be journalled with the commit, in one go.

More of them are in place before the commit, so that the journal need not have them as well.
"""

WIDE: Final = 64 << 10
"""Bytes of a run of which a journal has checksums of pages, and not what it becomes."""


def piece_bytes(memory: int, *, whole: bool = False) -> int:
    """Return how many bytes of a journal a piece takes, or one that the whole edit has to be."""
    return memory // (WHOLE_SHARE if whole else PIECE_SHARE)


def overwrite(job: Amendment, done: Begin | None = None) -> Amended:
    """Journal what changes, then change it, piece by piece."""
    plan, means = job.plan, job.means
    with plan.naming(), on_shift(plan.work, means) as shift:
        if done is None:
            limit = piece_bytes(means.memory, whole=plan.entangled)
            if plan.entangled and plan.bytes_journal > limit:
                enough = WHOLE_SHARE * plan.bytes_journal
                msg = (
                    "a tensor is computed from another one that changes as well, so that all has to"
                    f" be in memory at a time: give more of it (--memory {enough}) or append"
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
            with closing(found), closing(_Beside(job)) as beside:
                amended = _patch_pieces(job, journal, shift, found, beside)
            amended.outcome.traffic.read += measuring.read
        except BaseException as error:
            job.back_out(journal, error)
            raise
    job.let_go(journal)
    return amended


def _ignore(nbytes: int) -> None:
    """Tell nobody: the journal is what a patch takes its time for."""


def _patch_pieces(
    job: Amendment, journal: Journal, shift: Shift, found: Iterator[Piece], beside: _Beside
) -> Amended:
    plan, placement = job.plan, job.plan.placement
    begin = journal.begun
    sums, number = dict(begin.sums), begin.done
    traffic = Traffic()
    done, total = 0, plan.work.bytes_computed
    last = Piece()
    for piece in found:
        if last.patches:
            _write_apart(job, journal, last, beside)
            number += 1
            if plan.repeatable and not plan.keep_undo and journal.nbytes > KEPT * begin.piece:
                beside.settle()
                journal.restart(msgspec.structs.replace(begin, done=number, sums=sums))
        last = piece
        for item, change in piece.sums.items():
            sums[item] = sums.get(item, 0) ^ change
        traffic.read += piece.read
        traffic.written += piece.changed
        done += piece.changed
        if job.means.progress is not None:
            job.means.progress(min(done, total), total)
    spans = placement.spans
    checksums = placement.checksum.copy()
    if spans is not None:
        checksums = np.array([span.checksum or 0 for span in spans], np.uint32)
    for item, change in sums.items():
        checksums[item] ^= np.uint32(change)
    if last.changed > TOGETHER:
        _write_apart(job, journal, last, beside)
        last = Piece()
    beside.settle()
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


def _write_apart(job: Amendment, journal: Journal, piece: Piece, beside: _Beside) -> None:
    """Journal what a piece replaces; return when that is durable, and it is being replaced."""
    before = [change for runs in _runs(job, piece) for change in _before(runs)]
    journal.add(PieceFrame(piece.sums), before)
    journal.sync()
    beside.replace(piece)


def writers() -> Executor:
    """Return what replaces bytes while others are journalled; tests put something else here."""
    return ThreadPoolExecutor(1, thread_name_prefix="ckptkit-patch")


class _Beside:
    """Replaces the bytes of one piece while the next one is computed and journalled.

    That may be: whatever of both is done when a crash comes, the journal knows how to take it back.
    """

    def __init__(self, job: Amendment) -> None:
        self._job = job
        self._pool: Executor | None = None
        self._running: Future[None] | None = None

    def replace(self, piece: Piece) -> None:
        """Begin to replace what a journal has durably, once the piece before is done."""
        self.settle()
        self._pool = self._pool or writers()
        self._running = self._pool.submit(self._replace, piece)

    def _replace(self, piece: Piece) -> None:
        _write(self._job, piece)
        self._job.applier.sync()

    def settle(self) -> None:
        """Return when all of it is durable."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def close(self) -> None:
        """Return when nothing is replaced any more; what failed has been told, or is undone."""
        if self._pool is not None:
            self._pool.shutdown()


def _before(runs: Runs) -> Iterator[Change]:
    """Yield what a journal has to have of runs that are replaced before there is a commit."""
    if runs.width < WIDE:
        yield runs
        return
    for at, offset in enumerate(runs.offsets.tolist()):
        run = slice(at * runs.width, (at + 1) * runs.width)
        yield Replaced.by(runs.file, offset, runs.old[run], runs.new[run])


def _runs(job: Amendment, piece: Piece) -> list[Runs]:
    return [
        Runs(job.relative(patch.path), patch.width, patch.offsets, patch.old, patch.new)
        for patch in piece.patches
    ]


def _write(job: Amendment, piece: Piece) -> None:
    for runs in _runs(job, piece):
        job.applier.forward(runs)
