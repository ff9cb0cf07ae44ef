"""Regions that change where they are: only their bytes are read, computed and written.

A region of a tensor in C order is *runs*: stretches of bytes of one width. What is computed from
them is dense, so that a kernel sees a small array and knows nothing of the large one around it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from ckptkit.engine.blocks import cut, runs_in, runs_of
from ckptkit.engine.program import evaluate, read_bytes, reads, uses
from ckptkit.engine.read import from_stored, read_box, to_stored
from ckptkit.kernels import Constant, broadcast
from ckptkit.model import Derived, Tensor
from ckptkit.region import Box, Selection
from ckptkit.storage.runs import bytes_touched, read_runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ckptkit.engine.steps import Worker
    from ckptkit.kernels import Kernel
    from ckptkit.model import Piece, TensorSpec

    Array = NDArray[Any]
    Int64s = NDArray[np.int64]


RUNS: Final = 1 << 16
"""Runs that are taken at a time: each is an object or two on the way."""

EXACT: Final = 1 << 22
"""Runs up to which it is worked out which bytes reading them takes."""

OFFSET: Final = 8
"""Bytes that a journal takes for where a run starts."""


class Layer(NamedTuple):
    """One edit of a region: what computes it, and from which further tensors."""

    kernel: Kernel
    others: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Strided:
    """A region of a stored piece, and the edits of just that region.

    Attributes:
        item: The number of the piece in the placement.
        name: Of its tensor.
        spec: Dtype and shape of the tensor.
        byteorder: Of its bytes.
        path, offset: Where the piece is.
        shape: Shape of the piece.
        inside: The region, in coordinates of the piece.
        start: What of the region comes before ``inside``, along its axes.
        layers: The edits, in order.
    """

    item: int
    name: str
    spec: TensorSpec
    byteorder: str
    path: str
    offset: int
    shape: tuple[int, ...]
    inside: Selection
    start: tuple[int, ...]
    layers: tuple[Layer, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that change."""
        return self.inside.size * self.spec.itemsize

    @property
    def runs(self) -> int:
        """Number of runs."""
        return runs_in(self.shape, self.inside)[1]

    @property
    def journal_bytes(self) -> int:
        """Bytes that a journal takes for it, but for its heads."""
        return 2 * self.nbytes + OFFSET * self.runs

    @property
    def bytes_read(self) -> int:
        """Bytes that are read from files, those of further tensors included.

        Of more than ``EXACT`` runs it is the most that it can be.
        """
        others = sum(read_bytes(leaf, at) for leaf, at in self.reads())
        if self.runs > EXACT:
            return others + _at_most(self.shape, self.inside) * self.spec.itemsize
        parts = self.parts(1 << 62)
        return others + sum(bytes_touched(*part.place()) for part in parts)

    def parts(self, nbytes: int) -> Iterator[Strided]:
        """Cut the region into parts of at most ``nbytes`` bytes, and of ``RUNS`` runs."""
        chosen, itemsize = self.inside, self.spec.itemsize
        width = runs_in(self.shape, chosen)[0] * itemsize
        for box in cut(Box.whole(chosen.count), itemsize, min(nbytes, width * RUNS)):
            start = tuple(
                a + step * low
                for a, step, low in zip(chosen.start, chosen.step, box.start, strict=True)
            )
            inside = Selection(start, chosen.step, box.shape, chosen.kept)
            begin = tuple(a + low for a, low in zip(self.start, box.start, strict=True))
            yield Strided(
                self.item,
                self.name,
                self.spec,
                self.byteorder,
                self.path,
                self.offset,
                self.shape,
                inside,
                begin,
                self.layers,
            )

    def place(self) -> tuple[int, Int64s]:
        """Return the width of the runs in bytes, and where in the file each of them starts."""
        width, starts = runs_of(self.shape, self.inside)
        return width * self.spec.itemsize, self.offset + starts * self.spec.itemsize

    def reads(self) -> Iterator[tuple[Tensor, Box]]:
        """Yield the stored tensors, and the boxes of them, that are read besides the runs."""
        for layer in self.layers:
            for parent in layer.others:
                yield from reads(parent, self._box_of(parent))

    def compute(self, worker: Worker, old: Array) -> Array:
        """Return the new bytes of the runs, from the old ones."""
        kept = self.inside.shape
        values = from_stored(old.copy(), self.spec, self.byteorder).reshape(kept)
        for layer in self.layers:
            others = [
                evaluate(parent, self._box_of(parent), _Reader(worker), worker.device.run)
                for parent in layer.others
            ]
            current = values if uses(layer.kernel, 0) else None
            made = worker.device.run(layer.kernel, [current, *others], self.spec.dtype)
            values = np.broadcast_to(made, kept)
        return to_stored(values, self.spec, self.byteorder)

    def _box_of(self, parent: Tensor) -> Box:
        start = tuple(a for a, keep in zip(self.start, self.inside.kept, strict=True) if keep)
        return broadcast(parent.spec.shape, Box(start, self.inside.shape))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads stored tensors for a kernel."""

    worker: Worker

    def __call__(self, tensor: Tensor, box: Box) -> Array:
        """Return a box of a stored tensor."""
        return read_box(self.worker.sources, tensor, box)


def read_old(worker: Worker, part: Strided) -> tuple[int, Int64s, Array]:
    """Return width, offsets and present bytes of the runs of a part."""
    width, offsets = part.place()
    return width, offsets, read_runs(worker.sources.file(part.path), width, offsets)


def _at_most(shape: tuple[int, ...], inside: Selection) -> int:
    """Return the elements from the first to the last one of a selection."""
    span = 0
    for size, count, step in zip(shape, inside.count, inside.step, strict=True):
        span = span * size + (count - 1) * step
    return span + 1


def regions_of(
    tensor: Tensor, piece: Piece
) -> list[tuple[Selection, tuple[int, ...], tuple[Layer, ...]]] | None:
    """Return the regions of a piece that edits change, where no two of them overlap in part.

    Returns:
        Each region in coordinates of the piece, what of it comes before, and its edits in order;
        None where the edits have to be made block by block.
    """
    layers: list[tuple[Selection, Layer]] = []
    current = tensor
    while isinstance(current.source, Derived):
        source = current.source
        if source.region is None or isinstance(source.kernel, Constant):
            return None
        selection = source.region.resolve(tensor.spec.shape)
        layers.append((selection, Layer(source.kernel, source.parents[1:])))
        current = source.parents[0]
    together: dict[Selection, list[Layer]] = {}
    for selection, layer in reversed(layers):
        together.setdefault(selection, []).append(layer)
    for one, other in itertools.combinations(together, 2):
        if _overlap(one, other):
            return None
    found = []
    for selection, edits in together.items():
        inside = selection.within(piece.box)
        if inside is not None and inside.size:
            start = tuple(
                (low + a - first) // step
                for low, a, first, step in zip(
                    piece.box.start, inside.start, selection.start, selection.step, strict=True
                )
            )
            found.append((inside, start, tuple(edits)))
    return found


def _overlap(one: Selection, other: Selection) -> bool:
    """Tell whether two selections of one tensor may have an element in common."""
    for a, b, m, n, s, t in zip(
        one.start, other.start, one.count, other.count, one.step, other.step, strict=True
    ):
        if not m or not n:
            return False
        apart = a > b + (n - 1) * t or b > a + (m - 1) * s or (a - b) % math.gcd(s, t)
        if apart:
            return False
    return True
