"""What the numbered variables of an object are called, by its class."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ckptkit.formats.keras.hdf5.tree import Dataset

_FLOAT8: Final = (
    "kernel bias? inputs_scale inputs_amax_history kernel_scale kernel_amax_history"
    " outputs_grad_scale outputs_grad_amax_history"
)
_DENSE: Final = (
    "kernel bias?",
    "kernel:int8 bias? kernel_scale",
    "kernel:int8 bias? kernel_scale kernel_zero:int8 g_idx?",
    _FLOAT8,
    "bias? quantized_kernel:uint8 kernel_scale kernel_zero:uint8 g_idx",
    "bias? quantized_kernel:uint8 kernel_scale kernel_zero:uint8 awq_scales g_idx",
    "kernel:uint8 bias? kernel_scale",
)
_CONV: Final = ("kernel bias?",)
_CELL: Final = ("kernel recurrent_kernel bias?",)
_EMBEDDING: Final = (
    "embeddings",
    "embeddings:int8 embeddings_scale",
    "embeddings:int8 embeddings_scale embeddings_zero:int8 g_idx?",
)
_REVERSED_INT4: Final = (
    "embeddings:int8 embeddings_scale embeddings_zero:int8 g_idx? reverse_embeddings:int8"
    " reverse_embeddings_scale reverse_embeddings_zero:int8"
)
_REVERSED: Final = (
    "embeddings reverse_embeddings",
    "embeddings:int8 embeddings_scale reverse_embeddings:int8 reverse_embeddings_scale",
    _REVERSED_INT4,
)

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "dense": _DENSE,
    "einsum_dense": _DENSE,
    **{f"conv{n}d{end}": _CONV for n in (1, 2, 3) for end in ("", "_transpose")},
    **{f"depthwise_conv{n}d": _CONV for n in (1, 2)},
    **{f"separable_conv{n}d": ("depthwise_kernel pointwise_kernel bias?",) for n in (1, 2)},
    **dict.fromkeys(
        ("cell", "lstm_cell", "gru_cell", "simple_rnn_cell", "conv_lstm_cell"),
        _CELL,
    ),
    "batch_normalization": ("gamma? beta? moving_mean moving_variance",),
    "layer_normalization": ("gamma? beta?",),
    "group_normalization": ("gamma? beta?",),
    "rms_normalization": ("scale",),
    "spectral_normalization": ("kernel vector_u",),
    "normalization": ("mean variance count:any",),
    "embedding": _EMBEDDING,
    "reversible_embedding": (*_EMBEDDING, *_REVERSED),
    "p_re_lu": ("alpha",),
    "attention": ("scale? concat_score_weight?",),
    "additive_attention": ("scale",),
}
"""Variables of Keras' own layers in the order in which they are stored, one text for each way of
storing them: those with ``?`` may be missing, and those without a dtype are floating-point."""

_SETTINGS: Final[Mapping[str, str]] = {
    "bias": "use_bias",
    "gamma": "scale",
    "beta": "center",
    "scale": "use_scale",
}
"""The setting that tells whether there is such a variable."""

_RANKS: Final[Mapping[str, tuple[int, int]]] = {
    **dict.fromkeys(("kernel", "recurrent_kernel", "quantized_kernel"), (2, 9)),
    **dict.fromkeys(("depthwise_kernel", "pointwise_kernel"), (3, 4)),
    **dict.fromkeys(("embeddings", "reverse_embeddings", "vector_u"), (2, 2)),
    **dict.fromkeys(("bias", "gamma", "beta", "moving_mean", "moving_variance"), (1, 9)),
    **dict.fromkeys(("count", "concat_score_weight", "inputs_scale", "outputs_grad_scale"), (0, 0)),
}
"""Fewest and most axes of a variable."""


@dataclass(frozen=True, slots=True)
class _Variable:
    name: str
    dtype: str

    def fits(self, dataset: Dataset) -> bool:
        low, high = _RANKS.get(self.name, (0, 9))
        if not low <= len(dataset.shape) <= high:
            return False
        if self.dtype == "float":
            return "int" not in dataset.dtype and dataset.dtype != "bool"
        return self.dtype in {"any", dataset.dtype}


def kind_of(group: str) -> str:
    """Return the class that the name of a group, or of a layer, stands for."""
    return re.sub(r"_[0-9]+\Z", "", group)


def variable_names(
    kind: str, variables: Mapping[str, Dataset], settings: Mapping[str, Any]
) -> dict[str, str]:
    """Return what the variables of an object are called, as far as its class tells.

    Args:
        kind: The object's class, as names of groups have it.
        variables: Its variables by key.
        settings: Its configuration, or nothing.
    """
    keys = sorted(variables, key=number_order)
    if keys != [str(number) for number in range(len(keys))]:
        return {}
    ways = [
        way
        for way in _ways(KINDS.get(kind, ()), len(keys))
        if _agrees(way, settings)
        and all(one.fits(variables[key]) for one, key in zip(way, keys, strict=True))
    ]
    # Where several ways fit, only what is the same in all of them is known.
    return {
        key: ones[0].name
        for key, *ones in zip(keys, *ways, strict=True)
        if ones and len({one.name for one in ones}) == 1
    }


def optimizer_names(
    variables: Mapping[str, Dataset], settings: Mapping[str, Any], *, scales: bool
) -> dict[str, str]:
    """Return what the first variables of an optimizer are called; the others are numbers.

    Args:
        variables: Its variables by key.
        settings: Its configuration, or nothing.
        scales: Whether it is one that scales the loss.
    """
    expected: list[tuple[str, Literal["int", "float"]]] = [("iteration", "int")]
    if not isinstance(settings.get("learning_rate"), dict):
        expected.append(("learning_rate", "float"))
    if scales:
        expected += [("step_counter", "int"), ("dynamic_scale", "float")]
    found: dict[str, str] = {}
    for name, kind in expected:
        dataset = variables.get(str(len(found)))
        fits = dataset is not None and not dataset.shape
        if dataset is not None and fits and dataset.dtype in _SCALARS[kind]:
            found[str(len(found))] = name
        elif name != "learning_rate":  # which is not there where a schedule gives it
            break
    return found


_SCALARS: Final = {"int": {"int64", "int32", "uint64", "uint32"}, "float": {"float32"}}


def number_order(key: str) -> tuple[bool, int, str]:
    """Return what sorts decimal numbers by value, before all others."""
    if key.isascii() and key.isdecimal():
        digits = key.lstrip("0")
        return False, len(digits), digits
    return True, 0, key


def _ways(texts: Iterable[str], count: int) -> Iterator[Sequence[_Variable]]:
    """Give each way of storing so many variables."""
    for text in texts:
        words = text.split()
        optional = [word for word in words if word.endswith("?")]
        missing = len(words) - count
        if 0 <= missing <= len(optional):
            for left in itertools.combinations(optional, missing):
                yield [_variable(word) for word in words if word not in left]


def _variable(word: str) -> _Variable:
    name, _, dtype = word.removesuffix("?").partition(":")
    return _Variable(name, dtype or "float")


def _agrees(way: Sequence[_Variable], settings: Mapping[str, Any]) -> bool:
    names = {one.name for one in way}
    return all(
        settings.get(setting) is not (name not in names)
        for name, setting in _SETTINGS.items()
        if setting in settings
    )
