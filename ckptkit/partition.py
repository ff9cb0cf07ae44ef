"""Partitioned tensors: where one is cut, and what TensorFlow puts together again."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from ckptkit.errors import EditError
from ckptkit.region import Box

if TYPE_CHECKING:
    from ckptkit.model import TensorSpec

MAX_SLICES: Final = 1 << 16
"""Slices of one tensor; more than that is no partitioning but an attack."""

JOINED: Final = frozenset(
    {
        *("float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8"),
        *("bool", "complex64", "complex128", "qint8", "quint8", "qint32", "int4", "uint4"),
    }
)
"""The dtypes whose slices TensorFlow joins; of others it writes slices, and restores none whole."""


def equal_parts(spec: TensorSpec, parts: int, axis: int) -> tuple[Box, ...]:
    """Cut a tensor along an axis, as TensorFlow's ``fixed_size_partitioner`` does.

    Args:
        spec: The tensor.
        parts: How many there will be; they are as long as one another, the first ones longer by
            one where that does not come out even.
        axis: Counted from the end if below 0.

    Raises:
        EditError: It cannot be cut like that.
    """
    shape = spec.shape
    if not shape:
        msg = "a scalar cannot be cut"
        raise EditError(msg)
    if not -len(shape) <= axis < len(shape):
        msg = f"there is no axis {axis} in {len(shape)} axes"
        raise EditError(msg)
    axis %= len(shape)
    size = shape[axis]
    if not spec.count:
        msg = "a tensor without elements cannot be cut"
        raise EditError(msg)
    if parts > size:
        msg = f"{size} rows along axis {axis} do not make {parts} parts"
        raise EditError(msg)
    short, longer = divmod(size, parts)
    edges = [short * at + min(at, longer) for at in range(parts + 1)]
    whole = Box.whole(shape)
    return tuple(whole.along(axis, low, high - low) for low, high in pairwise(edges))
