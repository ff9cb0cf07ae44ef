"""The objects of a graph, to be looked at: paths, aliases, and what each of them keeps."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

from ckptkit.errors import UnsupportedError
from ckptkit.formats.tensorflow.graph.keypaths import child_of, parts_of
from ckptkit.formats.tensorflow.graph.objects import SLOT, escape
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY
from ckptkit.formats.tensorflow.graph.walk import reached, slots_reached
from ckptkit.globs import glob_pattern
from ckptkit.structure import Attribute, Line, Slot, StoredObject

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.formats.tensorflow.graph.objects import ObjectGraph

MAX_PATH: Final = 1 << 14
"""Characters of a path; a longer one leads through a graph that no program made."""

MAX_ALIASES: Final = 1000
"""Other paths of an object that are told."""

_Step = tuple[str, int]
"""An item below a node: whether it is an edge or a slot, and its number."""


class GraphObjects:
    """The objects of a graph, and the catalog that it describes."""

    def __init__(self, graph: ObjectGraph, catalog: Catalog) -> None:
        """Hold a graph, and a catalog that it goes with."""
        self._graph = graph
        self._catalog = catalog

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self._graph)

    def __iter__(self) -> Iterator[StoredObject]:
        """Iterate over the objects, in the order of their numbers; 0 is the root.

        Raises:
            UnsupportedError: A path is longer than any that a program makes.
        """
        return map(self._object, range(len(self)))

    def matching(self, glob: str) -> Sequence[StoredObject]:
        """Return the objects to which a path, or a glob of paths, leads by any way.

        A variable that an optimizer keeps for another one has a path as in its key, the two paths
        and ``.OPTIMIZER_SLOT`` between.

        Raises:
            EditError: The glob is none.
            UnsupportedError: A path is longer than any that a program makes.
        """
        found = {*reached(self._graph, glob), *slots_reached(self._graph, glob)}
        matches = glob_pattern(glob).fullmatch
        for node in self._kept:
            if any(matches(path) for path in self._slot_paths(node)):
                found.add(node)
        return [self._object(node) for node in sorted(found)]

    def lines(self) -> Iterator[Line]:
        """Iterate over the tree: every object once, under its shortest path.

        What an optimizer keeps stands under the optimizer; what nothing leads to at the end.

        Raises:
            UnsupportedError: A path is longer than any that a program makes.
        """
        graph, shown = self._graph, bytearray(len(self))
        lone = [node for node, edge in enumerate(graph.tree) if node and edge < 0]
        # What an optimizer keeps waits for it, which may be such an object itself.
        lone.sort(key=self._kept.__contains__)
        for node in [*range(min(len(self), 1)), *lone]:
            if not shown[node]:
                yield Line(0, f"node {node}" if node else "", None, self._object(node), None)
                yield from self._below(node, shown)

    def _below(self, start: int, shown: bytearray) -> Iterator[Line]:
        graph, tree = self._graph, self._graph.tree
        shown[start] = 1
        stack = [self._steps(start)]
        while stack:
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
                continue
            kind, at = step
            depth, variable = len(stack), None
            if kind == "edge":
                node, name = graph.edge_child[at], graph.edge_name[at]
                elsewhere = tree[node] not in {at, -1}
            else:
                node, name = graph.slot_variable[at], graph.slot_name[at]
                variable = self._called(graph.slot_original[at])
                elsewhere = tree[node] >= 0
            if elsewhere or shown[node]:
                yield Line(depth, name, variable, None, self._called(node))
            else:
                shown[node] = 1
                yield Line(depth, name, variable, self._object(node), None)
                stack.append(self._steps(node))

    def _steps(self, node: int) -> Iterator[_Step]:
        for edge in self._graph.edges_of.get(node, ()):
            yield "edge", edge
        for slot in self._graph.slots_of.get(node, ()):
            yield "slot", slot

    @cached_property
    def _kept(self) -> Mapping[int, Sequence[int]]:
        """Slots by the node that is kept."""
        found: dict[int, list[int]] = {}
        for slot, node in enumerate(self._graph.slot_variable):
            found.setdefault(node, []).append(slot)
        return found

    @cached_property
    def _parts(self) -> Mapping[int, Sequence[str]]:
        """The tensors of attributes that have none of their own name."""
        if all(key in self._catalog for key in self._graph.key):
            return {}
        return parts_of(self._graph, (name for name in self._catalog if name != GRAPH_KEY))

    def _object(self, node: int) -> StoredObject:
        graph, own = self._graph, self._graph.tree[node]
        others = [edge for edge in graph.edges_into.get(node, ()) if edge != own]
        aliases = []
        for edge in others[:MAX_ALIASES]:
            above = self._path(graph.edge_parent[edge])
            if above is not None:
                aliases.append(child_of(above, escape(graph.edge_name[edge])))
        return StoredObject(
            node,
            self._path(node),
            tuple(aliases),
            max(len(others) - MAX_ALIASES, 0),
            tuple(map(self._attribute, graph.attributes_of.get(node, ()))),
            tuple(map(self._slot, self._kept.get(node, ()))),
        )

    def _attribute(self, at: int) -> Attribute:
        graph, key = self._graph, self._graph.key[at]
        tensors = (key,) if key in self._catalog else tuple(self._parts.get(at, ()))
        return Attribute(graph.attribute_name[at], graph.full_name[at], key, tensors)

    def _slot(self, slot: int) -> Slot:
        graph = self._graph
        optimizer, variable = graph.slot_optimizer[slot], graph.slot_original[slot]
        return Slot(self._path(optimizer), self._path(variable), graph.slot_name[slot])

    def _slot_paths(self, node: int) -> Iterator[str]:
        for slot in map(self._slot, self._kept.get(node, ())):
            if slot.optimizer is not None and slot.variable is not None:
                yield f"{slot.variable}{SLOT}{child_of(slot.optimizer, escape(slot.name))}"

    def _called(self, node: int) -> str:
        """Return the path of an object, or what it is called in the tree without one."""
        path = self._path(node)
        return path if path is not None else next(self._slot_paths(node), f"node {node}")

    def _path(self, node: int) -> str | None:
        graph, names, length = self._graph, list[str](), 0
        while node:
            edge = graph.tree[node]
            if edge < 0:
                return None
            names.append(escape(graph.edge_name[edge]))
            length += len(names[-1]) + 1
            if length > MAX_PATH:
                msg = f"objects are reached by paths of more than {MAX_PATH} characters"
                raise UnsupportedError(msg, tensor=GRAPH_KEY)
            node = graph.edge_parent[edge]
        return "/".join(reversed(names))
