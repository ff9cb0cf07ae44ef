"""Optimizers in an object graph, and the tensors that only they reach."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

from ckptkit.formats.tensorflow.graph.objects import SLOT, joined, paths_to

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ckptkit.formats.tensorflow.graph.objects import ObjectGraph

_EDGES: Final = frozenset({"optimizer", "_optimizer", "inner_optimizer", "_inner_optimizer"})
_STEPS: Final = frozenset({"_iterations", "iterations", "iter"})
_OTHERS: Final = frozenset(
    {"_learning_rate", "learning_rate", "_variables", "decay", "momentum", "beta_1", "_momentums"}
)
_WEIGHTS: Final = frozenset({"_trainable_variables", "trainable_variables"})
_PATHS: Final = 16
"""Paths to a weight that are looked at, for one that does not lead by an optimizer."""


class Optimizers:
    """What a graph says of optimizers.

    Attributes:
        graph: The objects.
        nodes: The optimizers: what keeps slot variables, counts steps and has a learning rate, or
            is called an optimizer.
    """

    def __init__(self, graph: ObjectGraph) -> None:
        """Find the optimizers."""
        self.graph = graph
        names: dict[int, set[str]] = {}
        found = set(graph.slot_optimizer)
        marks = _EDGES | _STEPS | _OTHERS
        for parent, child, name in zip(
            graph.edge_parent, graph.edge_child, graph.edge_name, strict=True
        ):
            if name in marks:
                names.setdefault(parent, set()).add(name)
                if name in _EDGES:
                    found.add(child)
        found |= {node for node, has in names.items() if has & _STEPS and has & _OTHERS}
        self.nodes = found - {0}

    @cached_property
    def _model(self) -> set[int]:
        """What the root reaches without passing an optimizer."""
        return self._reached({0}, self.nodes)

    @cached_property
    def _trained(self) -> set[int]:
        """What optimizers reach as the variables that they train."""
        graph = self.graph
        starts = {
            graph.edge_child[edge]
            for node in self.nodes
            for edge in graph.edges_of.get(node, ())
            if graph.edge_name[edge] in _WEIGHTS
        }
        return self._reached(starts, ())

    @cached_property
    def state(self) -> set[int]:
        """The nodes that only optimizers reach, slot variables among them.

        So are those that are named as slot variables, of which no optimizer knows any more, as its
        variable was left out.
        """
        graph = self.graph
        below = self._reached(self.nodes, ()) | set(graph.slot_variable)
        slots = zip(graph.key, graph.attribute_node, strict=True)
        below.update(node for key, node in slots if SLOT in key)
        return below - self._model - self._trained

    @cached_property
    def misnamed(self) -> dict[str, int]:
        """Weights whose keys are named after an optimizer: the nodes by key."""
        graph = self.graph
        paths = (graph.path(node) for node in self.nodes)
        prefixes = tuple(joined(path) + "/" for path in paths if path is not None)
        state = self.state
        return {
            key: node
            for key, node in zip(graph.key, graph.attribute_node, strict=True)
            if key.startswith(prefixes) and node not in state
        }

    def way_to(self, node: int) -> str | None:
        """Return a path to a weight that leads by no optimizer, if one is found."""
        for path in paths_to(self.graph, node, _PATHS):
            at = 0
            for name in path:
                at = self.graph.child(at, name) or 0
                if at in self.nodes:
                    break
            else:
                return joined(path)
        return None

    def _reached(self, starts: Iterable[int], barred: Collection[int]) -> set[int]:
        graph = self.graph
        found = set(starts)
        stack = list(found)
        while stack:
            for edge in graph.edges_of.get(stack.pop(), ()):
                child = graph.edge_child[edge]
                if child not in found and child not in barred:
                    found.add(child)
                    stack.append(child)
        return found
