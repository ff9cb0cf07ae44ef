"""Walks over an object graph along paths, or globs of paths, that are written as in keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptkit import _native
from ckptkit.formats.tensorflow.graph.objects import SLOT, escape, respelled
from ckptkit.globs import glob_pattern

if TYPE_CHECKING:
    from ckptkit.formats.tensorflow.graph.objects import ObjectGraph


def reached(graph: ObjectGraph, glob: str) -> list[int]:
    """Return the nodes that a path or a glob of paths leads to, in the order of their numbers.

    Every path from the root counts, not only the shortest one; cycles and diamonds cost no more
    than edges times the length of the glob. The root has the empty path.

    Args:
        graph: The objects.
        glob: Local names, escaped as in keys and joined by ``/``; a dot that escapes nothing stands
            for itself. ``*`` and ``?`` stay within a name, ``**`` goes across, and ``**/`` stands
            for no name as well.

    Raises:
        EditError: Parentheses around wildcards do not match.
    """
    glob = respelled(glob)
    grouped = bool(glob_pattern(glob).groups)
    found = _native.graph_reach(graph.edge_ends, graph.edge_child, graph.edge_name, glob, grouped)
    return [node for node, there in enumerate(found) if there]


def slots_reached(graph: ObjectGraph, glob: str) -> list[int]:
    """Return the nodes of slot variables that a path or a glob leads to.

    Their paths are as in their keys, but by any path to the variable and the optimizer:
    ``VARIABLE/.OPTIMIZER_SLOT/OPTIMIZER/SLOT``. A glob without ``/.OPTIMIZER_SLOT/`` leads to none.

    Raises:
        EditError: Parentheses around wildcards do not match.
    """
    variable, found, kept = glob.partition(SLOT)
    if not found or not graph.slot_name:
        return []
    optimizer, slash, name = kept.rpartition("/")
    variables = set(reached(graph, variable))
    # Two stars go across, so that they stand for the path of the optimizer as well.
    by_any = not slash and "**" in name
    optimizers = set() if by_any else set(reached(graph, optimizer))
    matches = glob_pattern(respelled(name)).fullmatch
    slots = zip(
        graph.slot_original, graph.slot_optimizer, graph.slot_name, graph.slot_variable, strict=True
    )
    return [
        node
        for original, owner, called, node in slots
        if original in variables
        and (by_any or owner in optimizers)
        and matches(escape(called)) is not None
    ]
