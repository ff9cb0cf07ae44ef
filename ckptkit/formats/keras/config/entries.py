"""The layers that config.json tells of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ckptkit.errors import CorruptError, UnsupportedError
from ckptkit.formats.keras.config.fields import dims_of, value_at
from ckptkit.formats.keras.config.jsontext import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptkit.formats.keras.config.fields import Entry
    from ckptkit.formats.keras.config.jsontext import Path

MAX_BYTES: Final = 64 << 20
"""A config longer than this is not read; a thousand layers take less than one MiB."""

_OPERATIONS: Final = ("keras.src.ops", "keras.ops")
_NO_LAYERS: Final = ("keras.losses", "keras.metrics", "keras.optimizers", "keras.initializers")


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """A layer that a config describes.

    Attributes:
        name: Its name.
        class_name: Its class, a word that is not looked up anywhere.
        module: The module of that class, where the config has it.
        path: The keys to its JSON object, which has ``class_name`` and ``config``.
        owner: The names of the models and layers that it is in, each with a slash after it; empty
            for a layer of the model itself.
    """

    name: str
    class_name: str
    module: str
    path: Path
    owner: str

    @property
    def config_path(self) -> Path:
        """The keys to its config."""
        return (*self.path, "config")


@dataclass(frozen=True, slots=True)
class Config:
    """The config of a model.

    Attributes:
        content: The text.
        value: What it says, as JSON values.
        what: What the text is, for messages.
        entries: The layers, each before those that are in it.
    """

    content: bytes
    value: dict[str, Any]
    what: str
    entries: tuple[LayerEntry, ...] = field(repr=False)

    @property
    def name(self) -> str | None:
        """The name of the model."""
        found = value_at(self.value, ("config", "name"))
        return found if isinstance(found, str) else None

    def entry(self, layer: LayerEntry) -> Entry:
        """Return the JSON object of a layer."""
        found: Entry = value_at(self.value, layer.path)
        return found


def read_config(content: bytes, *, what: str = "config.json", path: str | None = None) -> Config:
    """Read the config of a model: config.json, or the ``model_config`` of a legacy file.

    Args:
        content: The text, of at most ``MAX_BYTES``.
        what: What it is, for messages.
        path: The file that it is from, for messages.

    Raises:
        CorruptError: It is no JSON object, or one that describes no model.
        UnsupportedError: It is larger, or nested deeper, than any config.
    """
    if len(content) > MAX_BYTES:
        msg = f"{what} has {len(content)} bytes, and at most {MAX_BYTES} are read"
        raise UnsupportedError(msg, path=path)
    value = parse(content, what, path=path)
    if not isinstance(value.get("class_name"), str) or "config" not in value:
        msg = f'{what} should have the "class_name" and the "config" of a model'
        raise CorruptError(msg, path=path, offset=0)
    return Config(content, value, what, tuple(_entries(value, (), "")))


class Index:
    """Finds the layers of a config by the labels of weights."""

    def __init__(self, config: Config) -> None:
        """Order the layers by what they are in, and by name."""
        self._config = config
        self._owned: dict[str, dict[str, LayerEntry]] = {}
        self._named: dict[str, list[LayerEntry]] = {}
        self._by_path = {one.path: one for one in config.entries}
        for one in config.entries:
            self._owned.setdefault(one.owner, {}).setdefault(one.name, one)
            self._named.setdefault(one.name, []).append(one)

    def at(self, path: Path) -> LayerEntry | None:
        """Return the layer whose JSON object is at a path."""
        return self._by_path.get(path)

    def find(self, label: str) -> tuple[LayerEntry, str] | None:
        """Return the layer that a label (``outer/LAYER/WEIGHT``) is of, and the weight's name.

        The layer is the innermost one that the config tells of; what it makes itself, as an LSTM
        does its cell, is a part of the weight's name.
        """
        found = self._down("", label)
        first, _, rest = label.partition("/")
        if found is None and first == self._config.name:
            found = self._down("", rest)
        if found is None:
            # A layer in another one, by its name alone, where that is the only one.
            named = self._named.get(first, ())
            if len(named) == 1 and rest:
                one = named[0]
                found = self._down(f"{one.owner}{one.name}/", rest) or (one, rest)
        return found and self._unwrapped(*found)

    def _down(self, owner: str, label: str) -> tuple[LayerEntry, str] | None:
        found = None
        while True:
            inner = self._owned.get(owner, {})
            ends = [at for at, letter in enumerate(label) if letter == "/" and label[:at] in inner]
            if not ends:
                return found
            one = inner[label[: ends[-1]]]
            label = label[ends[-1] + 1 :]
            owner = f"{owner}{one.name}/"
            found = one, label

    def _unwrapped(self, layer: LayerEntry, weight: str) -> tuple[LayerEntry, str]:
        """Return the layer that a wrapper holds, where the label does not name it, or not so."""
        inner = [*self._owned.get(f"{layer.owner}{layer.name}/", {}).values()]
        if len(inner) != 1 or dims_of(self._config.entry(layer)) is not None:
            return layer, weight
        one = inner[0]
        for name in (f"forward_{one.name}/", f"backward_{one.name}/"):
            weight = weight.removeprefix(name)
        return (one, weight) if weight_of(self._config.entry(one), weight) else (layer, weight)


def weight_of(entry: Entry, weight: str) -> str | None:
    """Return what a weight is called among those whose shapes are told, None if it is not there.

    Args:
        entry: The JSON object of a layer.
        weight: The name, or the number, of one of its weights.
    """
    known = dims_of(entry) or {}
    last = weight.rpartition("/")[2].partition(":")[0]
    if last == "depthwise_kernel" and last not in known:
        # What tf_keras calls it.
        last = "kernel"
    if last.isascii() and last.isdecimal() and len(last) < 4 and "/" not in weight:
        names = [*known]
        last = names[int(last)] if int(last) < len(names) else last
    return last if last in known else None


def layers(config: Config) -> Iterator[LayerEntry]:
    """Iterate over the layers, each before those that are in it; operations are no layers."""
    return iter(config.entries)


def _entries(entry: Entry, path: Path, owner: str) -> Iterator[LayerEntry]:
    for key, value in _children(entry, path):
        name = value["config"].get("name", value.get("name"))
        if not isinstance(name, str):
            continue
        module = value.get("module")
        module = module if isinstance(module, str) else ""
        if not module.startswith(_OPERATIONS):
            yield LayerEntry(name, value["class_name"], module, key, owner)
            yield from _entries(value, key, f"{owner}{name}/")


def _children(entry: Entry, path: Path) -> Iterator[tuple[Path, Entry]]:
    """Yield the objects in a config that may be layers."""
    config = entry["config"]
    # Keras 1 has the layers of a Sequential model in place of its config.
    fields = config.items() if isinstance(config, dict) else [(None, config)]
    for name, value in fields:
        here = (*path, "config") if name is None else (*path, "config", name)
        if isinstance(value, list):
            yield from (((*here, at), one) for at, one in enumerate(value) if _is_layer(one))
        elif name != "dtype" and _is_layer(value):
            yield here, value


def _is_layer(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("class_name"), str):
        return False
    if str(value.get("module")).startswith(_NO_LAYERS):
        return False
    # The config of a Sequential model of Keras 1 is a list.
    config = value.get("config")
    return isinstance(config, dict) and ("name" in config or "name" in value)
