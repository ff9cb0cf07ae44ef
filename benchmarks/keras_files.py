"""Files of Keras that benchmarks work on: a chain of dense layers, laid out as Keras does it."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

LAYERS: Final = 8

WEIGHTS: Final = "model.weights.h5"
"""The member of an archive that tensors are in."""

EDITED: Final = 3
"""The layer whose kernel benchmarks edit."""

BIAS: Final = 0.25
"""What all biases are."""


NAMES: Final = {number: f"dense_{number}" if number else "dense" for number in range(LAYERS)}
"""What layers are called, and their groups, by number."""

OBJECTS: Final = 3 + 2 * LAYERS + 2 * LAYERS
"""Groups and datasets of a file: the root, its variables, all layers, each of them, its own."""


def kernel(number: int) -> str:
    """Return the path of the kernel of a layer."""
    return f"layers/{NAMES[number]}/vars/0"


def factor(number: int) -> float:
    """Return what the first kernel is multiplied by to give that of a layer: exact in binary."""
    return 1 + number / LAYERS


def kernel_bytes(units: tuple[int, int]) -> int:
    """Return the bytes of each kernel."""
    return 4 * units[0] * units[1]


def shapes(units: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all datasets."""
    found: dict[str, tuple[int, ...]] = {}
    for number, name in NAMES.items():
        shape = _shape(units, number)
        found |= {f"layers/{name}/vars/0": shape, f"layers/{name}/vars/1": shape[1:]}
    return found


def _shape(units: tuple[int, int], number: int) -> tuple[int, int]:
    return units if number % 2 == 0 else units[::-1]


def write_weights(path: str, *, units: tuple[int, int]) -> None:
    """Write what ``save_weights`` does of a model of dense layers, a layer at a time.

    Args:
        path: Of the ``.weights.h5``.
        units: Those of the layers by turns; the first number is also that of the inputs.
    """
    import h5py
    import numpy as np

    os.makedirs(os.path.dirname(path), exist_ok=True)
    first = np.random.default_rng(7).random(units, np.float32)
    with h5py.File(path, "w") as file:
        file.create_group("vars").attrs["name"] = "sequential"
        for number, name in NAMES.items():
            shape = _shape(units, number)
            group = file.create_group(f"layers/{name}/vars")
            group.attrs["name"] = name
            values = first.reshape(shape) * np.float32(factor(number))
            group.create_dataset("0", data=values)
            group.create_dataset("1", data=np.full(shape[1:], BIAS, np.float32))


def write_model(weights: str, path: str, *, units: tuple[int, int]) -> None:
    """Write what ``save`` does of that model: three members, none of them compressed.

    Args:
        weights: Path of its ``.weights.h5``.
        path: Of the ``.keras``.
        units: Of its layers.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    metadata = {"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps(metadata))
        archive.writestr("config.json", json.dumps(_config(units)))
        archive.write(weights, WEIGHTS)


def _config(units: tuple[int, int]) -> dict[str, object]:
    def entry(kind: str, name: str, **config: object) -> dict[str, object]:
        return {
            "module": "keras.layers",
            "class_name": kind,
            "config": {"name": name, "dtype": "float32", **config},
            "registered_name": None,
        }

    layers = [entry("InputLayer", "input_layer", batch_shape=[None, units[0]])]
    for number, name in NAMES.items():
        into, out = _shape(units, number)
        found = entry("Dense", name, units=out, activation="linear", use_bias=True)
        layers.append({**found, "build_config": {"input_shape": [None, into]}})
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "sequential", "layers": layers},
        "registered_name": None,
        "build_config": {"input_shape": [None, units[0]]},
    }


def check_archive(path: str, edited: float) -> None:
    """See that ``zipfile`` finds an archive whole, and HDF5 one kernel changed in it and no other.

    Args:
        path: Of the archive.
        edited: What the kernel of the layer that is edited was multiplied by.

    Raises:
        ValueError: It does not.
        BadZipFile: A checksum does not hold.
    """
    unpacked = path + "-unpacked"
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                # Reading to the end compares the checksum; the weights come last.
                with archive.open(name) as source, open(unpacked, "wb") as target:
                    shutil.copyfileobj(source, target, 16 << 20)
        check_weights(unpacked, edited)
    finally:
        if os.path.exists(unpacked):
            os.unlink(unpacked)


def check_weights(path: str, edited: float = 1, names: Mapping[int, str] = NAMES) -> None:
    """See that HDF5 finds one kernel changed, and no other, and groups of these names.

    Args:
        path: Of a ``.weights.h5``.
        edited: What the kernel of the layer that is edited was multiplied by.
        names: Names of the groups of layers, by number.

    Raises:
        ValueError: It does not.
    """
    import h5py
    import numpy as np

    with h5py.File(path, "r") as file:
        wrong = {*names.values()} ^ {*file["layers"]}
        first = file[f"layers/{names[0]}/vars/0"][()]
        for number, name in names.items() if not wrong else ():
            weights = file[f"layers/{name}/vars"]
            times = np.float32(factor(number) * (edited if number == EDITED else 1))
            expected = first.reshape(weights["0"].shape) * times
            if not np.array_equal(weights["0"], expected) or np.any(weights["1"][()] != BIAS):
                wrong.add(name)
    if wrong:
        msg = f"of {path} these are not what they should be: {', '.join(sorted(wrong))}"
        raise ValueError(msg)
