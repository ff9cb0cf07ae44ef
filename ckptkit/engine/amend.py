"""Editing in place: at the end of a shard, inside it, or by a whole new set of files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ckptkit.engine import preflight
from ckptkit.engine.amendment import Amended, Amendment, locked
from ckptkit.engine.overwrite import overwrite
from ckptkit.engine.rewrite import rewrite
from ckptkit.storage.changes import Tail, Whole
from ckptkit.storage.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ckptkit.engine.plan import Plan
    from ckptkit.engine.run import Means
    from ckptkit.model import Source
    from ckptkit.storage.frames import Begin


def amend(plan: Plan, source: Source, means: Means) -> Amended:
    """Run a plan that edits a checkpoint where it is.

    Raises:
        ConflictError: The checkpoint changed since it was opened, is being edited, or shares
            files with another one.
        NeedsRecoveryError: An earlier edit of it was cut short.
        EditError: The memory does not suffice, or a kernel does not do what it said.
        OSError: The file system refuses.
    """
    ways: Mapping[str, Callable[[Amendment], Amended]] = {
        "append": _append,
        "patch": overwrite,
        "copy": rewrite,
    }
    with locked(source):
        plan.check_sources()
        job = Amendment(plan, source, means)
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
    job = Amendment(plan, source, means)
    return overwrite(job, begin)


def _append(job: Amendment) -> Amended:
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
