"""Names of objects that a file lacks, found in its neighbours or in the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptkit.formats.keras.naming.configured import objects_of
from ckptkit.formats.keras.naming.families import container_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ckptkit.formats.keras.hdf5.tree import Group, Tree


def missing_names(trees: Sequence[Tree]) -> dict[int, dict[str, str]]:
    """Return the names that are missing in shards of one model.

    A group ``vars`` whose first variable began a new shard is empty, with its name, in the shard
    before, and has the variables, without a name, in the new one. Where shards name one object
    differently, none of the names is used.

    Args:
        trees: The shards, in order.

    Returns:
        The name by number of the shard and path of the group that lacks it.
    """
    names: dict[str, set[str]] = {}
    for tree in trees:
        for path, group in _objects(tree):
            name = _name(group)
            if name is not None:
                names.setdefault(path, set()).add(name)
    found: dict[int, dict[str, str]] = {}
    for number, tree in enumerate(trees):
        for path, group in _objects(tree):
            known = names.get(path, set())
            if _name(group) is None and len(known) == 1:
                found.setdefault(number, {})[path] = next(iter(known))
    return found


def names_from_config(tree: Tree, config: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the name of every group ``vars`` that lacks one and that the configuration knows."""
    known = objects_of(config, container_of(tree))
    found: dict[str, str] = {}
    for path, group in _objects(tree):
        place = path.replace("\\", "/").removesuffix("vars").rstrip("/")
        if _name(group) is None and place in known:
            found[path] = known[place].name
    return found


def _objects(tree: Tree) -> list[tuple[str, Group]]:
    return [
        (path, group)
        for path, group in tree.groups.items()
        if path.replace("\\", "/").rpartition("/")[2] == "vars"
    ]


def _name(group: Group) -> str | None:
    name = group.attributes.get("name")
    return name if isinstance(name, str) and name else None
