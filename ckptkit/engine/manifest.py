"""Manifests: a file beside a checkpoint with a checksum for every tensor.

For formats that have none, such as HDF5 weights. A manifest is over the stored bytes of tensors,
their pieces one after the other, so it says nothing about names of layers or other metadata.
"""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from ckptkit import _native
from ckptkit.engine.crew import Scratch, each
from ckptkit.engine.findings import Problem
from ckptkit.engine.read import check
from ckptkit.errors import CkptError, ConflictError, CorruptError, UnsupportedError
from ckptkit.model import Stored, TensorSpec
from ckptkit.storage.disk import Disk, Sources
from ckptkit.storage.frames import packed, unpacked
from ckptkit.storage.virtual import is_virtual, real_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ckptkit.catalog import Catalog
    from ckptkit.checkpoint import Checkpoint
    from ckptkit.model import Piece, Source, Tensor

    Progress = Callable[[int, int], object]
    Cell = tuple[int, str, int, int]

VERSION: Final = 1
SUFFIX: Final = ".manifest.json"

MAX_BYTES: Final = 256 << 20
"""A longer file is no manifest."""

CELL: Final = 2 << 20
"""Bytes that one thread reads and sums at a time."""

TOGETHER: Final = 256
"""Small tensors that one thread takes at a time."""

_ODD: Final = "\0"
"""What a name begins with in the file whose bytes are no UTF-8; there each stands for itself."""

_Size = Annotated[int, msgspec.Meta(ge=0)]


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: tuple[_Size, ...]
    nbytes: _Size
    crc32c: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{8}$")]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    format: str
    tensors: dict[str, _Entry]


class _Head(msgspec.Struct, frozen=True):
    version: int


@dataclass(frozen=True, slots=True)
class Sum:
    """What a manifest says about a tensor.

    Attributes:
        spec: Its dtype and shape.
        nbytes: Its stored bytes.
        crc32c: The CRC-32C of them.
    """

    spec: TensorSpec
    nbytes: int
    crc32c: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The checksums of a checkpoint.

    Attributes:
        path: The file that it is in.
        format: The format of the checkpoint.
        tensors: What it says, by the names of tensors, in the order of the checkpoint.
    """

    path: str
    format: str
    tensors: Mapping[str, Sum]

    @property
    def nbytes(self) -> int:
        """Stored bytes of all tensors."""
        return sum(one.nbytes for one in self.tensors.values())


def manifest_path(source: Source) -> str:
    """Return where the manifest of a checkpoint is: beside it, never inside."""
    return os.path.abspath(str(source)) + SUFFIX


def write_manifest(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    disk: Disk | None = None,
) -> Manifest:
    """Sum every tensor, and write the manifest, which appears at once.

    Args:
        checkpoint: An open checkpoint.
        path: Where to write it; beside the checkpoint by default, where verifying looks for it.
        progress: Called with bytes done and bytes in all.
        disk: The file system; tests put another one here.

    Raises:
        CorruptError: A tensor differs from the checksum that the checkpoint has of it.
        ConflictError: The checkpoint was edited meanwhile, or a file ends too early.
    """
    catalog, disk = checkpoint.catalog, disk or Disk()
    where = manifest_path(checkpoint.source) if path is None else os.path.abspath(path)
    sources = Sources(disk)
    try:
        found = _summed(sources, catalog, range(len(catalog)), progress)
    finally:
        sources.close()
    tensors = {}
    for at, name in enumerate(catalog.names):
        tensor = catalog.tensor_at(at)
        whole = 0
        for piece in _pieces(tensor):
            value, error = next(found)
            if error is not None:
                raise error
            if piece.checksum is not None and piece.checksum.algorithm == "crc32c":
                check(name, piece, value)
            whole = _native.crc32c_combine(whole, value, piece.extent.length)
        tensors[name] = Sum(tensor.spec, tensor.stored_bytes, whole)
    manifest = Manifest(where, checkpoint.format, tensors)
    checkpoint.check_unchanged()
    with disk.replacement(where) as file:
        file.write(_encoded(manifest), 0)
    disk.sync_folder(os.path.dirname(where))
    return manifest


def read_manifest(path: str | os.PathLike[str], disk: Disk | None = None) -> Manifest:
    """Read a manifest.

    Raises:
        FileNotFoundError: There is none.
        CorruptError: It is no manifest, or a damaged one.
        UnsupportedError: A later version of ckptkit wrote it.
    """
    where = os.fspath(path)
    with (disk or Disk()).open(where) as file:
        size = file.size
        if size > MAX_BYTES:
            msg = f"a manifest has at most {MAX_BYTES} bytes, this file has {size}"
            raise CorruptError(msg, path=where)
        text = file.read(0, size)
    try:
        version = msgspec.json.decode(text, type=_Head).version
        if version != VERSION:
            msg = f"this is a manifest of version {version}; version {VERSION} is read here"
            raise UnsupportedError(msg, path=where)
        content = msgspec.json.decode(text, type=_File)
        names = [*map(_unpacked, content.tensors)]
    except (msgspec.DecodeError, RecursionError, CorruptError) as error:
        msg = f"this is no manifest, or a damaged one: {error}"
        raise CorruptError(msg, path=where) from None
    entries = content.tensors.values()
    sums = (Sum(TensorSpec(e.dtype, e.shape), e.nbytes, int(e.crc32c, 16)) for e in entries)
    return Manifest(where, content.format, dict(zip(names, sums, strict=True)))


def check_manifest(
    checkpoint: Checkpoint, manifest: Manifest, progress: Progress | None = None
) -> list[Problem]:
    """Compare every tensor with a manifest; nothing that the checkpoint itself says is believed.

    Args:
        checkpoint: An open checkpoint.
        manifest: What it should be.
        progress: Called with bytes done and bytes in all.

    Raises:
        ConflictError: The checkpoint was edited in place meanwhile.
    """
    sources = Sources()
    try:
        problems, _ = differences(checkpoint.catalog, manifest, sources, progress, trusted=False)
    finally:
        sources.close()
    checkpoint.check_unchanged()
    return problems


def differences(
    catalog: Catalog,
    manifest: Manifest,
    sources: Sources,
    progress: Progress | None,
    *,
    trusted: bool,
) -> tuple[list[Problem], int]:
    """Compare tensors with a manifest.

    Args:
        catalog: Of the checkpoint.
        manifest: What it should be.
        sources: Its files.
        progress: Called with bytes done and bytes in all.
        trusted: The checkpoint's own checksums were compared with its bytes, which therefore need
            not be read again where these are of the same kind.

    Returns:
        What differs, and the bytes that were read.
    """
    problems: list[Problem] = []
    unread: list[int] = []
    for at, name in enumerate(catalog.names):
        tensor, wanted = catalog.tensor_at(at), manifest.tensors.get(name)
        text = _unlike(tensor, wanted)
        known = _known(tensor) if trusted and not text else None
        if wanted is not None and not text and known is None:
            unread.append(at)
        elif wanted is not None and not text and known != wanted.crc32c:
            text = _changed(wanted.crc32c, known or 0)
        if text:
            problems.append(_problem(name, tensor, text))
    problems += (
        Problem(
            manifest.path, name, None, f"the checkpoint has no such tensor ({one.spec}) any more"
        )
        for name, one in manifest.tensors.items()
        if name not in catalog
    )
    found = _summed(sources, catalog, unread, progress)
    read = 0
    for at in unread:
        name, tensor = catalog.names[at], catalog.tensor_at(at)
        wanted_sum, whole, failed = manifest.tensors[name].crc32c, 0, None
        for piece in _pieces(tensor):
            value, error = next(found)
            failed = failed or error
            whole = _native.crc32c_combine(whole, value, piece.extent.length)
        read += tensor.stored_bytes
        if failed is not None:
            path = failed.path or manifest.path
            problems.append(Problem(path, name, failed.offset, failed.message))
        elif whole != wanted_sum:
            problems.append(_problem(name, tensor, _changed(wanted_sum, whole)))
    return problems, read


def _unlike(tensor: Tensor, wanted: Sum | None) -> str:
    """Return in what a tensor differs from its entry, its bytes aside; nothing if in nothing."""
    if wanted is None:
        return "the manifest has no such tensor"
    if tensor.spec != wanted.spec:
        return f"the manifest has {wanted.spec}, found {tensor.spec}"
    if tensor.stored_bytes != wanted.nbytes:
        return f"the manifest has {wanted.nbytes} bytes, found {tensor.stored_bytes}"
    return ""


def _known(tensor: Tensor) -> int | None:
    """Return the checksum of a tensor that those which the checkpoint has make up."""
    whole = 0
    for piece in _pieces(tensor):
        if piece.checksum is None or piece.checksum.algorithm != "crc32c":
            return None
        whole = _native.crc32c_combine(whole, piece.checksum.value, piece.extent.length)
    return whole


def _changed(wanted: int, found: int) -> str:
    return f"checksum of its bytes: the manifest has {wanted:08x}, found {found:08x}"


def _problem(name: str, tensor: Tensor, text: str) -> Problem:
    extent = _pieces(tensor)[0].extent
    offset = None if is_virtual(extent.path) else extent.offset
    return Problem(real_path(extent.path), name, offset, text)


def _pieces(tensor: Tensor) -> tuple[Piece, ...]:
    if not isinstance(tensor.source, Stored):
        msg = "this tensor is not stored anywhere yet; run the plan first"
        raise CkptError(msg)
    return tensor.source.pieces


def _summed(
    sources: Sources, catalog: Catalog, positions: Iterable[int], progress: Progress | None
) -> Iterator[tuple[int, CkptError | None]]:
    """Sum tensors; return the checksum of each of their pieces, or why it could not be read."""
    positions = tuple(positions)
    if not positions:
        return iter(())
    tensors = partial(map, catalog.tensor_at, positions)
    total = sum(one.stored_bytes for one in tensors()) if progress is not None else 0
    done = 0

    def tick(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress is not None:
            progress(done, total)

    sums = _Sums(sources)
    each(sums.jobs(tensors()), CELL, tick)
    return sums.joined()


class _Sums:
    """The checksums of pieces, in the making: cell by cell, several at a time."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        # Columns, as there can be a million tensors, or a million cells of one.
        self._sums = array("I")
        self._lengths = array("q")
        self._cells = array("q")
        self._failed: dict[int, CkptError] = {}

    def jobs(self, tensors: Iterable[Tensor]) -> Iterator[Callable[[Scratch], int]]:
        """Yield the jobs; each takes a buffer of ``CELL`` bytes and returns the bytes it did."""
        batch: list[Cell] = []
        nbytes = 0
        for path, offset, length in self._places(tensors):
            batch.append((len(self._sums), path, offset, length))
            self._sums.append(0)
            self._lengths.append(length)
            nbytes += length
            if nbytes >= CELL or len(batch) >= TOGETHER:
                yield partial(self._sum, cells=batch)
                batch, nbytes = [], 0
        if batch:
            yield partial(self._sum, cells=batch)

    def _places(self, tensors: Iterable[Tensor]) -> Iterator[tuple[str, int, int]]:
        for tensor in tensors:
            for piece in _pieces(tensor):
                extent = piece.extent
                starts = range(0, extent.length, CELL)
                self._cells.append(len(starts))
                for at in starts:
                    yield extent.path, extent.offset + at, min(CELL, extent.length - at)

    def _sum(self, scratch: Scratch, cells: list[Cell]) -> int:
        for number, path, offset, length in cells:
            part = scratch[:length]
            try:
                self._sources.file(path).read_into(part, offset)
            except (CorruptError, ConflictError, UnsupportedError) as error:
                self._failed[number] = error
            else:
                self._sums[number] = _native.crc32c(part)
        return sum(length for *_, length in cells)

    def joined(self) -> Iterator[tuple[int, CkptError | None]]:
        """Yield the checksum of every piece, once all cells are done, or what went wrong."""
        number = 0
        for count in self._cells:
            value, failed = 0, None
            for at in range(number, number + count):
                value = _native.crc32c_combine(value, self._sums[at], self._lengths[at])
                failed = failed or self._failed.get(at)
            number += count
            yield value, failed


def _encoded(manifest: Manifest) -> bytes:
    """Return the file, a line for each tensor."""
    encode = msgspec.json.encode
    lines = (
        encode(_packed(name))
        + b": "
        + encode(_Entry(one.spec.dtype, one.spec.shape, one.nbytes, f"{one.crc32c:08x}"))
        for name, one in manifest.tensors.items()
    )
    head = b'{"version": %d, "format": %s, "tensors": {' % (VERSION, encode(manifest.format))
    body = b",\n".join(lines)
    return head + (b"\n" + body + b"\n" if body else b"") + b"}}\n"


def _packed(name: str) -> str:
    """Return a name as JSON can hold it: as it is where that is text, else byte by byte."""
    odd = name.startswith(_ODD) or any("\ud800" <= character <= "\udfff" for character in name)
    return _ODD + packed(name) if odd else name


def _unpacked(name: str) -> str:
    return unpacked(name[1:]) if name.startswith(_ODD) else name
