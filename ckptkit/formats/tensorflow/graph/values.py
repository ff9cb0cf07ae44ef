"""Which objects have values at or below them, which newer graphs say of every node."""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import TYPE_CHECKING

from ckptkit import _native
from ckptkit.formats.tensorflow.graph.objects import SAYS_VALUES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ckptkit.formats.tensorflow.graph.objects import ObjectGraph
    from ckptkit.formats.tensorflow.graph.revision import Revision


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
        attributes_lost: Collection[int],
        slots_lost: Collection[int],
        edges: Iterable[tuple[int, int]] | None = None,
    ) -> None:
        """Say it anew of the nodes for which it is another now, if the graph says it at all.

        A node has values if it has attributes, slot variables or a saver of its own, or if one of
        its children has.

        Args:
            revision: Takes what is to be said, and has made the new nodes.
            attributes_lost: The attributes that go.
            slots_lost: The slot references that go.
            edges: Parent and child of every edge afterwards, where these are others than before.
        """
        graph = self._graph
        if not len(graph) or not graph.flags[0] & SAYS_VALUES:
            return
        own = bytearray(revision.nodes)
        slots = set(slots_lost)
        for at, node in enumerate(graph.attribute_node):
            own[node] |= at not in attributes_lost
        for at, node in enumerate(graph.slot_optimizer):
            own[node] |= at not in slots
        for node in (*graph.savers, *self._given):
            own[node] = 1
        before = bytes(graph.holders).ljust(len(own), b"\0")
        for node, (had, has) in enumerate(zip(before, self._above(own, edges), strict=True)):
            if had != has and (node >= len(graph) or graph.flags[node] & SAYS_VALUES):
                revision.set_has_values(node, value=bool(has))

    def _above(self, own: bytearray, edges: Iterable[tuple[int, int]] | None) -> bytes:
        """Return a byte per node: whether it, or one that it leads to, has values of its own."""
        graph = self._graph
        if edges is None:
            return _native.graph_holders(graph.edge_ends, graph.edge_child, own)
        ordered, counts = sorted(edges), [0] * len(own)
        for parent, _ in ordered:
            counts[parent] += 1
        ends = array("i", accumulate(counts))
        return _native.graph_holders(ends, array("i", (child for _, child in ordered)), own)
