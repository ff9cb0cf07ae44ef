"""TensorFlow's first format (V1): tables that hold the tensors themselves. See FORMAT.md.

It is read, and never written: what is made of such a checkpoint is of the second format.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from ckptkit.errors import EditError
from ckptkit.formats.tensorflow.paths import STATE_FILE, latest_in
from ckptkit.formats.tensorflow.v1.paths import files_of, resolve

if TYPE_CHECKING:
    from collections.abc import Buffer, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ckptkit.catalog import Catalog
    from ckptkit.formats import Member, Reconciled, Warn
    from ckptkit.model import Source, TensorSpec
    from ckptkit.placement import Placement, Sealed, Target, Way


class TensorFlowV1:
    """The format object. What writes is that of the second format."""

    name = "tensorflow-v1"
    ways: frozenset[Way] = frozenset({"copy"})
    index_tells = False

    def detect(self, path: str) -> Source | None:
        """Return the checkpoint that a path stands for."""
        if os.path.isfile(os.path.join(path, STATE_FILE)):
            return resolve(latest_in(path))
        return resolve(path)

    def scan(self, source: Source) -> Catalog:
        """Read all but large values."""
        from ckptkit.formats.tensorflow.v1.scan import scan

        return scan(source)

    def audit(self, source: Source, catalog: Catalog, warn: Warn) -> None:
        """Report what no reader minds, and values that do not decode."""
        from ckptkit.formats.tensorflow.v1.audit import audit

        audit(source, catalog, warn)

    def members(self, source: Source) -> Sequence[Member]:
        """Return every block: there are no other checksums."""
        from ckptkit.formats.tensorflow.v1.audit import members

        return members(source)

    def decode(self, payload: Buffer, spec: TensorSpec, byteorder: str) -> Sequence[bytes]:
        """Split strings, which are read as a bundle stores them."""
        from ckptkit.formats.tensorflow.payload import decode

        return decode(payload, spec, byteorder)

    def files(self, source: Source, catalog: Catalog) -> Sequence[str]:  # noqa: ARG002
        """Return the files; what describes tensors is in each of them, beside the values."""
        paths = files_of(source)
        return [paths[0], *paths]

    def owns(self, source: Source, path: str) -> bool:  # noqa: ARG002  the protocol's
        """Tell that no file is ever changed."""
        return False

    def reconcile(
        self,
        source: Source | None,  # noqa: ARG002  the protocol's
        before: Catalog,  # noqa: ARG002
        after: Catalog,
        *,
        sync: bool,
    ) -> Reconciled:
        """Return the catalog with those slices joined that TensorFlow would not join."""
        from ckptkit.formats import Reconciled
        from ckptkit.formats.tensorflow.v1.reserve import joined

        if sync:
            msg = "a TensorFlow checkpoint has no configuration to keep in step"
            raise EditError(msg)
        catalog, notes = joined(after)
        return Reconciled(catalog, notes)

    def reserve(
        self, before: Catalog, after: Catalog, source: Source | None, target: Target
    ) -> Placement:
        """Lay out the shards of a bundle.

        Raises:
            EditError: There is no checkpoint to read, or it is to be changed where it is.
        """
        from ckptkit.formats.tensorflow.v1.reserve import reserve

        return reserve(before, after, source, target)

    def seal(self, catalog: Catalog, placement: Placement, checksums: NDArray[np.uint32]) -> Sealed:
        """Write the index of a new bundle."""
        from ckptkit.formats.tensorflow.seal import seal
        from ckptkit.placement import Sealed

        return Sealed({placement.index: seal(catalog, placement, checksums)})


TENSORFLOW_V1: Final = TensorFlowV1()
"""The format, ready for use."""
