"""What verifying a checkpoint of the first format looks at: blocks, what is between, and values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ckptkit.errors import FormatError
from ckptkit.formats.tensorflow.paths import FOOTER_BYTES
from ckptkit.formats.tensorflow.v1.paths import files_of
from ckptkit.formats.tensorflow.v1.scan import read_contents
from ckptkit.formats.tensorflow.v1.table import TRAILER, TableFile
from ckptkit.sizes import listed
from ckptkit.storage.disk import Disk, Sources
from ckptkit.storage.virtual import is_virtual, real_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.formats import Member, Warn
    from ckptkit.model import Source

NAMED: Final = 3
"""Tensors of a block that a message names."""

PIECE: Final = 1 << 20
"""Bytes that are decoded at a time."""


def members(source: Source) -> Sequence[Member]:
    """Return every block of every file that anybody reads.

    Raises:
        FormatError: What is read whole is damaged.
    """
    return [member for number, path in enumerate(files_of(source)) for member in _of(number, path)]


def _of(number: int, path: str) -> Iterator[Member]:
    from ckptkit.formats import Member

    with Disk().open(path) as file:
        names = dict(read_contents(file, path, number).blocks)
        table = TableFile(file, path)
        for handle, checksum in table.sums():
            held = names.get(handle, [])
            what = f"block at byte {handle.offset}"
            if held:
                what = f"{what}, with {listed(map(repr, held[:NAMED]), len(held))}"
            yield Member(
                path,
                handle.offset,
                handle.size + 1,
                checksum,
                what,
                "TensorFlow does not read it",
                "crc32c",
                held[0] if len(held) == 1 else None,
            )


def audit(source: Source, catalog: Catalog, warn: Warn) -> None:
    """Report bytes that nobody reads, and values that do not decode."""
    for path in files_of(source):
        _audit_gaps(path, warn)
    _audit_values(catalog, warn)


def _audit_gaps(path: str, warn: Warn) -> None:
    with Disk().open(path) as file:
        table = TableFile(file, path)
        if table.padding.strip(b"\0"):
            warn(path, table.size - FOOTER_BYTES, "the footer is padded with other than zeros")
        for text in table.oddities():
            warn(path, table.metaindex.offset, text)
        end = 0
        handles = {table.metaindex, table.index, *(handle for _, handle in table.blocks)}
        for handle in sorted(handles):
            if handle.offset > end:
                warn(path, end, f"{handle.offset - end} bytes belong to no block")
            end = max(end, handle.end + TRAILER)
        if end < table.size - FOOTER_BYTES:
            warn(path, end, f"{table.size - FOOTER_BYTES - end} bytes belong to no block")


def _audit_values(catalog: Catalog, warn: Warn) -> None:
    """Decode what is not stored as it is: values may be too few, or of another kind."""
    columns = catalog.columns
    owners = {row: name for name, row in zip(catalog.names, catalog.rows, strict=True)}
    owners |= {
        at: owners[row] for row, parts in columns.parts.items() for _, at in parts if row in owners
    }
    sources = Sources()
    try:
        for row, shard in enumerate(columns.shard):
            path, size = columns.files.get(shard, ""), columns.size[row]
            if not is_virtual(path):
                continue
            try:
                file = sources.file(path)
                for at in range(0, size, PIECE):
                    file.read(at, min(PIECE, size - at))
            except FormatError as error:
                warn(
                    real_path(path),
                    error.offset,
                    error.message,
                    tensor=owners.get(row),
                    severity="error",
                )
    finally:
        sources.close()
