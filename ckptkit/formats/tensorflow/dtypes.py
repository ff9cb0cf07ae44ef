"""TensorFlow's numbers for dtypes (``DataType`` in ``types.proto``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ckptkit.model import DTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

# fmt: off
_BY_NUMBER: Final = (
    "float32", "float64", "int32", "uint8", "int16", "int8", "string", "complex64", "int64", "bool",
    "qint8", "quint8", "qint32", "bfloat16", "qint16", "quint16", "uint16", "complex128", "float16",
    "resource", "variant", "uint32", "uint64", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz",
    "float8_e4m3b11fnuz", "float8_e5m2fnuz", "int4", "uint4", "int2", "uint2", "float4_e2m1fn",
)
# fmt: on

NAMES: Final[Mapping[int, str]] = dict(enumerate(_BY_NUMBER, start=1))
"""Name of each dtype number that a bundle can hold."""

CODES: Final[Mapping[str, int]] = {name: code for code, name in NAMES.items()}
"""Number of each dtype name."""

MAX_RANK: Final = 254
"""Axes of a tensor."""

_VARIABLE: Final = {"string": -1, "variant": -2}

ITEMSIZES: Final = (
    0,
    *(DTYPES[name].itemsize or _VARIABLE.get(name, 0) for _, name in sorted(NAMES.items())),
)
"""Stored bytes per element by dtype number, as ``_native.entries_check`` takes them."""
