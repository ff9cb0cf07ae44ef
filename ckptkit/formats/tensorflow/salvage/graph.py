"""An object graph without the tensors that are lost, so that TensorFlow restores the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ckptkit.formats.tensorflow.graph.objects import GRAPH_KEY, MAX_BYTES, read_graph
from ckptkit.formats.tensorflow.graph.revision import Revision

if TYPE_CHECKING:
    from collections.abc import Container

    from ckptkit.formats.tensorflow.graph.objects import ObjectGraph

__all__ = ["GRAPH_KEY", "MAX_BYTES", "Pruned", "keys_of", "pruned"]


class Pruned(NamedTuple):
    """A graph, and what was taken out of it.

    Attributes:
        data: Its bytes.
        dropped: Keys of the attributes that were taken out.
    """

    data: bytes
    dropped: tuple[str, ...]


def keys_of(data: bytes) -> tuple[str, ...]:
    """Return the names of the tensors that a graph names, in its order.

    Raises:
        CorruptError: It does not parse.
    """
    return tuple(read_graph(data).key)


def pruned(data: bytes, names: Container[str]) -> Pruned:
    """Take out of a graph the attributes whose tensors are not among ``names``.

    Slots whose variable has no value left go with them, and nodes below which there is no value
    any more do not say that there is one.

    Raises:
        CorruptError: It does not parse.
    """
    graph = read_graph(data)
    lost = [at for at, key in enumerate(graph.key) if key not in names]
    if not lost:
        return Pruned(data, ())
    revision = Revision(graph)
    for at in lost:
        revision.drop_attribute(at)
    gone = set(lost)
    left = {node for at, node in enumerate(graph.attribute_node) if at not in gone}
    empty = {graph.attribute_node[at] for at in lost} - left
    slots = set()
    for at, (variable, original) in enumerate(
        zip(graph.slot_variable, graph.slot_original, strict=True)
    ):
        if variable in empty or original in empty:
            revision.drop_slot(at)
        else:
            slots.add(graph.slot_optimizer[at])
    valued = _with_ancestors(graph, left | slots | set(graph.savers))
    before = _with_ancestors(graph, {*graph.attribute_node, *graph.slot_optimizer, *graph.savers})
    for node in sorted(before - valued):
        revision.set_has_values(node, value=False)
    return Pruned(revision.encode(), tuple(graph.key[at] for at in lost))


def _with_ancestors(graph: ObjectGraph, nodes: set[int]) -> set[int]:
    parents: dict[int, list[int]] = {}
    for parent, child in zip(graph.edge_parent, graph.edge_child, strict=True):
        parents.setdefault(child, []).append(parent)
    found, queue = set(nodes), list(nodes)
    for node in queue:
        for parent in parents.get(node, ()):
            if parent not in found:
                found.add(parent)
                queue.append(parent)
    return found
