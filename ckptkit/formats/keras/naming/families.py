"""Which kind of Keras file an HDF5 file is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ckptkit.formats.keras.hdf5.tree import Group, Tree, Value

Family = Literal["weights", "legacy", "legacy-weights", "keras0"]
"""What an HDF5 file of Keras is: the weights of Keras 3 (``.weights.h5``, or in a ``.keras``); a
whole legacy model; legacy weights alone; or those of Keras before 1.0."""

CHECKPOINTED: Final = "_layer_checkpoint_dependencies"
"""The group that files of TensorFlow 2.13 have in place of ``layers``."""


def family_of(tree: Tree) -> Family | None:
    """Return which kind of Keras file this is, by what is in it; None: it is none."""
    root = tree.groups.get("")
    if root is None:
        return None
    model = tree.groups.get("model_weights")
    if lists(root.attributes, "layer_names"):
        return "legacy-weights"
    if model is not None and (
        lists(model.attributes, "layer_names") or "model_config" in root.attributes
    ):
        return "legacy"
    if _is_keras0(root):
        return "keras0"
    has_objects = container_of(tree) == CHECKPOINTED or any(
        path.replace("\\", "/").rpartition("/")[2] == "vars" for path in tree.groups
    )
    return "weights" if has_objects else None


def container_of(tree: Tree) -> str:
    """Return the name of the group that the layers of a Keras 3 model are in."""
    parts = (path.replace("\\", "/").split("/")[0] for path in tree.groups)
    return CHECKPOINTED if CHECKPOINTED in parts else "layers"


def legacy_root(family: Family) -> str:
    """Return the path of the group that a legacy file's layers are in."""
    return "model_weights" if family == "legacy" else ""


def lists(attributes: Mapping[str, Value], name: str) -> bool:
    """Tell whether a group has a list of names, in one attribute or in chunks."""
    return name in attributes or f"{name}0" in attributes


def names_in(attributes: Mapping[str, Value], name: str) -> list[str]:
    """Return a list of names, which is in one attribute or in several; what is no text is none."""
    if name in attributes:
        return _texts(attributes[name])
    found: list[str] = []
    number = 0
    while f"{name}{number}" in attributes:
        found += _texts(attributes[f"{name}{number}"])
        number += 1
    return found


def _texts(value: Value) -> list[str]:
    return list(value) if isinstance(value, tuple) else []


def _is_keras0(root: Group) -> bool:
    return "nb_layers" in root.attributes and any(name.startswith("layer_") for name in root.links)
