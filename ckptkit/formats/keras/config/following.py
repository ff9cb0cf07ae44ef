"""Which layers come before and after one, and what a new width of one means for them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ckptkit.formats.keras.config.fields import INPUT_SHAPE, dims_of, shape_at, value_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptkit.formats.keras.config.fields import Entry
    from ckptkit.formats.keras.config.jsontext import Path

_KEEPING: Final = frozenset(
    {
        "Activation",
        "ActivityRegularization",
        "AlphaDropout",
        "BatchNormalization",
        "Dropout",
        "ELU",
        "GaussianDropout",
        "GaussianNoise",
        "GroupNormalization",
        "Identity",
        "LayerNormalization",
        "LeakyReLU",
        "Masking",
        "RMSNormalization",
        "ReLU",
        "Softmax",
        "UnitNormalization",
        *(f"{name}{rank}D" for rank in (1, 2, 3) for name in ("Cropping", "ZeroPadding")),
        *(f"{name}{rank}D" for rank in (1, 2, 3) for name in ("SpatialDropout", "UpSampling")),
        *(
            f"{where}{what}Pooling{rank}D"
            for rank in (1, 2, 3)
            for what in ("Average", "Max")
            for where in ("", "Global")
        ),
    }
)
"""Layers that give as many channels as they take, on the axis on which they take them."""


_SHAPING: Final = frozenset({"Flatten", "Permute", "RepeatVector", "Rescaling", "Reshape"})
"""Further layers without weights."""

_WRAPPED: Final = (("layer",), ("forward_layer",), ("backward_layer",))
"""Ends of the paths of layers in a wrapper."""

_TRANSPARENT: Final = frozenset({"SpectralNormalization", "TimeDistributed"})
"""Wrappers that give as many channels as the layer in them."""


@dataclass(frozen=True, slots=True)
class Spread:
    """What a new number of channels means for the layers around.

    Attributes:
        fixes: What becomes of fields, by their paths in the config.
        waiting: Paths of layers with weights that still are for the old number.
    """

    fixes: dict[Path, object]
    waiting: tuple[Path, ...] = ()


class Siblings:
    """The layers of one Sequential or Functional model, as they follow one another."""

    def __init__(self, value: Any, path: Path) -> None:
        """Look at the model at a path of a config."""
        self.path = path
        self.model: Entry = value_at(value, path)
        listed = value_at(self.model, ("config", "layers"))
        self.layers: list[Any] = listed if isinstance(listed, list) else []
        self.sequential = self.model.get("class_name") == "Sequential"
        self._sources = None if self.sequential else [_sources(one) for one in self.layers]
        self._at = {_name(one): at for at, one in enumerate(self.layers)}
        self._users: defaultdict[str, list[int]] = defaultdict(list)
        for at, sources in enumerate(self._sources or ()):
            for name in dict.fromkeys(sources):
                self._users[name].append(at)

    def before(self, at: int) -> int | None:
        """Return the only layer that a layer takes its input from."""
        if self._sources is None:
            return at - 1 if at else None
        sources = self._sources[at]
        return self._at.get(sources[0]) if len(sources) == 1 else None

    def after(self, at: int) -> list[int]:
        """Return the layers that take the output of a layer, and no other input."""
        if self._sources is None:
            return [at + 1] if at + 1 < len(self.layers) else []
        sources = self._sources
        return [one for one in self._taking(at) if len(sources[one]) == 1]

    def is_last(self, at: int) -> bool:
        """Tell whether the output of a layer is that of the model, and nothing else."""
        if self._sources is None:
            return at + 1 == len(self.layers)
        outputs = value_at(self.model, ("config", "output_layers"))
        name = _name(self.layers[at])
        alone = isinstance(outputs, list) and [name] in (outputs[:1], _firsts(outputs))
        return alone and not self.users(at)

    def users(self, at: int) -> int:
        """Return how many layers take the output of a layer, also beside other inputs."""
        return 1 if self._sources is None else len(self._taking(at))

    def _taking(self, at: int) -> list[int]:
        return self._users.get(_name(self.layers[at]) or "", [])


def _name(entry: Any) -> str | None:
    for path in (("config", "name"), ("name",)):
        found = value_at(entry, path)
        if isinstance(found, str):
            return found
    return None


def _firsts(nodes: list[Any]) -> list[Any]:
    return [one[0] if isinstance(one, list) and one else None for one in nodes]


def _sources(entry: Any) -> list[str]:
    """Return the names of the layers whose outputs a layer takes, once for each time it does."""
    nodes = value_at(entry, ("inbound_nodes",))
    found: list[str] = []
    stack = [nodes]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            history = value_at(value, ("config", "keras_history"))
            if value.get("class_name") == "__keras_tensor__" and isinstance(history, list):
                found += [one for one in history[:1] if isinstance(one, str)]
            else:
                stack += value.values()
        elif isinstance(value, list):
            # Keras 2 has ["name", node, tensor, {...}] for each input.
            if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
                found.append(value[0])
            else:
                stack += value
    return found


class Surroundings:
    """What a new width of a layer means for those around it."""

    def __init__(self, value: Any) -> None:
        """Look at the JSON values of a config."""
        self._value = value
        self._siblings: dict[Path, Siblings] = {}

    def output(self, layer: Path, axis: int, old: int, new: int) -> Spread:
        """Return what it means for the layers after one that it gives another number of channels.

        Args:
            layer: The path of the layer in the config.
            axis: The axis of the channels: 1, or -1.
            old: How many there were.
            new: How many there are.
        """
        fixes: dict[Path, object] = {}
        waiting: list[Path] = []
        seen: set[Path] = set()
        ahead = self._after(layer)
        while ahead:
            path = ahead.pop()
            entry = value_at(self._value, path)
            if path in seen or not isinstance(entry, dict):
                continue
            seen.add(path)
            kind = str(entry.get("class_name"))
            # Layers that make nothing do not say what shape they were built for.
            field = _input_axis(entry, axis)
            if field is not None and value_at(entry, field) != old:
                continue
            if field is not None and _has_weights_by(entry, field):
                waiting.append(path)
            elif field is not None and (kind in _KEEPING or kind in _SHAPING):
                fixes[*path, *field] = new
            fixes.update(_inbound(entry, path, axis, old, new))
            if kind in _KEEPING:
                ahead += self._after(path)
        return Spread(fixes, tuple(waiting))

    def input(self, layer: Path, axis: int, old: int, new: int) -> Spread:
        """Return what it means for its model that a layer takes another number of channels.

        Only where the model's input goes into no other layer; a layer before it has weights that
        tell what it gives.

        Args:
            layer: The path of the layer in the config.
            axis: The axis of its input's shape that is other.
            old: How long it was.
            new: How long it is.
        """
        siblings = self._of(layer)
        if siblings is None:
            return self._input_of_wrapper(layer, axis, old, new)
        at = int(layer[-1])
        before = siblings.before(at)
        if before is None:
            if at or not siblings.sequential:
                return Spread({})
            places: list[Path] = [(*layer, "config", "batch_input_shape")]
        else:
            source = siblings.layers[before]
            if value_at(source, ("class_name",)) != "InputLayer" or siblings.users(before) != 1:
                return Spread({})
            here = (*layer[:-1], before, "config")
            places = [(*here, "batch_shape"), (*here, "batch_input_shape")]
        places += [(*siblings.path, "config", "build_input_shape"), (*siblings.path, *INPUT_SHAPE)]
        entry = siblings.layers[at]
        rank = len(shape_at(entry, INPUT_SHAPE) or ())
        fixes: dict[Path, object] = {}
        for place in places:
            shape = shape_at(self._value, place)
            if shape is not None and len(shape) == rank and shape[axis] == old:
                fixes[*place, axis] = new
        fixes.update(_inbound(entry, layer, axis - rank, old, new))
        return Spread(fixes)

    def _input_of_wrapper(self, layer: Path, axis: int, old: int, new: int) -> Spread:
        wrapper = layer[:-2]
        shape = shape_at(value_at(self._value, wrapper), INPUT_SHAPE)
        own = shape_at(value_at(self._value, layer), INPUT_SHAPE)
        if layer[-1:] not in _WRAPPED or shape is None or own is None or len(shape) < len(own):
            return Spread({})
        # A layer that is put over time takes an axis less.
        axis += len(shape) - len(own)
        if shape[axis] != old:
            return Spread({})
        outer = self.input(wrapper, axis, old, new)
        return Spread({(*wrapper, *INPUT_SHAPE, axis): new, **outer.fixes})

    def _of(self, layer: Path) -> Siblings | None:
        """Return the layers of the model that a layer is directly in."""
        if layer[-3:-1] != ("config", "layers"):
            return None
        path = layer[:-3]
        if path not in self._siblings:
            self._siblings[path] = Siblings(self._value, path)
        return self._siblings[path]

    def _after(self, layer: Path) -> list[Path]:
        """Return the layers after one; after the last one of a model, those after the model."""
        siblings = self._of(layer)
        if siblings is None:
            kind = value_at(self._value, (*layer[:-2], "class_name"))
            within = layer[-1:] in _WRAPPED and str(kind) in _TRANSPARENT
            return self._after(layer[:-2]) if within else []
        at = int(layer[-1])
        if siblings.is_last(at):
            return self._after(siblings.path)
        return [(*layer[:-1], one) for one in siblings.after(at)]


def _input_axis(entry: Entry, axis: int) -> Path | None:
    shape = shape_at(entry, INPUT_SHAPE)
    if shape is None or len(shape) < 2:
        return None
    return (*INPUT_SHAPE, axis % len(shape))


def _has_weights_by(entry: Entry, field: Path) -> bool:
    weights = dims_of(entry) or {}
    return any(dim is not None and dim.path == field for dims in weights.values() for dim in dims)


def _inbound(entry: Entry, path: Path, axis: int, old: int, new: int) -> Iterator[tuple[Path, int]]:
    """Yield the dimensions of the tensors that a layer of a functional model is called with."""
    place = ("inbound_nodes", 0, "args", 0, "config", "shape")
    shape = shape_at(entry, place)
    if shape is not None and -len(shape) <= axis < len(shape) and shape[axis] == old:
        yield (*path, *place, axis % len(shape)), new
