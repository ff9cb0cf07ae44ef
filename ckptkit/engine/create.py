"""Making a checkpoint at a new place: staged, filled, sealed, published."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ckptkit.engine import preflight
from ckptkit.engine.receipts import Receipts, find_order
from ckptkit.engine.run import terms
from ckptkit.errors import EditError
from ckptkit.storage.disk import Sources
from ckptkit.storage.publish import Staging

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ckptkit.engine.plan import Plan
    from ckptkit.engine.run import Means, Outcome
    from ckptkit.placement import Placement, Sealed
    from ckptkit.storage.disk import Disk

LONG: Final = 64 << 20
"""Bytes from which a run leaves receipts: to do fewer again takes no time worth sparing."""


@dataclass(frozen=True, slots=True)
class Created:
    """What making a checkpoint did.

    Attributes:
        outcome: What running the work gave.
        written: All bytes of the new files.
        reused: Bytes carried over as they were; part of ``written``.
        resumed: Bytes that an earlier run had written; part of ``written``.
    """

    outcome: Outcome
    written: int
    reused: int
    resumed: int


def create(plan: Plan, means: Means, *, resume: bool) -> Created:
    """Run a plan whose result is at a new place.

    Args:
        plan: What to do.
        means: What to use.
        resume: Go on where an interrupted run stopped, and keep what this one did if it is
            interrupted.

    Raises:
        ConflictError: A source changed, or the destination appeared.
        EditError: It cannot be resumed.
        OSError: The file system refuses.
    """
    if resume and not plan.repeatable:
        msg = (
            "only an edit that is all statements can be resumed: nothing tells what a function does"
        )
        raise EditError(msg)
    plan.check_sources()
    placement, disk = plan.placement, means.disk
    whole = placement.folder is not None
    found = find_order(plan) if resume else None
    parent = os.path.dirname(os.path.abspath(plan.target.path))
    preflight.check_writable(parent)
    left = 0 if found is None else _bytes_in(found[0])
    preflight.check_space(parent, max(plan.space_needed() - left, 0), plan.largest_file)
    if found is not None:
        means = replace(means, device=found[1].device, chunk=found[1].chunk)
    adopted = None if found is None else found[0]
    with ExitStack() as stack:
        if resume:
            stack.enter_context(_told_to_resume(plan.destination))
        staging = stack.enter_context(
            Staging(plan.target.path, whole_folder=whole, disk=disk, adopt=adopted)
        )
        _place(staging, plan)
        write_given(staging, placement)
        receipts = _receipts(plan, staging, means, resumed=adopted is not None, resume=resume)
        if receipts is not None:
            stack.callback(receipts.close)
            # Without receipts nobody could go on from what is there.
            staging.keep = resume
        outcome = plan.fill(tuple(map(staging.staged, placement.files)), means, receipts)
        sealed = sealed_anew(plan, outcome, staging)
        copied = _copy_companions(plan, staging, disk, sealed.files)
        for path, content in sealed.files.items():
            staging.write(path, content)
        plan.check_sources()
        if receipts is not None:
            receipts.close()
        staging.publish()
    resumed = 0 if receipts is None else receipts.resumed_bytes
    moved = outcome.traffic
    reused = moved.copied + copied
    around = sealed.nbytes + sum(len(given.content) for given in placement.given)
    written = moved.written + reused + resumed + around
    return Created(outcome, written, reused, resumed)


def write_given(staging: Staging, placement: Placement) -> None:
    """Write what is around the tensors of staged files, as far as it is known beforehand."""
    for shard, offset, content in placement.given:
        staging.file(placement.files[shard]).write(content, offset)


def sealed_anew(plan: Plan, outcome: Outcome, staging: Staging) -> Sealed:
    """Return the metadata of staged files that are complete otherwise; splices are written."""
    placement = plan.placement
    sums = outcome.checksums if outcome.spans is None else outcome.spans
    sealed = plan.format.seal(plan.after, placement, sums)
    for path, splices in sealed.splices.items():
        for offset, content in splices:
            staging.file(path).write(content, offset)
    return sealed


@contextmanager
def _told_to_resume(destination: str) -> Iterator[None]:
    """Have the error that ends a run say how to go on."""
    try:
        yield
    except BaseException as error:
        text = "run it again with --resume to go on; to remove what it did: ckptkit recover"
        error.add_note(f"{text} {destination}")
        raise


def _place(staging: Staging, plan: Plan) -> None:
    placement = plan.placement
    for path, size, base in zip(
        placement.files, placement.file_sizes, placement.bases, strict=True
    ):
        if base is None:
            staging.create(path, size)
        else:
            staging.link(path, base)


def _receipts(
    plan: Plan, staging: Staging, means: Means, *, resumed: bool, resume: bool
) -> Receipts | None:
    if resumed:
        return Receipts.go_on(means.disk, staging.root)
    if not plan.repeatable or (plan.bytes_written < LONG and not resume):
        return None
    agreed = terms(plan.work, means)
    device = agreed.device or "numpy"
    return Receipts.start(means.disk, staging.root, plan, device, agreed.chunk)


def _bytes_in(folder: str) -> int:
    return sum(
        os.stat(os.path.join(place, name)).st_blocks * 512
        for place, _, names in os.walk(folder)
        for name in names
    )


def _copy_companions(plan: Plan, staging: Staging, disk: Disk, sealed: Mapping[str, bytes]) -> int:
    sources = Sources(disk)
    total = 0
    for old, new in plan.placement.companions:
        if new not in sealed:
            source = sources.file(old)
            target = staging.create(new)
            target.copy_from(source, 0, 0, source.size)
            total += source.size
    return total
