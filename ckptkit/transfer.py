"""Values of one checkpoint in the form of another one: an edit that pairs of names make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptkit.deriving import Change
from ckptkit.errors import EditError
from ckptkit.expressions import Convert, Current
from ckptkit.kernels import Expression
from ckptkit.matching import Entry, match

if TYPE_CHECKING:
    from ckptkit.catalog import Catalog
    from ckptkit.matching import By, Matching
    from ckptkit.model import Tensor

SHOWN: Final = 2
"""Reasons that a message gives."""

OLD: Final = "old"
"""The name that the checkpoint is bound to that has the values."""


@dataclass(frozen=True)
class Transfer:
    """Give tensors the values of their partners in another checkpoint.

    Attributes:
        matching: Which is whose partner.
        by: What the partners were found by.
    """

    matching: Matching
    by: By

    def __str__(self) -> str:
        """Return what it does."""
        return f"{len(self.matching.pairs)} tensors of the old checkpoint, by {self.by}"

    def apply(self, catalog: Catalog) -> Change:
        """Derive every tensor that has a partner from that one."""
        old = catalog.others[OLD]
        made = {
            pair.new: _in_form(catalog[pair.new], old[pair.old]) for pair in self.matching.pairs
        }
        return Change(catalog.with_tensors(made), tuple(made))


def _in_form(form: Tensor, values: Tensor) -> Tensor:
    """Return the values of a tensor, with the dtype of another one."""
    expr = Current() if form.spec == values.spec else Convert(Current(), form.spec.dtype)
    kernel = Expression(expr, form.spec.dtype)
    return form.derive(kernel, (values,))


def matched(old: Catalog, template: Catalog, by: By) -> Matching:
    """Find the partners of a template's tensors.

    Raises:
        EditError: There is no such way to match, or no tensor has a partner.
    """
    found = match(entries(old), entries(template), by)
    if not found.pairs:
        reasons = " and ".join(dict.fromkeys(one.reason for one in found.unmatched_new[:SHOWN]))
        msg = f"by {by}, no tensor has a partner in the template"
        raise EditError(f"{msg}: {reasons}" if reasons else msg)
    return found


def entries(catalog: Catalog) -> list[Entry]:
    """Return what is known of all tensors of a catalog."""
    labels = catalog.labels
    return [
        Entry(name, label or None, spec)
        for (name, spec), label in zip(catalog.specs(), labels, strict=True)
    ]
