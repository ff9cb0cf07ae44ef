"""``ckptkit ls``: what a checkpoint holds, from its index alone."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from ckptkit.cli.session import Session, json_option
from ckptkit.cli.text import Column, counted, human_size, printable, write_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ckptkit.api import Checkpoint
    from ckptkit.model import Columns, TensorSpec

SHORT: Final = (Column("name"), Column("dtype"), Column("shape"), Column("size", right=True))
LONG: Final = (
    *SHORT,
    Column("shard", right=True),
    Column("offset", right=True),
    Column("checksum"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where stored bytes lie.

    Attributes:
        shard: Number of the data file.
        file: Its name, without the folder.
        offset: First byte in it.
        nbytes: How many bytes.
        checksum: Algorithm and value, such as ``crc32c:89abcdef``.
    """

    shard: int
    file: str
    offset: int
    nbytes: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Row:
    """A tensor as a listing shows it.

    Attributes:
        name: Its name.
        spec: Dtype and shape.
        nbytes: Stored bytes.
        place: Where they lie; None if the tensor is stored in slices.
        pieces: Its slices, each with first index and extent along every axis.
    """

    name: str
    spec: TensorSpec
    nbytes: int
    place: Place | None
    pieces: tuple[tuple[Place, tuple[int, ...], tuple[int, ...]], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the row, ready for JSON."""
        place = self.place
        result: dict[str, Any] = {
            "name": self.name,
            "dtype": self.spec.dtype,
            "shape": list(self.spec.shape),
            "nbytes": self.nbytes,
            "shard": place.shard if place else None,
            "file": place.file if place else None,
            "offset": place.offset if place else None,
            "checksum": place.checksum if place else None,
        }
        if self.pieces:
            result["pieces"] = [
                {**asdict(at), "start": list(start), "extent": list(extent)}
                for at, start, extent in self.pieces
            ]
        return result

    def cells(self, *, long: bool) -> tuple[str, ...]:
        """Return the row as text."""
        shape = ",".join(map(str, self.spec.shape))
        cells = (self.name, self.spec.dtype, f"[{shape}]", human_size(self.nbytes))
        if not long:
            return cells
        if self.place is None:
            return (*cells, "", "", counted(len(self.pieces), "slice"))
        return (*cells, str(self.place.shard), str(self.place.offset), self.place.checksum)


def rows(checkpoint: Checkpoint, names: Iterable[str]) -> Iterator[Row]:
    """Yield a row for each name, straight from the columns of the index."""
    catalog = checkpoint.catalog
    columns = catalog.columns
    for name in names:
        row = catalog.row(name)
        spec = columns.spec(row)
        slices = columns.parts.get(row)
        if slices is None:
            yield Row(name, spec, columns.size[row], _place(columns, row, spec))
            continue
        pieces = tuple((_place(columns, at, spec), box.start, box.shape) for box, at in slices)
        yield Row(name, spec, sum(place.nbytes for place, *_ in pieces), None, pieces)


def _place(columns: Columns, row: int, spec: TensorSpec) -> Place:
    shard = columns.shard[row]
    file = os.path.basename(columns.files.get(shard, ""))
    checksum = f"{spec.algorithm}:{columns.checksum[row]:08x}"
    return Place(shard, file, columns.offset[row], columns.size[row], checksum)


@click.command("ls", short_help="List tensors.")
@click.argument("path", type=click.Path())
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@click.option("-l", "--long", is_flag=True, help="Say also where the bytes are: shard, offset.")
@json_option
@click.pass_obj
def command(session: Session, /, path: str, patterns: tuple[str, ...], *, long: bool) -> None:
    """List the tensors of the checkpoint at PATH, or those that match a PATTERN.

    A PATTERN is a name or a glob: * and ? stay within a segment of a name, ** goes across.
    Only the index is read.
    """
    import ckptkit

    with ckptkit.open(path) as checkpoint:
        names = _chosen(checkpoint, patterns)
        if session.json:
            _write_json(checkpoint, rows(checkpoint, names))
        else:
            _write_text(checkpoint, rows(checkpoint, names), long=long)


def _chosen(checkpoint: Checkpoint, patterns: tuple[str, ...]) -> Iterable[str]:
    if not patterns:
        return checkpoint
    from ckptkit.edits import select

    chosen = {name for pattern in patterns for name in select(checkpoint.catalog, pattern)}
    return (name for name in checkpoint if name in chosen)


def _write_json(checkpoint: Checkpoint, listing: Iterable[Row]) -> None:
    """Print one object, row by row: a million tensors need not fit in memory twice."""
    from ckptkit.cli.jsontext import dumps

    write = sys.stdout.write
    head = dumps({"format": checkpoint.format, "path": checkpoint.path})
    write(head[:-1] + ', "tensors": [')
    between = "\n"
    for row in listing:
        write(between + dumps(row.to_dict()))
        between = ",\n"
    write("]}\n")


def _write_text(checkpoint: Checkpoint, listing: Iterable[Row], *, long: bool) -> None:
    tensors = nbytes = 0

    def cells() -> Iterator[tuple[str, ...]]:
        nonlocal tensors, nbytes
        for row in listing:
            tensors += 1
            nbytes += row.nbytes
            yield row.cells(long=long)

    write_table(LONG if long else SHORT, cells())
    shards = counted(checkpoint.catalog.columns.shards, "shard")
    where = f"{checkpoint.format} checkpoint of {shards} at {checkpoint.path}"
    click.echo(printable(f"{counted(tensors, 'tensor')}, {human_size(nbytes)}; {where}"))
