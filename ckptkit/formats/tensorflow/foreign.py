"""Checkpoints as TensorFlow's own reader gives them: of any format and file system that it knows.

Names, dtypes and shapes are what the reader says; values come tensor by tensor. Nothing is known
of files, so a checkpoint that is read like this is edited into a new one, a local bundle.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ckptkit import _native
from ckptkit.catalog import Catalog
from ckptkit.columns import Place, Rows
from ckptkit.errors import CkptError, CorruptError, EditError, UnsupportedError
from ckptkit.formats.tensorflow import TENSORFLOW
from ckptkit.formats.tensorflow.dtypes import CODES, NAMES
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY, GraphStructure
from ckptkit.formats.tensorflow.paths import STATE_FILE, prefix_of
from ckptkit.formats.tensorflow.state import STATE_BYTES, parse
from ckptkit.model import Derived, Source, Stored, Tensor, TensorSpec
from ckptkit.storage.virtual import real_path
from ckptkit.views import Transpose

if TYPE_CHECKING:
    from collections.abc import Buffer, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ckptkit.formats import Member, Reconciled, Warn
    from ckptkit.placement import Placement, Sealed, Target, Way
    from ckptkit.storage.foreign import Reader


class Foreign:
    """The format object. What it needs of TensorFlow is imported when a checkpoint is opened."""

    name = "tensorflow-reader"
    ways: frozenset[Way] = frozenset({"copy"})
    index_tells = True

    def detect(self, path: str) -> Source:
        """Return the prefix that a path stands for: itself, or the latest one of a folder."""
        from ckptkit.storage.foreign import gfile, matching

        files = gfile()
        # Of a prefix some of TensorFlow's file systems say that it is a folder.
        if files.exists(f"{path}.index"):
            return Source(path)
        if files.isdir(path):
            return _latest(path)
        if files.exists(path):
            return Source(prefix_of(path))
        # Shards of the first format: a pattern, or what they have in common.
        shards = matching(f"{path}-?????-of-?????")
        patterns = {f"{path}-?????-of-{shard[-5:]}" for shard in shards}
        if len(patterns) == 1:
            return Source(patterns.pop())
        if matching(path):
            return Source(path)
        raise FileNotFoundError(2, "TensorFlow finds no checkpoint of this name", path)

    def scan(self, source: Source) -> Catalog:
        """Ask for names, dtypes and shapes; of strings, whose size nothing tells, for values."""
        from ckptkit.storage.foreign import foreign_path, reader_of

        reader = reader_of(source.path, anew=True)
        specs = {name: TensorSpec(*spec) for name, spec in reader.specs().items()}
        rows, files, total = Rows(), {}, 0
        # Shard 0 would be a data file, and there is none.
        for shard, (name, spec) in enumerate(specs.items(), start=1):
            size, value = _measured(reader, name, spec)
            code = CODES[spec.dtype]
            entry = _native.entry_encode(code, spec.shape)
            rows.add(code, spec.shape, Place(shard, 0, size, value), entry)
            files[shard] = foreign_path(source.path, name)
            total += size
        # In no file, no bytes are dead.
        columns = replace(rows.columns(NAMES, files), summed=False, overhead=-total)
        catalog = Catalog([*specs], range(len(specs)), columns)
        graph = specs.get(GRAPH_KEY)
        if graph != TensorSpec("string", ()) or not catalog[GRAPH_KEY].stored_bytes:
            return catalog
        return catalog.with_structure(GraphStructure(catalog))

    def audit(self, source: Source, catalog: Catalog, warn: Warn) -> None:
        """Have TensorFlow read every tensor, which compares checksums."""
        from ckptkit.storage.foreign import reader_of

        reader = reader_of(source.path)
        for name in catalog:
            try:
                reader.values(name)
            except CorruptError as error:
                warn(source.path, None, error.message, tensor=name, severity="error")
            except CkptError as error:
                warn(source.path, None, error.message, tensor=name)

    def members(self, source: Source) -> Sequence[Member]:  # noqa: ARG002  the protocol's
        """Return nothing: TensorFlow tells no checksums."""
        return ()

    def decode(self, payload: Buffer, spec: TensorSpec, byteorder: str) -> Sequence[bytes]:
        """Split the stored form of strings into elements."""
        return TENSORFLOW.decode(payload, spec, byteorder)

    def files(self, source: Source, catalog: Catalog) -> Sequence[str]:  # noqa: ARG002
        """Return what stands for the index."""
        from ckptkit.storage.foreign import foreign_path

        return [foreign_path(source.path)]

    def owns(self, source: Source, path: str) -> bool:  # noqa: ARG002
        """Return false: there is no edit in place."""
        return False

    def reconcile(
        self,
        source: Source | None,
        before: Catalog,
        after: Catalog,
        *,
        sync: bool,
    ) -> Reconciled:
        """Have every number be computed, if only from itself: checksums are made on the way.

        Raises:
            UnsupportedError: There is a tensor that TensorFlow's reader does not give.
        """
        from ckptkit.formats import Reconciled

        agreed = TENSORFLOW.reconcile(source, before, after, sync=sync)
        catalog, made = agreed.catalog, {}
        for name, tensor in catalog.items():
            if tensor.spec.kind in {"variant", "opaque"}:
                msg = f"TensorFlow's reader gives no values of dtype {tensor.spec.dtype}"
                raise UnsupportedError(msg, tensor=name)
            if isinstance(tensor.source, Stored) and tensor.spec.kind == "string":
                _check_string(name, tensor.source)
            elif isinstance(tensor.source, Stored):
                # In no other order of axes: elements of any dtype, also those without arithmetic.
                kernel = Transpose(tuple(range(len(tensor.spec.shape))))
                made[name] = Tensor(tensor.spec, Derived(kernel, (tensor,)), entry=tensor.entry)
        return Reconciled(catalog.with_tensors(made), agreed.notes)

    def reserve(
        self,
        before: Catalog,
        after: Catalog,
        source: Source | None,  # noqa: ARG002  the protocol's
        target: Target,
    ) -> Placement:
        """Lay out a new bundle.

        Raises:
            EditError: It is to take the place of the checkpoint that TensorFlow reads.
        """
        if target.in_place:
            msg = (
                "what TensorFlow's reader gives is edited into a new checkpoint: give a"
                " destination, or open it without that reader"
            )
            raise EditError(msg)
        return TENSORFLOW.reserve(before, after, None, target)

    def seal(self, catalog: Catalog, placement: Placement, checksums: NDArray[np.uint32]) -> Sealed:
        """Write the index of a new bundle."""
        return TENSORFLOW.seal(catalog, placement, checksums)


def _check_string(name: str, source: Stored) -> None:
    """Refuse strings whose values could not be had; stored ones have at least a checksum.

    Raises:
        CorruptError: TensorFlow could not read them when the checkpoint was opened.
    """
    extent = source.pieces[0].extent
    if not extent.length:
        msg = "TensorFlow's reader does not give these strings; leave them out with: drop"
        raise CorruptError(msg, path=real_path(extent.path), tensor=name)


def _measured(reader: Reader, name: str, spec: TensorSpec) -> tuple[int, int]:
    """Return the stored bytes of a tensor, and of strings the checksum."""
    from ckptkit.storage.foreign import strings_checksum

    if spec.kind != "string":
        # What has no size has no values either; who asks for them is told.
        return (0 if spec.kind in {"variant", "opaque"} else spec.nbytes), 0
    stored = _strings(reader, name)
    return (0, 0) if stored is None else (stored.nbytes, strings_checksum(stored, spec.count))


def _strings(reader: Reader, name: str) -> NDArray[np.uint8] | None:
    """Return strings as they are stored; None if they cannot be read, which who reads is told."""
    try:
        return reader.stored(name)
    except CkptError:
        return None


def _latest(folder: str) -> Source:
    """Return the checkpoint that the state file of a folder names.

    Raises:
        CorruptError: It names none, or one that is elsewhere.
        FileNotFoundError: There is no state file.
    """
    from ckptkit.storage.foreign import gfile

    state = os.path.join(folder, STATE_FILE)
    if not gfile().exists(state):
        raise FileNotFoundError(2, "no state file in this folder; name a checkpoint in it", folder)
    with gfile().GFile(state, "rb") as file:
        named = parse(file.read(STATE_BYTES + 1), path=state).model_checkpoint_path
    prefix = os.path.join(folder, named)
    inside = named and prefix.startswith(os.path.join(folder, "")) and ".." not in prefix.split("/")
    if not inside:
        msg = f"the state file names {named!r}, outside its folder; give the prefix itself"
        raise CorruptError(msg, path=state)
    return Source(prefix)


FOREIGN: Final = Foreign()
"""The format, ready for use."""
