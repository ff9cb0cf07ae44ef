"""The paths that keys are named after, as a tree, and where each of them leads in a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ckptkit.errors import UnsupportedError
from ckptkit.formats.tensorflow.graph.objects import ATTRIBUTES, SLOT, split
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ckptkit.formats.tensorflow.graph.objects import ObjectGraph

_LONGEST_PART: Final = 256
"""Characters that the name of a part has behind the key; real ones have ``-keys`` and the like."""

_DEPTH: Final = 32
_SLACK: Final = 32 << 20
"""Characters that paths on the way to keys may have, for every one of the keys, and besides."""


def parted(key: str) -> tuple[str, str]:
    """Split a key into the path of an object and the rest, ``/.ATTRIBUTES/`` and attribute.

    The rest is empty where it is no key of an object.
    """
    head, found, attribute = key.rpartition(ATTRIBUTES)
    return (head, ATTRIBUTES + attribute) if found else ("", "")


def parent_of(path: str) -> str:
    """Return a path without its last component."""
    return path.rpartition("/")[0]


def last_of(path: str) -> str:
    """Return the last component of a path."""
    return path.rpartition("/")[2]


def names_of(path: str) -> tuple[str, ...] | list[str]:
    """Return the local names that a path is made of."""
    return split(path) if "." in path or not path else path.split("/")


def child_of(path: str, name: str) -> str:
    """Return a path with one more component."""
    return f"{path}/{name}" if path else name


def parts_of(graph: ObjectGraph, names: Iterable[str]) -> dict[int, list[str]]:
    """Return the tensors that have no attribute of their name, by the attribute they go on.

    An object such as a table has one attribute, and several tensors whose names go on behind its
    key: its keys and its values.
    """
    known, found = graph.attribute_of_key, dict[int, list[str]]()
    for name in names:
        start = name.rfind(ATTRIBUTES)
        if name in known or start < 0:
            continue
        least = max(start + len(ATTRIBUTES), len(name) - _LONGEST_PART)
        for end in range(len(name) - 1, least - 1, -1):
            at = known.get(name[:end])
            if at is not None:
                found.setdefault(at, []).append(name)
                break
    return found


class KeyPaths:
    """The paths in the keys of a graph, and the paths on the way to them.

    Attributes:
        graph: The objects.
        order: All paths, each behind the one that it continues; the root's is empty.
        node: Where a path leads; none of a path that leads nowhere.
        edge: The edge that is its last component.
        edge_at: Edges by the node that they leave and their local name.
        heads: For every attribute the path in its key, None where the key is no object's, is a
            slot's, or the path does not lead to the node of the attribute.
    """

    def __init__(self, graph: ObjectGraph) -> None:
        """Find out where the keys of a graph lead.

        Raises:
            UnsupportedError: They are nested deeper than any program does.
        """
        self.graph = graph
        self.edge_at: dict[tuple[int, str], int] = {}
        known = zip(graph.edge_parent, graph.edge_name, strict=True)
        for edge, place in enumerate(known):
            self.edge_at.setdefault(place, edge)
        heads = [
            None if SLOT in key else key.rpartition(ATTRIBUTES)[0] if ATTRIBUTES in key else None
            for key in graph.key
        ]
        self.order = _with_parents({head for head in heads if head is not None})
        self.node: dict[str, int] = {"": 0} if len(graph) else {}
        self.edge: dict[str, int] = {}
        self._resolve()
        node = self.node
        self.heads = [
            head if head is not None and node.get(head) == owner else None
            for head, owner in zip(heads, graph.attribute_node, strict=True)
        ]

    def _resolve(self) -> None:
        node, edges, edge_at, child = self.node, self.edge, self.edge_at, self.graph.edge_child
        for path in self.order:
            above, _, name = path.rpartition("/")
            start = node.get(above)
            if start is None or not path:
                continue
            edge = edge_at.get((start, names_of(name)[0] if "." in name else name))
            if edge is not None:
                node[path], edges[path] = child[edge], edge

    def leads_to(self, path: str) -> int | None:
        """Return the node that a path leads to, if any."""
        found = self.node.get(path)
        if found is not None or not len(self.graph):
            return found
        node = 0
        for name in names_of(path):
            edge = self.edge_at.get((node, name))
            if edge is None:
                return None
            node = self.graph.edge_child[edge]
        return node


def _with_parents(paths: Collection[str]) -> list[str]:
    """Return paths and those on the way to them, sorted.

    Raises:
        UnsupportedError: They are nested deeper than any program does, and would take far more
            memory than the keys.
    """
    found: set[str] = {""}
    room = _SLACK + _DEPTH * sum(map(len, paths))
    for path in paths:
        one = path
        while one not in found:
            room -= len(one)
            if room < 0:
                msg = "keys of the object graph are nested deeper than those of any program"
                raise UnsupportedError(msg, tensor=GRAPH_KEY)
            found.add(one)
            one = one.rpartition("/")[0]
    return sorted(found)
