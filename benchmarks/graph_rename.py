"""graph_rename: every layer of a graph of 100,000 objects gets another name, new checkpoint."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks import jobs
from benchmarks.graph_files import GRAPH, key, variables
from benchmarks.trial import Contender, Trial, faster, takes

if TYPE_CHECKING:
    from benchmarks.data import Inputs
    from benchmarks.trial import Job

REGEX: Final = r"^model/block_(\d+)/"
TEMPLATE: Final = r"model/layer_\1/"


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    source, nodes = inputs.objects(), inputs.scale.nodes
    ours, theirs, copy = map(inputs.output, ("ckptkit", "tensorflow", "cp"))
    return [
        Trial(
            f"rename all layers of a graph of {nodes:,} nodes",
            (
                Contender(
                    "ckptkit",
                    partial(jobs.edit, source, ours, f"rename {REGEX} -> {TEMPLATE}"),
                    makes=ours,
                    check=partial(check, source, ours, nodes),
                ),
                Contender("cp", partial(jobs.copy_files, source, copy), makes=copy, outside=True),
                Contender(
                    "tensorflow",
                    partial(rename_restored, source, theirs),
                    makes=theirs,
                    check=partial(check, source, theirs, nodes),
                    most=1,
                ),
            ),
            (takes("ckptkit", 2000), faster("ckptkit", "tensorflow", 3)),
            floor="cp",
            incumbent="tensorflow",
            notes=("TensorFlow ran once: all is restored, saved, and the graph's message edited.",),
        )
    ]


def rename_restored(source: str, target: str) -> Job:
    """Return the same by a script: restore all, edit the message of the graph, save all."""
    tf = jobs.tensorflow()

    def change(tensors: dict[str, Any]) -> dict[str, Any]:
        from tensorflow.core.protobuf import trackable_object_graph_pb2

        substitute = partial(re.compile(REGEX).sub, TEMPLATE)
        graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(tensors[GRAPH].numpy())
        for node in graph.nodes:
            for child in node.children:
                child.local_name = child.local_name.replace("block_", "layer_")
            for attribute in node.attributes:
                attribute.checkpoint_key = substitute(attribute.checkpoint_key)
        renamed = {substitute(name): value for name, value in tensors.items()}
        return {**renamed, GRAPH: tf.constant(graph.SerializeToString())}

    return jobs.rewrite(source, target, change)


def check(source: str, target: str, nodes: int) -> None:
    """See that TensorFlow finds names and values, and that the graph says so as well.

    Raises:
        ValueError: It does not.
    """
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    tf = jobs.tensorflow()
    before, after = map(tf.train.load_checkpoint, (source, target))
    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(after.get_tensor(GRAPH))
    found = {attribute.checkpoint_key for node in graph.nodes for attribute in node.attributes}
    expected = {key(*one, parent="layer") for one in variables(nodes)}
    there = set(after.get_variable_to_shape_map()) - {GRAPH}
    layers = {child.local_name for child in graph.nodes[1].children}
    if not found == expected == there or not all(name.startswith("layer_") for name in layers):
        msg = f"{target} has other names than expected"
        raise ValueError(msg)
    for one in [*variables(nodes)][:: max(nodes // 100, 1)]:
        if before.get_tensor(key(*one)) != after.get_tensor(key(*one, parent="layer")):
            msg = f"{key(*one, parent='layer')} of {target} has not the value that it had"
            raise ValueError(msg)
