"""Object graphs: decoding, changes and walks are those of the twin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import _native
from tests.oracle import MalformedError
from tests.oracle import graph as twin
from tests.oracle.graph import Changes, Node
from tests.oracle.varint import put_bytes, put_number, put_varint

TEXTS = st.sampled_from(["", "a", "kernel", "VARIABLE_VALUE", "a.b/c", "\udcff", "ü", "x" * 200])
STRAY = [put_number(4, 7), put_bytes(9, b"later"), b"\x3d\x01\x02\x03\x04"]


def numbers(column: bytes) -> list[int]:
    """Return the numbers of a column of int32."""
    return memoryview(column).cast("i").tolist()


@st.composite
def messages(draw: st.DrawFn, parts: list[st.SearchStrategy[bytes]]) -> bytes:
    """Encode a message whose fields come in any order, some twice, some unknown."""
    order = draw(st.permutations([*parts, *draw(st.lists(st.sampled_from(parts), max_size=1))]))
    found = [draw(part) for part in order]
    stray = draw(st.lists(st.sampled_from(STRAY), max_size=1))
    return b"".join([*found, *stray])


@st.composite
def padded(draw: st.DrawFn, content: bytes) -> bytes:
    """Encode a field of bytes whose length may take more bytes than it needs."""
    length = bytearray(put_varint(len(content)))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1]))):
        length[-1] |= 0x80
        length.append(0)
    return bytes(length) + content


def texts(number: int) -> st.SearchStrategy[bytes]:
    """Encode a text."""
    return TEXTS.map(lambda text: put_bytes(number, twin.bytes_of(text)))


@st.composite
def graphs(draw: st.DrawFn, *, valid: bool = True) -> bytes:
    """Encode a graph."""
    count = draw(st.integers(0, 5))
    top = count - 1 if valid else count + 1

    def ids(number: int) -> st.SearchStrategy[bytes]:
        return st.integers(0 if valid else -1, top).map(lambda at: put_number(number, at))

    items = st.one_of(
        messages([ids(1), texts(2)]).map(lambda m: (1, m)),
        messages([texts(1), texts(2), texts(3)]).map(lambda m: (2, m)),
        messages([ids(1), texts(2), ids(3)]).map(lambda m: (3, m)),
        texts(1).map(lambda m: (4, m)),
        st.sampled_from([b"", b"\x08\x01", b"\x08\x00"]).map(lambda m: (5, m)),
        st.just((7, b"later")),
    )
    out = b""
    for _ in range(count):
        node = b""
        for number, content in draw(st.lists(items, max_size=6)):
            node += put_varint(number << 3 | 2) + draw(padded(content))
        node += draw(st.sampled_from([b"", b"\x08\x05", b"\x39" + bytes(8)]))
        out += draw(st.sampled_from([b"", b"\x12\x01x"])) + b"\x0a" + draw(padded(node))
    return out


def decoded(data: bytes) -> list[Node]:
    """Decode natively, as nodes."""
    flags, edges, attributes, slots = _native.graph_decode(data)
    nodes = [
        Node(saver=bool(flag & 1), values=bool(flag & 4) if flag & 2 else None) for flag in flags
    ]
    _, parent, child, name = edges
    for at, *edge in zip(numbers(parent), numbers(child), name, strict=True):
        nodes[at].children.append(tuple(edge))
    _, owner, *columns = attributes
    for at, *attribute in zip(numbers(owner), *columns, strict=True):
        nodes[at].attributes.append(tuple(attribute))
    _, optimizer, original, name, variable = slots
    columns = (numbers(optimizer), numbers(original), name, numbers(variable))
    for at, *slot in zip(*columns, strict=True):
        nodes[at].slots.append(tuple(slot))
    for ends, lists in (
        (edges[0], [node.children for node in nodes]),
        (attributes[0], [node.attributes for node in nodes]),
        (slots[0], [node.slots for node in nodes]),
    ):
        assert numbers(ends) == [sum(map(len, lists[: at + 1])) for at in range(len(lists))]
    return nodes


@given(graphs())
def test_decoding_equals_twin(data: bytes) -> None:
    assert decoded(data) == twin.decode(data)


@given(graphs(valid=False), st.data())
def test_damaged_graphs_agree_with_twin(data: bytes, more: st.DataObject) -> None:
    hostile = bytearray(data[: more.draw(st.integers(0, len(data)))])
    if hostile and more.draw(st.booleans()):
        at = more.draw(st.integers(0, len(hostile) - 1))
        hostile[at] = more.draw(st.integers(0, 255))
    try:
        found = decoded(bytes(hostile))
    except _native.DecodeError as error:
        assert 0 <= error.offset <= len(hostile)
        with pytest.raises(MalformedError):
            twin.decode(bytes(hostile))
    else:
        assert found == twin.decode(bytes(hostile))


HOSTILE = {
    "cut varint": b"\x0a\x80",
    "length past the end": b"\x0a\x05\x0a\x00",
    "huge length": b"\x0a" + b"\xff" * 9 + b"\x01",
    "group": b"\x0b\x0c",
    "field number 0": b"\x02\x00",
    "child of another graph": b"\x0a\x04\x0a\x02\x08\x01",
    "negative child": b"\x0a\x0d\x0a\x0b\x08" + b"\xff" * 9 + b"\x01",
    "slot of another graph": b"\x0a\x04\x1a\x02\x08\x01",
    "slot variable of another graph": b"\x0a\x04\x1a\x02\x18\x01",
    "cut within a child": b"\x0a\x03\x0a\x01\x08",
    "cut within an attribute": b"\x0a\x04\x12\x02\x0a\x05",
    "cut within what says of values": b"\x0a\x03\x2a\x01\x08",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_graphs_are_refused(what: str) -> None:
    with pytest.raises(_native.DecodeError) as caught:
        _native.graph_decode(HOSTILE[what])
    assert 0 <= caught.value.offset <= len(HOSTILE[what])
    if "within" not in what and "graph" not in what and "negative" not in what:
        with pytest.raises(_native.DecodeError):
            _native.graph_splice(HOSTILE[what], [], [], [], [], [], [], [(0, True)], 0)


def test_more_nodes_than_any_graph_has_are_refused() -> None:
    with pytest.raises(_native.DecodeError, match="at most 16777216 nodes"):
        _native.graph_decode(b"\x0a\x00" * ((1 << 24) + 1))
    with pytest.raises(_native.DecodeError, match="at most 16777216 nodes"):
        _native.graph_decode(put_bytes(1, b"\x12\x00" * ((1 << 24) + 1)))


def test_a_byte_is_no_node_for_a_reference_before_it() -> None:
    flags, *_ = _native.graph_decode(b"\x0a\x04\x0a\x02\x08\x01\x0a\x00")
    assert len(flags) == 2


@st.composite
def changes(draw: st.DrawFn, nodes: list[Node]) -> Changes:
    """Draw changes of a graph."""
    fresh = draw(st.integers(0, 2))
    count = len(nodes) + fresh

    def some(lists: list[list[object]], to: st.SearchStrategy[object]) -> dict[int, object]:
        size = sum(map(len, lists))
        return draw(st.dictionaries(st.integers(0, size - 1), to, max_size=4)) if size else {}

    maybe = st.none() | TEXTS
    at = st.integers(0, count - 1) if count else st.nothing()

    def added(*columns: st.SearchStrategy[object]) -> list[tuple[object, ...]]:
        return draw(st.lists(st.tuples(*columns), max_size=3)) if count else []

    return Changes(
        some([node.children for node in nodes], maybe),
        some([node.attributes for node in nodes], st.none() | st.tuples(maybe, maybe)),
        set(some([node.slots for node in nodes], st.none())),
        added(at, at, TEXTS),
        added(at, TEXTS, TEXTS, TEXTS),
        added(at, at, TEXTS, at),
        draw(st.dictionaries(at, st.booleans(), max_size=4)) if count else {},
        fresh,
    )


def spliced(data: bytes, change: Changes) -> bytes:
    """Splice natively."""
    return _native.graph_splice(
        data,
        list(change.children.items()),
        list(change.attributes.items()),
        list(change.slots),
        change.added_children,
        change.added_attributes,
        change.added_slots,
        list(change.values.items()),
        change.nodes,
    )


@given(graphs(), st.data())
def test_splicing_equals_twin(data: bytes, more: st.DataObject) -> None:
    change = more.draw(changes(twin.decode(data)))
    found = spliced(data, change)
    assert found == twin.splice(data, change)
    assert decoded(found) == twin.decode(found)


@given(graphs())
def test_saying_what_is_said_changes_no_byte(data: bytes) -> None:
    nodes = twin.decode(data)
    children = [child for node in nodes for child in node.children]
    attributes = [attribute for node in nodes for attribute in node.attributes]
    change = Changes(
        {at: name for at, (_, name) in enumerate(children)},
        {at: texts[1:] for at, texts in enumerate(attributes)},
        values={at: node.values for at, node in enumerate(nodes) if node.values is not None},
    )
    assert spliced(data, change) == data
    assert spliced(data, Changes()) == data


def test_changes_of_what_is_not_there_are_refused() -> None:
    node = b"\x0a\x00"
    for change, message in (
        (Changes(children={0: "a"}), "child 0 of 0 is changed"),
        (Changes(attributes={2: None}), "attribute 2 of 0 is changed"),
        (Changes(slots={0}), "slot variable 0 of 0 is changed"),
        (Changes(values={1: True}), "node 1 of 1 and 0 more"),
        (Changes(added_children=[(0, 2, "a")], nodes=1), "node 2 of 1 and 1 more"),
        (Changes(added_slots=[(0, 0, "a", 1)]), "node 1 of 1 and 0 more"),
        (Changes(added_attributes=[(1, "a", "b", "c")]), "node 1 of 1 and 0 more"),
        (Changes(nodes=1 << 24), "16777216 nodes are too many"),
    ):
        with pytest.raises(ValueError, match=message):
            spliced(node, change)
    with pytest.raises(OverflowError):
        spliced(node, Changes(values={-1: True}))


@given(graphs())
def test_the_tree_and_the_holders_equal_twin(data: bytes) -> None:
    nodes = twin.decode(data)
    _, (ends, _, child, _), _, _ = _native.graph_decode(data)
    assert numbers(_native.graph_tree(ends, child)) == twin.tree(nodes)
    own = {at for at, node in enumerate(nodes) if node.attributes or node.slots}
    found = _native.graph_holders(ends, child, bytes(at in own for at in range(len(nodes))))
    assert [at for at, holds in enumerate(found) if holds] == twin.holders(nodes, own)


@given(graphs(), st.lists(st.sampled_from(["a", "*", "**", "**/", "/", "?", ".", "S"]), max_size=7))
def test_walks_equal_twin(data: bytes, parts: list[str]) -> None:
    nodes, glob = twin.decode(data), "".join(parts)
    _, (ends, _, child, name), _, _ = _native.graph_decode(data)
    found = _native.graph_reach(ends, child, name, glob, False)
    expected = twin.reach(nodes, glob, grouped=False)
    assert [at for at, there in enumerate(found) if there] == expected


def test_columns_that_are_none_are_refused() -> None:
    one, bad = b"\1\0\0\0", b"\1\0\0\0"
    for call in (
        lambda: _native.graph_tree(one, bad),
        lambda: _native.graph_holders(one, bad, b"\0"),
        lambda: _native.graph_reach(one, bad, ["a"], "**", False),
        lambda: _native.graph_reach(one, bytes(4), [], "**", False),
        lambda: _native.graph_holders(one, bytes(4), b""),
    ):
        with pytest.raises(ValueError, match="columns are those of no graph"):
            call()


@pytest.mark.tensorflow
@given(graphs())
def test_tensorflow_decodes_the_same(tf: object, data: bytes) -> None:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    message = TrackableObjectGraph()
    try:
        message.ParseFromString(data)
    except DecodeError:
        # It takes no text that is not UTF-8.
        assert b"\xff" in data
        return
    expected = [
        Node(
            [(child.node_id, child.local_name) for child in node.children],
            [(one.name, one.full_name, one.checkpoint_key) for one in node.attributes],
            [
                (slot.original_variable_node_id, slot.slot_name, slot.slot_variable_node_id)
                for slot in node.slot_variables
            ],
            saver=node.HasField("registered_saver"),
            values=node.has_checkpoint_values.value
            if node.HasField("has_checkpoint_values")
            else None,
        )
        for node in message.nodes
    ]
    assert decoded(data) == expected
