"""Keras files made by hand: a small model, and one thing in it that should not be there."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Change = Callable[[h5py.File], object]

KERNEL, BIAS = "layers/dense/vars/0", "layers/dense/vars/1"
VALUES = np.arange(6, dtype=np.float32).reshape(3, 2)
DENSE: dict[str, Any] = {
    "module": "keras.layers",
    "class_name": "Dense",
    "config": {
        "name": "head",
        "units": 2,
        "activation": "linear",
        "use_bias": True,
        "dtype": {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}},
    },
    "registered_name": None,
    "build_config": {"input_shape": [None, 3]},
}
"""The layer that the weights are of."""


def config(*others: Any, **fields: Any) -> dict[str, Any]:
    """Return the configuration of a model of that layer and others."""
    model = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "model", "layers": [DENSE, *others]},
        "registered_name": None,
    }
    return {**model, **fields}


def fill(file: h5py.File) -> None:
    """Write the weights, as Keras 3 does."""
    file[KERNEL], file[BIAS] = VALUES, np.zeros(2, np.float32)
    file["layers/dense/vars"].attrs["name"] = "head"


def hdf5(change: Change = lambda file: None, fill: Change = fill) -> bytes:
    """Return the content of a file of weights, after a change."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
        change(file)
    return buffer.getvalue()


def weights(path: Path, change: Change) -> Path:
    """Write a file of weights; what HDF5 does with other files it does where they are."""
    with h5py.File(path, "w") as file:
        fill(file)
        change(file)
    return path


def keras(path: Path, text: str | bytes, content: bytes | None = None, **others: bytes) -> Path:
    """Write a ``.keras`` archive with this ``config.json``."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.15.1"}')
        archive.writestr("config.json", text)
        archive.writestr("model.weights.h5", hdf5() if content is None else content)
        for name, data in others.items():
            archive.writestr(name, data)
    return path


def legacy(path: Path, text: str) -> Path:
    """Write a whole model as a legacy file with this ``model_config``."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = text
        file.attrs["keras_version"] = "2.15.0"
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = ["head"]
        layer = group.create_group("head")
        layer.attrs["weight_names"] = ["head/kernel:0", "head/bias:0"]
        layer["head/kernel:0"], layer["head/bias:0"] = VALUES, np.zeros(2, np.float32)
    return path


def dumped(value: Any) -> str:
    """Return JSON text."""
    return json.dumps(value)
