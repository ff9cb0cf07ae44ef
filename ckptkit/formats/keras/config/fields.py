"""Which fields of a layer's config tell the shapes and the dtype of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ckptkit.formats.keras.config.jsontext import Path

INPUT_SHAPE: Final = ("build_config", "input_shape")
"""Where, from the entry of a layer, the shape that it was built for is."""


@dataclass(frozen=True, slots=True)
class Dim:
    """What tells one dimension of a weight: the value of a field, times or by a number.

    Attributes:
        path: From the entry of the layer to a whole number in it.
        times: The dimension is so many times the value.
        by: The dimension is that part of the value.
    """

    path: Path
    times: int = 1
    by: int = 1

    def value(self, size: int) -> int | None:
        """Return the value of the field that goes with a dimension, None if none does."""
        return None if size % self.times else size // self.times * self.by

    @property
    def field(self) -> str:
        """Return the field for people, such as ``units`` or ``build_config.input_shape[1]``."""
        names = self.path[1:] if self.path[0] == "config" else self.path
        text = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in names)
        return text.removeprefix(".")


Dims = tuple[Dim | None, ...]
"""What tells the dimensions of a weight; None: what is not one field."""

Entry = dict[str, Any]
"""The JSON object of a layer: ``class_name``, ``config``, and for Keras 3 ``build_config``."""


def value_at(entry: Any, path: Sequence[str | int]) -> Any:
    """Return what is at a path in JSON values, None if it leads to nothing."""
    value = entry
    for key in path:
        if isinstance(key, str):
            value = value.get(key) if isinstance(value, dict) else None
        else:
            value = value[key] if isinstance(value, list) and key < len(value) else None
    return value


def shape_at(entry: Entry, path: Sequence[str | int]) -> list[int | None] | None:
    """Return the shape at a path, None if there is no single one."""
    found = value_at(entry, path)
    if not isinstance(found, list) or not found:
        return None
    whole = all(
        one is None or (isinstance(one, int) and not isinstance(one, bool)) for one in found
    )
    return found if whole else None


def _built(entry: Entry, axis: int, by: int = 1) -> Dim | None:
    """Return the dimension that is an axis of the input's shape."""
    shape = shape_at(entry, INPUT_SHAPE)
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    return Dim((*INPUT_SHAPE, axis % len(shape)), by=by)


def _config(entry: Entry) -> dict[str, Any]:
    found = entry.get("config")
    return found if isinstance(found, dict) else {}


def _number(entry: Entry, field: str, otherwise: int) -> int:
    found = _config(entry).get(field)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        return otherwise
    return found


def _told(field: str, times: int = 1) -> Dim:
    return Dim(("config", field), times)


def _with_bias(entry: Entry, weights: dict[str, Dims], bias: Dims) -> dict[str, Dims]:
    return {**weights, "bias": bias} if _config(entry).get("use_bias", True) else weights


def _dense(entry: Entry) -> dict[str, Dims]:
    units = _told("units")
    return _with_bias(entry, {"kernel": (_built(entry, -1), units)}, (units,))


def _embedding(entry: Entry) -> dict[str, Dims]:
    del entry
    return {"embeddings": (_told("input_dim"), _told("output_dim"))}


def channel_axis(entry: Entry) -> int:
    """Return the axis of the channels that a layer takes and gives."""
    return 1 if _config(entry).get("data_format") == "channels_first" else -1


def _window(entry: Entry, rank: int) -> Dims:
    size = _config(entry).get("kernel_size")
    if not isinstance(size, list):
        return (_told("kernel_size"),) * rank
    return tuple(Dim(("config", "kernel_size", axis)) for axis in range(rank))


def _conv(rank: int, *, transposed: bool = False) -> Callable[[Entry], dict[str, Dims]]:
    def weights(entry: Entry) -> dict[str, Dims]:
        groups = 1 if transposed else _number(entry, "groups", 1)
        taken, filters = _built(entry, channel_axis(entry), groups), _told("filters")
        last = (filters, taken) if transposed else (taken, filters)
        return _with_bias(entry, {"kernel": (*_window(entry, rank), *last)}, (filters,))

    return weights


def _depthwise(rank: int) -> Callable[[Entry], dict[str, Dims]]:
    def weights(entry: Entry) -> dict[str, Dims]:
        taken = _built(entry, channel_axis(entry))
        kernel = (*_window(entry, rank), taken, _told("depth_multiplier"))
        # The bias is as long as the product of both.
        return _with_bias(entry, {"kernel": kernel}, (None,))

    return weights


def _separable(rank: int) -> Callable[[Entry], dict[str, Dims]]:
    def weights(entry: Entry) -> dict[str, Dims]:
        taken, filters = _built(entry, channel_axis(entry)), _told("filters")
        depthwise = (*_window(entry, rank), taken, _told("depth_multiplier"))
        pointwise = (None,) * (rank + 1)
        return _with_bias(
            entry,
            {"depthwise_kernel": depthwise, "pointwise_kernel": (*pointwise, filters)},
            (filters,),
        )

    return weights


def _normalized(entry: Entry, names: Iterator[str], otherwise: int = -1) -> dict[str, Dims]:
    axes = _config(entry).get("axis", otherwise)
    axes = axes if isinstance(axes, list) else [axes]
    if not all(isinstance(axis, int) for axis in axes):
        return {}
    dims = tuple(_built(entry, axis) for axis in axes)
    return dict.fromkeys(names, dims)


def _batch_normalization(entry: Entry) -> dict[str, Dims]:
    return _normalized(entry, iter([*_affine(entry), "moving_mean", "moving_variance"]))


def _normalization(entry: Entry) -> dict[str, Dims]:
    return _normalized(entry, _affine(entry))


def _rms_normalization(entry: Entry) -> dict[str, Dims]:
    return _normalized(entry, iter(["scale"]))


def _affine(entry: Entry) -> Iterator[str]:
    config = _config(entry)
    if config.get("scale", True):
        yield "gamma"
    if config.get("center", True):
        yield "beta"


def _recurrent(gates: int) -> Callable[[Entry], dict[str, Dims]]:
    def weights(entry: Entry) -> dict[str, Dims]:
        units, all_gates = _told("units"), _told("units", gates)
        # A GRU that resets after has two rows of biases.
        doubled = gates == 3 and _config(entry).get("reset_after")
        bias: Dims = (None, all_gates) if doubled else (all_gates,)
        kernels: dict[str, Dims] = {
            "kernel": (_built(entry, -1), all_gates),
            "recurrent_kernel": (units, all_gates),
        }
        return _with_bias(entry, kernels, bias)

    return weights


_CLASSES: Final[Mapping[str, Callable[[Entry], dict[str, Dims]]]] = {
    "Dense": _dense,
    "Embedding": _embedding,
    "BatchNormalization": _batch_normalization,
    "LayerNormalization": _normalization,
    "GroupNormalization": _normalization,
    "RMSNormalization": _rms_normalization,
    **{f"Conv{rank}D": _conv(rank) for rank in (1, 2, 3)},
    **{f"Conv{rank}DTranspose": _conv(rank, transposed=True) for rank in (1, 2, 3)},
    **{f"DepthwiseConv{rank}D": _depthwise(rank) for rank in (1, 2)},
    **{f"SeparableConv{rank}D": _separable(rank) for rank in (1, 2)},
    **{
        f"{name}{what}": _recurrent(gates)
        for name, gates in (("LSTM", 4), ("GRU", 3), ("SimpleRNN", 1))
        for what in ("", "Cell")
    },
}

VAGUE: Final[Mapping[str, str]] = {
    "EinsumDense": "equation and output_shape",
    "MultiHeadAttention": "num_heads, key_dim and output_shape",
    "GroupQueryAttention": "num_query_heads, num_key_value_heads and head_dim",
    "ConvLSTM1D": "filters and kernel_size",
    "ConvLSTM2D": "filters and kernel_size",
    "ConvLSTM3D": "filters and kernel_size",
    "PReLU": "shared_axes and build_config.input_shape",
    "Normalization": "axis and build_config.input_shape",
}
"""Fields that tell shapes in ways that are not followed here."""

OUTPUTS: Final = frozenset({"units", "filters", "output_dim"})
"""Fields that are the number of channels that a layer gives."""


def dims_of(entry: Entry) -> dict[str, Dims] | None:
    """Return what tells the shapes of a layer's weights, None where that is not known."""
    made = _CLASSES.get(str(entry.get("class_name")))
    return None if made is None else made(entry)


POLICY_CLASSES: Final = frozenset({"DTypePolicy", "FloatDTypePolicy", "Policy", "PolicyV1"})
POLICIES: Final = frozenset({"float16", "bfloat16", "float32", "float64"})


@dataclass(frozen=True, slots=True)
class Policy:
    """The dtype policy of a layer.

    Attributes:
        name: Its name, such as ``mixed_float16``.
        variables: The dtype that floating-point weights have; None where that is not told.
        plain: Whether another name is all that takes to make it another policy.
    """

    name: str
    variables: str | None
    plain: bool


def policy_of(entry: Entry) -> Policy | None:
    """Return the dtype policy of a layer, None if its config has none."""
    found = _config(entry).get("dtype")
    plain = True
    if isinstance(found, dict):
        plain = str(found.get("class_name")) in POLICY_CLASSES
        name = value_at(found, ("config", "name")) if plain else found.get("class_name")
    else:
        name = found
    if not isinstance(name, str):
        return None
    variables = "float32" if name.startswith("mixed_") else name
    known = plain and variables in POLICIES
    return Policy(name, variables if known else None, known)


def renamed_policy(entry: Entry, name: str) -> Any:
    """Return what is to stand in place of a layer's dtype policy for it to have another name.

    A policy that several layers share is written out in each, with a number that makes the first
    one stand for all: without the number, it is this layer's alone.
    """
    found = _config(entry).get("dtype")
    if not isinstance(found, dict):
        return name
    kept = {key: value for key, value in found.items() if key != "shared_object_id"}
    return {**kept, "config": {**found["config"], "name": name}}
