"""An object graph without the tensors that are lost, so that TensorFlow restores the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ckptkit.formats.tensorflow.graph.keypaths import parts_of
from ckptkit.formats.tensorflow.graph.revision import Revision
from ckptkit.formats.tensorflow.graph.values import HasValues

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Sequence

    from ckptkit.formats.tensorflow.graph.objects import ObjectGraph


class Named(NamedTuple):
    """Which of the tensors that there were a graph names, and which it names besides.

    Attributes:
        tensors: For every attribute those that it names: one of its own name, several of an object
            such as a table, or none.
        missing: The keys of attributes that name none.
    """

    tensors: Sequence[Sequence[str]]
    missing: Sequence[str]


def named(graph: ObjectGraph, names: Collection[str]) -> Named:
    """Return what a graph names.

    Args:
        graph: The objects.
        names: The tensors that there were, or may have been.
    """
    known = [(key,) if key in names else () for key in graph.key]
    if all(known):
        return Named(known, ())
    parts = parts_of(graph, names)
    tensors = [one or parts.get(at, ()) for at, one in enumerate(known)]
    return Named(tensors, [key for key, one in zip(graph.key, tensors, strict=True) if not one])


class Pruned(NamedTuple):
    """A graph, and what was taken out of it.

    Attributes:
        data: Its bytes.
        dropped: Keys of the attributes that were taken out.
    """

    data: bytes
    dropped: tuple[str, ...]


def pruned(graph: ObjectGraph, names: Collection[str], left: Container[str]) -> Pruned:
    """Take out of a graph the attributes of which not all tensors are left.

    Slots whose variable has no value left go with them, and nodes below which there is no value
    any more do not say that there is one.

    Args:
        graph: The objects.
        names: The tensors that there were.
        left: Those that are left.
    """
    lost = {
        at: None
        for at, tensors in enumerate(named(graph, names).tensors)
        if not tensors or any(name not in left for name in tensors)
    }
    revision = Revision(graph)
    HasValues(graph).revise(revision, lost, revision.drop_attributes(lost))
    return Pruned(revision.encode(), tuple(graph.key[at] for at in lost))
