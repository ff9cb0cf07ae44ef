"""The catalog of what was chosen: rows of several bundles, and the files that they are in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ckptkit.catalog import Catalog
from ckptkit.columns import Place, Rows
from ckptkit.formats.tensorflow.dtypes import NAMES
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY
from ckptkit.kernels import Constant
from ckptkit.model import Derived, Tensor, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptkit.columns import Columns
    from ckptkit.engine.salvage.choose import Choice
    from ckptkit.region import Box


class Assembly(NamedTuple):
    """What is to be written.

    Attributes:
        before: The tensors as they are stored, wherever that is.
        after: The same, with the object graph as it is to be.
    """

    before: Catalog
    after: Catalog


def assemble(choice: Choice, names: Sequence[str], graph: bytes | None) -> Assembly:
    """Return the catalog of tensors from wherever they were chosen to be taken.

    Args:
        choice: What was chosen.
        names: The tensors.
        graph: The new object graph, if it is another one.
    """
    rows = _Rows(choice)
    numbers = []
    for name in names:
        taken = choice.taken[name]
        if not taken.boxes:
            (piece,) = taken.pieces
            numbers.append(rows.add(piece.member, piece.row))
            continue
        parts = tuple(
            (box, rows.add(piece.member, piece.row))
            for box, piece in zip(taken.boxes, taken.pieces, strict=True)
        )
        numbers.append(rows.add_whole(taken.member, taken.row, parts))
    before = Catalog(list(names), numbers, rows.columns(), attachments=_attachments(choice))
    if graph is None:
        return Assembly(before, before.replace())
    spec = TensorSpec("string", ())
    values = Derived(Constant(spec, elements=(graph,)))
    row = before.row(GRAPH_KEY)
    tensor = Tensor(spec, values, entry=before.columns.entry(row))
    return Assembly(before, before.with_tensors({GRAPH_KEY: tensor}))


def _attachments(choice: Choice) -> dict[str, bytes]:
    headers = (member.bundle.header for member in choice.members)
    found = next((header for header in headers if header is not None), None)
    return {} if found is None else {"header": found}


class _Rows:
    """Collects rows of several bundles as columns of one."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        ours = choice.ours.bundle
        self.files = dict(ours.columns.files)
        self.base = max(self.files, default=-1) + 1
        self.numbers: dict[str, int] = {path: number for number, path in self.files.items()}
        self.held = Rows()
        self.parts: dict[int, tuple[tuple[Box, int], ...]] = {}

    def add(self, member: int, row: int) -> int:
        """Add a row that has bytes; return its number."""
        judged = self.choice.members[member]
        columns = judged.bundle.columns
        path = columns.files.get(columns.shard[row])
        if path is None:
            # It has no bytes, so that any file will do.
            return self._add(columns, row, Place(checksum=judged.found[row]))
        shard = self.numbers.get(path)
        if shard is None:
            shard = self.numbers[path] = max(self.files, default=-1) + 1
            self.files[shard] = path
        place = Place(shard, columns.offset[row], columns.size[row], judged.found[row])
        return self._add(columns, row, place)

    def add_whole(self, member: int, row: int, parts: tuple[tuple[Box, int], ...]) -> int:
        """Add the row of a tensor in slices; return its number."""
        number = self._add(self.choice.members[member].bundle.columns, row, Place())
        self.parts[number] = parts
        return number

    def _add(self, columns: Columns, row: int, place: Place) -> int:
        code, shape, entry = columns.dtype[row], columns.shape(row), columns.entry(row)
        return self.held.add(code, shape, place._replace(flags=columns.flags[row]), entry)

    def columns(self) -> Columns:
        """Return the columns."""
        ours = self.choice.ours.bundle.columns
        # No more files than there are or were: the number that an index claims makes none.
        shards = min(ours.shards, self.base) if self.base else 1
        return replace(
            self.held.columns(NAMES, self.files),
            parts=self.parts,
            byteorder=ours.byteorder,
            shards=max(shards, 1),
        )
