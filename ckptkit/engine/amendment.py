"""One edit in place while it runs: lock, journal, what it changes of metadata, the way back.

The journal is durable before the first byte changes, so that whatever cuts the edit short, the
checkpoint can be brought to the state before it or after it.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ckptkit import _native
from ckptkit.engine import preflight
from ckptkit.engine.spans import changes as span_changes
from ckptkit.errors import CkptError
from ckptkit.formats import Format, absolute
from ckptkit.storage.changes import Applier, Change, Picture, Runs, Tail, Whole, sum_of
from ckptkit.storage.frames import VERSION, Begin, Commit
from ckptkit.storage.journal import Journal, read_backwards, read_frames, remove_journal
from ckptkit.storage.sidecar import JOURNAL, Lock, sidecar, staging_name, undo_numbers, undo_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from ckptkit.engine.plan import Plan
    from ckptkit.engine.run import Means, Outcome
    from ckptkit.model import Source
    from ckptkit.storage.disk import Disk, File

NEAR: Final = 16
"""Bytes between two changes of an index that are journalled as one."""


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
        apply.back(frame.changes)
    apply.sync()


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


class Amendment:
    """One edit in place, while it runs."""

    def __init__(self, plan: Plan, source: Source, means: Means) -> None:
        """Prepare; nothing is written yet."""
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
        shards = {*placement.shard[~placement.stays].tolist(), *(at for at, *_ in placement.given)}
        return {placement.files[shard] for shard in shards}

    def relative(self, path: str) -> str:
        """Return a path as the journal has it."""
        return os.path.relpath(path, self.folder)

    def begin(self) -> Begin:
        """Return the first frame."""
        plan = self.plan
        with self.disk.open(plan.placement.index) as file:
            found = sum_of(file, plan.placement.state)
        _, *shards = plan.format.files(self.source, plan.before)
        sizes = {self.relative(os.path.abspath(path)): os.path.getsize(path) for path in shards}
        how = plan.how
        if how == "link":
            msg = "a link is never made in place"
            raise AssertionError(msg)
        index, state = self.relative(plan.placement.index), plan.placement.state
        return Begin(VERSION, how, index, found, sizes, plan.edits, state=state)

    def metadata(self, sums: NDArray[np.uint32], *, splice: bool) -> tuple[Commit, list[Change]]:
        """Return what changes of the index, and of what goes with it.

        Args:
            sums: Checksum of every item, or span.
            splice: Change the bytes where they are, if their number stays; else a new file
                takes the place of the old one, at once.
        """
        plan, placement = self.plan, self.plan.placement
        changes: list[Change] = []
        around: dict[str, list[tuple[int, bytes]]] = {}
        for shard, offset, content in placement.given:
            around.setdefault(placement.files[shard], []).append((offset, content))
        for path, splices in around.items():
            changes += self._spliced(path, splices, sums)
        sealed = plan.format.seal(plan.after, placement, sums)
        for path, ends in sealed.splices.items():
            changes += self._spliced(path, ends)
        for path, new in sealed.files.items():
            with self.disk.open(path) as file:
                old = bytes(file.read(0, file.size))
            alone = os.stat(path).st_nlink == 1
            if splice and alone and len(old) == len(new):
                changes += _splices(self.relative(path), old, new)
            elif old != new:
                changes.append(Whole(self.relative(path), old, new))
        if placement.index in sealed.files:
            return Commit(_native.crc32c(sealed.files[placement.index])), changes
        index = self.relative(placement.index)
        with self.disk.open(placement.index) as file:
            picture = Picture(file, placement.state)
        for change in changes:
            if isinstance(change, Runs) and change.file == index:
                picture.put(change)
        return Commit(picture.sum), changes

    def _spliced(
        self,
        path: str,
        splices: Iterable[tuple[int, bytes]],
        sums: NDArray[np.uint32] | None = None,
    ) -> Iterator[Change]:
        """Yield the changes that put bytes around tensors, and have sums of spans follow them."""
        name = self.relative(path)
        with self.disk.open(path) as file:
            size = file.size
            if any(offset + len(new) > size for offset, new in splices):
                yield Tail(name, size)
            for offset, new in splices:
                there = max(min(size - offset, len(new)), 0)
                # What is behind the end is cut off again where all is taken back.
                old = bytes(file.read(offset, there)).ljust(len(new), b"\0")
                for run in _splices(name, old, new, offset):
                    if sums is not None and self.plan.placement.spans is not None:
                        parts = run.width, run.offsets, run.old, run.new
                        for span, change in span_changes(self.plan.placement, path, *parts):
                            sums[span] ^= np.uint32(change)
                    yield run
                if there < len(new) and new.endswith(b"\0"):
                    # A run says how long the file becomes, whatever is in it.
                    last = np.array([offset + len(new) - 1], np.int64)
                    yield Runs(name, 1, last, b"\0", b"\0")

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


def _splices(name: str, old: bytes, new: bytes, base: int = 0) -> Iterator[Runs]:
    """Yield where two versions of a byte range of a file differ, near places as one."""
    differs = np.flatnonzero(np.frombuffer(old, np.uint8) != np.frombuffer(new, np.uint8))
    if not len(differs):
        return
    breaks = np.flatnonzero(np.diff(differs) > NEAR) + 1
    for group in np.split(differs, breaks):
        start, end = int(group[0]), int(group[-1]) + 1
        offsets = np.array([base + start], np.int64)
        yield Runs(name, end - start, offsets, old[start:end], new[start:end])
