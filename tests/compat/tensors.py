"""Tensors of every dtype, as TensorFlow has them and as we read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.golden.handmade import NUMBERS, numpy_dtype, random_array, texts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]

SHAPES = ((), (3,), (2, 3), (0,), (2, 0, 3), (1, 1, 1, 5))


def tensor(tf: Any, values: Array, dtype: str) -> Any:
    """Return values as a tensor; text as it is, quantised integers under their own dtype."""
    if dtype == "string":
        return tf.constant(values, tf.string) if values.size else tf.zeros(values.shape, tf.string)
    kind = tf.as_dtype(dtype)
    if dtype.startswith("q"):
        return tf.bitcast(tf.constant(values), kind)
    return tf.constant(values, kind)


def values_of(found: Any) -> Array:
    """Return a tensor as an array; quantised dtypes as plain integers."""
    if isinstance(found, np.ndarray):
        array = found
    elif found.dtype.name.startswith("q"):
        import tensorflow as tf

        array = tf.bitcast(found, found.dtype.name.removeprefix("q")).numpy()
    else:
        array = found.numpy()
    if found.dtype.name == "string":
        return np.array(array, object)
    return np.asarray(array)


TEXTS = texts(b"", b"\0", b"a\0b\0", "été 世界 🎈".encode(), b"x" * 127, b"y" * 128, b"\xff\xfe")


def every_dtype() -> dict[str, tuple[str, Array]]:
    """Return dtype and values by name: every dtype in every shape."""
    found = {
        f"{dtype}/{'x'.join(map(str, shape)) or 'scalar'}": (
            dtype,
            _sane(random_array(dtype, shape, seed)),
        )
        for seed, dtype in enumerate(NUMBERS)
        for shape in SHAPES
    }
    found["string/texts"] = ("string", TEXTS)
    found["string/empty"] = ("string", texts())
    found["string/matrix"] = ("string", TEXTS[:6].reshape(2, 3))
    found["string/scalar"] = ("string", np.array(b"one", object))
    found["string/nothing"] = ("string", np.array(b"", object))
    return found


def _sane(values: Array) -> Array:
    # NaN keeps its payload through no conversion; its bits are the business of other tests.
    if values.dtype.kind in "fcV" or values.dtype.name.startswith(("bfloat", "float")):
        return (
            np.nan_to_num(values.astype(np.complex128)).astype(values.dtype)
            if (values.dtype.kind == "c")
            else np.where(np.isfinite(values.astype(np.float64)), values, values.dtype.type(1))
        )
    return values.astype(numpy_dtype(values.dtype.name), copy=False)


def write(
    tf: Any,
    prefix: Path | str,
    tensors: Mapping[str | bytes, Any],
    slices: Sequence[str] | None = None,
) -> str:
    """Write tensors with the SaveV2 operation, in the order given."""
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=list(slices or [""] * len(tensors)),
        tensors=list(tensors.values()),
    )
    return str(prefix)


def write_first(
    tf: Any,
    path: Path | str,
    tensors: Mapping[str, Any],
    slices: Sequence[str] | None = None,
) -> str:
    """Write tensors with the SaveSlices operation, which writes the first format."""
    tf.raw_ops.SaveSlices(
        filename=str(path),
        tensor_names=list(tensors),
        shapes_and_slices=list(slices or [""] * len(tensors)),
        data=list(tensors.values()),
    )
    return str(path)


def restore(tf: Any, prefix: Path | str, name: str | bytes, dtype: str, spec: str = "") -> Array:
    """Read one tensor, or a slice of one, with the RestoreV2 operation."""
    (found,) = tf.raw_ops.RestoreV2(
        prefix=str(prefix),
        tensor_names=[name],
        shape_and_slices=[spec],
        dtypes=[tf.as_dtype(dtype)],
    )
    return values_of(found)
