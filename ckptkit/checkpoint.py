"""An open checkpoint, its lazy tensors, and drafts of what edits would make of it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from ckptkit import _native
from ckptkit.engine.preflight import check_readable
from ckptkit.errors import ConflictError, CorruptError
from ckptkit.formats import Format, find
from ckptkit.placement import Layout
from ckptkit.region import Region
from ckptkit.sizes import counted
from ckptkit.storage.disk import Sources, stamp

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ckptkit.catalog import Catalog
    from ckptkit.edits import Edit
    from ckptkit.engine.check import Verdict
    from ckptkit.engine.plan import Plan
    from ckptkit.model import Source, Tensor, TensorSpec
    from ckptkit.region import Box
    from ckptkit.structure import Objects

    Array = NDArray[Any]
    Progress = Any

if _native.__debug_build__:
    warnings.warn("ckptkit was built without optimisation, and is slow", stacklevel=2)

BLOCK: Final = 16 << 20
"""Bytes of the blocks that :meth:`StoredTensor.blocks` yields by default."""

_KEEP: Final = Layout()


def open(  # noqa: A001  as gzip.open does
    path: str | os.PathLike[str], reader: Literal["tensorflow"] | None = None
) -> Checkpoint:
    """Open a checkpoint for reading: only its index is read.

    Args:
        path: The prefix of a TensorFlow checkpoint of either format or any file of it, a folder
            with a ``checkpoint`` file, or a SavedModel folder; a file of Keras, or the folder of an
            unzipped model.
        reader: ``tensorflow`` to have TensorFlow's own reader read it, from any file system that
            TensorFlow knows: a prefix such as ``gs://bucket/model-1000``, or a folder with a
            ``checkpoint`` file. Tensors are read whole then, strings when it is opened, and
            edits go to a new, local checkpoint.

    Raises:
        FileNotFoundError: There is nothing there.
        UnknownFormatError: No format claims the path.
        CorruptError: The index is damaged, or contradicts itself or the data files.
        NeedsRecoveryError: An edit in place was cut short; see :func:`ckptkit.recover`.
        ConflictError: It is being edited in place just now.
        ValueError: There is no reader of that name.
    """
    form, source = find(os.fspath(path)) if reader is None else _foreign(os.fspath(path), reader)
    check_readable(os.path.abspath(source.path), str(source))
    return Checkpoint(form, source, form.scan(source))


def _foreign(path: str, reader: str) -> tuple[Format, Source]:
    from ckptkit.formats.tensorflow.foreign import FOREIGN

    if reader != "tensorflow":
        msg = f"no reader is called {reader!r}; there is 'tensorflow'"
        raise ValueError(msg)
    return FOREIGN, FOREIGN.detect(path)


class Checkpoint(Mapping[str, "StoredTensor"]):
    """An open checkpoint: a read-only mapping from names to lazy tensors.

    Attributes:
        path: Where it is.
        format: What kind of checkpoint it is.
        catalog: What its index says.
        writer: The format that it is in.
        source: The path, resolved.
        stamps: Size and time of change of its files, when it was opened.
    """

    def __init__(self, form: Format, source: Source, catalog: Catalog) -> None:
        """Hold what a scan found; use :func:`ckptkit.open`."""
        self.writer = form
        self.source = source
        self.catalog = catalog
        self.stamps = tuple(map(stamp, form.files(source, catalog)))
        self._files = Sources()

    @property
    def path(self) -> str:
        """Where it is."""
        return str(self.source)

    @property
    def format(self) -> str:
        """The name of its format."""
        return self.writer.name

    def __getitem__(self, name: str) -> StoredTensor:
        """Return a tensor; nothing is read yet.

        Raises:
            TensorNotFoundError: There is none of that name.
        """
        return StoredTensor(name, self.catalog[name], self)

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a tensor of that name."""
        return name in self.catalog

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the order of the index."""
        return iter(self.catalog)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self.catalog)

    @property
    def graph(self) -> Objects | None:
        """The objects that hold the tensors; None where the checkpoint says nothing of them.

        Raises:
            CorruptError: What it says does not read.
        """
        structure = self.catalog.structure
        return None if structure is None else structure.objects(self.catalog)

    @property
    def dead_bytes(self) -> int:
        """Bytes of the data files that belong to no tensor; ``how="copy"`` leaves them out."""
        _, *data = (known.size for known in self.stamps)
        return self.catalog.columns.dead_bytes(sum(data))

    def specs(self) -> Iterator[tuple[str, TensorSpec]]:
        """Iterate over names with dtypes and shapes."""
        return self.catalog.specs()

    def dtypes(self) -> Mapping[str, str]:
        """Return the dtype of every tensor by name; much quicker than one by one."""
        return self.catalog.dtypes()

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of every tensor by name; much quicker than one by one."""
        return self.catalog.shapes()

    def __repr__(self) -> str:
        """Return what it is, where, and how large."""
        return f"<{self.format} checkpoint {self.path!r}: {counted(len(self), 'tensor')}>"

    @property
    def files(self) -> Sources:
        """The open data files."""
        return self._files

    def check_unchanged(self) -> None:
        """Refuse what was read if an edit in place may have changed some of it meanwhile.

        Raises:
            ConflictError: The checkpoint is not the one that was opened any more.
            NeedsRecoveryError: An edit in place was cut short.
        """
        path = os.path.abspath(self.source.path)
        check_readable(path, self.path)
        # A file that is index and data has two equal stamps, and is looked at once.
        known = self.stamps[:1] if self.writer.index_tells else {*self.stamps}
        if any(stamp(one.path) != one for one in known):
            msg = "the checkpoint was edited since it was opened; open it again"
            raise ConflictError(msg, path=self.path)

    def close(self) -> None:
        """Let go of the files; reading opens them again."""
        self._files.close()

    def __enter__(self) -> Self:
        """Return the checkpoint."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the files."""
        self.close()

    def verify(self, progress: Progress | None = None) -> Verdict:
        """Read everything once and compare it with its checksums.

        Args:
            progress: Called with bytes done and bytes in all.

        Raises:
            ConflictError: The checkpoint was edited in place meanwhile.
        """
        from ckptkit.engine.check import verify

        verdict = verify(self.writer, self.source, self.catalog, progress=progress)
        self.check_unchanged()
        return verdict

    def cleaned(self, progress: Progress | None = None) -> tuple[Draft, Verdict]:
        """Verify everything, and return a draft of a copy that leads no reader astray.

        A copy of the draft has nothing of what warnings are about: bytes around blocks and
        tensors, bytes that tensors share, bits that no value has, slices that TensorFlow does not
        join.

        Args:
            progress: Called with bytes done and bytes in all.

        Returns:
            The draft, and what verifying found.

        Raises:
            CorruptError: There is an error, the first of which is told.
            ConflictError: The checkpoint was edited in place meanwhile.
        """
        from ckptkit.surgery.parts import Tidy

        verdict = self.verify(progress)
        if not verdict.ok:
            first = verdict.problems[0]
            msg = f"no clean copy can be made: {first.message}"
            raise CorruptError(msg, path=first.path, tensor=first.tensor, offset=first.offset)
        named = [one.tensor for one in verdict.problems if one.tensor is not None]
        edit = Tidy.of(self.catalog, named)
        return self.edit(*([edit] if edit.bits or edit.slices else [])), verdict

    def edit(
        self, *edits: str | Edit, others: Mapping[str, Checkpoint | str] | None = None
    ) -> Draft:
        """Return a draft: what the checkpoint would be after some edits. Nothing is written.

        Args:
            edits: Statements of the edit language, or edits such as ``ckptkit.Map``.
            others: Further checkpoints, or their paths, by the name under which edits read them:
                ``t("donor:head/kernel")``.

        Raises:
            EditError: A statement does not parse, matches nothing, or does not fit.
        """
        opened = {
            name: other if isinstance(other, Checkpoint) else open(other)
            for name, other in (others or {}).items()
        }
        catalog = self.catalog
        if opened:
            catalog = catalog.bound({name: other.catalog for name, other in opened.items()})
        return Draft(self, catalog, (), (), others=tuple(opened.values())).edit(*edits)


class StoredTensor:
    """A tensor in a checkpoint. Values are read when they are asked for, and only those."""

    __slots__ = ("_checkpoint", "name", "tensor")

    def __init__(self, name: str, tensor: Tensor, checkpoint: Checkpoint) -> None:
        """Hold where the values are; index a :class:`Checkpoint` to get one."""
        self.name = name
        self.tensor = tensor
        self._checkpoint = checkpoint

    @property
    def spec(self) -> TensorSpec:
        """Dtype and shape."""
        return self.tensor.spec

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return self.tensor.spec.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape."""
        return self.tensor.spec.shape

    @property
    def nbytes(self) -> int:
        """Stored bytes."""
        return self.tensor.stored_bytes

    def read(self, region: Region | object | None = None, *, verify: bool = True) -> Array:
        """Return values: all of them, verified, or those of a region, as they are.

        bfloat16, float8, int4 and the like come as ml_dtypes arrays, strings and variants as
        object arrays of ``bytes``, quantised integers as plain integers.

        Args:
            region: A :class:`~ckptkit.model.Region`, or what one writes between brackets.
            verify: Compare the checksum when the whole tensor is read.

        Raises:
            CorruptError: The checksum differs.
            ConflictError: The checkpoint was edited in place meanwhile.
            EditError: The region does not fit the shape.
            UnsupportedError: The dtype cannot be read.
        """
        from ckptkit.engine.read import read_region, read_tensor

        checkpoint = self._checkpoint
        decode, files = checkpoint.writer.decode, checkpoint.files
        try:
            if region is None:
                found = read_tensor(files, self.name, self.tensor, decode, verify=verify)
            else:
                wanted = region if isinstance(region, Region) else Region.of(region)
                found = read_region(files, self.name, self.tensor, wanted, decode)
        except CorruptError:
            # What looks damaged may be half old and half new.
            checkpoint.check_unchanged()
            raise
        checkpoint.check_unchanged()
        return found

    def blocks(self, nbytes: int = BLOCK) -> Iterator[tuple[Box, Array]]:
        """Yield the tensor in blocks of at most ``nbytes`` bytes, in C order, with their boxes.

        Raises:
            UnsupportedError: Elements of the dtype have no fixed size.
        """
        from ckptkit.engine.read import read_blocks

        checkpoint = self._checkpoint
        for block in read_blocks(checkpoint.files, self.name, self.tensor, nbytes):
            checkpoint.check_unchanged()
            yield block

    def __getitem__(self, index: object) -> Array:
        """Read a region; only its bytes are read, and not verified."""
        return self.read(Region.of(index))

    def __array__(
        self,
        dtype: np.dtype[Any] | None = None,
        copy: bool | None = None,  # noqa: FBT001  NumPy's protocol
    ) -> Array:
        """Read the whole tensor, verified, for NumPy.

        Raises:
            ValueError: Without a copy it cannot be had.
        """
        if copy is False:
            msg = "a tensor in a file cannot become an array without a copy"
            raise ValueError(msg)
        values = self.read()
        return values if dtype is None else values.astype(dtype, copy=False)

    def __repr__(self) -> str:
        """Return name, dtype and shape."""
        return f"<tensor {self.name!r}: {self.spec}>"


class Draft:
    """A checkpoint with edits that are not written yet.

    Attributes:
        catalog: The tensors as they would be.
        edits: The statements so far.
        notes: What applying them found worth saying.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        catalog: Catalog,
        edits: tuple[str, ...],
        notes: tuple[str, ...],
        *,
        repeatable: bool = True,
        others: tuple[Checkpoint, ...] = (),
    ) -> None:
        """Hold an edited catalog; use :meth:`Checkpoint.edit`."""
        self._checkpoint = checkpoint
        self._others = others
        self._repeatable = repeatable
        self.catalog = catalog
        self.edits = edits
        self.notes = notes

    def edit(self, *edits: str | Edit) -> Draft:
        """Return a draft with further edits.

        Raises:
            EditError: A statement does not parse, matches nothing, or does not fit.
        """
        from ckptkit.edits import apply_all
        from ckptkit.language import parse

        parsed = [parse(edit) if isinstance(edit, str) else edit for edit in edits]
        change = apply_all(self.catalog, parsed)
        texts = (*self.edits, *map(str, parsed))
        notes = (*self.notes, *change.notes)
        # What a statement says can be done again; what a function does, nobody knows.
        repeatable = (
            self._repeatable and not self._others and all(isinstance(edit, str) for edit in edits)
        )
        return Draft(
            self._checkpoint,
            change.catalog,
            texts,
            notes,
            repeatable=repeatable,
            others=self._others,
        )

    def plan(
        self,
        destination: str | os.PathLike[str] | None = None,
        how: str = "auto",
        layout: Layout = _KEEP,
        *,
        keep_undo: bool = False,
        break_links: bool = False,
        sync_config: bool = False,
    ) -> Plan:
        """Lay the result out: at a new place, or where the checkpoint is.

        Args:
            destination: The new prefix, or the new folder of a SavedModel; None to edit in place.
            how: The way of writing: ``copy`` or ``link`` for a new place, ``patch``, ``append`` or
                ``copy`` (which leaves no dead bytes) in place; ``auto`` chooses, and the plan says
                why.
            layout: How to cut shards; as they are by default.
            keep_undo: In place: leave beside the checkpoint what :func:`ckptkit.undo` needs.
            break_links: In place: give the checkpoint files of its own, where it shares some with
                another one.
            sync_config: Where weights of plain layers get another shape or dtype, change what the
                configuration beside them says of it, too. Without, the plan notes what disagrees.

        Raises:
            EditError: The destination exists, the format refuses the edit, or it cannot be written
                that way.
            ConflictError: A file of the checkpoint changed since it was opened.
        """
        from ckptkit.engine.choose import Wish, build_plan

        origin = self._checkpoint
        return build_plan(
            Wish(
                origin.writer,
                origin.source,
                origin.catalog,
                self.catalog,
                None if destination is None else os.fspath(destination),
                how,
                layout,
                self.edits,
                self.notes,
                (*origin.stamps, *(one for other in self._others for one in other.stamps)),
                self._repeatable,
                keep_undo,
                break_links,
                sync_config,
            )
        )
