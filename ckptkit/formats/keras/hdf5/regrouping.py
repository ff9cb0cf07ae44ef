"""What becomes of the groups of an HDF5 file when datasets in them get other names, or go."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from ckptkit.errors import EditError
from ckptkit.formats.keras.hdf5.linkedits import (
    Attribute,
    LinkEdit,
    Make,
    Move,
    Remove,
    parent_of,
    relink,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ckptkit.formats.keras.hdf5.tree import Tree, Value

__all__ = ["Attribute", "LinkEdit", "Make", "Move", "Regrouping", "Remove", "regroup"]


@dataclass(frozen=True, slots=True)
class Regrouping:
    """What becomes of a file's groups, datasets and attributes.

    Attributes:
        groups: The new path of every group that stays, by its old one; the root's is empty.
        datasets: The new path of every dataset that stays, by its old one.
        made: Paths of groups that are new, each after what it is in.
        attributes: Attributes that are other than before, by (new) path and name; None: gone.
        edits: The same as edits of links and attributes, in an order in which they can be done
            one after the other in the file as it is.
    """

    groups: Mapping[str, str]
    datasets: Mapping[str, str]
    made: tuple[str, ...] = ()
    attributes: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    edits: tuple[LinkEdit, ...] = ()


def regroup(
    tree: Tree,
    paths: Mapping[str, str | None],
    *,
    attributes: Mapping[str, Mapping[str, Value]] = MappingProxyType({}),
    added: Sequence[str] = (),
) -> Regrouping:
    """Work out what becomes of the groups when datasets get other paths, or go.

    A group goes along with what is below it where all of that goes to one place: by the same
    change of what is before it, or at the same depth below one group. Where a group is there
    already, it gives up its contents and goes. It also goes when all datasets below it go. All
    other groups stay; one that never had datasets stays in what it is in.

    Args:
        tree: The file as it is.
        paths: The new path of every dataset; None: it goes.
        attributes: Attributes that change, by new path of the group or dataset, and name; None:
            the attribute goes.
        added: Paths of datasets that will be new; the groups that they need are kept or made.

    Raises:
        EditError: The new paths do not go together, or are none.
    """
    datasets = {old: new for old in tree.datasets if (new := paths[old]) is not None}
    needed = _groups_needed(datasets, added)
    placing = _Placing(tree, datasets, needed, {*datasets.values(), *added})
    groups = placing.place()
    made = tuple(sorted(needed.difference(groups.values())))
    edits = relink(tree, groups, datasets, made)
    places = {new: tree.groups[old].attributes for old, new in groups.items()}
    places |= {new: tree.datasets[old].attributes for old, new in datasets.items()}
    places |= {new: {} for new in made}
    changed = _changed(places, attributes)
    edits += [
        Attribute(path, name, value)
        for path, values in changed.items()
        for name, value in values.items()
    ]
    return Regrouping(groups, datasets, made, changed, tuple(edits))


def _groups_needed(datasets: Mapping[str, str], added: Sequence[str]) -> set[str]:
    """Return the groups that the datasets are in, the root left aside."""
    origin: dict[str, str | None] = {}
    for old, new in [*datasets.items(), *((None, new) for new in added)]:
        if new != old:
            _check_path(new)
        if new in origin:
            other = origin[new]
            both = f"{other!r} and {old!r}" if old and other else f"{old or other!r} and a new one"
            msg = f"two datasets would be {new!r}: {both}; give them different paths"
            raise EditError(msg, tensor=new)
        origin[new] = old
    needed: set[str] = set()
    for new in origin:
        path = parent_of(new)
        while path and path not in needed:
            if path in origin:
                msg = f"{path!r} would be a dataset and, for {new!r}, a group: it cannot be both"
                raise EditError(msg, tensor=path)
            needed.add(path)
            path = parent_of(path)
    return needed


def _check_path(path: str) -> None:
    if "\0" in path or any(part in {"", ".", ".."} for part in path.split("/")):
        msg = (
            f"{path!r} is no path of a dataset: names between slashes, none of them empty, '.' or "
            "'..', and without NUL"
        )
        raise EditError(msg, tensor=path)


def _changed(
    places: Mapping[str, Mapping[str, Value]], attributes: Mapping[str, Mapping[str, Value]]
) -> dict[str, dict[str, Value]]:
    """Return the attributes that are other than before."""
    changed: dict[str, dict[str, Value]] = {}
    for path, values in attributes.items():
        if path not in places:
            msg = f"nothing is left at {path!r} that could have an attribute"
            raise EditError(msg, tensor=path)
        before = places[path]
        other = {
            name: value
            for name, value in values.items()
            if (name in before if value is None else before.get(name) != value)
        }
        if other:
            changed[path] = other
    return changed


class _Placing:
    """Where the groups of a file go."""

    def __init__(
        self, tree: Tree, datasets: Mapping[str, str], needed: set[str], new: set[str]
    ) -> None:
        self._groups = tree.groups
        self._needed = needed
        self._new = new
        self._targets = _targets(datasets)
        self._had = {""}
        for path in tree.datasets:
            while (path := parent_of(path)) not in self._had:
                self._had.add(path)
        self._placed = {"": ""}
        self._taken = {""}

    def place(self) -> dict[str, str]:
        """Return the new path of every group that stays, in the order of the tree."""
        rest = [path for path in self._groups if path and not self._stays(path)]
        for path in rest:
            target = self._targets.get(path)
            if target is not None and target not in self._taken:
                self._claim(path, target)
        rest = [path for path in rest if path not in self._placed]
        for path in rest:
            if path in self._needed and path not in self._taken and self._is_within(path):
                self._claim(path, path)
        self._place_empty(path for path in rest if path not in self._had)
        return {path: self._placed[path] for path in self._groups if path in self._placed}

    def _stays(self, path: str) -> bool:
        """Leave a group where it is, if nothing asks for another place."""
        if not self._is_within(path):
            return False
        if path not in self._had:
            self._refuse_dataset(path, path)
        elif path not in self._targets or (self._targets[path] or path) != path:
            return False
        elif path in self._new:
            return False  # emptied, and a dataset takes its place
        self._claim(path, path)
        return True

    def _place_empty(self, paths: Iterable[str]) -> None:
        """Let groups that never had datasets go along with what they are in."""
        merged = {
            path: target
            for path, target in self._targets.items()
            if target is not None and path not in self._placed
        }
        for path in paths:
            parent, name = parent_of(path), path.rpartition("/")[2]
            into = self._placed.get(parent, merged.get(parent))
            if into is None:
                continue
            target = f"{into}/{name}" if into else name
            self._refuse_dataset(path, target)
            if target in self._taken:
                merged[path] = target
            else:
                self._claim(path, target)

    def _is_within(self, path: str) -> bool:
        """Tell whether what a group is in stays in place."""
        parent = parent_of(path)
        return self._placed.get(parent) == parent

    def _claim(self, path: str, target: str) -> None:
        self._placed[path] = target
        self._taken.add(target)

    def _refuse_dataset(self, path: str, target: str) -> None:
        if target in self._new:
            msg = f"a dataset would be {target!r}, where group {path!r} is; choose another path"
            raise EditError(msg, tensor=target)


def _targets(datasets: Mapping[str, str]) -> dict[str, str | None]:
    """Return where each group's contents go, None: not to one place."""
    before: dict[str, str | None] = {}
    deep: dict[str, str | None] = {}
    for old, new in datasets.items():
        old_parts, new_parts = old.split("/"), new.split("/")
        same = _common(old_parts, new_parts)
        level = len(old_parts) == len(new_parts)
        old_path, new_path = old, new
        for rest in range(1, len(old_parts) + 1):
            old_path, new_path = parent_of(old_path), parent_of(new_path)
            _agree(before, old_path, new_path if rest <= same else None)
            _agree(deep, old_path, new_path if level else None)
    return {path: deep[path] if place is None else place for path, place in before.items()}


def _agree(places: dict[str, str | None], path: str, place: str | None) -> None:
    if places.setdefault(path, place) != place:
        places[path] = None


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many last parts two paths have in common."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
