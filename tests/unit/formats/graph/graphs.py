"""Object graphs for tests, made by hand, and checkpoints that have one."""

from __future__ import annotations

import pytest

import ckptkit
from ckptkit import EditError
from ckptkit.formats.tensorflow.graph.load import load_graph
from ckptkit.formats.tensorflow.graph.objects import VARIABLE_VALUE, read_graph
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY
from tests.oracle.varint import put_bytes, put_number

VALUE = put_number(1, 1)
"""The content of has_checkpoint_values, true."""


def number(field, value):
    return put_number(field, value) if value else b""


def text(field, value):
    return put_bytes(field, value.encode("utf-8", "surrogateescape")) if value else b""


def encoded(nodes):
    """Encode nodes: dicts with edges (child, name), attributes (name, full name, key), slots."""
    parts = []
    for node in nodes:
        content = b"".join(
            put_bytes(1, number(1, child) + text(2, name)) for child, name in node.get("edges", ())
        )
        content += b"".join(
            put_bytes(2, text(1, name) + text(2, full) + text(3, key))
            for name, full, key in node.get("attributes", ())
        )
        content += b"".join(
            put_bytes(3, number(1, first) + text(2, name) + number(3, kept))
            for first, name, kept in node.get("slots", ())
        )
        if "saver" in node:
            content += put_bytes(4, text(1, node["saver"]))
        if "values" in node:
            content += put_bytes(5, VALUE if node["values"] else b"")
        parts.append(put_bytes(1, content))
    return b"".join(parts)


def graph_of(*edges):
    """Make a graph of edges (parent, child, name) alone."""
    count = 1 + max((max(parent, child) for parent, child, _ in edges), default=0)
    nodes = [{"edges": []} for _ in range(count)]
    for parent, child, name in edges:
        nodes[parent]["edges"].append((child, name))
    return read_graph(encoded(nodes))


def variable(key, full=""):
    """Return a node that is a variable."""
    return {"attributes": [(VARIABLE_VALUE, full, key)], "values": True}


def key(path):
    """Return the key of the variable at a path."""
    return path + "/.ATTRIBUTES/VARIABLE_VALUE"


def write(path, nodes, **more):
    """Save a checkpoint of nodes, with two values for each of their tensors, and open it."""
    names = [name for node in nodes for _, _, name in node.get("attributes", ())]
    values = {name: [float(at), 0.5] for at, name in enumerate(names)}
    ckptkit.save(path, {**values, **more, GRAPH_KEY: encoded(nodes)})
    return ckptkit.open(path)


def refused(checkpoint, *edits):
    """Return why edits are refused, in the first line."""
    with pytest.raises(EditError) as caught:
        checkpoint.edit(*edits).plan(checkpoint.path + "-refused")
    return caught.value.message.partition("\n")[0]


def graph_after(checkpoint, *edits):
    """Write an edited copy, and return its graph, and the notes of the plan."""
    to = f"{checkpoint.path}-{hash(edits)}"
    plan = checkpoint.edit(*edits).plan(to)
    plan.run()
    with ckptkit.open(to) as result:
        return load_graph(result.catalog), plan.notes
