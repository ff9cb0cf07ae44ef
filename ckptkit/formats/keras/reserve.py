"""Giving tensors their places: as a mirror of the old files, in new ones, or where they are."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from ckptkit.bulk import as_int64s
from ckptkit.errors import EditError
from ckptkit.formats.items import Holds, Items
from ckptkit.formats.keras.archive.reader import WEIGHTS
from ckptkit.formats.keras.naming.families import family_of
from ckptkit.formats.keras.package import opened
from ckptkit.formats.keras.paths import MAP
from ckptkit.formats.keras.scan import CODES, merged
from ckptkit.placement import Layout
from ckptkit.storage.virtual import is_virtual

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ckptkit.catalog import Catalog
    from ckptkit.formats.keras.package import Package
    from ckptkit.formats.keras.paths import Kind
    from ckptkit.model import Source
    from ckptkit.placement import Placement, Target

HOLDS: Final = Holds(
    "a Keras file",
    {
        name
        for name in CODES
        if name in {"bool", "bfloat16", "float16", "float32", "float64", "complex64", "complex128"}
        or name.removeprefix("u").removeprefix("int") in {"8", "16", "32", "64"}
    },
)
"""What HDF5 has a type for, or Keras a way to say it has not."""

_NAMED: Final = {"weights": ".weights.h5", "legacy": ".h5", "legacy-weights": ".h5"}
"""What a file of a family has to be called for Keras to read it: it looks at nothing else."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What is to be laid out.

    Attributes:
        before, after: The catalogs.
        package: The checkpoint as it lies in files; None where it is made from scratch.
        target: Where to, and how.
        kind: What kind of files it is to be.
        items: The stored runs of ``after``.
    """

    before: Catalog
    after: Catalog
    package: Package | None
    target: Target
    kind: Kind
    items: Items

    @property
    def texts(self) -> Mapping[str, bytes]:
        """What is written beside the weights that is other than before."""
        old, new = self.before.attachments, self.after.attachments
        return {role: text for role, text in new.items() if old.get(role) != text}

    @property
    def moved(self) -> bool:
        """Whether there are other names than before, or other tensors behind them."""
        before, after = self.before, self.after
        return list(before.names) != list(after.names) or list(before.rows) != list(after.rows)

    def respecified(self) -> str | None:
        """Return the first tensor that changes its dtype or shape, or is new."""
        after = self.after
        for at in after.changed_at().tolist():
            row = after.rows[at]
            if row < 0 or after.spec_at(at) != self.before.columns.spec(row):
                return str(after.names[at])
        return None

    def indirect(self) -> NDArray[np.bool_]:
        """Tell which items are, or were, no single run of bytes."""
        columns = self.before.columns
        numbers = [at for at, path in columns.files.items() if is_virtual(path)]
        shard = np.asarray(columns.shard)
        known = self.items.row >= 0
        found = np.zeros(len(known), bool)
        found[known] = np.isin(shard[self.items.row[known]], numbers)
        return found

    def shares(self) -> bool:
        """Tell whether another name stands for the bytes of a tensor that changes."""
        columns = self.before.columns
        rows = as_int64s(self.after.rows)
        used = np.asarray(columns.size)[rows] > 0
        changed = np.zeros(len(rows), bool)
        changed[self.after.changed_at()] = True
        places = np.stack([np.asarray(columns.shard)[rows], np.asarray(columns.offset)[rows]])
        _, which, count = np.unique(
            places[:, used], axis=1, return_inverse=True, return_counts=True
        )
        return bool((count[which.reshape(-1)][changed[used]] > 1).any())


def reserve(before: Catalog, after: Catalog, source: Source | None, target: Target) -> Placement:
    """Give every tensor of ``after`` its place in the files of the target.

    Args:
        before: The catalog as it was scanned.
        after: The catalog to be stored.
        source: Where ``before`` is, None for a checkpoint made from scratch.
        target: Where to, and the way of writing.

    Raises:
        EditError: The edit cannot be written that way.
        UnsupportedError: A dtype that a Keras file cannot hold.
    """
    from ckptkit.formats.keras import mirror, rebuild

    cut = next((name for name, tensor in after.single.items() if len(tensor.boxes) > 1), None)
    if cut is not None:
        msg = f"a Keras file holds tensors in one piece, and {cut!r} is to be in slices"
        raise EditError(msg, path=target.path, tensor=cut)
    items = Items(after, HOLDS)
    with ExitStack() as stack:
        package = None if source is None else stack.enter_context(opened(source))
        kind = _kind(package, target)
        request = Request(before, after, package, target, kind, items)
        _check_layout(request)
        if target.how == "patch":
            return mirror.patched(request)
        if mirror.fits(request):
            return mirror.copied(request)
        return rebuild.rebuilt(request)


def _kind(package: Package | None, target: Target) -> Kind:
    """Return what kind of files the result is: as its name says, else as the source is.

    Raises:
        EditError: The result cannot be of that kind, or Keras would not know it by that name.
    """
    name = os.path.basename(target.path)
    old: Kind = "hdf5" if package is None else package.kind
    if target.in_place and package is not None:
        return old
    family = None if package is None else family_of(merged(package))
    if name.endswith(".keras"):
        if old not in {"archive", "folder"}:
            msg = (
                "a .keras holds the configuration of a model, and these are weights alone; give"
                " one to take it from: ckptkit convert SRC DST --match TEMPLATE.keras"
            )
            raise EditError(msg, path=target.path)
        return "archive"
    wanted = _NAMED.get(family or "")
    if name.endswith(MAP):
        if family not in {"weights", None}:
            msg = "only weights of Keras 3 are cut into shards, and this is a legacy file"
            raise EditError(msg, path=target.path)
        return "shards"
    if name.endswith((".h5", ".hdf5")):
        of_weights = name.endswith(".weights.h5")
        if wanted is not None and of_weights != (wanted == ".weights.h5"):
            msg = f"Keras tells by its name what a file holds: it has to end in {wanted}"
            raise EditError(msg, path=target.path)
        return "hdf5"
    if old != "folder":
        ending = {"archive": ".keras", "shards": MAP}.get(old, wanted)
        if ending is not None:
            msg = f"Keras tells by its name what a file holds: it has to end in {ending}"
            raise EditError(msg, path=target.path)
    return old


def _check_layout(request: Request) -> None:
    """Refuse to cut what is one file.

    Raises:
        EditError: Somebody asks for that.
    """
    layout = request.target.layout
    if request.kind != "shards" and not is_plain(replace(layout, contiguous=False, names=False)):
        msg = f"only a map of shards is cut into several files: write to a path that ends in {MAP}"
        raise EditError(msg, path=request.target.path)


def weights_path(request: Request) -> str:
    """Return the path of the file that holds the weights, where it is a single one."""
    source = request.package.source if request.package is not None else None
    if request.target.in_place and source is not None:
        return os.path.abspath(source.path)
    if request.kind == "folder":
        return os.path.join(request.target.path, WEIGHTS)
    return request.target.path


def is_plain(layout: Layout) -> bool:
    """Tell whether nobody wants files to be cut anew."""
    return layout == Layout()
