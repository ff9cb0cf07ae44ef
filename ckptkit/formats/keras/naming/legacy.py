"""The lists of names in a legacy file, which must stay true when weights move, go, or come."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ckptkit.errors import EditError
from ckptkit.formats.keras.hdf5.linkedits import joined, parent_of
from ckptkit.formats.keras.hdf5.regrouping import regroup
from ckptkit.formats.keras.naming.families import family_of, legacy_root, lists, names_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ckptkit.formats.keras.hdf5.tree import Tree, Value

LAYERS: Final = "layer_names"
WEIGHTS: Final = "weight_names"

OPTIMIZER: Final = "optimizer_weights"
"""The group of a whole model's optimizer, which has a list of weights like a layer."""

TOP_LEVEL: Final = "top_level_model_weights"
"""The group of the weights that the model has itself, among those of its layers."""

MAX_ATTRIBUTE: Final = 64512
"""Bytes of one list; Keras cuts longer ones into several attributes."""

_REFERENCE: Final = 16
"""Bytes that a text of any length takes in the attribute itself."""


def attributes_after(
    tree: Tree, datasets: Mapping[str, str], added: Sequence[str] = ()
) -> dict[str, dict[str, Value]]:
    """Return the attributes that make the lists of layers and weights true again.

    A weight keeps its place in the list of its layer, and a layer in that of the layers; what
    comes to a layer is last. A layer of which nothing is left is listed no more, one that never
    had weights is.

    Args:
        tree: A file of Keras; only legacy ones have such lists.
        datasets: The new path of every dataset that stays, by its old one.
        added: Paths of datasets that will be new.

    Returns:
        The values by new path of the group, and name; None: the attribute goes.

    Raises:
        EditError: The lists cannot be true: a weight would be where no layer is, or a group that
            Keras asks for by name would have another one.
    """
    family = family_of(tree)
    if family in {None, "weights"}:
        return {}
    if family == "keras0":
        if added or any(datasets.get(path) != path for path in tree.datasets):
            msg = (
                "a file of Keras before 1.0 numbers its layers and weights without gaps: their "
                "values can be edited, but not their names"
            )
            raise EditError(msg)
        return {}
    groups = regroup(tree, {path: datasets.get(path) for path in tree.datasets}, added=added).groups
    return _Lists(
        tree,
        legacy_root("legacy" if family == "legacy" else "legacy-weights"),
        groups,
        datasets,
        added,
    ).changes()


@dataclass(slots=True)
class _Owner:
    """A group with a list of the weights in it.

    Attributes:
        old: Its path.
        new: Its new path; None: it goes.
        kept: Its list to be, by place in the list as it was.
        more: What comes to it.
    """

    old: str
    new: str | None
    kept: dict[int, str] = field(default_factory=dict)
    more: list[str] = field(default_factory=list)


class _Lists:
    """The lists of a file, and what becomes of them."""

    def __init__(
        self,
        tree: Tree,
        root: str,
        groups: Mapping[str, str],
        datasets: Mapping[str, str],
        added: Sequence[str],
    ) -> None:
        self._tree = tree
        self._root = root
        self._groups = groups
        self._datasets = datasets
        self._added = added
        self._layers = names_in(tree.groups[root].attributes, LAYERS)
        named = [joined(root, TOP_LEVEL), *([OPTIMIZER] if root else [])]
        owners = [*(joined(root, layer) for layer in self._layers), *named]
        self._owners = {
            path: _Owner(path, groups.get(path)) for path in owners if path in tree.groups
        }
        self._at = {owner.new: owner for owner in self._owners.values() if owner.new is not None}
        for path in [*([root] if root else []), *named]:
            if groups.get(path, path) != path:
                msg = (
                    f"group {path!r} would be {groups[path]!r}, and Keras looks for it by its "
                    "name; rename what is in it, not the group"
                )
                raise EditError(msg, tensor=path)

    def changes(self) -> dict[str, dict[str, Value]]:
        coming = set(self._added)
        for owner in self._owners.values():
            weights = names_in(self._tree.groups[owner.old].attributes, WEIGHTS)
            for place, weight in enumerate(weights):
                self._keep(owner, place, weight, coming)
        for path in self._added:
            if path in coming:
                owner = self._owner(path, path)
                owner.more.append(_inside(owner, path))
        changed: dict[str, dict[str, Value]] = defaultdict(dict)
        for owner in self._owners.values():
            if owner.new is not None:
                attributes = self._tree.groups[owner.old].attributes
                names = [*(owner.kept[place] for place in sorted(owner.kept)), *owner.more]
                changed[owner.new] |= _written(attributes, WEIGHTS, names)
        if self._root in self._groups:
            attributes = self._tree.groups[self._root].attributes
            changed[self._root] |= _written(attributes, LAYERS, self._new_layers())
        return {path: values for path, values in changed.items() if values}

    def _keep(self, owner: _Owner, place: int, weight: str, coming: set[str]) -> None:
        """Find the entry for a weight that was listed."""
        old = joined(owner.old, weight)
        new = self._datasets.get(old)
        if old not in self._tree.datasets:
            owner.kept[place] = weight  # the list was wrong before, and says so still
        elif new is not None:
            now = self._owner(old, new)
            if now is owner:
                owner.kept[place] = _inside(owner, new)
            else:
                now.more.append(_inside(now, new))
        elif owner.new is not None and (again := joined(owner.new, weight)) in coming:
            coming.remove(again)
            owner.kept[place] = weight

    def _owner(self, old: str, new: str) -> _Owner:
        path = new
        while path := parent_of(path):
            if path in self._at:
                return self._at[path]
        msg = (
            f"weight {old!r} would be {new!r}, where no layer is that could list it; move it into "
            "the group of a layer, or rename the whole group of its layer"
        )
        raise EditError(msg, tensor=old)

    def _new_layers(self) -> list[str]:
        names = []
        prefix = f"{self._root}/" if self._root else ""
        for layer in self._layers:
            path = joined(self._root, layer)
            if path not in self._tree.groups:
                names.append(layer)
                continue
            new = self._groups.get(path)
            if new is None:
                continue
            if not new.startswith(prefix):
                msg = (
                    f"layer {layer!r} would be {new!r}, and layers are in {self._root!r}; "
                    "give it a path in there"
                )
                raise EditError(msg, tensor=path)
            names.append(new[len(prefix) :])
        return names


def _inside(owner: _Owner, path: str) -> str:
    return path[len(owner.new or "") + 1 :]


def _written(attributes: Mapping[str, Value], name: str, names: Sequence[str]) -> dict[str, Value]:
    """Return what changes for a list of names to be another one."""
    if names == names_in(attributes, name) and (names or lists(attributes, name)):
        return {}
    if not names and not lists(attributes, name):
        return {}
    before = [name] if name in attributes else []
    number = 0
    while f"{name}{number}" in attributes:
        before.append(f"{name}{number}")
        number += 1
    after = _cut(name, names)
    return {**dict.fromkeys(one for one in before if one not in after), **after}


def _cut(name: str, names: Sequence[str]) -> dict[str, Value]:
    """Cut a list as Keras does: into equal parts, each short enough for an attribute."""
    size = max([_REFERENCE, *(len(one.encode("utf-8", "surrogateescape")) for one in names)])
    if size > MAX_ATTRIBUTE:
        msg = f"a name of {size} bytes is too long for the list {name!r}: at most {MAX_ATTRIBUTE}"
        raise EditError(msg)
    parts = -(-len(names) // (MAX_ATTRIBUTE // size))
    if parts <= 1:
        return {name: tuple(names)}
    short, longer = divmod(len(names), parts)
    cut: dict[str, Value] = {}
    at = 0
    for number in range(parts):
        end = at + short + (number < longer)
        cut[f"{name}{number}"] = tuple(names[at:end])
        at = end
    return cut
