"""Edits of the links and attributes of an HDF5 file, and the order in which they can be done."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ckptkit.errors import EditError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ckptkit.formats.keras.hdf5.tree import Tree, Value


@dataclass(frozen=True, slots=True)
class Make:
    """A group that is to be made."""

    path: str


@dataclass(frozen=True, slots=True)
class Move:
    """A group or a dataset that gets another path."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Remove:
    """A group with all in it, or a dataset, that goes."""

    path: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of a group or a dataset that gets a value; None: it goes."""

    path: str
    name: str
    value: Value


LinkEdit = Make | Move | Remove | Attribute

_MADE: Final = "\0"
"""Before the path of a group that is not there yet: no name has it."""


def parent_of(path: str) -> str:
    """Return the path of the group that something is in; the root's is empty."""
    return path.rpartition("/")[0]


def joined(group: str, name: str) -> str:
    """Return the path of what is in a group under a name."""
    return f"{group}/{name}" if group else name


def relink(
    tree: Tree, groups: Mapping[str, str], datasets: Mapping[str, str], made: Sequence[str]
) -> list[LinkEdit]:
    """Return edits that bring everything to its place, each possible after those before it.

    Args:
        tree: The file as it is.
        groups: The new path of every group that stays, by its old one.
        datasets: The same of datasets.
        made: Groups that are new.

    Raises:
        EditError: Something would change in a group that has two names.
    """
    return _Relinking(tree, groups, datasets, made).run()


@dataclass(slots=True)
class _Step:
    """One edit that is to be done.

    Attributes:
        node: What it is about: an old path, or the path of a group to be made, marked.
        target: The new path; None: it goes.
        blockers: Steps that make room or a group for this one.
        waiting: Steps that this one blocks.
        missing: Number of blockers that are left.
        left: Whether it is no longer in the way of others.
        done: Whether it has been done.
    """

    node: str
    target: str | None
    blockers: list[_Step] = field(default_factory=list)
    waiting: list[_Step] = field(default_factory=list)
    missing: int = 0
    left: bool = False
    done: bool = False

    @property
    def moves(self) -> bool:
        return self.target is not None and not self.node.startswith(_MADE)


class _Relinking:
    """Links on their way from where they are to where they are to be."""

    def __init__(
        self,
        tree: Tree,
        groups: Mapping[str, str],
        datasets: Mapping[str, str],
        made: Sequence[str],
    ) -> None:
        self._tree = tree
        self._groups = groups
        self._owner = {new: old for old, new in groups.items()}
        self._owner |= {new: _MADE + new for new in made}
        self._steps: dict[str, _Step] = {}
        self._where: dict[str, tuple[str, str]] = {}
        self._edits: list[LinkEdit] = []
        self._ready: deque[_Step] = deque()
        self._names = {new.split("/")[0] for new in [*datasets.values(), *groups.values(), *made]}
        self._names.update(tree.groups[""].links)
        self._numbers = itertools.count()
        moved = self._find({**groups, **datasets})
        for new in made:
            self._steps[_MADE + new] = _Step(_MADE + new, new)
        for step in [*self._steps.values()]:
            self._block(step)
        for old in moved:
            gone = self._gone(old)
            if gone is not None:
                _wait(self._steps[gone], self._steps[old])
        self._check_aliases()

    def _find(self, places: Mapping[str, str]) -> list[str]:
        """Note what goes and what does not just go along with the group that it is in."""
        moved = []
        for old in itertools.chain(self._tree.groups, self._tree.datasets):
            parent, _, name = old.rpartition("/")
            into = self._groups.get(parent)
            if not old or (old not in places and into is None):
                continue
            new = places.get(old)
            if new is None or into is None or joined(into, name) != new:
                self._steps[old] = _Step(old, new)
                if new is not None:
                    moved.append(old)
        # What goes makes room, so it goes first.
        self._steps = dict(sorted(self._steps.items(), key=lambda item: item[1].target is not None))
        return moved

    def _block(self, step: _Step) -> None:
        """Find what must be there, or away, before something gets its place."""
        if step.target is None:
            return
        parent, _, name = step.target.rpartition("/")
        owner = self._owner[parent]
        if owner.startswith(_MADE):
            _wait(step, self._steps[owner])
            return
        occupant = joined(owner, name)
        if occupant in self._tree.groups or occupant in self._tree.datasets:
            _wait(step, self._steps[occupant])

    def _gone(self, old: str) -> str | None:
        """Return the group that goes and takes along what is not moved out before."""
        found = None
        while (old := parent_of(old)) not in self._groups:
            found = old
        return found

    def _check_aliases(self) -> None:
        counts = Counter(group.address for group in self._tree.groups.values())
        twice = {
            path
            for path, group in self._tree.groups.items()
            if group.address > 0 and counts[group.address] > 1
        }
        if not twice:
            return
        for step in self._steps.values():
            ends = [step.node] if not step.node.startswith(_MADE) else []
            ends += [self._owner[parent_of(step.target)] + "/"] if step.target is not None else []
            for path in ends:
                inside = path
                while inside := parent_of(inside):
                    if inside in twice:
                        msg = (
                            f"group {inside!r} has another name in the file, under which the same "
                            "would change; write a copy without the other name first"
                        )
                        raise EditError(msg, tensor=step.node.removeprefix(_MADE))

    def run(self) -> list[LinkEdit]:
        """Do all steps, in an order in which each finds its place free."""
        self._ready.extend(step for step in self._steps.values() if not step.missing)
        for step in self._steps.values():
            self._drain()
            while not step.done:
                self._set_aside(_in_circle(step))
                self._drain()
        return self._edits

    def _drain(self) -> None:
        while self._ready:
            step = self._ready.popleft()
            step.done = True
            now = self._path(step.node)
            if step.target is None:
                self._edits.append(Remove(now))
            else:
                parent, _, name = step.target.rpartition("/")
                self._where[step.node] = (self._owner[parent], name)
                new = self._path(step.node)
                self._edits.append(Move(now, new) if step.moves else Make(new))
            self._leave(step)

    def _set_aside(self, step: _Step) -> None:
        """Give something a name in the root for the time being, so that others can pass."""
        name = next(name for number in self._numbers if (name := f"~{number}") not in self._names)
        now = self._path(step.node)
        self._where[step.node] = ("", name)
        self._edits.append(Move(now, name))
        self._leave(step)

    def _leave(self, step: _Step) -> None:
        if step.left:
            return
        step.left = True
        for other in step.waiting:
            other.missing -= 1
            if not other.missing:
                self._ready.append(other)

    def _path(self, node: str) -> str:
        """Return where something is by now."""
        parts: list[str] = []
        while node:
            parent, _, name = node.rpartition("/")
            node, name = self._where.get(node, (parent, name))
            parts.append(name)
        return "/".join(reversed(parts))


def _wait(step: _Step, blocker: _Step) -> None:
    step.blockers.append(blocker)
    step.missing += 1
    blocker.waiting.append(step)


def _in_circle(step: _Step) -> _Step:
    """Return something that moves and, over others, waits for itself."""
    seen: dict[int, int] = {}
    walked: list[_Step] = []
    while id(step) not in seen:
        seen[id(step)] = len(walked)
        walked.append(step)
        step = next(blocker for blocker in step.blockers if not blocker.left)
    circle = walked[seen[id(step)] :]
    return next(step for step in circle if step.moves)
