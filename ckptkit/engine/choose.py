"""From an edit and a place to a plan: which way of writing, and what it comes to."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, get_args

import numpy as np

from ckptkit.engine import preflight
from ckptkit.engine.manifest import manifest_path
from ckptkit.engine.overwrite import piece_bytes
from ckptkit.engine.patch import check_apart, entangled
from ckptkit.engine.plan import Plan
from ckptkit.engine.run import MEMORY
from ckptkit.engine.work import compile_work
from ckptkit.errors import EditError
from ckptkit.formats import absolute
from ckptkit.placement import Layout, Target, Way
from ckptkit.sizes import human_size
from ckptkit.storage.disk import stamp
from ckptkit.storage.sidecar import staging_folders, undo_numbers

if TYPE_CHECKING:
    from ckptkit.catalog import Catalog
    from ckptkit.formats import Format
    from ckptkit.model import Source
    from ckptkit.placement import Placement, Sealed
    from ckptkit.storage.disk import Stamp

WAYS: Final[tuple[str, ...]] = ("auto", *get_args(Way))
"""What ``how`` may be."""

LITTLE: Final = 1 << 20
"""Bytes that nobody minds writing, rather than leaving dead ones."""

AS_IT_IS: Final = Layout()


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """What somebody wants to have written, and where.

    Attributes:
        writer: The format.
        source: Where the checkpoint is that is edited; None for one made from scratch.
        before, after: The catalogs.
        destination: Where to; None for the same place.
        how: A way of writing, or ``auto``.
        layout: How to cut shards.
        edits: The statements.
        notes: What applying them found worth saying.
        stamps: Size and time of change of every source file, when it was opened.
        repeatable: The statements alone say what the edit is.
        keep_undo: Leave beside the checkpoint what undoes the edit.
        break_links: Give the checkpoint files of its own where it shares some.
        sync: Change what is written beside the tensors where it would contradict them.
    """

    writer: Format
    source: Source | None
    before: Catalog
    after: Catalog
    destination: str | None
    how: str = "auto"
    layout: Layout = AS_IT_IS
    edits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stamps: tuple[Stamp, ...] = ()
    repeatable: bool = False
    keep_undo: bool = False
    break_links: bool = False
    sync: bool = False


def build_plan(wish: Wish) -> Plan:
    """Lay an edited catalog out and say what writing it takes.

    Raises:
        EditError: There is something at the destination, the format refuses the edit, or it
            cannot be written that way.
    """
    if wish.how not in WAYS:
        msg = f"unknown way of writing {wish.how!r}; there are {', '.join(WAYS)}"
        raise EditError(msg)
    agreed = wish.writer.reconcile(wish.source, wish.before, wish.after, sync=wish.sync)
    wish = replace(
        wish,
        after=agreed.catalog,
        notes=(*wish.notes, *agreed.notes),
        # Statements alone do not say what else was changed.
        repeatable=wish.repeatable and not wish.sync,
    )
    return _new(wish) if wish.destination is not None else _in_place(wish)


# --- at a new place ----------------------------------------------------------------------------


def _new(wish: Wish) -> Plan:
    where = _destination(wish.destination or "")
    if wish.how in {"append", "patch"} or wish.keep_undo or wish.break_links:
        what = f"--how {wish.how}" if wish.how in {"append", "patch"} else "this"
        msg = f"{what} is for an edit in place: give no destination"
        raise EditError(msg)
    if wish.how == "link":
        return _planned(wish, Target(where, "link"), _linked(wish, where))
    target = Target(where, "copy", layout=wish.layout)
    plan = _planned(wish, target, wish.writer.reserve(wish.before, wish.after, wish.source, target))
    return replace(plan, notes=(*plan.notes, *_instead_of_copy(wish, plan, where)))


def _linked(wish: Wish, where: str) -> Placement:
    if wish.source is None or "link" not in wish.writer.ways:
        msg = f"a {wish.writer.name} checkpoint shares no files with another one; write a copy"
        raise EditError(msg)
    if wish.layout != AS_IT_IS:
        msg = "links keep the shards as they are; leave the layout alone, or write a copy"
        raise EditError(msg)
    if not _same_device(wish, where):
        msg = "links do not go across file systems, and the destination is on another one"
        raise EditError(msg, path=where)
    target = Target(where, "link")
    return wish.writer.reserve(wish.before, wish.after, wish.source, target)


def _same_device(wish: Wish, where: str) -> bool:
    return preflight.same_device(wish.before.columns.files.values(), os.path.dirname(where))


def _instead_of_copy(wish: Wish, plan: Plan, where: str) -> tuple[str, ...]:
    """Say what a link would cost, where nobody decided and it is much less."""
    if wish.how != "auto" or not plan.bytes_reused or wish.layout != AS_IT_IS:
        return ()
    placement = plan.placement
    written = int(placement.size[placement.source_file < 0].sum())
    if 2 * written > plan.bytes_written or "link" not in wish.writer.ways:
        return ()
    if not _same_device(wish, where):
        return ("copy: links do not go across file systems, and the destination is on another one",)
    text = (
        f"copy: stands alone; --how link would write {human_size(written)} of"
        f" {human_size(plan.bytes_written)}, and share files with the source"
    )
    return (text,)


def _destination(path: str) -> str:
    """Return a destination as an absolute path.

    Raises:
        EditError: It has no name of its own, or is a folder.
    """
    if not os.path.basename(path) or os.path.basename(path) in {".", ".."} or os.path.isdir(path):
        example = os.path.join(path, "model")
        msg = f"the destination is a folder; give the result a name in it, such as {example!r}"
        raise EditError(msg, path=path)
    return os.path.abspath(path)


# --- at the same place -------------------------------------------------------------------------


def _in_place(wish: Wish) -> Plan:
    if wish.source is None:
        msg = "there is nothing to edit in place"
        raise EditError(msg)
    if wish.how == "link":
        msg = "links are for a new place: give a destination"
        raise EditError(msg)
    if wish.layout != AS_IT_IS and wish.how not in {"auto", "copy"}:
        msg = "shards are cut anew only where all is written anew: --compact"
        raise EditError(msg)
    if wish.how == "copy" or wish.layout != AS_IT_IS:
        if wish.keep_undo:
            msg = "all files are written anew, which is not undone; keep a link or a copy instead"
            raise EditError(msg)
        plan = _planned(wish, *_reserved(wish, "copy"))
    elif wish.how == "auto":
        plan = _cheaper(wish)
    else:
        plan = _planned(wish, *_reserved(wish, wish.how))
    return replace(plan, notes=(*plan.notes, *_stale_undo(wish), *_stale_manifest(wish)))


def _reserved(wish: Wish, how: str) -> tuple[Target, Placement]:
    """Lay the result out at the place of the source.

    Raises:
        EditError: That does not go.
    """
    if wish.source is None or how not in wish.writer.ways:
        ways = " or ".join(way for way in ("patch", "append", "copy") if way in wish.writer.ways)
        msg = f"a {wish.writer.name} checkpoint is edited in place by {ways}, not by {how}"
        raise EditError(msg)
    source = absolute(wish.source)
    path = source.path
    way: Way = "copy" if how == "copy" else "patch" if how == "patch" else "append"
    target = Target(path, way, in_place=True, layout=wish.layout)
    placement = wish.writer.reserve(wish.before, wish.after, source, target)
    if how == "patch":
        check_apart(placement, wish.after)
    return target, placement


def _cheaper(wish: Wish) -> Plan:
    """Return the plan that costs fewer bytes, of those that go, and have it say why.

    A dead byte counts as much as one that is written: sooner or later somebody leaves it out.
    """
    if "append" not in wish.writer.ways:
        return _patch_or_copy(wish)
    reasons: list[str] = []
    patch = append = None
    try:
        patch = _planned(wish, *_reserved(wish, "patch"))
        if patch.entangled and patch.bytes_journal > piece_bytes(MEMORY, whole=True):
            reasons.append("a tensor is computed from another one that changes")
            patch = None
    except EditError as error:
        reasons.append(error.message.partition(";")[0])
    try:
        append = _reserved(wish, "append")
    except EditError:
        if patch is None:
            raise
    if append is None or patch is None:
        if append is None and patch is not None:
            return _because(patch, "there is nothing to append to")
        why = f"patch does not go: {reasons[0]}" if reasons else ""
        return _because(_planned(wish, *(append or _reserved(wish, "append"))), why)
    moved = int(append[1].size[~append[1].stays].sum())
    patched = patch.bytes_written + patch.bytes_journal
    if not moved:
        return _because(_planned(wish, *append), "only the index changes")
    if patched <= max(2 * moved, LITTLE):
        text = (
            f"writes {human_size(patched)}, journal included;"
            f" append would write {human_size(moved)}, and leave as many dead bytes"
        )
        return _because(patch, text)
    text = (
        f"writes {human_size(moved)}; patch would write {human_size(patched)}, journal included;"
        " what is replaced stays as dead bytes, until --compact"
    )
    return _because(_planned(wish, *append), text)


def _patch_or_copy(wish: Wish) -> Plan:
    """Return the cheaper plan of a format to which nothing is appended."""
    try:
        patch = _planned(wish, *_reserved(wish, "patch"))
    except EditError as error:
        if wish.keep_undo:
            raise
        copied = _planned(wish, *_reserved(wish, "copy"))
        return _because(copied, f"patch does not go: {error.message.partition(';')[0]}")
    if wish.keep_undo:
        return patch
    copied = _planned(wish, *_reserved(wish, "copy"))
    before = int(np.asarray(wish.before.columns.size).sum())
    dead = max(before - int(patch.placement.size.sum()), 0)
    patched = patch.bytes_written + patch.bytes_journal + dead
    memory = patch.entangled and patch.bytes_journal > piece_bytes(MEMORY, whole=True)
    if memory or patched > max(copied.bytes_written, LITTLE):
        left = f" and leave {human_size(dead)} dead" if dead else ""
        text = (
            f"writes {human_size(copied.bytes_written)};"
            f" patch would write {human_size(patched - dead)}, journal included,{left}"
        )
        return _because(copied, text.removesuffix(","))
    text = f"writes {human_size(patched - dead)}, journal included"
    if patched == dead:
        text = "only metadata changes"
    if dead:
        text = f"{text}, and leaves {human_size(dead)} dead until --compact"
    return _because(patch, f"{text}; a copy would write {human_size(copied.bytes_written)}")


def _because(plan: Plan, why: str) -> Plan:
    return replace(plan, notes=(*plan.notes, f"{plan.how}: {why}")) if why else plan


def _stale_undo(wish: Wish) -> tuple[str, ...]:
    if wish.keep_undo or wish.source is None:
        return ()
    kept = undo_numbers(os.path.abspath(wish.source.path))
    if not kept:
        return ()
    return ("earlier edits can no longer be undone after this one, which keeps no undo",)


def _stale_manifest(wish: Wish) -> tuple[str, ...]:
    if wish.source is None or not os.path.lexists(manifest_path(wish.source)):
        return ()
    return (f"its manifest is of the tensors as they were; anew: ckptkit manifest {wish.source}",)


# --- what it comes to --------------------------------------------------------------------------


def _planned(wish: Wish, target: Target, placement: Placement) -> Plan:
    if not target.in_place:
        taken = [placement.folder] if placement.folder else [*placement.files, placement.index]
        for path in taken:
            if os.path.lexists(path):
                msg = (
                    "the destination exists; choose another one, or remove it first (to edit a"
                    " checkpoint where it is, give no destination: --in-place)"
                )
                if staging_folders(target.path):
                    msg = f"an interrupted run left this; first: ckptkit recover {target.path}"
                raise EditError(msg, path=path)
    work = compile_work(wish.after, placement)
    payloads = sum(map(len, placement.payloads.values()))
    computed = work.bytes_computed + payloads
    companions = {old: new for old, new in placement.companions if old != new}
    sealed = _sealed(wish, placement)
    sizes = {old: os.stat(old).st_size for old, new in companions.items()}
    carried = {old: size for old, size in sizes.items() if companions[old] not in sealed.files}
    reused = int(work.moves.size.sum()) + sum(carried.values())
    index = sealed.nbytes + sum(len(given.content) for given in placement.given)
    patches = target.how == "patch"
    journal = 0
    if patches:
        rest = computed - sum(region.nbytes for region in work.regions)
        journal = 2 * rest + sum(region.journal_bytes for region in work.regions)
    elif target.in_place and target.how == "append":
        journal = index + os.path.getsize(placement.index)
    destination = wish.destination if not target.in_place else str(wish.source)
    return Plan(
        target,
        wish.source,
        target.path if destination is None or not target.in_place else destination,
        wish.before,
        wish.after,
        placement,
        work,
        wish.edits,
        wish.notes,
        work.bytes_read,
        computed,
        reused,
        int(placement.size[placement.stays].sum()),
        computed + reused + (0 if patches else index),
        journal,
        (*wish.stamps, *map(stamp, carried)),
        wish.writer,
        # A statistic of what is half changed would be another one.
        wish.repeatable and not work.statistics,
        entangled=patches and entangled(wish.after),
        keep_undo=wish.keep_undo,
        break_links=wish.break_links,
    )


def _sealed(wish: Wish, placement: Placement) -> Sealed:
    """Return what sealing gives but for checksums, whatever which it is as long."""
    if placement.spans is not None:
        none = np.zeros(len(placement.spans), np.uint32)
        return wish.writer.seal(wish.after, placement, none)
    new = placement.source_file < 0
    # What is not known yet is no 0: TensorFlow leaves out a masked 0, and the size would differ.
    sums = np.where(new, np.uint32(1), placement.checksum)
    sums[new & (placement.size == 0)] = 0
    return wish.writer.seal(wish.after, placement, sums)
