"""What people call the weights in a file: the name of the layer, and of the weight in it."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ckptkit.formats.keras.naming.configured import Configured, nested_models, objects_of
from ckptkit.formats.keras.naming.families import (
    container_of,
    family_of,
    legacy_root,
    names_in,
)
from ckptkit.formats.keras.naming.variables import (
    KINDS,
    kind_of,
    number_order,
    optimizer_names,
    variable_names,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from ckptkit.formats.keras.hdf5.tree import Dataset, Group, Tree
    from ckptkit.formats.keras.naming.families import Family

_INNER: Final = "inner_optimizer"
"""What an optimizer that scales the loss has its own one in."""

OPTIMIZER: Final = "optimizer"
"""The group of the optimizer, and what its variables are labelled with."""

_ROLES: Final = {"query_dense", "key_dense", "value_dense", "output_dense"}
"""The denses of an attention layer, which are named for what they are to it."""


@dataclass(frozen=True, slots=True)
class _Name:
    """What a weight may be called.

    Attributes:
        outer: Names of the objects that it is in, from the outermost.
        start: Number of the first of them that a label needs.
        weight: Name of the weight.
    """

    outer: tuple[str, ...]
    start: int
    weight: str

    def label(self, more: int) -> str:
        return "/".join((*self.outer[max(self.start - more, 0) :], self.weight))


def labels_of(tree: Tree, config: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the label of every dataset that one fits: ``dense_1/kernel``.

    A label is the name of the layer, of what is in the layer, and of the weight; where two would
    be the same, names of what the layers are in go before. No two are the same, and none is the
    path of another dataset.

    Args:
        tree: A Keras file; any other has no labels.
        config: Of the model, as ``config.json`` or ``model_config`` has it, where it is known.
    """
    family = family_of(tree)
    if family is None:
        return {}
    names = _weights(tree, config) if family == "weights" else _legacy(tree, family, config)
    return _unique(tree, names)


def layers_of(tree: Tree, labels: Mapping[str, str]) -> dict[str, str]:
    """Return the name of the layer of every dataset with a label."""
    return {path: labels[path].rpartition("/")[0] for path in tree.datasets if path in labels}


def in_order(tree: Tree) -> tuple[str, ...]:
    """Return the paths of all datasets in the order of the file, but "2" before "10"."""
    places: dict[str, list[int]] = defaultdict(list)
    order = list(tree.datasets)
    for place, path in enumerate(order):
        parent, _, key = path.rpartition("/")
        if key.isascii() and key.isdecimal():
            places[parent].append(place)
    for numbers in places.values():
        paths = sorted(
            (order[place] for place in numbers),
            key=lambda path: number_order(path.rpartition("/")[2]),
        )
        for place, path in zip(numbers, paths, strict=True):
            order[place] = path
    return tuple(order)


def _unique(tree: Tree, names: Mapping[str, _Name]) -> dict[str, str]:
    """Qualify what is ambiguous by what it is in, and leave out what stays so."""
    more = dict.fromkeys(names, 0)
    while True:
        same: dict[str, list[str]] = defaultdict(list)
        for path, name in names.items():
            same[name.label(more[path])].append(path)
        grown = [
            path
            for paths in same.values()
            if len(paths) > 1
            for path in paths
            if more[path] < names[path].start
        ]
        if not grown:
            break
        for path in grown:
            more[path] += 1
    return {
        paths[0]: label
        for label, paths in same.items()
        if len(paths) == 1 and (label not in tree.datasets or label == paths[0])
    }


def _weights(tree: Tree, config: Mapping[str, Any] | None) -> dict[str, _Name]:
    """Name the weights of a Keras 3 file."""
    groups = {path.replace("\\", "/"): group for path, group in tree.groups.items()}
    container = container_of(tree)
    known = objects_of(config, container)
    owned: dict[str, dict[str, Dataset]] = defaultdict(dict)
    for path, dataset in tree.datasets.items():
        parts = path.replace("\\", "/").split("/")
        if "vars" in parts[:-1]:
            at = len(parts) - 2 - parts[-2::-1].index("vars")
            owned["/".join(parts[:at])]["/".join(parts[at + 1 :])] = dataset
    found: dict[str, _Name] = {}
    for place, variables in owned.items():
        outer, start = _chain(place, groups, known, container)
        weights = _called(place, variables, groups, known)
        for key, dataset in variables.items():
            found[dataset.path] = _Name(outer, start, weights.get(key, key))
    return found


def _chain(
    place: str, groups: Mapping[str, Group], known: Mapping[str, Configured], container: str
) -> tuple[tuple[str, ...], int]:
    """Return the names of the objects down to one, and the number of a label's first."""
    parts = place.split("/") if place else []
    outer: list[str] = []
    start = 0
    for end, part in enumerate(parts, 1):
        path = "/".join(parts[:end])
        is_layer = end > 1 and parts[end - 2] == container
        if is_layer or f"{path}/vars" in groups or path in known or end == len(parts):
            outer.append(_name(path, groups, known))
        elif part == container:
            start = len(outer)
    if not parts:
        outer = [_name("", groups, known)]
    return tuple(outer), min(start, max(len(outer) - 1, 0))


def _name(path: str, groups: Mapping[str, Group], known: Mapping[str, Configured]) -> str:
    last = path.rpartition("/")[2]
    if last == OPTIMIZER:
        return OPTIMIZER
    group = groups.get(f"{path}/vars" if path else "vars")
    name = group.attributes.get("name") if group is not None else None
    if isinstance(name, str) and name:
        return name
    return known[path].name if path in known else last or "vars"


def _called(
    place: str,
    variables: Mapping[str, Dataset],
    groups: Mapping[str, Group],
    known: Mapping[str, Configured],
) -> dict[str, str]:
    """Return the names of an object's variables by key."""
    last = place.rpartition("/")[2]
    shown = known.get(place)
    settings = shown.settings if shown is not None else {}
    if last in {OPTIMIZER, _INNER}:
        scales = f"{place}/{_INNER}/vars" in groups
        return optimizer_names(variables, settings, scales=scales)
    if shown is not None:
        return variable_names(shown.kind, variables, settings) if shown.own else {}
    kinds = (kind_of(last), kind_of(_name(place, groups, known)))
    kind = next((kind for kind in kinds if kind in KINDS), "")
    if last.lstrip("_") in _ROLES:
        kind = "einsum_dense"
    return variable_names(kind, variables, settings)


def _legacy(tree: Tree, family: Family, config: Mapping[str, Any] | None) -> dict[str, _Name]:
    """Name the weights of a legacy file."""
    root = legacy_root(family)
    layers = set(names_in(tree.groups[root].attributes, "layer_names"))
    models = nested_models(config)
    found: dict[str, _Name] = {}
    optimizer: dict[str, list[str]] = {}
    for path in tree.datasets:
        *parts, last = path.split("/")
        if root and parts and parts[0] == "optimizer_weights":
            optimizer[path] = [*parts[1:], _plain(last)]
            continue
        if root and parts and parts[0] == root:
            del parts[0]
        found[path] = _legacy_name(parts, _plain(last), layers, models)
    before = _shared([parts for parts in optimizer.values() if len(parts) > 1])
    for path, parts in optimizer.items():
        found[path] = _Name((OPTIMIZER,), 0, "/".join(parts[before if len(parts) > 1 else 0 :]))
    return found


def _legacy_name(
    parts: Sequence[str], weight: str, layers: AbstractSet[str], models: AbstractSet[str]
) -> _Name:
    """Name a weight by the groups that it is in: those of its layer, then what Keras calls it."""
    at = next((end for end in range(1, len(parts)) if "/".join(parts[:end]) in layers), 1)
    layer, inner = "/".join(parts[:at]), parts[at:]
    if not parts:
        return _Name((), 0, weight)
    if not inner:
        return _Name((layer,), 0, weight.removeprefix(f"{layer}_") or weight)
    if layer not in inner:
        return _Name((layer, *inner), 1, weight)
    # What is before the layer's name is the name of the model.
    outer = (layer, *inner[inner.index(layer) + 1 :])
    start = 0
    while start < len(outer) - 1 and outer[start] in models:
        start += 1
    return _Name(outer, start, weight)


def _shared(paths: Sequence[Sequence[str]]) -> int:
    """Return how many first parts only say which optimizer it is."""
    first = 2 if all(parts[0] == "training" and len(parts) > 2 for parts in paths) else 1
    return first if paths and len({tuple(parts[:first]) for parts in paths}) == 1 else 0


def _plain(name: str) -> str:
    """Drop what TensorFlow adds to names of variables: ``kernel:0``."""
    return re.sub(r":[0-9]+\Z", "", name)
