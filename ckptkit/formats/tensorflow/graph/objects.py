"""The object graph as it is stored, in the string tensor ``_CHECKPOINTABLE_OBJECT_GRAPH``.

A serialised ``TrackableObjectGraph``: nodes (field 1), each a ``TrackableObject`` with children
(1: node_id 1, local_name 2), attributes (2: name 1, full_name 2, checkpoint_key 3), slot variables
(3: original_variable_node_id 1, slot_name 2, slot_variable_node_id 3), a registered saver (4) and
has_checkpoint_values (5, a BoolValue). Node 0 is the root. Columns, since a graph may have a
hundred thousand nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from ckptkit import _native
from ckptkit.errors import CorruptError

VARIABLE_VALUE: Final = "VARIABLE_VALUE"
"""The attribute of a variable."""

ATTRIBUTES: Final = "/.ATTRIBUTES/"
"""What stands in a key between the path of an object and its attribute."""

SAVER: Final = 1
"""The flag of a node that a registered saver stores elsewhere."""

SAYS_VALUES: Final = 2
"""The flag of a node that says whether it, or one below it, has values in the checkpoint."""

HAS_VALUES: Final = 4
"""The flag of a node that says that it has."""

SLOT: Final = "/.OPTIMIZER_SLOT/"
"""What stands in a key between the path of a variable and that of its optimizer."""

_DOT: Final = re.compile(r"\.([.S]?)")

MAX_BYTES: Final = 1 << 30
"""A longer graph is refused before it is read; protobuf itself ends at 2 GiB."""


@dataclass(frozen=True, eq=False)
class ObjectGraph:
    """An object graph, as columns: arrays of numbers, and lists of texts.

    Attributes:
        data: The bytes; what is not understood stays there.
        flags: What every node says besides, as bits ``SAVER``, ``SAYS_VALUES``, ``HAS_VALUES``.
        edge_ends, edge_parent, edge_child, edge_name: Children of nodes, in the order stored: where
            those of every node end, the two nodes, and what the parent calls the child.
        attribute_ends, attribute_node, attribute_name, full_name, key: Attributes of nodes: where
            those of every node end, the node, what holds the value, what the variable is called,
            and the name of the tensor.
        slot_ends, slot_optimizer, slot_original, slot_name, slot_variable: Variables that an
            optimizer keeps for others: where those of every node end, the nodes of the optimizer
            and the other, what it is kept as, and the node of the kept one.
    """

    data: bytes
    flags: bytes
    edge_ends: memoryview
    edge_parent: memoryview
    edge_child: memoryview
    edge_name: list[str]
    attribute_ends: memoryview
    attribute_node: memoryview
    attribute_name: list[str]
    full_name: list[str]
    key: list[str]
    slot_ends: memoryview
    slot_optimizer: memoryview
    slot_original: memoryview
    slot_name: list[str]
    slot_variable: memoryview

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.flags)

    @cached_property
    def edges_of(self) -> Mapping[int, Sequence[int]]:
        """The numbers of the edges that leave each node that has some."""
        return _Runs(self.edge_ends)

    @cached_property
    def edges_into(self) -> Mapping[int, Sequence[int]]:
        """The numbers of the edges that lead to each node to which some do."""
        found: dict[int, list[int]] = {}
        for edge, child in enumerate(self.edge_child):
            found.setdefault(child, []).append(edge)
        return found

    @cached_property
    def attributes_of(self) -> Mapping[int, Sequence[int]]:
        """The numbers of the attributes of each node that has some."""
        return _Runs(self.attribute_ends)

    @cached_property
    def slots_of(self) -> Mapping[int, Sequence[int]]:
        """The numbers of the slot variables that each node that has some keeps for others."""
        return _Runs(self.slot_ends)

    @cached_property
    def attribute_of_key(self) -> Mapping[str, int]:
        """The number of the attribute that a tensor is the value of, by the tensor's name."""
        return dict(zip(self.key, range(len(self.key)), strict=True))

    @cached_property
    def savers(self) -> Sequence[int]:
        """The nodes that a registered saver stores elsewhere."""
        return [node for node, flags in enumerate(self.flags) if flags & SAVER]

    @cached_property
    def tree(self) -> Sequence[int]:
        """For every node the edge by which a breadth-first walk reaches it first, -1 for none.

        Keys are named after these paths; the root and slot variables have none.
        """
        return memoryview(_native.graph_tree(self.edge_ends, self.edge_child)).cast("i")

    @cached_property
    def holders(self) -> Sequence[int]:
        """Of every node 1 if it, or one below it, has values in the checkpoint, else 0.

        Those are nodes with attributes, slot variables or a registered saver: what TensorFlow
        writes into ``has_checkpoint_values``.
        """
        own = bytearray(flags & SAVER for flags in self.flags)
        for node in (*self.attribute_node, *self.slot_optimizer):
            own[node] = 1
        return _native.graph_holders(self.edge_ends, self.edge_child, own)

    def path(self, node: int) -> tuple[str, ...] | None:
        """Return the local names on the shortest path to a node; None if nothing leads there."""
        names: list[str] = []
        while node:
            edge = self.tree[node]
            if edge < 0:
                return None
            names.append(self.edge_name[edge])
            node = self.edge_parent[edge]
        return tuple(reversed(names))

    def child(self, node: int, name: str) -> int | None:
        """Return the child of a node that has a local name."""
        for edge in self.edges_of.get(node, ()):
            if self.edge_name[edge] == name:
                return self.edge_child[edge]
        return None


class _Runs(Mapping[int, Sequence[int]]):
    """Which items belong to each node: they are stored node by node."""

    __slots__ = ("_ends",)

    def __init__(self, ends: Sequence[int]) -> None:
        self._ends = ends

    def __getitem__(self, node: int) -> range:
        if not 0 <= node < len(self._ends):
            raise KeyError(node)
        found = range(self._ends[node - 1] if node else 0, self._ends[node])
        if not found:
            raise KeyError(node)
        return found

    def __iter__(self) -> Iterator[int]:
        start = 0
        for node, end in enumerate(self._ends):
            if end > start:
                yield node
            start = end

    def __len__(self) -> int:
        return sum(1 for _ in self)


def escape(name: str) -> str:
    """Return a local name as it stands in a key: ``.`` becomes ``..``, ``/`` becomes ``.S``."""
    return name.replace(".", "..").replace("/", ".S")


def joined(path: Sequence[str]) -> str:
    """Return a path as it stands in keys, and as users write it."""
    return "/".join(map(escape, path))


def split(path: str) -> tuple[str, ...]:
    """Return the local names of a path that is written as in a key."""
    return tuple(_unescape(part) for part in path.split("/")) if path else ()


def respelled(path: str) -> str:
    """Return a path, or a glob of paths, with every dot that escapes nothing escaped itself.

    In keys a dot stands before another one or an S only; people write ``a.b`` for ``a..b``.
    """
    return _DOT.sub(lambda found: found[0] if found[1] else "..", path) if "." in path else path


def _unescape(name: str) -> str:
    # Escapes are read from the left: ``..S`` is an escaped dot and an S.
    parts: list[str] = []
    at = 0
    while at < len(name):
        pair = name[at : at + 2]
        parts.append({"..": ".", ".S": "/"}.get(pair, name[at]))
        at += 2 if pair in {"..", ".S"} else 1
    return "".join(parts)


def read_graph(data: bytes) -> ObjectGraph:
    """Decode an object graph.

    Raises:
        CorruptError: It does not parse, or a node has a child or a slot that is no node.
    """
    try:
        flags, edges, attributes, slots = _native.graph_decode(data)
    except _native.DecodeError as error:
        msg = f"the object graph does not parse: {error.message}"
        raise CorruptError(msg, offset=error.offset) from None

    edge_ends, edge_parent, edge_child = map(_numbers, edges[:3])
    attribute_ends, attribute_node = map(_numbers, attributes[:2])
    slot_ends, slot_optimizer, slot_original = map(_numbers, slots[:3])
    return ObjectGraph(
        data,
        flags,
        edge_ends,
        edge_parent,
        edge_child,
        edges[3],
        attribute_ends,
        attribute_node,
        *attributes[2:],
        slot_ends,
        slot_optimizer,
        slot_original,
        slots[3],
        _numbers(slots[4]),
    )


def _numbers(column: bytes) -> memoryview:
    return memoryview(column).cast("i")


def paths_to(graph: ObjectGraph, node: int, limit: int) -> Iterator[tuple[str, ...]]:
    """Yield up to ``limit`` paths from the root to a node that pass no node twice, short first."""
    into = graph.edges_into
    queue: list[tuple[int, tuple[str, ...], frozenset[int]]] = [(node, (), frozenset({node}))]
    found = 0
    for at, names, passed in queue:
        if at == 0:
            yield names
            found += 1
            if found == limit:
                return
            continue
        for edge in into.get(at, ()):
            parent = graph.edge_parent[edge]
            if parent not in passed and len(queue) < limit * 1024:
                queue.append((parent, (graph.edge_name[edge], *names), passed | {parent}))
