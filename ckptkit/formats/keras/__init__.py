"""Checkpoints of Keras: ``.weights.h5``, ``.weights.json``, ``.keras``, ``.h5``. See FORMAT.md."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from ckptkit.errors import UnsupportedError
from ckptkit.formats.keras.paths import CONFIG, METADATA, kind_of, resolve

if TYPE_CHECKING:
    from collections.abc import Buffer, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ckptkit.catalog import Catalog
    from ckptkit.formats import Member, Reconciled, Warn
    from ckptkit.model import Source, TensorSpec
    from ckptkit.placement import Placement, Sealed, Target, Way


class Keras:
    """The format object. h5py is imported only where something is written, or not contiguous."""

    name = "keras"
    ways: frozenset[Way] = frozenset({"copy", "patch"})
    index_tells = False

    def detect(self, path: str) -> Source | None:
        """Return the checkpoint that a path stands for."""
        return resolve(path)

    def scan(self, source: Source) -> Catalog:
        """Read the metadata of a checkpoint."""
        from ckptkit.formats.keras.scan import scan

        return scan(source)

    def audit(self, source: Source, catalog: Catalog, warn: Warn) -> None:
        """Report what no reader minds."""
        from ckptkit.formats.keras.audit import audit

        audit(source, catalog, warn)

    def members(self, source: Source) -> Sequence[Member]:
        """Return the members of an archive, which have checksums as a whole."""
        from ckptkit.formats.keras.audit import members

        return members(source)

    def decode(
        self,
        payload: Buffer,  # noqa: ARG002  the protocol's
        spec: TensorSpec,
        byteorder: str,  # noqa: ARG002
    ) -> Sequence[bytes]:
        """Refuse: weights of Keras are numbers."""
        msg = f"a Keras file holds no tensors of dtype {spec.dtype}"
        raise UnsupportedError(msg)

    def files(self, source: Source, catalog: Catalog) -> Sequence[str]:
        """Return the file that commits, then those that tensors are in."""
        columns = catalog.columns
        if kind_of(source) == "shards":
            shards = (columns.files[number] for number in range(columns.shards))
            return [source.path, *shards]
        # What is unpacked for reading is no file of the checkpoint.
        return [source.path, source.path]

    def owns(self, source: Source, path: str) -> bool:
        """Tell whether a path is that of a file that an edit in place may change."""
        if path == source.path:
            return True
        folder, name = os.path.split(path)
        if folder != os.path.dirname(source.path):
            return False
        if source.folder is not None:
            return name in {CONFIG, METADATA}
        stem = os.path.basename(source.path).removesuffix(".json").replace(".weights", "")
        shard = re.compile(re.escape(stem) + r"_\d{5,}\.weights\.h5")
        return shard.fullmatch(name) is not None

    def reconcile(
        self, source: Source | None, before: Catalog, after: Catalog, *, sync: bool
    ) -> Reconciled:
        """Keep what is stored twice in step, and say what the configuration says otherwise."""
        from ckptkit.formats.keras.reconcile import reconcile

        return reconcile(source, before, after, sync=sync)

    def reserve(
        self, before: Catalog, after: Catalog, source: Source | None, target: Target
    ) -> Placement:
        """Lay out the files of a checkpoint."""
        from ckptkit.formats.keras.reserve import reserve

        return reserve(before, after, source, target)

    def seal(
        self,
        catalog: Catalog,  # noqa: ARG002  the protocol's
        placement: Placement,
        checksums: NDArray[np.uint32],
    ) -> Sealed:
        """Return what depends on checksums: headers of archives; and maps of shards."""
        if placement.finish is None:
            msg = "this placement is none of Keras"
            raise AssertionError(msg)
        return placement.finish(checksums.tolist())


KERAS: Final = Keras()
"""The format, ready for use."""
