"""The library's face: open a checkpoint, look at it, edit it, write it somewhere."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Self

from ckptkit import _native
from ckptkit.catalog import Catalog
from ckptkit.formats import Format, by_name, find
from ckptkit.model import Derived, Source, Tensor, TensorSpec
from ckptkit.placement import Layout
from ckptkit.region import Region
from ckptkit.storage.disk import Sources, stamp

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ckptkit.edits import Edit
    from ckptkit.engine.check import Difference, Verdict
    from ckptkit.engine.plan import Plan, Report
    from ckptkit.region import Box

    Array = NDArray[Any]
    Progress = Any

if _native.__debug_build__:
    warnings.warn("ckptkit was built without optimisation, and is slow", stacklevel=2)

BLOCK: Final = 16 << 20
"""Bytes of the blocks that :meth:`StoredTensor.blocks` yields by default."""

_KEEP: Final = Layout()


def open(path: str | os.PathLike[str]) -> Checkpoint:  # noqa: A001  as gzip.open does
    """Open a checkpoint for reading: only its index is read.

    Args:
        path: A TensorFlow checkpoint prefix or any file of it, a folder with a ``checkpoint``
            file, or a SavedModel folder.

    Raises:
        FileNotFoundError: There is nothing there.
        UnknownFormatError: No format claims the path.
        CorruptError: The index is damaged, or contradicts itself or the data files.
    """
    form, source = find(os.fspath(path))
    return Checkpoint(form, source, form.scan(source))


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
        return StoredTensor(name, self.catalog[name], self.writer, self._files)

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a tensor of that name."""
        return name in self.catalog

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the order of the index."""
        return iter(self.catalog)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self.catalog)

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
        return f"<{self.format} checkpoint {self.path!r}: {len(self):,} tensors>"

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
        """
        from ckptkit.engine.check import verify

        return verify(self.writer, self.source, self.catalog, progress=progress)

    def edit(self, *edits: str | Edit) -> Draft:
        """Return a draft: what the checkpoint would be after some edits. Nothing is written.

        Args:
            edits: Statements of the edit language, or edits such as ``ckptkit.Map``.

        Raises:
            EditError: A statement does not parse, matches nothing, or does not fit.
        """
        return Draft(self, self.catalog, (), ()).edit(*edits)


class StoredTensor:
    """A tensor in a checkpoint. Values are read when they are asked for, and only those."""

    __slots__ = ("_files", "_format", "name", "tensor")

    def __init__(self, name: str, tensor: Tensor, form: Format, files: Sources) -> None:
        """Hold where the values are; index a :class:`Checkpoint` to get one."""
        self.name = name
        self.tensor = tensor
        self._format = form
        self._files = files

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
            EditError: The region does not fit the shape.
            UnsupportedError: The dtype cannot be read.
        """
        from ckptkit.engine.read import read_region, read_tensor

        decode = self._format.decode
        if region is None:
            return read_tensor(self._files, self.name, self.tensor, decode, verify=verify)
        wanted = region if isinstance(region, Region) else Region.of(region)
        return read_region(self._files, self.name, self.tensor, wanted, decode)

    def blocks(self, nbytes: int = BLOCK) -> Iterator[tuple[Box, Array]]:
        """Yield the tensor in blocks of at most ``nbytes`` bytes, in C order, with their boxes.

        Raises:
            UnsupportedError: Elements of the dtype have no fixed size.
        """
        from ckptkit.engine.read import read_blocks

        return read_blocks(self._files, self.name, self.tensor, nbytes)

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
    ) -> None:
        """Hold an edited catalog; use :meth:`Checkpoint.edit`."""
        self._checkpoint = checkpoint
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
        return Draft(self._checkpoint, change.catalog, texts, (*self.notes, *change.notes))

    def plan(
        self, destination: str | os.PathLike[str], how: str = "auto", layout: Layout = _KEEP
    ) -> Plan:
        """Lay the result out at a new place.

        Args:
            destination: The new prefix, or the new folder of a SavedModel.
            how: The way of writing: ``auto`` or ``copy``.
            layout: How to cut shards; as they are by default.

        Raises:
            EditError: The destination exists, or the format refuses the edit.
            ConflictError: A file of the checkpoint changed since it was opened.
        """
        from ckptkit.engine.plan import build_plan, check_how

        check_how(how)
        origin = self._checkpoint
        return build_plan(
            origin.writer,
            origin.source,
            origin.catalog,
            self.catalog,
            os.fspath(destination),
            layout,
            self.edits,
            self.notes,
            origin.stamps,
        )


def save(
    path: str | os.PathLike[str],
    tensors: Mapping[str, object],
    *,
    format: str = "tensorflow",  # noqa: A002  the word that users expect
    layout: Layout = _KEEP,
) -> Report:
    """Write a new checkpoint from values in memory.

    Args:
        path: Where it will appear.
        tensors: NumPy arrays, numbers, or text by name; their order is the order of the bytes.
        format: The name of the format.
        layout: How to cut shards; one by default.

    Raises:
        EditError: There is something at the path, or a value cannot be stored.
    """
    from ckptkit.edits import encode
    from ckptkit.engine.plan import build_plan

    given = {name: encode(values, copy=False) for name, values in tensors.items()}
    catalog = Catalog.of({name: Tensor(one.spec, Derived(one)) for name, one in given.items()})
    empty, where = Catalog.of({}), os.fspath(path)
    return build_plan(by_name(format), None, empty, catalog, where, layout, (), (), ()).run()


def diff(
    a: str | os.PathLike[str] | Checkpoint,
    b: str | os.PathLike[str] | Checkpoint,
    *,
    values: bool = False,
    progress: Progress | None = None,
) -> tuple[Difference, ...]:
    """Compare two checkpoints: names, dtypes and shapes, and values.

    Values are compared by their checksums, and by their bytes only where checksums cannot tell.

    Args:
        a: A checkpoint, or the path of one.
        b: Another one.
        values: Say by how much values differ, which reads those that do.
        progress: Called with bytes done and bytes in all.

    Raises:
        CkptError: One of them cannot be read.
    """
    from ckptkit.engine.check import compare

    one, other = (item if isinstance(item, Checkpoint) else open(item) for item in (a, b))
    return tuple(compare(one, other, values=values, progress=progress))
