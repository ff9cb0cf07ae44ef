"""Laying out a bundle of the tensors of a checkpoint of the first format."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from ckptkit.errors import EditError
from ckptkit.formats.tensorflow.reserve import reserve as reserve_bundle
from ckptkit.partition import JOINED
from ckptkit.sizes import listed
from ckptkit.storage.digest import digest
from ckptkit.storage.disk import Sources
from ckptkit.views import regrouped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ckptkit.catalog import Catalog
    from ckptkit.model import Source, Tensor
    from ckptkit.placement import Placement, Target

PIECE: Final = 1 << 20
"""Bytes that are summed at a time."""


def reserve(before: Catalog, after: Catalog, source: Source | None, target: Target) -> Placement:
    """Lay out the shards of a bundle; sum what has no checksum yet and is carried over.

    Raises:
        EditError: There is no checkpoint to read, or it is to be changed where it is.
        CorruptError: Values that are carried over are damaged.
        UnsupportedError: A dtype that a bundle cannot hold.
    """
    if source is None:
        msg = "TensorFlow's first format is read, and not written; write format 'tensorflow'"
        raise EditError(msg)
    if target.in_place:
        msg = (
            "a checkpoint of TensorFlow's first format is not changed where it is: give a"
            " destination, and what is written there is of the second format (V2)"
        )
        raise EditError(msg, path=str(source))
    placement = reserve_bundle(before, after, None, target)
    return replace(placement, checksum=_summed(after, placement))


def _summed(catalog: Catalog, placement: Placement) -> NDArray[np.uint32]:
    """Return the checksums of all items, those of decoded values among them."""
    columns, found = catalog.columns, placement.checksum.copy()
    unsummed = np.asarray(columns.flags) & columns.UNSUMMED != 0
    carried = np.flatnonzero(placement.source_file >= 0)
    sources = Sources()
    try:
        for item in carried[unsummed[placement.row[carried]]].tolist():
            row = int(placement.row[item])
            spec, size = columns.spec(row), int(placement.size[item])
            file = sources.file(columns.files[columns.shard[row]])
            stream = digest(spec.algorithm, spec.count)
            for at in range(0, size, PIECE):
                stream.update(file.read(at, min(PIECE, size - at)))
            found[item] = stream.value()
    finally:
        sources.close()
    return found


def joined(catalog: Catalog) -> tuple[Catalog, tuple[str, ...]]:
    """Return a catalog without slices that TensorFlow could not join, and which these were."""
    whole: dict[str, Tensor] = {}
    for at, (name, row) in enumerate(zip(catalog.names, catalog.rows, strict=True)):
        if row not in catalog.columns.parts and name not in catalog.single:
            continue
        tensor = catalog.tensor_at(at)
        if tensor.spec.dtype not in JOINED and len(tensor.boxes) > 1:
            whole[name] = regrouped(tensor, ())
    if not whole:
        return catalog, ()
    names = listed([repr(next(iter(whole)))], len(whole))
    note = f"slices of {names} are joined: TensorFlow reads no such slices from a bundle"
    return catalog.with_tensors(whole), (note,)
