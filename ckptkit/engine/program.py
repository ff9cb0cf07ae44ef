"""What a derived tensor needs and gives, block by block.

Two shapes of work. A *chain* is a tree of elementwise kernels whose inputs all have the shape of
the output: its blocks are plain runs of elements, of as many tensors as lie side by side.
Everything else (regions, broadcasting, kernels that see the tensor's axes) goes *box by box*.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from ckptkit.engine.blocks import cut, cut_rows, spans, tiles
from ckptkit.engine.read import CHUNK
from ckptkit.kernels import Constant, broadcast
from ckptkit.model import Derived, Stored, Tensor
from ckptkit.region import Box, Selection
from ckptkit.statistics import Moments, Statistic
from ckptkit.views import View, turned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ckptkit.bulk import Recipe
    from ckptkit.kernels import Kernel, Run
    from ckptkit.lowering import Ops
    from ckptkit.model import Piece

    Array = NDArray[Any]

BLOCK: Final = 4 << 20
"""Bytes of a block that is computed box by box.

It is the same on every machine: what statistics and products round depends on it.
"""

Node = int | tuple["Kernel", tuple["Node | None", ...]]
"""The number of an input, or a kernel and the nodes of its inputs (None: not used)."""


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

    def block(self, ops: Ops, given: Sequence[Any], /) -> Any:
        """Compute a run of elements from the same run of every input."""
        return _run(self.root, ops, given)


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
        return self._same(root, dtypes, tensor.spec.dtype), tuple(leaves)

    def of_recipe(self, recipe: Recipe) -> Chain:
        """Return the chain that computes what a recipe makes of a stored tensor."""
        root: Node | None = 0
        for kernel, _ in recipe.steps:
            root = kernel, (root if uses(kernel, 0) else None,)
        if root is None or isinstance(root, int):
            msg = "a recipe without a step derives nothing"
            raise AssertionError(msg)
        reads_row = all(uses(kernel, 0) for kernel, _ in recipe.steps)
        return self._same(root, (recipe.takes,) if reads_row else (), recipe.gives)

    def _same(self, root: Node, dtypes: tuple[str, ...], dtype: str) -> Chain:
        key = (_identity(root), dtypes, dtype)
        chain = self._known.get(key)
        if chain is None:
            chain = self._known[key] = Chain(root, dtypes, dtype)
        return chain


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


class Read(Protocol):
    """Hands over the values of a stored tensor."""

    def __call__(self, tensor: Tensor, box: Box) -> Array:
        """Return a box of the tensor, as an array that the caller may change."""


def evaluate(tensor: Tensor, box: Box, read: Read, run: Run) -> Array:
    """Return a box of a tensor, computed where it has to be, as an array that may be changed."""
    source = tensor.source
    if isinstance(source, Stored):
        return read(tensor, box)
    if source.region is None:
        return _filled(_computed(tensor, source, box, read, run), box.shape)
    base = evaluate(source.parents[0], box, read, run)
    selection = source.region.resolve(tensor.spec.shape)
    inside = selection.within(box)
    if inside is None:
        return base
    # The ellipsis makes a view, also where integers pick a single element.
    part = base[(*inside.index(), ...)]
    current = np.asarray(part, order="C") if uses(source.kernel, 0) else None
    others = [
        evaluate(parent, at, read, run)
        for parent, at in _region_inputs(source, selection, inside, box)
    ]
    part[...] = run(source.kernel, [current, *others], tensor.spec.dtype)
    return base


def _computed(tensor: Tensor, source: Derived, box: Box, read: Read, run: Run) -> Array:
    kernel = source.kernel
    if kernel.elementwise:
        chain, inputs = fused(tensor, box)
        return run(chain, [evaluate(part, at, read, run) for part, at in inputs], chain.dtype)
    given = [parent.spec for parent in source.parents]

    def get(number: int, at: Box) -> Array:
        return evaluate(source.parents[number], at, read, run)

    return kernel.compute(box, given, get, run)


def fused(tensor: Tensor, box: Box) -> tuple[Chain, list[tuple[Tensor, Box]]]:
    """Return all elementwise kernels that end in a tensor as one function, and what it takes."""
    inputs: list[tuple[Tensor, Box]] = []
    root = _fuse(tensor, box, inputs)
    return Chain(root, tuple(part.spec.dtype for part, _ in inputs), tensor.spec.dtype), inputs


def _fuse(tensor: Tensor, box: Box, inputs: list[tuple[Tensor, Box]]) -> Node:
    source = tensor.source
    if isinstance(source, Stored) or source.region is not None or not source.kernel.elementwise:
        for number, (part, at) in enumerate(inputs):
            if part is tensor and at == box:
                return number
        inputs.append((tensor, box))
        return len(inputs) - 1
    nodes = (
        _fuse(parent, broadcast(parent.spec.shape, box), inputs)
        if uses(source.kernel, number)
        else None
        for number, parent in enumerate(source.parents)
    )
    return source.kernel, tuple(nodes)


def reads(tensor: Tensor, box: Box) -> Iterator[tuple[Tensor, Box]]:
    """Yield the stored tensors, and the boxes of them, that :func:`evaluate` reads for a box."""
    source = tensor.source
    if isinstance(source, Stored):
        yield tensor, box
        return
    if source.region is None:
        if is_measured(tensor):
            return
        if source.kernel.elementwise:
            inputs: list[tuple[Tensor, Box]] = []
            _fuse(tensor, box, inputs)
            for part, where in inputs:
                yield from reads(part, where)
            return
        given = [parent.spec for parent in source.parents]
        for number, at in source.kernel.needs(box, given):
            yield from reads(source.parents[number], at)
        return
    yield from reads(source.parents[0], box)
    selection = source.region.resolve(tensor.spec.shape)
    inside = selection.within(box)
    if inside is not None:
        for parent, at in _region_inputs(source, selection, inside, box):
            yield from reads(parent, at)


def is_measured(tensor: Tensor) -> bool:
    """Tell whether a tensor is a statistic that takes passes of its own, before all else."""
    source = tensor.source
    if isinstance(source, Stored) or not isinstance(source.kernel, Statistic):
        return False
    row = source.kernel.row(source.parents[0].spec) if isinstance(source.kernel, Moments) else None
    return row is None or row > BLOCK


def derivations(tensor: Tensor) -> Iterator[Tensor]:
    """Yield all derived tensors that a tensor is computed from, itself included, inner ones last.

    Statistics that are measured before are yielded; what they are computed from is not.
    """
    if isinstance(tensor.source, Derived):
        yield tensor
        if not is_measured(tensor):
            for parent in tensor.source.parents:
                yield from derivations(parent)


def blocks_of(tensor: Tensor, box: Box) -> Iterator[Box]:
    """Cut a box of a tensor into the blocks that it is computed in.

    They depend on shapes and on what is computed, never on memory or workers.
    """
    size, count, kinds, axis = tensor.spec.itemsize, max(tensor.spec.count, 1), set(), None
    whole_rows = False
    for one in derivations(tensor):
        source = one.source
        if isinstance(source, Stored) or is_measured(one):
            continue
        kernel = source.kernel
        kinds.add(kernel.granularity)
        if isinstance(kernel, Moments):
            # Each of its elements takes a row, which is read when it is needed.
            size, whole_rows = max(size, -(-source.parents[0].spec.nbytes // count)), True
        # int8 that is made of float32 takes memory for both.
        near = (one, *source.parents)
        size = max([size, *(part.spec.itemsize for part in near if part.spec.count >= count)])
        # A view below another one may lie anywhere; the outermost decides.
        if axis is None and isinstance(kernel, View) and one.spec.shape == tensor.spec.shape:
            axis = turned(kernel, len(one.spec.shape))
    if "tensor" in kinds:
        yield box
    elif "row" in kinds:
        yield from cut_rows(box, size, BLOCK)
    elif axis is not None and not whole_rows:
        yield from tiles(box, axis, size, BLOCK)
    else:
        yield from cut(box, size, BLOCK)


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


def is_aligned(tensor: Tensor) -> bool:
    """Tell whether a block of a derived tensor needs of its first input no more than that block.

    Whole rows, and whole tensors, lie in other slices as well where there are slices.
    """
    source = tensor.source
    if not isinstance(source, Derived) or not source.kernel.aligned:
        return False
    return source.kernel.granularity == "element" or len(tensor.boxes) == 1


def base_of(tensor: Tensor) -> Tensor | None:
    """Return the stored tensor whose blocks lie just where the blocks of a derived one do."""
    current = tensor
    while isinstance(current.source, Derived):
        source = current.source
        used = source.region is not None or (is_aligned(current) and uses(source.kernel, 0))
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


def _filled(values: Array, shape: tuple[int, ...]) -> Array:
    if values.shape != shape:
        return np.array(np.broadcast_to(values, shape))
    return values if values.flags.writeable else values.copy()
