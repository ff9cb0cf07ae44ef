"""Make the golden files anew: ``python -m tests.golden.make``, with TensorFlow."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

FILES = Path(__file__).parent / "files"
"""Small checkpoints by real writers."""

WHOLE = np.arange(50, dtype=np.float32).reshape(5, 10)
PARTS = ((0, 1), (1, 4), (4, 10))
"""A tensor and the columns that its slices span."""


def vector() -> dict[str, Any]:
    """Return the tensors whose checkpoint is known byte for byte."""
    return {
        "b": np.array([1, 2], np.float32),
        "a": np.array([[1, 2, 3]], np.int64),
        "scalar": np.int32(5),
        "empty0": np.empty((0, 3), np.float32),
        "e3": np.empty(0, object),
    }


def first_format() -> dict[str, tuple[str, Any]]:
    """Return dtype and values of tensors that TensorFlow's first format holds."""
    from tests.compat.tensors import every_dtype
    from tests.oracle.first import DTYPES

    return {n: one for n, one in every_dtype().items() if one[0] in DTYPES}


def write_first_format(tf: Any) -> None:
    """Write files of TensorFlow's first format: every dtype in one, slices in three."""
    from tests.compat.tensors import tensor

    found = first_format()
    tf.raw_ops.SaveSlices(
        filename=str(FILES / "v1"),
        tensor_names=list(found),
        shapes_and_slices=[""] * len(found),
        data=[tensor(tf, array, dtype) for dtype, array in found.values()],
    )
    for number, (low, high) in enumerate(PARTS):
        spec = f"5 10 -:{low},{high - low}"
        part = WHOLE[:, low:high]
        tf.raw_ops.SaveSlices(
            filename=str(FILES / f"v1_sliced-{number:05d}-of-{len(PARTS):05d}"),
            tensor_names=["whole", "half", f"{number}"],
            shapes_and_slices=[spec, spec, ""],
            data=[tf.constant(part), tf.constant(part.astype(np.float16)), tf.constant(number)],
        )


def main() -> None:
    """Write every file that TensorFlow makes."""
    import tensorflow as tf

    from tests.compat.tensors import every_dtype, tensor, write

    FILES.mkdir(exist_ok=True)
    found = {n: tensor(tf, array, dtype) for n, (dtype, array) in every_dtype().items()}
    write(tf, FILES / "every_dtype", found)
    lists = tf.stack([
        tf.raw_ops.TensorListFromTensor(
            tensor=tf.constant([1.0, 2.0]), element_shape=tf.constant([], tf.int32)
        )
    ])  # fmt: skip
    write(tf, FILES / "variant", {"lists": lists})
    write_first_format(tf)
    with tempfile.TemporaryDirectory() as folder:
        prefixes = []
        for number, (low, high) in enumerate(PARTS):
            tensors = {"whole": tf.constant(WHOLE[:, low:high]), f"{number}": tf.constant(number)}
            spec = f"5 10 -:{low},{high - low}"
            prefixes.append(write(tf, os.path.join(folder, f"{number}"), tensors, [spec, ""]))
        tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=prefixes,
            destination_prefix=str(FILES / "sliced"),
            delete_old_dirs=False,
        )


if __name__ == "__main__":
    main()
