"""The object graph of an edited catalog: the graph before, with what the edits mean for it.

Restoring walks from object to object along edges and their local names, and reads the tensor that
an attribute names; the text of a key means nothing to it. So a rename is a rename of edges, and
keys are kept in agreement with the paths that edges make.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from ckptkit.errors import EditError
from ckptkit.formats.tensorflow.graph.keypaths import (
    KeyPaths,
    last_of,
    names_of,
    parent_of,
    parted,
    parts_of,
)
from ckptkit.formats.tensorflow.graph.moves import Moves, Targets, targets
from ckptkit.formats.tensorflow.graph.objects import ATTRIBUTES, SLOT
from ckptkit.formats.tensorflow.graph.revision import Revision
from ckptkit.formats.tensorflow.graph.values import HasValues
from ckptkit.sizes import counted, listed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ckptkit.formats.tensorflow.graph.following import Changes
    from ckptkit.formats.tensorflow.graph.objects import ObjectGraph

SHOWN = 3
"""Names that a note lists."""


class Account(NamedTuple):
    """What was done to a graph.

    Attributes:
        counts: How many of what; a noun, and what goes behind it.
        notes: What else is worth saying, a sentence each.
    """

    counts: Mapping[tuple[str, str], int] = MappingProxyType({})
    notes: tuple[str, ...] = ()

    def followed_by(self, other: Account) -> Account:
        """Return what was done first, and then."""
        both = (*self.counts, *other.counts)
        counts = {what: self.counts.get(what, 0) + other.counts.get(what, 0) for what in both}
        return Account(counts, tuple(dict.fromkeys((*self.notes, *other.notes))))

    def sentences(self) -> tuple[str, ...]:
        """Return all of it for people."""
        told = [counted(number, noun) + rest for (noun, rest), number in self.counts.items()]
        if not told:
            return self.notes
        return (f"the object graph goes with the edit: {', '.join(told)}", *self.notes)


class Regraphed(NamedTuple):
    """A graph after edits.

    Attributes:
        data: Its bytes.
        names: Further names that change with it: slot variables are named after the path of their
            variable and that of their optimizer.
        account: What was done.
    """

    data: bytes
    names: Mapping[str, str]
    account: Account


def regraph(
    graph: ObjectGraph,
    names: Sequence[str],
    change: Changes,
    pinned: Collection[str] = (),
) -> Regraphed:
    """Return the graph that goes with names of tensors that edits changed.

    Args:
        graph: The graph before.
        names: The names of the tensors that it describes.
        change: What became of them.
        pinned: Paths of objects that stay where they are, whatever moves below them.

    Raises:
        EditError: Two objects would be at one path, or parts of one object would be apart.
    """
    work = _Regraphing(graph, names, change)
    work.move(pinned)
    work.follow_slots()
    work.set_keys()
    work.drop()
    work.add()
    work.note_values()
    return work.result()


class _Regraphing:
    """Changes of a graph on their way."""

    def __init__(self, graph: ObjectGraph, names: Sequence[str], change: Changes) -> None:
        self.graph = graph
        self.change = change
        self.revision = Revision(graph)
        self.moved = dict(change.moved)
        self.new_keys, self.lost, self.without = _keys(graph, names, change)
        self.paths = KeyPaths(graph)
        self.values = HasValues(graph)
        self.slots_lost: list[int] = []
        self.given = 0
        self.followed: dict[str, str] = {}
        self.notes: list[str] = []
        self.strange: dict[str, None] = {}
        self.where = Targets({"": ""}, ())
        owners = graph.attribute_node
        lost = self.lost
        living = (owner for at, owner in enumerate(owners) if at not in lost) if lost else owners
        self.living = {*living}

    def move(self, pinned: Collection[str]) -> None:
        """Take edges to where the keys go."""
        graph, new_keys, heads = self.graph, self.new_keys, self.paths.heads
        silent = {*self.lost, *self.without}
        wanted: dict[int, str] = {}
        for at, head in enumerate(heads):
            if head is None or at in silent:
                continue
            key = new_keys.get(at)
            if key is None:
                wanted[at] = head
                continue
            rest = graph.key[at][len(head) :]
            path = key[: -len(rest)]
            if not key.endswith(rest) or ATTRIBUTES in path or SLOT in path:
                self.strange[key] = None
                path = head
            wanted[at] = path
        if new_keys:
            self.where = targets(self.paths, wanted, pinned)
            placed = self.where.placed
            # What has no tensor has no say, and goes along.
            for at in self.without:
                head = heads[at]
                if head is not None and placed[head] != head:
                    new_keys[at] = placed[head] + graph.key[at][len(head) :]
        living = self.living.union(graph.slot_optimizer, graph.savers)
        self.moves = Moves(self.paths, self.where, self.revision, living)
        self.moves.run()

    def follow_slots(self) -> None:
        """Rename slot variables after their variables and optimizers."""
        graph, attributes = self.graph, self.graph.attributes_of
        for slot in range(len(graph.slot_name)) if self.new_keys else ():
            for at in attributes.get(graph.slot_variable[slot], ()):
                key = graph.key[at]
                if at in self.lost or SLOT not in key:
                    continue
                now = self.new_keys.get(at, key)
                then = self._followed(slot, key, now)
                if then != now:
                    self.new_keys[at] = self.followed[now] = then

    def _followed(self, slot: int, key: str, now: str) -> str:
        """Return the key of a slot variable with paths as they are by now."""
        graph = self.graph
        before, after = _slot_parts(key), _slot_parts(now)
        if before is None or after is None:
            return now
        variable, optimizer, rest = after
        if variable == before[0]:
            variable = self._path_now(variable, graph.slot_original[slot])
        if optimizer == before[1]:
            optimizer = self._path_now(optimizer, graph.slot_optimizer[slot])
        return f"{variable}{SLOT}{optimizer}{rest}"

    def _path_now(self, path: str, node: int) -> str:
        return path if self.paths.leads_to(path) != node else self._now(path)

    def _now(self, path: str) -> str:
        """Return where the object of a path is by now."""
        placed, joined, below = self.where.placed, self.moves.joined, ""
        while path not in placed or path in joined:
            below = f"/{last_of(path)}{below}"
            path = parent_of(path)
        return f"{placed[path]}{below}" if placed[path] else below[1:]

    def set_keys(self) -> None:
        """Write the new keys, and rename what of the variables' own names was renamed."""
        graph, heads, cache = self.graph, self.paths.heads, _Renamed()
        placed = self.where.placed
        for at, key in self.new_keys.items():
            full_name, head = graph.full_name[at], heads[at]
            renamed = None
            if head is not None:
                path = parted(key)[0]
                if path != placed.get(head, head):
                    self.strange[key] = None
                if full_name and path:
                    renamed = cache.full_name(full_name, head, path)
            self.revision.set_attribute(at, key=key, full_name=renamed)
        if self.strange:
            self.notes.append(
                f"{_listed([*self.strange])}: no name of its object, to which the graph still leads"
            )

    def drop(self) -> None:
        """Leave out attributes of tensors that are gone, and slot references to their nodes."""
        if not self.lost:
            return
        graph, lost = self.graph, self.lost
        self.slots_lost = self.revision.drop_attributes(lost)
        kept = (graph.attributes_of.get(graph.slot_variable[at], ()) for at in self.slots_lost)
        alone = [graph.key[at] for held in kept for at in held if at not in lost]
        if alone:
            self.notes.append(
                f"{_listed(alone)}: kept by an optimizer for a variable that is gone;"
                ' nothing restores it any more, and "drop" leaves it out as well'
            )

    def add(self) -> None:
        """Make objects for new tensors."""
        # An object may be there that keeps just this one, and whose tensor was missing.
        known = {
            self.new_keys.get(at, key)
            for at, key in enumerate(self.graph.key)
            if at not in self.lost
        }
        added = [name for name in self.change.added if name not in known]
        homeless = [name for name in added if not self._add(name)]
        if homeless:
            self.notes.append(
                f"{_listed(homeless)}: of no object, so that only its name restores it;"
                " new graph:PATH = ... adds an object"
            )

    def _add(self, name: str) -> bool:
        path, rest = parted(name)
        if not rest:
            return False
        attribute = names_of(rest[len(ATTRIBUTES) :])
        node: int | None
        if SLOT in name:
            node = self._add_slot(path)
            if node is None:
                return False
        else:
            node = self.moves.make(path)
            for at in self.graph.attributes_of.get(node, ()):
                if self.graph.attribute_name[at] == "/".join(attribute) and at not in self.lost:
                    key = self.new_keys.get(at, self.graph.key[at])
                    msg = f"the object at {path!r} has a tensor already, {key!r}, besides {name!r}"
                    raise EditError(msg, tensor=name)
        label = names_of(last_of(path))
        self.revision.add_attribute(node, "/".join(attribute), "/".join(label), name)
        self.values.give(node)
        self.given += 1
        return True

    def _add_slot(self, path: str) -> int | None:
        variable, _, rest = path.partition(SLOT)
        optimizer, _, slot = rest.rpartition("/")
        original, owner = self.moves.find(variable), self.moves.find(optimizer)
        if original is None or owner is None or not slot:
            return None
        node = self.revision.add_node()
        self.revision.add_slot(owner, original, "/".join(names_of(slot)), node)
        self.values.give(owner)
        return node

    def note_values(self) -> None:
        """Say anew which objects have values at or below them, where that was said."""
        if self.lost or self.moves.shifted or self.change.added:
            self.values.revise(self.revision, self.lost, self.slots_lost, self.moves.edges())

    def result(self) -> Regraphed:
        """Return bytes, names, and what was done."""
        if self.followed:
            shown = _listed([f"{old} -> {new}" for old, new in self.followed.items()])
            self.notes.append(f"names of slot variables go with their objects: {shown}")
        if not self.revision.changed:
            return Regraphed(self.graph.data, {}, Account(notes=tuple(self.notes)))
        counts = {
            ("edge", ""): self.moves.count,
            ("key", ""): len(self.new_keys),
            ("attribute", " left out"): len(self.lost),
            ("slot reference", " left out"): len(self.slots_lost),
            ("attribute", " added"): self.given,
        }
        account = Account({what: n for what, n in counts.items() if n}, tuple(self.notes))
        return Regraphed(self.revision.encode(), self.followed, account)


def _keys(
    graph: ObjectGraph, names: Sequence[str], change: Changes
) -> tuple[dict[int, str], dict[int, None], list[int]]:
    """Return the new keys of attributes, by number; those that are gone; those without a tensor.

    The tensors of an attribute are those of its name; where there is none, those whose names go on
    behind it: of a table, keys and values.

    Raises:
        EditError: Tensors of one attribute would be apart.
    """
    moved, gone = change.moved, change.gone
    new_keys: dict[int, str] = {}
    lost: dict[int, None] = {}
    without: list[int] = []
    parts: dict[int, list[str]] | None = None
    there = set(names)
    for at, key in enumerate(graph.key):
        if key in moved:
            new_keys[at] = moved[key]
        elif key in gone:
            lost[at] = None
        elif key not in there:
            parts = parts_of(graph, names) if parts is None else parts
            becomes = {_stem(part, key, change) for part in parts.get(at, ())}
            if len(becomes) > 1 or "" in becomes:
                msg = (
                    f"{_listed(parts[at])} are parts of one object, and would be apart:"
                    " rename or drop them together"
                )
                raise EditError(msg, tensor=parts[at][0])
            stem = next(iter(becomes), "")
            if stem is None:
                lost[at] = None
            elif not stem:
                without.append(at)
            elif stem != key:
                new_keys[at] = stem
    return new_keys, lost, without


def _stem(part: str, key: str, change: Changes) -> str | None:
    """Return what the key of an attribute becomes with a part of it; None where the part goes.

    Nothing is left of it where the part has another ending.
    """
    if part in change.gone:
        return None
    becomes, rest = change.moved.get(part, part), part[len(key) :]
    return becomes.removesuffix(rest) if becomes.endswith(rest) else ""


def _slot_parts(key: str) -> tuple[str, str, str] | None:
    """Split the key of a slot variable into variable, optimizer, and ``/slot/.ATTRIBUTES/...``."""
    path, rest = parted(key)
    variable, found, kept = path.partition(SLOT)
    optimizer, slash, slot = kept.rpartition("/")
    return (variable, optimizer, slash + slot + rest) if found and slash else None


class _Renamed:
    """Which components of a path are called otherwise in another one, remembered by folder."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[str, str] | None] = {}

    def full_name(self, full_name: str, old: str, new: str) -> str | None:
        """Return the name of a variable with renamed components; None where it has none."""
        above, _, last = old.rpartition("/")
        new_above, _, new_last = new.rpartition("/")
        folders = above, new_above
        pairs = self._known[folders] if folders in self._known else self._pairs(*folders)
        if pairs is None or (last == new_last and not pairs):
            return None
        parts = full_name.split("/")
        if last != new_last:
            pairs = {**pairs, names_of(last)[0]: names_of(new_last)[0]}
        renamed = [pairs.get(part, part) for part in parts]
        return "/".join(renamed) if renamed != parts else None

    def _pairs(self, old: str, new: str) -> dict[str, str] | None:
        """Return names that differ, by the one before; None where the paths differ in length."""
        before, after = names_of(old), names_of(new)
        found = None
        if len(before) == len(after):
            found = {a: b for a, b in zip(before, after, strict=True) if a != b}
        self._known[old, new] = found
        return found


def _listed(names: Sequence[str]) -> str:
    return listed(names[:SHOWN], len(names))
