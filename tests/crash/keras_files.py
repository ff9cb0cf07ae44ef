"""Keras files of a few kilobytes, laid out as Keras lays them out, without Keras.

They are the same, byte for byte, whenever they are made.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Weights = Mapping[str, Mapping[str, Array]]

WEIGHTS = "model.weights.h5"


def dense_model(seed: int = 1) -> dict[str, dict[str, Array]]:
    """Return the variables of a few layers, and of an optimizer, by the paths of their groups."""
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    return {
        "layers/dense": {"0": numbers(40, 24), "1": numbers(24)},
        "layers/dense_1": {"0": numbers(24, 20), "1": numbers(20)},
        "layers/dropout": {},
        "optimizer": {"0": np.int64(7), "1": np.float32(0.001), "2": numbers(40, 24)},
        "": {},
    }


def write_hdf5(file: Any, weights: Weights) -> None:
    """Write groups with a named ``vars`` each, as Keras does; ``file`` is what h5py takes."""
    with h5py.File(file, "w") as made:
        for path, variables in weights.items():
            group = made.create_group(f"{path}/vars" if path else "vars")
            group.attrs["name"] = path.rpartition("/")[2] or "model"
            for key, values in variables.items():
                put(group, key, values)


def put(group: Any, key: str, values: Array, **options: Any) -> None:
    """Write a variable; bfloat16 as Keras writes it: bytes, and an attribute."""
    values = np.asarray(values)
    brain = values.dtype == ml_dtypes.bfloat16
    made = group.create_dataset(key, data=values.view("V2") if brain else values, **options)
    if brain:
        made.attrs["dtype"] = "bfloat16"


def config(weights: Weights) -> bytes:
    """Return the configuration of a sequential model of these layers."""
    layers = [
        {
            "module": "keras.layers",
            "class_name": "Dense",
            "config": {
                "name": path.rpartition("/")[2],
                "trainable": True,
                "dtype": {
                    "module": "keras",
                    "class_name": "DTypePolicy",
                    "config": {"name": "float32"},
                    "registered_name": None,
                },
                "units": variables["0"].shape[1],
                "activation": "linear",
                "use_bias": "1" in variables,
            },
            "registered_name": None,
            "build_config": {"input_shape": [None, variables["0"].shape[0]]},
        }
        for path, variables in weights.items()
        if path.startswith("layers/dense")
    ]
    model = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "model", "trainable": True, "layers": layers},
        "registered_name": None,
    }
    return json.dumps(model).encode()


METADATA = json.dumps({"keras_version": "3.15.1", "date_saved": "2026-01-02@03:04:05"}).encode()


def save_weights(path: Path, weights: Weights) -> None:
    """Make a ``.weights.h5``."""
    write_hdf5(path, weights)


def save_archive(path: Path, weights: Weights, assets: Mapping[str, bytes] | None = None) -> None:
    """Make a ``.keras``."""
    content = io.BytesIO()
    write_hdf5(content, weights)
    members = {"metadata.json": METADATA, "config.json": config(weights)}
    members[WEIGHTS] = content.getvalue()
    members |= {f"assets/{name}": held for name, held in (assets or {}).items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, held in members.items():
            archive.writestr(zipfile.ZipInfo(name), held)


def save_folder(path: Path, weights: Weights, assets: Mapping[str, bytes] | None = None) -> None:
    """Make the unzipped form of one."""
    (path / "assets").mkdir(parents=True)
    (path / "metadata.json").write_bytes(METADATA)
    (path / "config.json").write_bytes(config(weights))
    write_hdf5(path / WEIGHTS, weights)
    for name, held in (assets or {}).items():
        (path / "assets" / name).write_bytes(held)


def save_shards(path: Path, weights: Weights, count: int = 2) -> None:
    """Make a ``.weights.json`` of a map and shards, each of about as many groups."""
    stem = path.name.removesuffix(".weights.json")
    groups = list(weights)
    share = -(-len(groups) // count)
    named: dict[str, str | list[str]] = {}
    for number in range(count):
        name = f"{stem}_{number:05d}.weights.h5"
        chosen = {group: weights[group] for group in groups[number * share :][:share]}
        write_hdf5(path.with_name(name), chosen)
        for group, variables in chosen.items():
            if variables:
                key = f"/{group}/vars" if group else "/vars"
                named[key] = name if len(variables) == 1 else [name]
    total = sum(values.nbytes for variables in weights.values() for values in variables.values())
    text = {"metadata": {"total_size": float(total)}, "weight_map": named}
    path.write_text(json.dumps(text, indent=4))


def save_legacy(path: Path, weights: Weights) -> None:
    """Make a whole-model ``.h5`` of the layers, with the configuration in an attribute."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "3.15.1"
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = config(weights).decode()
        root = file.create_group("model_weights")
        layers = {
            path.rpartition("/")[2]: variables
            for path, variables in weights.items()
            if path.startswith("layers/dense")
        }
        root.attrs["layer_names"] = list(layers)
        for name, variables in layers.items():
            group = root.create_group(name)
            names = [f"model/{name}/{weight}" for weight in ("kernel", "bias")]
            group.attrs["weight_names"] = names[: len(variables)]
            for weight, values in zip(names, variables.values(), strict=False):
                group.create_dataset(weight, data=values)


def arrays_in(file: Any) -> dict[str, Array]:
    """Return the values of all datasets by path; ``file`` is what h5py takes."""
    found: dict[str, Array] = {}

    def note(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            brain = node.attrs.get("dtype") == "bfloat16"
            values = node[()]
            found[name] = values.view(ml_dtypes.bfloat16) if brain else values

    with h5py.File(file, "r") as opened:
        opened.visititems(note)
    return found


def content_of(path: Path) -> io.BytesIO | str:
    """Return what h5py opens of a file, an archive, or a folder; the archive is whole."""
    if path.is_dir():
        return str(path / WEIGHTS)
    if not zipfile.is_zipfile(path):
        return str(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return io.BytesIO(archive.read(WEIGHTS))
