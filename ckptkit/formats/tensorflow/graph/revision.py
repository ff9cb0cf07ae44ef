"""Changes of an object graph, and the bytes that they come to; what is not changed stays as it is.

A node that nothing changes keeps every byte, unknown fields included, and so does every field of
one that something changes. What is set to what it is already is no change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptkit import _native

if TYPE_CHECKING:
    from collections.abc import Collection

    from ckptkit.formats.tensorflow.graph.objects import ObjectGraph


class Revision:
    """Changes of a graph, collected, then encoded at once.

    A later change of the same thing takes the place of an earlier one.
    """

    def __init__(self, graph: ObjectGraph) -> None:
        """Start without a change."""
        self.graph = graph
        self._edges: dict[int, str | None] = {}
        self._attributes: dict[int, tuple[str | None, str | None] | None] = {}
        self._slots: dict[int, None] = {}
        self._added_edges: list[tuple[int, int, str]] = []
        self._added_attributes: list[tuple[int, str, str, str]] = []
        self._added_slots: list[tuple[int, int, str, int]] = []
        self._values: dict[int, bool] = {}
        self._new = 0

    @property
    def changed(self) -> bool:
        """Whether there is a change, if only to what is there already."""
        return bool(
            self._edges
            or self._attributes
            or self._slots
            or self._added_edges
            or self._added_attributes
            or self._added_slots
            or self._values
            or self._new
        )

    @property
    def nodes(self) -> int:
        """How many nodes there are, new ones included."""
        return len(self.graph) + self._new

    def add_node(self) -> int:
        """Add a node without anything, and return its number."""
        self._new += 1
        return self.nodes - 1

    def add_edge(self, parent: int, child: int, name: str) -> None:
        """Add a child to a node, behind those that it has."""
        self._added_edges.append((parent, child, name))

    def rename_edge(self, edge: int, name: str) -> None:
        """Give an edge another local name, where it is."""
        self._edges[edge] = name

    def drop_edge(self, edge: int) -> None:
        """Leave out an edge."""
        self._edges[edge] = None

    def add_attribute(self, node: int, name: str, full_name: str, key: str) -> None:
        """Add an attribute to a node, behind those that it has."""
        self._added_attributes.append((node, name, full_name, key))

    def set_attribute(self, attribute: int, *, key: str, full_name: str | None = None) -> None:
        """Give an attribute another key, and the variable another name; the rest stays."""
        self._attributes[attribute] = (full_name, key)

    def drop_attribute(self, attribute: int) -> None:
        """Leave out an attribute."""
        self._attributes[attribute] = None

    def drop_attributes(self, attributes: Collection[int]) -> list[int]:
        """Leave out attributes, and slot references to or from nodes that have none left.

        Returns:
            The slots that go.
        """
        graph = self.graph
        for at in attributes:
            self.drop_attribute(at)
        left = {node for at, node in enumerate(graph.attribute_node) if at not in attributes}
        emptied = {graph.attribute_node[at] for at in attributes} - left
        pairs = zip(graph.slot_original, graph.slot_variable, strict=True)
        slots = [slot for slot, pair in enumerate(pairs) if not emptied.isdisjoint(pair)]
        for slot in slots:
            self.drop_slot(slot)
        return slots

    def add_slot(self, optimizer: int, original: int, name: str, variable: int) -> None:
        """Say that an optimizer keeps a variable for another one."""
        self._added_slots.append((optimizer, original, name, variable))

    def drop_slot(self, slot: int) -> None:
        """Leave out that an optimizer keeps a variable for another one."""
        self._slots[slot] = None

    def set_has_values(self, node: int, *, value: bool) -> None:
        """Say whether a node, or one below it, has values in the checkpoint."""
        self._values[node] = value

    def encode(self) -> bytes:
        """Return the bytes of the changed graph.

        Raises:
            ValueError: A change is about an item or a node that the graph does not have.
        """
        if not self.changed:
            return self.graph.data
        return _native.graph_splice(
            self.graph.data,
            list(self._edges.items()),
            list(self._attributes.items()),
            list(self._slots),
            self._added_edges,
            self._added_attributes,
            self._added_slots,
            list(self._values.items()),
            self._new,
        )
