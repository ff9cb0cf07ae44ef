"""Formats: what translates between index bytes and catalogs. None of them moves tensor bytes.

A third party adds one under the entry point group ``ckptkit.formats``: the name of an object that
offers what :class:`Format` asks for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from ckptkit.errors import UnknownFormatError
from ckptkit.formats.tensorflow import TENSORFLOW

if TYPE_CHECKING:
    from collections.abc import Buffer, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ckptkit.catalog import Catalog
    from ckptkit.model import Source, TensorSpec
    from ckptkit.placement import Placement, Sealed, Target, Way

GROUP: Final = "ckptkit.formats"
"""Entry point group of formats by third parties."""


class Member(NamedTuple):
    """A byte range of a file that has a checksum as a whole.

    Attributes:
        path: The file.
        offset, size: The range, in bytes.
        checksum: What the file says that it is.
        name: What the file calls it.
        otherwise: What readers do where its checksum is another one.
        algorithm: Which checksum it is.
        tensor: The tensor that it is about, if it is about one.
    """

    path: str
    offset: int
    size: int
    checksum: int
    name: str
    otherwise: str
    algorithm: Literal["crc32", "crc32c"] = "crc32"
    tensor: str | None = None


class Warn(Protocol):
    """Takes a finding: its file, its byte offset, and the text.

    A warning is about what readers accept, an error about what they do not, or should not.
    """

    def __call__(
        self,
        path: str,
        offset: int | None,
        message: str,
        *,
        tensor: str | None = None,
        severity: Literal["warning", "error"] = "warning",
    ) -> None:
        """Note the finding."""


class Reconciled(NamedTuple):
    """An edited catalog that agrees with itself, and what its user should know.

    Attributes:
        catalog: The tensors, and what is written beside them.
        notes: What was changed besides, and what disagrees now.
    """

    catalog: Catalog
    notes: tuple[str, ...] = ()


class Format(Protocol):
    """One checkpoint format. Everything here is about metadata, and checks all bounds."""

    name: str
    ways: frozenset[Way]
    index_tells: bool
    """Whether the index is another one whenever a tensor is: it has their checksums."""

    def detect(self, path: str) -> Source | None:
        """Return what a path the user gave stands for, or None if it is another format's."""

    def scan(self, source: Source) -> Catalog:
        """Read the index.

        Raises:
            FormatError: It is damaged, contradicts itself, or asks for what we do not know.
        """

    def audit(self, source: Source, catalog: Catalog, warn: Warn) -> None:
        """Report what readers accept but a sound file does not have."""

    def members(self, source: Source) -> Sequence[Member]:
        """Return what has a checksum besides tensors.

        Raises:
            FormatError: It is damaged.
        """

    def decode(self, payload: Buffer, spec: TensorSpec, byteorder: str) -> Sequence[bytes]:
        """Split the stored bytes of a string or variant tensor into its elements.

        Raises:
            CorruptError: Lengths, checksums and size do not agree.
        """

    def files(self, source: Source, catalog: Catalog) -> Sequence[str]:
        """Return the paths that a scanned checkpoint consists of, that of the index first.

        A data file that is the index as well is there twice.
        """

    def owns(self, source: Source, path: str) -> bool:
        """Tell whether a path is that of a file which an edit in place may change."""

    def reconcile(
        self, source: Source | None, before: Catalog, after: Catalog, *, sync: bool
    ) -> Reconciled:
        """Return an edited catalog with what has to go with the edit.

        Args:
            source: Where ``before`` is; None for a checkpoint made from scratch.
            before: The tensors as they are stored.
            after: What edits made of them.
            sync: Change what is written beside the tensors, where it would contradict them.

        Raises:
            EditError: The edit leaves two tensors apart that are one.
        """

    def reserve(
        self, before: Catalog, after: Catalog, source: Source | None, target: Target
    ) -> Placement:
        """Give every tensor of ``after`` its place in the files of the target.

        Raises:
            EditError: What is around the tensors would contradict the edit, or the way of
                writing is none for it.
            UnsupportedError: The format cannot hold a tensor.
        """

    def seal(self, catalog: Catalog, placement: Placement, checksums: NDArray[np.uint32]) -> Sealed:
        """Return what is around the tensors of a checkpoint that is complete otherwise.

        Args:
            catalog: The tensors.
            placement: Where their bytes are.
            checksums: uint32, those of the placement's spans; where it has none, CRC-32C of every
                item. How long the result is does not depend on them.
        """


def known() -> Iterator[Format]:
    """Iterate over the formats, ours first."""
    yield TENSORFLOW
    # Most checkpoints are of that one, so that the others are imported once it declines.
    from ckptkit.formats.tensorflow.v1 import TENSORFLOW_V1

    yield TENSORFLOW_V1
    from ckptkit.formats.keras import KERAS

    yield KERAS
    # Reading the entry points costs more than listing a checkpoint, so only if ours all decline.
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP):
        yield point.load()


def find(path: str) -> tuple[Format, Source]:
    """Find the format that a path belongs to.

    Raises:
        UnknownFormatError: No format claims it.
        CorruptError: It is the beginning of a checkpoint.
        FileNotFoundError: There is nothing at the path.
    """
    for candidate in known():
        source = candidate.detect(path)
        if source is not None:
            return candidate, source
    # What no format claims is looked at more closely, which takes a module of its own.
    from ckptkit.formats import unknown

    return unknown.refuse(path)


def absolute(source: Source) -> Source:
    """Return a source by paths from the root."""
    folder = None if source.folder is None else os.path.abspath(source.folder)
    return type(source)(os.path.abspath(source.path), folder)


def by_name(name: str) -> Format:
    """Return a format by its name.

    Raises:
        UnknownFormatError: There is none of that name.
    """
    for candidate in known():
        if candidate.name == name:
            return candidate
    msg = f"no format is called {name!r}"
    raise UnknownFormatError(msg)
