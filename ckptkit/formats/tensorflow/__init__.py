"""TensorFlow's V2 checkpoints, "bundles": an index table and data shards. See FORMAT.md."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from ckptkit.errors import EditError
from ckptkit.formats.tensorflow.graph.structure import GraphStructure
from ckptkit.formats.tensorflow.paths import (
    FINGERPRINT,
    INDEX,
    VARIABLES,
    is_member,
    resolve,
    unused_shards,
)
from ckptkit.formats.tensorflow.scan import scan_index

if TYPE_CHECKING:
    from collections.abc import Buffer, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ckptkit.catalog import Catalog
    from ckptkit.formats import Member, Reconciled, Warn
    from ckptkit.model import Source, TensorSpec
    from ckptkit.placement import Placement, Sealed, Target, Way


class TensorFlow:
    """The format object. What writes is imported only when something is written."""

    name = "tensorflow"
    ways: frozenset[Way] = frozenset({"copy", "link", "append", "patch"})
    index_tells = True

    def detect(self, path: str) -> Source | None:
        """Return the bundle that a path stands for."""
        return resolve(path)

    def scan(self, source: Source) -> Catalog:
        """Read the index of a bundle."""
        return scan_index(source.path)

    def audit(self, source: Source, catalog: Catalog, warn: Warn) -> None:
        """Report damage that no reader minds."""
        from ckptkit.formats.tensorflow.audit import audit_index

        audit_index(source.path, catalog, warn)
        if source.folder is not None:
            from ckptkit.formats.tensorflow.savedmodel import audit_fingerprint

            audit_fingerprint(source.folder, warn)

    def members(self, source: Source) -> Sequence[Member]:  # noqa: ARG002  the protocol's
        """Return nothing: only tensors have checksums."""
        return ()

    def decode(self, payload: Buffer, spec: TensorSpec, byteorder: str) -> Sequence[bytes]:
        """Split a string or variant tensor into its elements."""
        from ckptkit.formats.tensorflow.payload import decode

        return decode(payload, spec, byteorder)

    def files(self, source: Source, catalog: Catalog) -> Sequence[str]:
        """Return index and shards: those that tensors are in, then others that are there."""
        columns = catalog.columns
        used = columns.files.values()
        return [source.path + INDEX, *used, *unused_shards(source.path, columns.shards, used)]

    def owns(self, source: Source, path: str) -> bool:
        """Tell whether a path is that of the index, a shard, or a SavedModel's fingerprint."""
        beside = os.path.join(source.folder, FINGERPRINT) if source.folder else None
        return path == beside or is_member(source.path, path)

    def reconcile(
        self,
        source: Source | None,
        before: Catalog,
        after: Catalog,
        *,
        sync: bool,
    ) -> Reconciled:
        """Return the catalog with the object graph that goes with its names."""
        from ckptkit.formats import Reconciled
        from ckptkit.formats.tensorflow.savedmodel import check_twins

        if sync:
            msg = "a TensorFlow checkpoint has no configuration to keep in step"
            raise EditError(msg)
        structure, in_model = after.structure, source is not None and source.folder is not None
        if in_model:
            check_twins(before, after)
        if not isinstance(structure, GraphStructure):
            return Reconciled(after)
        if in_model and list(before.names) != list(after.names):
            # Which is refused as well, when places are given.
            return Reconciled(after)
        settled, notes = structure.settled(after)
        if in_model and settled is not after:
            msg = (
                "this edit changes the paths of objects, which saved_model.pb has as well, so that"
                f" the SavedModel would not load; to edit the variables alone, copy {VARIABLES}.*"
                " out of it first"
            )
            raise EditError(msg, path=str(source))
        return Reconciled(settled, notes)

    def reserve(
        self, before: Catalog, after: Catalog, source: Source | None, target: Target
    ) -> Placement:
        """Lay out the shards of a bundle."""
        from ckptkit.formats.tensorflow.reserve import reserve

        return reserve(before, after, source, target)

    def seal(self, catalog: Catalog, placement: Placement, checksums: NDArray[np.uint32]) -> Sealed:
        """Write the index of a new bundle, and a SavedModel's fingerprint of it."""
        from ckptkit.formats.tensorflow.savedmodel import read_fingerprint, with_checkpoint_hash
        from ckptkit.formats.tensorflow.seal import seal
        from ckptkit.placement import Sealed

        index = seal(catalog, placement, checksums)
        sealed: dict[str, bytes] = {}
        for old, new in placement.companions:
            if new == os.path.join(placement.folder or "", FINGERPRINT):
                sealed[new] = with_checkpoint_hash(read_fingerprint(old), index, path=old)
        return Sealed({**sealed, placement.index: index})


TENSORFLOW: Final = TensorFlow()
"""The format, ready for use."""
