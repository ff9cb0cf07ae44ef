"""What goes with an edit of weights: what is stored twice, and what the configuration says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ckptkit.errors import EditError, FormatError
from ckptkit.formats import Reconciled
from ckptkit.formats.keras.config.agreement import SpecChange, disagreements, read_config, synced
from ckptkit.formats.keras.naming.twins import kept_in_step, twins

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptkit.catalog import Catalog
    from ckptkit.model import Source

SHOWN: Final = 8
"""Disagreements that have a note each."""

_OPTIMIZERS: Final = ("optimizer/", "optimizer_weights/")


def reconcile(source: Source | None, before: Catalog, after: Catalog, *, sync: bool) -> Reconciled:
    """Return an edited catalog with what has to go with the edit, and notes.

    Args:
        source: Where ``before`` is; None for a checkpoint made from scratch.
        before: The tensors as they are stored.
        after: What edits made of them.
        sync: Change the configuration where weights of plain layers contradict it.

    Raises:
        EditError: The edit leaves two tensors apart that are one, or there is no configuration.
    """
    after, notes = kept_in_step(before, after, twins(before.specs()))
    notes = (*notes, *_optimizer(before, after), *_left_behind(before, after))
    text = after.attachments.get("config")
    if text is None:
        if sync:
            msg = "there is no configuration here to keep in step: these are weights alone"
            raise EditError(msg, path=None if source is None else str(source))
        return Reconciled(after, notes)
    changes = list(_changes(before, after))
    if not changes:
        return Reconciled(after, notes)
    try:
        config = read_config(text)
    except FormatError as error:
        if sync:
            raise
        return Reconciled(after, (*notes, f"the configuration does not read: {error.message}"))
    found = disagreements(config, changes)
    fixed = [one for one in found if sync and one.fix is not None]
    left = [one.text for one in found if one not in fixed]
    if fixed:
        after = after.with_attachments({"config": synced(config, found)})
        fields = ", ".join(dict.fromkeys(f"{one.layer}.{one.field}" for one in fixed))
        notes = (*notes, f"config: {fields} changed to go with the weights")
    if len(left) > SHOWN:
        left = [*left[:SHOWN], f"and {len(left) - SHOWN} more disagreements"]
    if not sync and any(one.fix is not None for one in found):
        left.append("--sync-config changes the configuration where that can be told")
    return Reconciled(after, (*notes, *left))


def _optimizer(before: Catalog, after: Catalog) -> Iterator[str]:
    """Say that an optimizer may go."""
    for prefix in _OPTIMIZERS:
        had = any(name.startswith(prefix) for name in before.names)
        if had and not any(name.startswith(prefix) for name in after.names):
            yield "the state of the optimizer goes: Keras loads without it, and starts afresh"


def _left_behind(before: Catalog, after: Catalog) -> Iterator[str]:
    """Say that the state of an optimizer no longer fits weights of another shape."""
    old, new = dict(before.specs()), dict(after.specs())
    reshaped = [name for name, spec in new.items() if name in old and old[name].shape != spec.shape]
    state = [name for name in new if name.startswith(_OPTIMIZERS) and new[name].shape]
    if reshaped and state and not any(name.startswith(_OPTIMIZERS) for name in reshaped):
        yield (
            f"{reshaped[0]!r} has another shape, and the state of the optimizer is as it was: Keras"
            f' fails to load that; "drop {state[0].partition("/")[0]}/**" leaves it out'
        )


def _changes(before: Catalog, after: Catalog) -> Iterator[SpecChange]:
    """Yield what of weights with a label is other than before."""
    columns = before.columns
    if not columns.labels:
        return
    # A rename leaves a file in which Keras, which goes by paths, does not find the weight.
    there = {(name, row) for name, row in zip(after.names, after.rows, strict=True) if row >= 0}
    by_order = any(name.startswith("model_weights/") for name in before.names)
    kept = {row for _, row in there}
    specs = dict(zip(after.rows, (spec for _, spec in after.specs()), strict=True))
    for name, row in zip(before.names, before.rows, strict=True):
        stays = row in kept if by_order else (name, row) in there
        old, new = columns.spec(row), specs.get(row) if stays else None
        if old != new:
            yield SpecChange(columns.labels[row] or None, old, new)
