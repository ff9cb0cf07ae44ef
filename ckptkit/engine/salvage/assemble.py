"""The catalog of what was chosen: rows of several bundles, and the files that they are in."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ckptkit.catalog import Catalog
from ckptkit.columns import Columns
from ckptkit.formats.tensorflow.dtypes import NAMES
from ckptkit.formats.tensorflow.salvage.graph import GRAPH_KEY
from ckptkit.kernels import Constant
from ckptkit.model import Derived, Tensor, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        self.dtype: list[int] = []
        self.shapes: list[tuple[int, ...]] = []
        self.places: list[tuple[int, int, int, int]] = []
        self.flags = bytearray()
        self.entries: list[bytes] = []
        self.parts: dict[int, tuple[tuple[Box, int], ...]] = {}

    def add(self, member: int, row: int) -> int:
        """Add a row that has bytes; return its number."""
        judged = self.choice.members[member]
        columns = judged.bundle.columns
        path = columns.files.get(columns.shard[row])
        if path is None:
            # It has no bytes, so that any file will do.
            return self._append(columns, row, (0, 0, 0, judged.found[row]))
        shard = self.numbers.get(path)
        if shard is None:
            shard = self.numbers[path] = max(self.files, default=-1) + 1
            self.files[shard] = path
        place = (shard, columns.offset[row], columns.size[row], judged.found[row])
        return self._append(columns, row, place)

    def add_whole(self, member: int, row: int, parts: tuple[tuple[Box, int], ...]) -> int:
        """Add the row of a tensor in slices; return its number."""
        columns = self.choice.members[member].bundle.columns
        number = self._append(columns, row, (0, 0, 0, 0))
        self.parts[number] = parts
        return number

    def _append(self, columns: Columns, row: int, place: tuple[int, int, int, int]) -> int:
        self.dtype.append(columns.dtype[row])
        self.shapes.append(columns.shape(row))
        self.places.append(place)
        self.flags.append(columns.flags[row])
        self.entries.append(columns.entry(row))
        return len(self.dtype) - 1

    def columns(self) -> Columns:
        """Return the columns."""
        ours = self.choice.ours.bundle.columns
        places = np.array(self.places, np.int64).reshape(-1, 4).T
        lengths = np.array([0, *map(len, self.entries)], np.int64)
        # No more files than there are or were: the number that an index claims makes none.
        shards = min(ours.shards, self.base) if self.base else 1
        return Columns(
            NAMES,
            self.files,
            _column("i", self.dtype),
            _column("q", list(itertools.chain.from_iterable(self.shapes))),
            _column("q", np.cumsum([len(shape) for shape in self.shapes])),
            _column("i", places[0]),
            _column("q", places[1]),
            _column("q", places[2]),
            _column("I", places[3]),
            memoryview(bytes(self.flags)),
            b"".join(self.entries),
            _column("q", np.cumsum(lengths)),
            self.parts,
            byteorder=ours.byteorder,
            shards=max(shards, 1),
        )


def _column(kind: str, values: object) -> memoryview:
    dtype = {"i": np.int32, "q": np.int64, "I": np.uint32}[kind]
    held = np.asarray(values, dtype=np.int64).astype(dtype)
    return memoryview(held.tobytes()).cast(kind)  # type: ignore[call-overload,no-any-return]
