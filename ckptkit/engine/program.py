"""What a derived tensor needs and gives, block by block.

Two shapes of work. A *chain* is a tree of elementwise kernels whose inputs all have the shape of
the output: its blocks are plain runs of elements, of as many tensors as lie side by side.
Everything else (regions, broadcasting, kernels that see the tensor's axes) goes *box by box*.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ckptkit.engine.blocks import spans
from ckptkit.engine.read import CHUNK
from ckptkit.kernels import Constant
from ckptkit.model import Derived, Stored, Tensor
from ckptkit.region import Box, Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ckptkit.kernels import Kernel, Ops
    from ckptkit.model import Piece

    Array = NDArray[Any]

Node = int | tuple["Kernel", tuple["Node | None", ...]]
"""The number of an input, or a kernel and the nodes of its inputs (None: not used)."""


class Block(Protocol):
    """What a device runs: a function of blocks. Kernels are such, and chains of kernels."""

    def block(self, ops: Ops, inputs: Sequence[Any]) -> Any:
        """Compute a block."""


@dataclass(frozen=True)
class Chain:
    """A tree of elementwise kernels as one function of its inputs.

    Attributes:
        root: The tree.
        dtypes: Dtype of every input.
        dtype: Dtype of the output.
    """

    root: Node
    dtypes: tuple[str, ...]
    dtype: str

    def block(self, ops: Ops, inputs: Sequence[Any]) -> Any:
        """Compute a run of elements from the same run of every input."""
        return _run(self.root, ops, inputs)


def _run(node: Node | None, ops: Ops, inputs: Sequence[Any]) -> Any:
    if node is None or isinstance(node, int):
        return None if node is None else inputs[node]
    kernel, parents = node
    return kernel.block(ops, [_run(parent, ops, inputs) for parent in parents])


class Leaf(NamedTuple):
    """A stored piece that a chain reads."""

    piece: Piece
    dtype: str
    byteorder: str


@dataclass
class Chains:
    """Makes chains, and the same one for the same kernels, so that neighbours can share it."""

    _known: dict[tuple[Any, ...], Chain] = field(default_factory=dict)

    def of(self, tensor: Tensor, part: int) -> tuple[Chain, tuple[Leaf, ...]] | None:
        """Return the chain that computes a piece of a tensor, or None if it has to go by boxes."""
        leaves: list[Leaf] = []
        root = _chain_node(tensor, tensor, part, leaves)
        if root is None or isinstance(root, int):
            return None
        dtypes = tuple(leaf.dtype for leaf in leaves)
        key = (_identity(root), dtypes, tensor.spec.dtype)
        chain = self._known.get(key)
        if chain is None:
            chain = self._known[key] = Chain(root, dtypes, tensor.spec.dtype)
        return chain, tuple(leaves)


def _identity(node: Node | None) -> Any:
    if node is None or isinstance(node, int):
        return node
    return (id(node[0]), *map(_identity, node[1]))


def _chain_node(tensor: Tensor, target: Tensor, part: int, leaves: list[Leaf]) -> Node | None:
    if tensor.spec.shape != target.spec.shape or tensor.boxes != target.boxes:
        return None
    source = tensor.source
    if isinstance(source, Stored):
        leaves.append(Leaf(source.pieces[part], tensor.spec.dtype, source.byteorder))
        return len(leaves) - 1
    kernel = source.kernel
    if source.region is not None or not kernel.elementwise or isinstance(kernel, Constant):
        return None
    nodes: list[Node | None] = []
    for number, parent in enumerate(source.parents):
        node = None
        if uses(kernel, number):
            node = _chain_node(parent, target, part, leaves)
            if node is None:
                return None
        nodes.append(node)
    return kernel, tuple(nodes)


def uses(kernel: Kernel, number: int) -> bool:
    """Tell whether a kernel looks at an input; not if all it does is put something in its place."""
    return number > 0 or kernel.uses_current


class Needs(Protocol):
    """Hands over the values of a stored tensor."""

    def __call__(self, tensor: Tensor, box: Box) -> Array:
        """Return a box of the tensor, as an array that the caller may change."""


class Runs(Protocol):
    """Runs a block function on some device."""

    def __call__(self, function: Block, inputs: Sequence[Array | None], dtype: str) -> Array:
        """Return what the function gives for host arrays, as a host array of a dtype."""


def evaluate(tensor: Tensor, box: Box, read: Needs, run: Runs) -> Array:
    """Return a box of a tensor, computed where it has to be, as an array that may be changed."""
    source = tensor.source
    if isinstance(source, Stored):
        return read(tensor, box)
    kernel = source.kernel
    if isinstance(kernel, Constant):
        return np.array(kernel.array()[box.slices()])
    if source.region is None:
        inputs = [
            evaluate(parent, at, read, run) if at is not None else None
            for parent, at in _inputs(source, box)
        ]
        return _filled(run(kernel, inputs, tensor.spec.dtype), box.shape)
    base = evaluate(source.parents[0], box, read, run)
    selection = source.region.resolve(tensor.spec.shape)
    inside = selection.within(box)
    if inside is None:
        return base
    # The ellipsis makes a view, also where integers pick a single element.
    part = base[(*inside.index(), ...)]
    current = np.asarray(part, order="C") if uses(kernel, 0) else None
    others = [
        evaluate(parent, at, read, run)
        for parent, at in _region_inputs(source, selection, inside, box)
    ]
    part[...] = run(kernel, [current, *others], tensor.spec.dtype)
    return base


def reads(tensor: Tensor, box: Box) -> Iterator[tuple[Tensor, Box]]:
    """Yield the stored tensors, and the boxes of them, that :func:`evaluate` reads for a box."""
    source = tensor.source
    if isinstance(source, Stored):
        yield tensor, box
        return
    if isinstance(source.kernel, Constant):
        return
    if source.region is None:
        for parent, at in _inputs(source, box):
            if at is not None:
                yield from reads(parent, at)
        return
    yield from reads(source.parents[0], box)
    selection = source.region.resolve(tensor.spec.shape)
    inside = selection.within(box)
    if inside is not None:
        for parent, at in _region_inputs(source, selection, inside, box):
            yield from reads(parent, at)


def read_bytes(tensor: Tensor, box: Box) -> int:
    """Return how many bytes reading a box of a stored tensor takes from its files."""
    ones = (1,) * len(box.shape)
    selection = Selection(box.start, ones, box.shape, (True,) * len(box.shape))
    total = 0
    for piece in tensor.source.pieces if isinstance(tensor.source, Stored) else ():
        inside = selection.within(piece.box)
        if inside is not None:
            found = spans(piece.box.shape, inside, tensor.spec.itemsize, CHUNK)
            total += sum(span.length for span in found)
    return total


def base_of(tensor: Tensor) -> Tensor | None:
    """Return the stored tensor whose blocks lie just where the blocks of a derived one do."""
    current = tensor
    while isinstance(current.source, Derived):
        source = current.source
        used = source.region is not None or uses(source.kernel, 0)
        if not source.parents or not used or source.parents[0].spec.shape != tensor.spec.shape:
            return None
        current = source.parents[0]
    return current if current.boxes == tensor.boxes else None


def touches(tensor: Tensor) -> Callable[[Box], bool] | None:
    """Return a test for the boxes that an edit of regions changes; None if it changes all."""
    selections: list[Selection] = []
    base, current = base_of(tensor), tensor
    if base is None or base.spec != tensor.spec:
        return None
    while isinstance(current.source, Derived):
        if current.source.region is None:
            return None
        selections.append(current.source.region.resolve(tensor.spec.shape))
        current = current.source.parents[0]
    return lambda box: any(selection.within(box) is not None for selection in selections)


def _inputs(source: Derived, box: Box) -> Iterator[tuple[Tensor, Box | None]]:
    for number, parent in enumerate(source.parents):
        at = broadcast(parent.spec.shape, box) if uses(source.kernel, number) else None
        yield parent, at


def _region_inputs(
    source: Derived, selection: Selection, inside: Selection, box: Box
) -> Iterator[tuple[Tensor, Box]]:
    """Yield the further parents of a region edit, with the boxes that belong to a block."""
    start = tuple(
        (low + a - first) // step
        for low, a, first, step, keep in zip(
            box.start, inside.start, selection.start, selection.step, selection.kept, strict=True
        )
        if keep
    )
    for parent in source.parents[1:]:
        yield parent, broadcast(parent.spec.shape, Box(start, inside.shape))


def broadcast(shape: tuple[int, ...], box: Box) -> Box:
    """Return the part of an array that a box of what it is broadcast to needs."""
    skip = len(box.shape) - len(shape)
    return Box(
        tuple(0 if n == 1 else a for n, a in zip(shape, box.start[skip:], strict=True)),
        tuple(1 if n == 1 else m for n, m in zip(shape, box.shape[skip:], strict=True)),
    )


def _filled(values: Array, shape: tuple[int, ...]) -> Array:
    if values.shape != shape:
        return np.array(np.broadcast_to(values, shape))
    return values if values.flags.writeable else values.copy()
