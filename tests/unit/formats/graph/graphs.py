"""Object graphs for tests, made by hand."""

from __future__ import annotations

from ckptkit.formats.tensorflow.graph.objects import VARIABLE_VALUE, read_graph
from ckptkit.formats.tensorflow.wire import encode_bytes, encode_number

VALUE = encode_number(1, 1)
"""The content of has_checkpoint_values, true."""


def text(number, value):
    return encode_bytes(number, value.encode("utf-8", "surrogateescape"))


def encoded(nodes):
    """Encode nodes: dicts with edges (child, name), attributes (name, full name, key), slots."""
    parts = []
    for node in nodes:
        content = b"".join(
            encode_bytes(1, encode_number(1, child) + text(2, name), always=True)
            for child, name in node.get("edges", ())
        )
        content += b"".join(
            encode_bytes(2, text(1, name) + text(2, full) + text(3, key), always=True)
            for name, full, key in node.get("attributes", ())
        )
        content += b"".join(
            encode_bytes(
                3, encode_number(1, first) + text(2, name) + encode_number(3, kept), always=True
            )
            for first, name, kept in node.get("slots", ())
        )
        if "saver" in node:
            content += encode_bytes(4, text(1, node["saver"]), always=True)
        if "values" in node:
            content += encode_bytes(5, VALUE if node["values"] else b"", always=True)
        parts.append(encode_bytes(1, content, always=True))
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
