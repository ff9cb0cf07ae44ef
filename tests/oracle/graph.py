"""Object graphs: decoding, changes, and walks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.oracle import MalformedError
from tests.oracle.varint import fields, put_bytes, put_number

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES, CHILD, ATTRIBUTE, SLOT, SAVER, VALUES = 1, 1, 2, 3, 4, 5


@dataclass
class Node:
    """An object: children, attributes (name, full name, key), slot variables, and flags."""

    children: list[tuple[int, str]] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    slots: list[tuple[int, str, int]] = field(default_factory=list)
    saver: bool = False
    values: bool | None = None


def text_of(value: bytes) -> str:
    """Return text, with a lone surrogate for each odd byte."""
    return value.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """Return the bytes of such a text."""
    return text.encode("utf-8", "surrogateescape")


def number_of(value: int) -> int:
    """Return the 32 bits that protobuf takes of a varint, as a signed number."""
    value &= (1 << 32) - 1
    return value - (1 << 32) if value >> 31 else value


def last(message: bytes, number: int, wire: int) -> int | bytes | None:
    """Return the value of the last field of a number and wire type."""
    found = [value for at, kind, value, _ in fields(message) if (at, kind) == (number, wire)]
    return found[-1] if found else None


def texts(message: bytes, *numbers: int) -> tuple[str, ...]:
    """Return fields of text."""
    return tuple(text_of(last(message, number, 2) or b"") for number in numbers)


def reference(message: bytes) -> tuple[int, str, int]:
    """Return a number, a text, and a number."""
    first, second = (number_of(last(message, number, 0) or 0) for number in (1, 3))
    return first, *texts(message, 2), second


def decode(data: bytes) -> list[Node]:
    """Return the nodes of a graph."""
    nodes = []
    for number, wire, value, _ in fields(data):
        if (number, wire) == (NODES, 2):
            nodes.append(decode_node(value))
    named = [child for node in nodes for child, _ in node.children]
    named += [at for node in nodes for first, _, kept in node.slots for at in (first, kept)]
    if not all(0 <= at < len(nodes) for at in named):
        msg = "refers to a node that is not there"
        raise MalformedError(msg)
    return nodes


def decode_node(message: bytes) -> Node:
    """Return a node."""
    node = Node()
    for number, wire, value, _ in fields(message):
        if wire != 2:
            continue
        if number == CHILD:
            node.children.append(reference(value)[:2])
        elif number == ATTRIBUTE:
            node.attributes.append(texts(value, 1, 2, 3))
        elif number == SLOT:
            node.slots.append(reference(value))
        elif number == SAVER:
            node.saver = True
        elif number == VALUES:
            said = last(value, 1, 0)
            node.values = bool(node.values) if said is None else bool(said)
    return node


@dataclass
class Changes:
    """The arguments of a splice, by name."""

    children: dict[int, str | None] = field(default_factory=dict)
    attributes: dict[int, tuple[str | None, str | None] | None] = field(default_factory=dict)
    slots: set[int] = field(default_factory=set)
    added_children: list[tuple[int, int, str]] = field(default_factory=list)
    added_attributes: list[tuple[int, str, str, str]] = field(default_factory=list)
    added_slots: list[tuple[int, int, str, int]] = field(default_factory=list)
    values: dict[int, bool] = field(default_factory=dict)
    nodes: int = 0


def splice(data: bytes, changes: Changes) -> bytes:
    """Return the bytes of a changed graph."""
    out, node = b"", 0
    counts = [0, 0, 0]
    for number, wire, value, stored in fields(data):
        if (number, wire) != (NODES, 2):
            out += stored
            continue
        content = splice_node(value, node, counts, changes)
        out += stored if content == value else put_bytes(NODES, content)
        node += 1
    for extra in range(changes.nodes):
        out += put_bytes(NODES, splice_node(b"", node + extra, counts, changes))
    return out


def splice_node(message: bytes, node: int, counts: list[int], changes: Changes) -> bytes:
    """Return the content of a changed node; ``counts`` are the items before it."""
    parts: list[tuple[int, bytes]] = []
    wanted = changes.values.get(node)
    if wanted == decode_node(message).values:
        wanted = None
    said = wanted is None
    for number, wire, value, stored in fields(message):
        kept = stored
        if wire == 2 and number in {CHILD, ATTRIBUTE, SLOT}:
            kept = splice_item(number, value, stored, counts[number - 1], changes)
            counts[number - 1] += 1
        elif wire == 2 and number == VALUES and wanted is not None:
            kept, said = b"" if said else put_bytes(VALUES, bool_value(wanted)), True
        if kept:
            parts.append((number, kept))
    for number, content in added(node, changes):
        add(parts, number, content)
    if not said:
        add(parts, VALUES, bool_value(wanted))
    return b"".join(part for _, part in parts)


def splice_item(number: int, message: bytes, stored: bytes, item: int, changes: Changes) -> bytes:
    """Return a child, attribute or slot variable, changed; nothing for one that goes."""
    if number == SLOT:
        return b"" if item in changes.slots else stored
    found = changes.children if number == CHILD else changes.attributes
    if item not in found:
        return stored
    change = found[item]
    if change is None:
        return b""
    wanted = {2: change} if number == CHILD else {2: change[0], 3: change[1]}
    return with_texts(stored, message, wanted)


def added(node: int, changes: Changes) -> Iterator[tuple[int, bytes]]:
    """Yield numbers and contents of the fields that a node gets."""
    for parent, child, name in changes.added_children:
        if parent == node:
            yield CHILD, number_field(1, child) + text_field(2, name)
    for owner, *found in changes.added_attributes:
        if owner == node:
            yield ATTRIBUTE, b"".join(text_field(at, one) for at, one in enumerate(found, 1))
    for owner, original, name, variable in changes.added_slots:
        if owner == node:
            content = number_field(1, original) + text_field(2, name) + number_field(3, variable)
            yield SLOT, content


def bool_value(value: bool | None) -> bytes:
    """Encode a BoolValue."""
    return put_number(1, 1) if value else b""


def with_texts(stored: bytes, message: bytes, wanted: dict[int, str | None]) -> bytes:
    """Return a field that is a message, with other texts."""
    wanted = {
        number: text
        for number, text in wanted.items()
        if text is not None and texts(message, number) != (text,)
    }
    if not wanted:
        return stored
    parts: list[tuple[int, bytes]] = []
    left = dict(wanted)
    for number, wire, _, kept in fields(message):
        if wire != 2 or number not in wanted:
            parts.append((number, kept))
        elif left.get(number):
            parts.append((number, text_field(number, left.pop(number))))
    for number, text in sorted(left.items()):
        if text:
            add(parts, number, bytes_of(text))
    return put_bytes(fields_number(stored), b"".join(part for _, part in parts))


def fields_number(stored: bytes) -> int:
    """Return the number of a field."""
    ((number, *_),) = fields(stored)
    return number


def add(parts: list[tuple[int, bytes]], number: int, content: bytes) -> None:
    """Add a field behind the last one whose number is not higher."""
    lower = [at for at, (other, _) in enumerate(parts, 1) if other <= number]
    parts.insert(max(lower, default=0), (number, put_bytes(number, content)))


def number_field(number: int, value: int) -> bytes:
    """Encode a number, 0 as nothing."""
    return put_number(number, value) if value else b""


def text_field(number: int, text: str) -> bytes:
    """Encode a text, the empty one as nothing."""
    return put_bytes(number, bytes_of(text)) if text else b""


def tree(nodes: list[Node]) -> list[int]:
    """Return for each node the edge by which a breadth-first walk reaches it, or -1."""
    first = [sum(len(node.children) for node in nodes[:at]) for at in range(len(nodes))]
    found, seen, queue = [-1] * len(nodes), {0}, [0] if nodes else []
    for node in queue:
        for at, (child, _) in enumerate(nodes[node].children):
            if child not in seen:
                seen.add(child)
                found[child] = first[node] + at
                queue.append(child)
    return found


def holders(nodes: list[Node], own: set[int]) -> list[int]:
    """Return the nodes that lead to one of some, or are one."""
    found = set(own)
    while True:
        more = {
            at
            for at, node in enumerate(nodes)
            if at not in found and any(child in found for child, _ in node.children)
        }
        if not more:
            return sorted(found)
        found |= more


def escape(name: str) -> str:
    """Return a name as it stands in a path."""
    return name.replace(".", "..").replace("/", ".S")


def reach(nodes: list[Node], glob: str, *, grouped: bool) -> list[int]:
    """Return the nodes to which a path leads that a glob matches."""
    ends = set()
    seen: set[tuple[int, int, bool]] = set()
    queue = [(0, 0, True)] if nodes else []
    tokens = tokens_of(glob, grouped=grouped)
    for state in queue:
        if state in seen:
            continue
        seen.add(state)
        node, at, start = state
        if len(tokens) in closure(tokens, {at}):
            ends.add(node)
        for child, name in nodes[node].children:
            states = {at}
            for letter in ("" if start else "/") + escape(name):
                states = step(tokens, states, letter)
            queue += [(child, to, False) for to in states]
    return sorted(ends)


def tokens_of(glob: str, *, grouped: bool) -> list[str]:
    """Split a glob; letters that stand for themselves are doubled."""
    tokens, at = [], 0
    while at < len(glob):
        for token in ("**/", "**", "*", "?"):
            if glob.startswith(token, at):
                tokens.append(token)
                at += len(token)
                break
        else:
            if not (grouped and glob[at] in "()"):
                tokens.append(2 * glob[at])
            at += 1
    return tokens


def closure(tokens: list[str], states: set[int]) -> set[int]:
    """Add the positions to which wildcards that stand for nothing lead."""
    found = set(states)
    for at, token in enumerate(tokens):
        if at in found and token in {"**/", "**", "*"}:
            found.add(at + 1)
    # Negative positions are within ``**/``, whose text has begun and has to end in a slash.
    return found


def step(tokens: list[str], states: set[int], letter: str) -> set[int]:
    """Return the positions after a letter."""
    found = set()
    for at in closure(tokens, {state for state in states if state >= 0}):
        part = tokens[at] if at < len(tokens) else ""
        if part == "**/":
            found |= {-at - 1} | ({at + 1} if letter == "/" else set())
        elif part == "**" or (part == "*" and letter != "/"):
            found.add(at)
        elif part == 2 * letter or (part == "?" and letter != "/"):
            found.add(at + 1)
    for state in states:
        if state < 0:
            found |= {state} | ({-state} if letter == "/" else set())
    return found
