"""Where weights no longer are as config.json says, and the config that says how they are.

The text is data: nothing in it is imported, evaluated, or made into a layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ckptkit.errors import EditError
from ckptkit.formats.keras.config.entries import (
    Config,
    Index,
    LayerEntry,
    layers,
    read_config,
    weight_of,
)
from ckptkit.formats.keras.config.fields import (
    INPUT_SHAPE,
    OUTPUTS,
    POLICIES,
    VAGUE,
    channel_axis,
    dims_of,
    policy_of,
    renamed_policy,
    value_at,
)
from ckptkit.formats.keras.config.following import Spread, Surroundings
from ckptkit.formats.keras.config.jsontext import replaced

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ckptkit.formats.keras.config.fields import Dim, Dims, Entry
    from ckptkit.formats.keras.config.jsontext import Path
    from ckptkit.model import TensorSpec

__all__ = [
    "Config",
    "Disagreement",
    "LayerEntry",
    "SpecChange",
    "disagreements",
    "layers",
    "read_config",
    "synced",
]


@dataclass(frozen=True, slots=True)
class SpecChange:
    """What edits made of the dtype and the shape of a weight.

    Attributes:
        label: ``LAYER/WEIGHT``, with the names of the models that the layer is in before it; None
            for what is no layer's.
        before: What it was; None for a new one.
        after: What it is; None for one that is gone, or has another name.
    """

    label: str | None
    before: TensorSpec | None
    after: TensorSpec | None


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Something that the config says and that the weights no longer go with.

    Attributes:
        layer: The layer, after what it is in.
        field: The field of its config, such as ``units`` or ``dtype``.
        found: What the config says.
        wanted: What the weights go with; None where that is not known.
        text: A sentence for people.
        fix: New values by their paths in the config; None where only the user can tell.
    """

    layer: str
    field: str
    found: object
    wanted: object
    text: str
    fix: Mapping[Path, object] | None = None


def disagreements(config: Config, changes: Sequence[SpecChange]) -> tuple[Disagreement, ...]:
    """Return what the config of a model says other than the weights, once they are changed.

    Args:
        config: The config as it is.
        changes: Weights whose dtype or shape is other than before, that are new, or gone.
    """
    index, around = Index(config), Surroundings(config.value)
    changed: dict[Path, _Layer] = {}
    for change in changes:
        if change.label is None or change.before == change.after:
            continue
        found = index.find(change.label)
        if found is not None:
            layer, weight = found
            if layer.path not in changed:
                changed[layer.path] = _Layer(config, layer, index, around, changed)
            changed[layer.path].add(weight, change.before, change.after)
    return tuple(one for layer in changed.values() for one in layer.disagreements())


def synced(config: Config, found: Sequence[Disagreement]) -> bytes:
    """Return the text of a config that goes with the weights, as far as that can be told.

    Every byte that does not have to be other is as it was.

    Args:
        config: The config.
        found: What :func:`disagreements` returned for it.

    Raises:
        EditError: Two layers want other values of one field.
    """
    values: dict[Path, object] = {}
    owner: dict[Path, str] = {}
    for one in found:
        for path, value in (one.fix or {}).items():
            if values.setdefault(path, value) != value:
                where = "".join(f"[{key!r}]" for key in path)
                msg = (
                    f"layer {owner[path]!r} goes with {values[path]!r}, and layer {one.layer!r} "
                    f"with {value!r} at {where} of {config.what}; they do not fit each other"
                )
                raise EditError(msg)
            owner.setdefault(path, one.layer)
    return replaced(config.content, values)


@dataclass
class _Layer:
    """A layer of which weights are changed."""

    config: Config
    layer: LayerEntry
    index: Index
    around: Surroundings
    others: Mapping[Path, _Layer]
    entry: Entry = field(init=False)
    dims: dict[str, Dims] | None = field(init=False)
    both: dict[str, tuple[TensorSpec, TensorSpec]] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.entry = self.config.entry(self.layer)
        self.dims = dims_of(self.entry)

    @property
    def name(self) -> str:
        return f"{self.layer.owner}{self.layer.name}"

    @property
    def _says(self) -> str:
        return f"{self.config.what}: layer {self.name!r}"

    def add(self, weight: str, before: TensorSpec | None, after: TensorSpec | None) -> None:
        """Take note of a change."""
        name = weight_of(self.entry, weight) or weight
        if before is None:
            self.new.append(name)
        elif after is None:
            self.gone.append(name)
        else:
            self.both[name] = before, after

    def disagreements(self) -> Iterator[Disagreement]:
        """Yield what the config says about the layer that is no longer so."""
        yield from self._names()
        policy = policy_of(self.entry)
        if self.both and policy is not None and not policy.plain:
            why = f"has dtype {policy.name}, which tells how its weights are stored and scaled"
            yield self._vague("dtype", policy.name, [*self.both], why)
            return
        yield from self._shapes()
        yield from self._dtypes()

    def _names(self) -> Iterator[Disagreement]:
        class_name = self.layer.class_name
        if self.gone:
            text = (
                f"{self._says} is a {class_name}, and {_listed(self.gone)} of it "
                f"{_verb(self.gone)} gone or renamed: Keras will fail to load it, or leave "
                "initial values there"
            )
            yield Disagreement(self.name, "class_name", class_name, None, text)
        if self.new:
            text = (
                f"{self._says} is a {class_name}, and gets {_listed(self.new)}: Keras fails to "
                "load a layer with more weights than it makes"
            )
            yield Disagreement(self.name, "class_name", class_name, None, text)

    def _vague(self, name: str, found: object, weights: list[str], why: str) -> Disagreement:
        specs = ", ".join(f"{weight} is {self.both[weight][1]}" for weight in weights)
        text = f"{self._says} {why}; check that it goes with them: {specs}"
        return Disagreement(self.name, name, found, None, text)

    # --- shapes --------------------------------------------------------------------------------

    def _shapes(self) -> Iterator[Disagreement]:
        reshaped = [name for name, (old, new) in self.both.items() if old.shape != new.shape]
        unknown = [name for name in reshaped if not self._is_told(name)]
        if unknown:
            fields = VAGUE.get(self.layer.class_name, f"the config of {self.layer.class_name}")
            yield self._vague(fields, None, unknown, f"tells the shapes of its weights by {fields}")
        dims = {
            dim.path: dim
            for name in reshaped
            if name not in unknown
            for dim in (self.dims or {})[name]
            if dim is not None
        }
        for dim in dims.values():
            yield from self._shape(dim)

    def _is_told(self, name: str) -> bool:
        told = (self.dims or {}).get(name)
        return told is not None and all(len(told) == len(spec.shape) for spec in self.both[name])

    def wanted(self, path: Path) -> tuple[set[int | None], list[str]]:
        """Return the values of a field that changed weights want, and which others go by it."""
        values: set[int | None] = set()
        others: list[str] = []
        for name, dims in (self.dims or {}).items():
            by = [(at, dim) for at, dim in enumerate(dims) if dim is not None and dim.path == path]
            if by and (name not in self.both or not self._is_told(name)):
                others.append(name)
                continue
            values.update(dim.value(self.both[name][1].shape[at]) for at, dim in by)
        return values, others

    def _shape(self, dim: Dim) -> Iterator[Disagreement]:
        found = value_at(self.entry, dim.path)
        values, others = self.wanted(dim.path)
        if not isinstance(found, int) or values == {found}:
            return
        moved = [name for name in self.both if self._moved(name, dim.path)]
        if not moved:
            return
        named = ", ".join(f"{name} is {self.both[name][1]}" for name in moved)
        text = f"{self._says} has {dim.field} {found}, and its {named}"
        wanted = next(iter(values)) if len(values) == 1 else None
        if wanted is None:
            text = f"{text}: no one value goes with that"
            yield Disagreement(self.name, dim.field, found, None, text)
            return
        text = f"{text}: it should be {wanted}"
        if others:
            text = f"{text}, but {_listed(others)} of it {_verb(others)} left as for {found}"
            yield Disagreement(self.name, dim.field, found, wanted, text)
            return
        spread = self._spread(dim, found, wanted)
        fix = {(*self.layer.path, *dim.path): wanted, **spread.fixes}
        yield Disagreement(self.name, dim.field, found, wanted, text, fix)
        for path in spread.waiting:
            yield from self._waiting(path, found, wanted)

    def _moved(self, name: str, path: Path) -> bool:
        if not self._is_told(name):
            return False
        old, new = (spec.shape for spec in self.both[name])
        told = (self.dims or {})[name]
        return any(
            dim is not None and dim.path == path and old[axis] != new[axis]
            for axis, dim in enumerate(told)
        )

    def _spread(self, dim: Dim, found: int, wanted: int) -> Spread:
        path = self.layer.path
        if dim.path[:-1] == INPUT_SHAPE:
            return self.around.input(path, int(dim.path[-1]), found, wanted)
        if len(dim.path) == 2 and dim.path[1] in OUTPUTS:
            return self.around.output(path, channel_axis(self.entry), found, wanted)
        return Spread({})

    def _waiting(self, path: Path, found: int, wanted: int) -> Iterator[Disagreement]:
        """Yield that a layer which follows has weights for what this one gave."""
        entry = value_at(self.config.value, path)
        shape = value_at(entry, INPUT_SHAPE)
        axis = channel_axis(self.entry) % len(shape)
        place = (*INPUT_SHAPE, axis)
        other = self.others.get(path)
        follower = self.index.at(path)
        if follower is None or (other is not None and other.wanted(place)[0] == {wanted}):
            return
        name = f"{follower.owner}{follower.name}"
        shown = f"build_config.input_shape[{axis}]"
        text = (
            f"{self.config.what}: layer {name!r} has {shown} {found}, and layer {self.name!r} "
            f"before it gives {wanted}: the weights of {name!r} have to go with that"
        )
        yield Disagreement(name, shown, found, wanted, text)

    # --- dtypes --------------------------------------------------------------------------------

    def _dtypes(self) -> Iterator[Disagreement]:
        policy = policy_of(self.entry)
        cast = {
            name: new.dtype
            for name, (old, new) in self.both.items()
            if old.dtype != new.dtype and old.kind == "float"
        }
        if policy is None or policy.variables is None:
            return
        cast = {name: dtype for name, dtype in cast.items() if dtype != policy.variables}
        if not cast:
            return
        wanted = {*cast.values()}
        dtypes = " and ".join(sorted(wanted))
        text = (
            f"{self.config.what} says {policy.name} for layer {self.name!r}, whose "
            f"{_listed([*cast])} {_verb([*cast])} {dtypes} now"
        )
        if not wanted <= POLICIES:
            text = f"{text}, which is no dtype for weights of a layer"
            yield Disagreement(self.name, "dtype", policy.name, dtypes, text)
            return
        text = f"{text}; Keras casts on load"
        fix: dict[Path, Any] | None = None
        if len(wanted) == 1 and self.dims is not None and not self.dims.keys() - cast.keys():
            fix = {(*self.layer.config_path, "dtype"): renamed_policy(self.entry, dtypes)}
        yield Disagreement(self.name, "dtype", policy.name, dtypes, text, fix)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _verb(names: Sequence[str]) -> str:
    return "are" if len(names) > 1 else "is"
