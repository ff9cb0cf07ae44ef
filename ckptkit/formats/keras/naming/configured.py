"""What a model's configuration says of the objects whose variables a file holds.

The configuration is text from a file: it is only looked at, and nothing in it is believed beyond
what its types allow.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH: Final = 64
"""Models in models; deeper ones are left alone."""

_CELLS: Final = {
    "lstm": ("lstm_cell", "lstm_cell"),
    "gru": ("gru_cell", "gru_cell"),
    "simple_rnn": ("simple_rnn_cell", "simple_rnn_cell"),
    "conv_lstm1d": ("conv_lstm_cell", "conv_lstm_cell"),
    "conv_lstm2d": ("conv_lstm_cell", "conv_lstm_cell"),
    "conv_lstm3d": ("conv_lstm_cell", "conv_lstm_cell"),
}
"""Kind and name of the cell that such a layer makes for itself."""


@dataclass(frozen=True, slots=True)
class Configured:
    """An object as the configuration has it.

    Attributes:
        name: Its name.
        kind: Its class, as names of groups have it: ``batch_normalization``.
        own: Whether its class is one of Keras' own.
        settings: Its configuration.
    """

    name: str
    kind: str
    own: bool
    settings: Mapping[str, Any] = field(default_factory=dict)


def snake_case(name: str) -> str:
    """Return the name of a class as names of groups have it: ``Conv2D`` is ``conv2d``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def objects_of(config: Mapping[str, Any] | None, container: str) -> dict[str, Configured]:
    """Return the objects of a configuration by the path of their group.

    Args:
        config: Of a model, as ``config.json`` has it. That of a class of its own says nothing of
            its layers.
        container: Name of the group that the layers of a model are in.
    """
    found: dict[str, Configured] = {}
    _visit(config, "", container, found, 0)
    compiled = config.get("compile_config") if config is not None else None
    optimizer = _shown(compiled.get("optimizer")) if isinstance(compiled, Mapping) else None
    if optimizer is not None:
        found["optimizer"] = optimizer
        inner = _shown(optimizer.settings.get("inner_optimizer"))
        if inner is not None:
            found["optimizer/inner_optimizer"] = inner
    return found


def nested_models(config: Mapping[str, Any] | None) -> set[str]:
    """Return the names of the models that are layers of a model, or of such models."""
    container = "layers"
    return {
        shown.name
        for path, shown in objects_of(config, container).items()
        if path and _is_model(shown)
    }


def _visit(
    entry: object, path: str, container: str, found: dict[str, Configured], depth: int
) -> None:
    shown = _shown(entry)
    if shown is None or depth > MAX_DEPTH:
        return
    found[path] = shown
    prefix = f"{path}/" if path else ""
    for name, child in _layers(shown):
        _visit(child, f"{prefix}{container}/{name}", container, found, depth + 1)
    for name, child in _parts(shown):
        _visit(child, f"{prefix}{name}", container, found, depth + 1)


def _shown(entry: object) -> Configured | None:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("class_name"), str):
        return None
    settings = entry.get("config")
    if not isinstance(settings, Mapping):
        settings = {}
    kind = snake_case(entry["class_name"])
    name = settings.get("name", entry.get("name"))
    module = entry.get("module")
    return Configured(
        name if isinstance(name, str) and name else kind,
        kind,
        module is None or (isinstance(module, str) and module.split(".")[0] == "keras"),
        settings,
    )


def _layers(model: Configured) -> Iterator[tuple[str, object]]:
    """Give the layers of a model with the names of their groups."""
    entries = model.settings.get("layers")
    if not isinstance(entries, list) or not _is_model(model):
        return
    counts: Counter[str] = Counter()
    for number, entry in enumerate(entries):
        shown = _shown(entry)
        # An operation is no layer; and the first of a Sequential's layers may be its input.
        if shown is None or _is_operation(entry):
            continue
        if model.kind == "sequential" and number == 0 and shown.kind == "input_layer":
            continue
        count = counts[shown.kind]
        counts[shown.kind] += 1
        yield f"{shown.kind}_{count}" if count else shown.kind, entry


def _is_model(shown: Configured) -> bool:
    return shown.kind in {"sequential", "functional", "model"} or "input_layers" in shown.settings


def _is_operation(entry: Any) -> bool:
    module = entry.get("module")
    return isinstance(module, str) and ".ops" in module


def _parts(layer: Configured) -> Iterator[tuple[str, object]]:
    """Give the objects inside a layer with the names of their groups, as far as they are known."""
    inner = layer.settings.get("layer")
    if layer.kind == "bidirectional":
        backward = layer.settings.get("backward_layer")
        yield "forward_layer", _renamed(inner, "forward")
        yield "backward_layer", backward or _renamed(inner, "backward")
    elif inner is not None:
        yield "layer", inner
    if layer.kind in _CELLS:
        kind, name = _CELLS[layer.kind]
        yield "cell", {"class_name": kind, "config": {**layer.settings, "name": name}}
    cell, cells = layer.settings.get("cell"), layer.settings.get("cells")
    if cell is not None:
        yield "cell", cell
    if isinstance(cells, list):
        counts: Counter[str] = Counter()
        for entry in cells:
            shown = _shown(entry)
            if shown is not None:
                count = counts[shown.kind]
                counts[shown.kind] += 1
                yield f"cells/{shown.kind}_{count}" if count else f"cells/{shown.kind}", entry


def _renamed(entry: object, prefix: str) -> object:
    shown = _shown(entry)
    if shown is None or not isinstance(entry, Mapping):
        return None
    name = shown.name.removeprefix("forward_")
    return {**entry, "config": {**shown.settings, "name": f"{prefix}_{name}"}}
