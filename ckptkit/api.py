"""The library's face beside checkpoints themselves: convert, compare, save, recover, salvage."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from ckptkit.catalog import Catalog
from ckptkit.checkpoint import Checkpoint, Draft, open  # noqa: A004  it opens, as gzip.open does
from ckptkit.formats import Format, by_name
from ckptkit.model import Derived, Source, Tensor
from ckptkit.placement import Layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ckptkit.edits import Edit
    from ckptkit.engine.check import Difference
    from ckptkit.engine.plan import Plan, Report
    from ckptkit.engine.recover import Recovery
    from ckptkit.engine.salvage.account import Salvaged
    from ckptkit.matching import By, Matching
    from ckptkit.storage.disk import Disk

    Array = NDArray[Any]
    Progress = Any

_KEEP: Final = Layout()


def matched(
    old: Checkpoint | str | os.PathLike[str],
    template: Checkpoint | str | os.PathLike[str],
    *,
    by: By = "name",
    others: Mapping[str, Checkpoint | str] | None = None,
) -> tuple[Draft, Matching]:
    """Return a template with the values of another checkpoint where they belong, as a draft.

    Names, shapes, dtypes and whatever else is in the files are the template's. A tensor without a
    partner keeps the template's values.

    Args:
        old: Has the values.
        template: Has the form: a checkpoint of the model as it is now.
        by: ``name``: names of layers and of their weights, which do not shift when a layer is
            added; ``shape``: shapes of layers in order, where that is sure; ``order``: the i-th
            gets the i-th, as Keras loads.
        others: Further checkpoints that edits of the draft may read, as in
            :meth:`Checkpoint.edit`; ``old`` is the one that has the values.

    Raises:
        EditError: No tensor has a partner.
        CkptError: One of them cannot be read.
    """
    from ckptkit.transfer import OLD, Transfer
    from ckptkit.transfer import matched as partners

    one, other = (item if isinstance(item, Checkpoint) else open(item) for item in (old, template))
    found = partners(one.catalog, other.catalog, by)
    return other.edit(Transfer(found, by), others={**(others or {}), OLD: one}), found


def convert(
    src: Checkpoint | str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *edits: str | Edit,
    match: Checkpoint | str | os.PathLike[str] | None = None,
    by: By = "name",
    layout: Layout = _KEEP,
    sync_config: bool = False,
) -> Report:
    """Write a checkpoint as what the name of ``dst`` says, or in the form of another one.

    Args:
        src: A checkpoint.
        dst: Where the result will be: ``X.weights.h5``, ``X.weights.json``, and so on.
        edits: Edits of the result.
        match: A checkpoint whose form the result has; see :func:`matched`.
        by: What partners are found by, with ``match``.
        layout: How to cut shards.
        sync_config: As in :meth:`Draft.plan`.

    Raises:
        EditError: There is something at the place, or the result cannot be of that kind.
    """
    if match is not None:
        draft = matched(src, match, by=by)[0]
    else:
        draft = (src if isinstance(src, Checkpoint) else open(src)).edit()
    return draft.edit(*edits).plan(dst, "copy", layout, sync_config=sync_config).run()


def save(
    path: str | os.PathLike[str],
    tensors: Mapping[str, object],
    *,
    format: str = "tensorflow",  # noqa: A002  the word that users expect
    layout: Layout = _KEEP,
) -> Report:
    """Write a new checkpoint from values in memory.

    Args:
        path: Where it will appear.
        tensors: NumPy arrays, numbers, or text by name; their order is the order of the bytes.
        format: The name of the format.
        layout: How to cut shards; one by default.

    Raises:
        EditError: There is something at the path, or a value cannot be stored.
    """
    from ckptkit.edits import encode
    from ckptkit.engine.choose import Wish, build_plan

    given = {name: encode(values, copy=False) for name, values in tensors.items()}
    catalog = Catalog.of({name: Tensor(one.spec, Derived(one)) for name, one in given.items()})
    empty, where = Catalog.of({}), os.fspath(path)
    wish = Wish(by_name(format), None, empty, catalog, where, "copy", layout)
    return build_plan(wish).run()


def recover(
    path: str | os.PathLike[str],
    *,
    memory: int | None = None,
    progress: Progress | None = None,
    disk: Disk | None = None,
) -> Recovery:
    """Bring a checkpoint to the state before or after an edit in place that was cut short.

    It can be interrupted, and called again. A checkpoint that needs nothing stays as it is.
    Folders that interrupted copies to this path left are removed.

    Args:
        path: The checkpoint, or where a copy was to be.
        memory: Bytes of staging memory, where the edit has to be gone on with.
        progress: Called with bytes done and bytes in all.
        disk: The file system; tests put another one here.

    Raises:
        ConflictError: Another process edits it, or it was written anew since.
        CorruptError: The journal is damaged.
        FileNotFoundError: There is nothing at the path, nor was there to be.
    """
    from ckptkit.engine.recover import recover
    from ckptkit.engine.run import MEMORY

    def again(form: Format, source: Source, edits: tuple[str, ...]) -> Plan:
        checkpoint = Checkpoint(form, source, form.scan(source))
        return checkpoint.edit(*edits).plan(how="patch")

    return recover(os.fspath(path), again, memory or MEMORY, progress, disk)


def salvage(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    donor: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    sizes: str | os.PathLike[str] | None = None,
    *,
    keep_damaged: bool = False,
    dry_run: bool = False,
    memory: int | None = None,
    progress: Progress | None = None,
    writing: Progress | None = None,
    disk: Disk | None = None,
) -> Salvaged:
    """Write a sound checkpoint of what can be saved of a damaged TensorFlow checkpoint.

    The damaged one stays as it is. Every value in the result is the one that was saved, by its
    checksum, or is named in the account: found without a record, filled from a donor, or kept
    damaged.

    Args:
        src: The damaged checkpoint; its index or some of its shards may be missing.
        dst: Where the result will be.
        donor: One or several checkpoints of the same model, from which lost tensors are filled,
            and by whose layout a lost index is made anew.
        sizes: A table of what is in the data files: lines ``name dtype [shape]`` in the order of
            the bytes, or what ``ckptkit ls --json`` prints of a checkpoint of the same model.
        keep_damaged: Keep tensors whose bytes are all there, but have another checksum.
        dry_run: Say what would be saved, and write nothing.
        memory: Bytes of staging memory.
        progress: Called with bytes done and bytes in all, of each pass that reads.
        writing: The same for what is written.
        disk: The file system; tests put another one here.

    Raises:
        CorruptError: Nothing can be saved, or the sizes do not fit the data files.
        EditError: There is something at ``dst``, or a donor cannot be one.
        FileNotFoundError: There is nothing of a checkpoint.
        UnsupportedError: It is a checkpoint of another format.
    """
    from ckptkit.engine.salvage.prepare import prepare

    given = [donor] if isinstance(donor, str | os.PathLike) else donor or []
    found = prepare(
        os.fspath(src),
        os.fspath(dst),
        donors=[os.fspath(one) for one in given],
        sizes=None if sizes is None else os.fspath(sizes),
        keep_damaged=keep_damaged,
        progress=progress,
    )
    return found if dry_run else found.write(writing, memory, disk)


def undo(path: str | os.PathLike[str], *, disk: Disk | None = None) -> Recovery:
    """Take back the latest edit in place that kept an undo: every file gets its bytes back.

    Args:
        path: The checkpoint.
        disk: The file system; tests put another one here.

    Raises:
        EditError: No undo is kept.
        ConflictError: The checkpoint changed since that edit, or another process edits it.
        NeedsRecoveryError: An edit in place was cut short.
    """
    from ckptkit.engine.recover import undo

    return undo(os.fspath(path), disk)


def discard_undo(path: str | os.PathLike[str], *, disk: Disk | None = None) -> tuple[str, ...]:
    """Remove what is kept to undo edits of a checkpoint, and undo none; return the paths.

    Args:
        path: The checkpoint.
        disk: The file system; tests put another one here.

    Raises:
        ConflictError: Another process edits it.
        NeedsRecoveryError: An edit in place was cut short.
    """
    from ckptkit.engine.recover import discard_undo

    return discard_undo(os.fspath(path), disk)


def manifest(
    path: str | os.PathLike[str], *, progress: Progress | None = None, disk: Disk | None = None
) -> str:
    """Write a checksum for every tensor to a file beside a checkpoint; return its path.

    For formats that have no checksums of their own. Verifying compares tensors with it from then
    on; after an edit it has to be made anew.

    Args:
        path: The checkpoint.
        progress: Called with bytes done and bytes in all.
        disk: The file system; tests put another one here.

    Raises:
        CorruptError: A tensor differs from the checksum that the checkpoint has of it.
        ConflictError: The checkpoint was edited meanwhile.
    """
    from ckptkit.engine.manifest import write_manifest

    with open(path) as checkpoint:
        return write_manifest(checkpoint, None, progress, disk).path


def diff(
    a: str | os.PathLike[str] | Checkpoint,
    b: str | os.PathLike[str] | Checkpoint,
    *,
    values: bool = False,
    progress: Progress | None = None,
) -> tuple[Difference, ...]:
    """Compare two checkpoints: names, dtypes and shapes, and values.

    Values are compared by their checksums, and by their bytes only where checksums cannot tell.

    Args:
        a: A checkpoint, or the path of one.
        b: Another one.
        values: Say by how much values differ, which reads those that do.
        progress: Called with bytes done and bytes in all.

    Raises:
        CkptError: One of them cannot be read, or was edited in place meanwhile.
    """
    from ckptkit.engine.check import compare

    one, other = (item if isinstance(item, Checkpoint) else open(item) for item in (a, b))
    found = tuple(compare(one, other, values=values, progress=progress))
    one.check_unchanged()
    other.check_unchanged()
    return found
