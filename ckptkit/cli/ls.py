"""``ckptkit ls``: what a checkpoint holds, from its index alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from ckptkit.cli.session import Session, json_option, reader_option
from ckptkit.cli.text import Column, printable, write_table
from ckptkit.sizes import counted, human_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptkit.checkpoint import Checkpoint
    from ckptkit.columns import Columns
    from ckptkit.model import TensorSpec
    from ckptkit.region import Box

SHORT: Final = (Column("name"), Column("dtype"), Column("shape"), Column("size", right=True))
LABELLED: Final = (SHORT[0], Column("layer"), *SHORT[1:])
PLACE: Final = (Column("shard", right=True), Column("offset", right=True), Column("checksum"))


class Place(NamedTuple):
    """Where stored bytes lie.

    Attributes:
        shard: Number of the data file.
        file: Its name, without the folder.
        offset: First byte in it; None where the bytes are in chunks, or otherwise not as they are.
        nbytes: How many bytes.
        checksum: Algorithm and value, such as ``crc32c:89abcdef``; None where there is none.
    """

    shard: int
    file: str
    offset: int | None
    nbytes: int
    checksum: str | None


class Row(NamedTuple):
    """A tensor as a listing shows it.

    Attributes:
        name: Its name.
        spec: Dtype and shape.
        columns: The index.
        number: Of its row there.
    """

    name: str
    spec: TensorSpec
    columns: Columns
    number: int

    @property
    def slices(self) -> tuple[tuple[Box, int], ...]:
        """The box and the row of every slice, if the tensor is stored in slices."""
        return self.columns.parts.get(self.number, ())

    @property
    def label(self) -> str:
        """What people call it besides, if the checkpoint says."""
        labels = self.columns.labels
        return labels[self.number] if labels else ""

    @property
    def nbytes(self) -> int:
        """Stored bytes."""
        return self.columns.stored_bytes(self.number)

    def place(self, number: int) -> Place:
        """Return where the bytes of a row are."""
        columns = self.columns
        shard = columns.shard[number]
        offset: int | None = columns.offset[number]
        path = columns.files.get(shard, "")
        if shard >= columns.shards:
            from ckptkit.storage.virtual import real_path

            path, offset = real_path(path), None
            shard = next((at for at, file in columns.files.items() if file == path), 0)
        file = os.path.basename(path)
        checksum = None
        if columns.has_checksum(number):
            checksum = f"{self.spec.algorithm}:{columns.checksum[number]:08x}"
        return Place(shard, file, offset, columns.size[number], checksum)

    def to_dict(self) -> dict[str, Any]:
        """Return the row, ready for JSON."""
        slices = self.slices
        place = None if slices else self.place(self.number)
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
        if self.columns.labels:
            result["layer"] = self.label or None
        if slices:
            result["pieces"] = [
                {**self.place(at)._asdict(), "start": list(box.start), "extent": list(box.shape)}
                for box, at in slices
            ]
        return result

    def cells(self, *, long: bool) -> tuple[str, ...]:
        """Return the row as text."""
        shape = ",".join(map(str, self.spec.shape))
        names = (self.name, self.label) if self.columns.labels else (self.name,)
        cells = (*names, self.spec.dtype, f"[{shape}]", human_size(self.nbytes))
        if not long:
            return cells
        if slices := self.slices:
            return (*cells, "", "", counted(len(slices), "slice"))
        place = self.place(self.number)
        offset = "encoded" if place.offset is None else str(place.offset)
        return (*cells, str(place.shard), offset, place.checksum or "")


def rows(checkpoint: Checkpoint, patterns: Sequence[str] = ()) -> Iterator[Row]:
    """Yield tensors in the order of the index: all, or those that a pattern matches.

    Raises:
        EditError: A pattern matches nothing.
    """
    catalog = checkpoint.catalog
    columns, names, numbers = catalog.columns, catalog.names, catalog.rows
    if patterns:
        from ckptkit.globs import select

        chosen = {name for pattern in patterns for name in select(catalog, pattern)}
        names = [name for name in names if name in chosen]
        numbers = [catalog.row(name) for name in names]
    for name, number in zip(names, numbers, strict=True):
        yield Row(name, columns.spec(number), columns, number)


@click.command("ls", short_help="List tensors.")
@click.argument("path", type=click.Path())
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@click.option("-l", "--long", is_flag=True, help="Say also where the bytes are: shard, offset.")
@click.option("--graph", "as_objects", is_flag=True, help="Show the tree of objects.")
@click.option("--all", "whole_folder", is_flag=True, help="List the checkpoints of a folder.")
@reader_option
@json_option
@click.pass_obj
def command(
    session: Session,
    /,
    path: str,
    patterns: tuple[str, ...],
    *,
    long: bool,
    as_objects: bool,
    whole_folder: bool,
    reader: Any,
) -> None:
    """List the tensors of the checkpoint at PATH, or those that match a PATTERN.

    A PATTERN is a name or a glob: * and ? stay within a segment of a name, ** goes across. With
    layer: in front it is about the names that Keras layers and weights have: layer:head/kernel.
    Only the index is read.

    With --graph the objects of the model are shown, as TensorFlow restores them: local names, and
    of variables dtype, shape, full name and key. Each stands once, under its shortest path, and
    other paths point there. A PATTERN is a path of objects then, or a glob of such.

    With --all PATH is a folder, and all checkpoints in it are listed, also
    those that do not open, and what the folder's state file says of them.
    """
    import ckptkit

    if whole_folder:
        if patterns or long or as_objects or reader is not None:
            msg = (
                "--all lists checkpoints: it goes with neither a PATTERN nor -l nor --graph"
                " nor --reader"
            )
            raise click.UsageError(msg)
        from ckptkit.cli.inventory import list_folder

        list_folder(session, path)
        return
    with ckptkit.open(path, reader) as checkpoint:
        if as_objects:
            from ckptkit.cli.objects import list_objects

            list_objects(session, checkpoint, patterns, long=long)
        elif session.json:
            from ckptkit.cli.jsontext import write_listing

            kind, where = checkpoint.format, checkpoint.path
            head = {"format": kind, "path": where, "dead_bytes": checkpoint.dead_bytes}
            write_listing(head, "tensors", (row.to_dict() for row in rows(checkpoint, patterns)))
        else:
            named = LABELLED if checkpoint.catalog.columns.labels else SHORT
            columns = (*named, *PLACE) if long else named
            _write_text(rows(checkpoint, patterns), columns, place_of(checkpoint), long=long)


def place_of(checkpoint: Checkpoint) -> str:
    """Return what kind of checkpoint it is, and where, for the last line."""
    shards = counted(checkpoint.catalog.columns.shards, "shard")
    dead = checkpoint.dead_bytes
    more = f", {human_size(dead)} of dead bytes (edit --compact leaves them out)" if dead else ""
    return f"{checkpoint.format} checkpoint of {shards} at {checkpoint.path}{more}"


def _write_text(
    listing: Iterator[Row], columns: Sequence[Column], where: str, *, long: bool
) -> None:
    tensors = nbytes = 0

    def cells() -> Iterator[tuple[str, ...]]:
        nonlocal tensors, nbytes
        for row in listing:
            tensors += 1
            nbytes += row.nbytes
            yield row.cells(long=long)

    write_table(columns, cells())
    click.echo(printable(f"{counted(tensors, 'tensor')}, {human_size(nbytes)}; {where}"))
