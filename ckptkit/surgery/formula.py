"""What named edits have in common: formulas of the language, and catalogs that grow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ckptkit.deriving import Change
from ckptkit.edits import Assign
from ckptkit.errors import EditError
from ckptkit.expressions import (
    Current,
    Expr,
)
from ckptkit.globs import is_indirect, named, select
from ckptkit.model import DTYPES, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ckptkit.catalog import Catalog

X: Final = Current()
"""What a tensor holds now."""


def words(**options: object) -> str:
    """Return the options of a statement that are given, as they are written."""
    return "".join(f" {name}={value}" for name, value in options.items() if value is not None)


def extended(
    catalog: Catalog,
    added: Mapping[str, Tensor],
    gone: Sequence[str] = (),
    changed: Mapping[str, Tensor] | None = None,
) -> Change:
    """Return a catalog with further tensors at its end, and without some.

    Raises:
        EditError: A new name is taken, or empty, or that of two.
    """
    by_name: dict[str, Tensor] = {}
    for given, tensor in added.items():
        name = named(catalog, given)
        if name in by_name:
            msg = f"two new tensors would be named {name!r}"
            raise EditError(msg, tensor=name)
        by_name[name] = tensor
    gone = [select(catalog, name)[0] if is_indirect(catalog, name) else name for name in gone]
    lost = set(gone)
    for name in by_name:
        if not name or (name in catalog and name not in lost):
            msg = f"there is a tensor {name!r} already" if name else "no name given"
            raise EditError(msg, tensor=name)
    if lost:
        catalog = catalog.kept([name not in lost for name in catalog.names])
    if changed:
        catalog = catalog.with_tensors(changed)
    touched = tuple(dict.fromkeys((*(changed or ()), *by_name, *gone)))
    return Change(catalog.with_more(by_name) if by_name else catalog, touched)


class Formula:
    """An edit that is an assignment of the language."""

    glob: str

    def formula(self) -> Expr:
        """Return what the tensors become."""
        raise NotImplementedError

    def apply(self, catalog: Catalog) -> Change:
        """Derive the tensors."""
        return Assign(self.glob, self.formula()).apply(catalog)


def is_float(dtype: str) -> bool:
    """Tell whether a dtype is a floating-point one."""
    return dtype in DTYPES and DTYPES[dtype].kind == "float"
