"""A checkpoint of very many objects, as ``tf.train.Checkpoint`` would write it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK: Final = 98
"""Variables of a block: it and they are 99 nodes."""

GRAPH: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"


def key(block: int, variable: int, parent: str = "block") -> str:
    """Return the name of the tensor of a variable."""
    return f"model/{parent}_{block}/v{variable}/.ATTRIBUTES/VARIABLE_VALUE"


def variables(nodes: int) -> Iterator[tuple[int, int]]:
    """Yield block and number of every variable of a graph with so many nodes."""
    for block in range(_blocks(nodes)):
        for variable in range(BLOCK):
            yield block, variable


def _blocks(nodes: int) -> int:
    # A root, the model, and an object that holds each block a second time.
    return (nodes - 3) // (BLOCK + 1)


def write_objects(prefix: str, *, nodes: int) -> None:
    """Write a graph of about so many nodes, and a number for each of its variables."""
    import numpy as np

    import ckptkit

    values = {key(*one): np.float32(number) for number, one in enumerate(variables(nodes))}
    ckptkit.save(prefix, {**values, GRAPH: object_graph(nodes)})


def object_graph(nodes: int) -> bytes:
    """Return the message, written by protobuf."""
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    graph: Any = trackable_object_graph_pb2.TrackableObjectGraph()
    root, model, again = (graph.nodes.add() for _ in range(3))
    root.children.add(node_id=1, local_name="model")
    root.children.add(node_id=2, local_name="saved")
    for block in range(_blocks(nodes)):
        at = len(graph.nodes)
        model.children.add(node_id=at, local_name=f"block_{block}")
        again.children.add(node_id=at, local_name=str(block))
        holder = graph.nodes.add()
        for variable in range(BLOCK):
            holder.children.add(node_id=at + 1 + variable, local_name=f"v{variable}")
            graph.nodes.add().attributes.add(
                name="VARIABLE_VALUE",
                full_name=f"block_{block}/v{variable}",
                checkpoint_key=key(block, variable),
            )
    content: bytes = graph.SerializeToString()
    return content
