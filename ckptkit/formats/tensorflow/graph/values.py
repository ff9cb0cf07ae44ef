"""Which objects have values at or below them, which newer graphs say of every node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ckptkit.formats.tensorflow.graph.objects import SAYS_VALUES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ckptkit.formats.tensorflow.graph.moves import Moves
    from ckptkit.formats.tensorflow.graph.objects import ObjectGraph
    from ckptkit.formats.tensorflow.graph.revision import Revision

_PASSES: Final = 4


class HasValues:
    """What is said of values, before and after changes."""

    def __init__(self, graph: ObjectGraph) -> None:
        """Start with a graph that nothing has changed."""
        self._graph = graph
        self._given: set[int] = set()

    def give(self, node: int) -> None:
        """Remember that a node gets values of its own."""
        self._given.add(node)

    def revise(
        self,
        revision: Revision,
        moves: Moves,
        attributes_lost: Collection[int],
        slots_lost: Collection[int],
    ) -> None:
        """Say it anew of the nodes for which it is another now, if the graph says it at all.

        A node has values if it has attributes, slot variables or a saver of its own, or if one of
        its children has.
        """
        graph = self._graph
        if not len(graph) or not self._says(0):
            return
        slots = set(slots_lost)
        owners = graph.attribute_node
        own = {owner for at, owner in enumerate(owners) if at not in attributes_lost}
        own.update(owner for at, owner in enumerate(graph.slot_optimizer) if at not in slots)
        own.update(graph.savers)
        before = {node for node, holds in enumerate(graph.holders) if holds}
        after = _above(own | self._given, moves.edges())
        for node in before ^ after:
            if node >= len(graph) or self._says(node):
                revision.set_has_values(node, value=node in after)

    def _says(self, node: int) -> bool:
        return bool(self._graph.flags[node] & SAYS_VALUES)


def _above(nodes: Iterable[int], edges: Sequence[tuple[int, int]]) -> set[int]:
    """Return nodes and all from which an edge leads to one of them."""
    found = set(nodes)
    # Nodes are numbered outwards from the root, so that few passes from the end on do.
    for _ in range(_PASSES):
        count = len(found)
        for parent, child in reversed(edges):
            if child in found:
                found.add(parent)
        if len(found) == count:
            return found
    parents: dict[int, list[int]] = {}
    for parent, child in edges:
        parents.setdefault(child, []).append(parent)
    stack = list(found)
    while stack:
        for parent in parents.get(stack.pop(), ()):
            if parent not in found:
                found.add(parent)
                stack.append(parent)
    return found
