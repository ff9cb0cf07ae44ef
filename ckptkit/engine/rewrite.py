"""Editing in place by a whole new set of files, which take the place of the old ones."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ckptkit.engine.amendment import Amended, Amendment
from ckptkit.engine.create import sealed_anew, write_given
from ckptkit.storage.changes import Change, Gone, Move, sum_of
from ckptkit.storage.frames import Commit
from ckptkit.storage.journal import Journal, remove_journal
from ckptkit.storage.publish import Staging

if TYPE_CHECKING:
    from ckptkit.storage.disk import File


def rewrite(job: Amendment) -> Amended:
    """Make all files anew beside the old ones, then have them take their place."""
    plan, placement = job.plan, job.plan.placement
    begin = job.begin()
    with Staging(job.source.path, whole_folder=False, disk=job.disk) as staging:
        for path, size in zip(placement.files, placement.file_sizes, strict=True):
            _stage(staging, path, size)
        write_given(staging, placement)
        outcome = plan.fill(tuple(map(staging.staged, placement.files)), job.means)
        sealed = sealed_anew(plan, outcome, staging)
        for path, content in sealed.files.items():
            _stage(staging, path, 0).write(content, 0)
        with job.disk.open(staging.staged(placement.index)) as file:
            commit = Commit(sum_of(file, placement.state))
        plan.check_sources()
        staging.settle()
        # What the journal is about to move has to be there when it has its name.
        job.disk.sync_folder(job.folder)
        moves = [
            Move(job.relative(path), job.relative(staging.staged(path)))
            for path in [*placement.files, *sealed.files]
        ]
        gone = [Gone(name) for name in begin.sizes if name not in {move.file for move in moves}]
        changes: list[Change] = [*moves, *gone]
        journal = Journal(job.disk, job.path, begin)
        try:
            journal.add(commit, changes)
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
    around = sealed.nbytes + sum(len(given.content) for given in placement.given)
    written = moved.written + moved.copied + around
    return Amended(outcome, written, journal.written)


def _forget_commit(job: Amendment, staging: Staging, error: BaseException) -> None:
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
