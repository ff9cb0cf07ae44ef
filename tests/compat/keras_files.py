"""Files of Keras models by every writer, and by hand as older writers made them."""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from functools import cache
from typing import TYPE_CHECKING, Any

import h5py
import ml_dtypes
import numpy as np
import pytest

from tests.compat.keras_zoo import SUBCLASSED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Saver = Callable[[Any, Path], Path]

OLD = "_layer_checkpoint_dependencies"
"""The group that TensorFlow 2.13 wrote in the place of ``layers``."""


def save_weights(model: Any, folder: Path) -> Path:
    model.save_weights(folder / "m.weights.h5")
    return folder / "m.weights.h5"


def save_sharded(model: Any, folder: Path, largest: int = 0) -> Path:
    """Save in shards, by default as many as there can be: of the size of the largest variable."""
    optimizer = getattr(model, "optimizer", None)
    known = [*model.weights, *(optimizer.variables if optimizer else ())]
    # Tables of a lookup are no variables, and count all the same.
    largest = max(largest, 64, *(one.numpy().nbytes for one in known))
    model.save_weights(folder / "m.weights.json", max_shard_size=(largest + 0.5) / 1024**3)
    return folder / "m.weights.json"


def save_zip(model: Any, folder: Path) -> Path:
    model.save(folder / "m.keras")
    return folder / "m.keras"


def save_folder(model: Any, folder: Path) -> Path:
    model.save(folder / "m", zipped=False)
    return folder / "m"


def save_legacy(model: Any, folder: Path) -> Path:
    compiled = getattr(getattr(model, "_compile_config", None), "config", {})
    kept = dict(compiled)
    with warnings.catch_warnings(action="ignore"):  # it would rather write another format
        model.save(folder / "m.h5")
    compiled.update(kept)  # Keras takes the optimizer from a model that it writes so
    return folder / "m.h5"


def save_legacy_weights(model: Any, folder: Path) -> Path:
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(folder / "m.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return folder / "m.h5"


SAVERS: dict[str, Saver] = {
    "weights": save_weights,
    "sharded": save_sharded,
    "zip": save_zip,
    "folder": save_folder,
    "legacy": save_legacy,
    "legacy_weights": save_legacy_weights,
}
"""What Keras 3 writes, by name."""


def can_save(saver: str, model: str) -> bool:
    """Tell whether a writer can write a model of the zoo, and not lose what its dtypes are."""
    if saver.startswith("legacy") and model in {"bfloat16", "odd_dtypes"}:
        return False
    if saver == "legacy" and model in SUBCLASSED:
        return False
    return saver != "sharded" or model != "complex"


def as_path(file: Path) -> Path:
    """Return where the HDF5 content is, or is listed, for a file or folder that was saved."""
    return file / "model.weights.h5" if file.is_dir() else file


def content(file: Path) -> io.BytesIO | str:
    """Return what h5py opens: the content of a file, a folder, or a member of an archive."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return io.BytesIO(archive.read("model.weights.h5"))
    return str(as_path(file))


def shards(file: Path) -> list[Path]:
    """Return the HDF5 files that a list of shards names."""
    listed = json.loads(file.read_bytes())["weight_map"].values()
    names = {name for one in listed for name in ([one] if isinstance(one, str) else one)}
    return [file.with_name(name) for name in sorted(names)]


def _values(dataset: h5py.Dataset) -> Array:
    if dataset.attrs.get("dtype") == "bfloat16":
        # h5py gives opaque bytes, and gives no view of those without elements.
        raw = np.frombuffer(np.asarray(dataset[()]).tobytes(), ml_dtypes.bfloat16)
        return raw.reshape(dataset.shape)
    return np.asarray(dataset[()])


def _walk(group: h5py.Group, path: str = "") -> Iterator[tuple[str, Array]]:
    for name, one in group.items():
        if isinstance(one, h5py.Group):
            yield from _walk(one, f"{path}{name}/")
        else:
            yield f"{path}{name}", _values(one)


def h5py_reads(file: Path) -> dict[str, Array]:
    """Return all datasets of a saved model by path, as h5py sees them."""
    opened = shards(file) if file.suffix == ".json" else [content(file)]
    found: dict[str, Array] = {}
    for one in opened:
        with h5py.File(one, "r") as root:
            found |= dict(_walk(root))
    return found


def attributes(file: Path) -> dict[str, dict[str, object]]:
    """Return the attributes of every group and dataset of a saved model that has any."""
    found: dict[str, dict[str, object]] = {}

    def note(name: str, node: Any) -> None:
        listed = {key: np.asarray(value).tolist() for key, value in node.attrs.items()}
        if listed or isinstance(node, h5py.Group):
            found[name] = listed

    with h5py.File(content(file), "r") as root:
        note("", root)
        root.visititems(note)
    return found


def remove_names(file: Path) -> None:
    """Take the names of layers from a file, as Keras before 3.6 wrote none."""
    with h5py.File(file, "r+") as root:
        root.visititems(lambda _, node: node.attrs.pop("name", None) and None)


def as_before_keras_3(file: Path) -> None:
    """Rename the groups of a file to what TensorFlow 2.13 made of a model without nesting."""
    remove_names(file)
    with h5py.File(file, "r+") as root:
        root.move("layers", OLD)


def as_from_windows(file: Path) -> None:
    """Rename the groups of a file as TensorFlow 2.13 did there: separators are in names."""
    as_before_keras_3(file)
    with h5py.File(file, "r+") as root:
        for name in list(root[OLD]):
            root.move(f"{OLD}/{name}", f"{OLD}\\{name}")
        del root[OLD]


def repack(file: Path) -> None:
    """Write all datasets of a file anew, each in another way that other programs may store it."""
    with h5py.File(file, "r+") as root:
        listed: list[tuple[str, Array]] = [(n, v) for n, v in _walk(root) if v.dtype == "float32"]
        for number, (name, values) in enumerate(listed):
            del root[name]
            if number % 4 == 0 and values.ndim:
                chunks = tuple(max(1, size // 2) for size in values.shape)
                packed = {"compression": "gzip", "shuffle": True, "fletcher32": True}
                root.create_dataset(name, data=values, chunks=chunks, **packed)
            elif number % 4 == 1:
                root.create_dataset(name, data=values.astype(">f8"))
            elif number % 4 == 2 and values.ndim:
                full = (None,) * values.ndim
                root.create_dataset(name, data=values, chunks=values.shape, maxshape=full)
            else:
                _create_compact(root, name, values)


def _create_compact(root: h5py.File, name: str, values: Array) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    kind = h5py.h5t.py_create(values.dtype, logical=True)
    made = h5py.h5d.create(
        root.id, name.encode(), kind, h5py.h5s.create_simple(values.shape), plist
    )
    h5py.Dataset(made)[...] = values


def write_keras_1(file: Path, layers: Mapping[str, Mapping[str, Array]]) -> Path:
    """Write a file of weights as Keras 1 did: lists of names of a fixed length, no version."""
    with h5py.File(file, "w") as root:
        root.attrs["layer_names"] = np.array([name.encode() for name in layers])
        for layer, weights in layers.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = np.array([name.encode() for name in weights])
            for name, values in weights.items():
                group.create_dataset(name, data=values)
    return file


def write_before_keras_1(file: Path, layers: list[list[Array]]) -> Path:
    """Write a file of weights as Keras did before 1.0: numbers in the place of names."""
    with h5py.File(file, "w") as root:
        root.attrs["nb_layers"] = len(layers)
        for number, weights in enumerate(layers):
            group = root.create_group(f"layer_{number}")
            group.attrs["nb_params"] = len(weights)
            for k, values in enumerate(weights):
                group.create_dataset(f"param_{k}", data=values)
    return file


OLD_LAYERS = {
    "dense_1": {
        "dense_1_W": np.arange(12, dtype=np.float32).reshape(3, 4),
        "dense_1_b": np.arange(4, dtype=np.float32),
    },
    "activation_1": {},
    "dense_2": {"dense_2_W": np.ones((4, 2), np.float32), "dense_2_b": np.zeros(2, np.float32)},
}
"""Layers of a model as Keras 1 named them."""


def import_tf_keras() -> Any:
    """Return tf_keras, or skip the test."""
    return pytest.importorskip("tf_keras", reason="tf_keras is not installed")


def tf_keras_model(optimizer: str = "adam") -> Any:
    """Build a compiled model with tf_keras that has gone one step."""
    keras = import_tf_keras()
    keras.backend.clear_session()
    keras.utils.set_random_seed(5)
    layers, given = keras.layers, keras.Input((3, 2))
    stem = keras.Sequential([layers.BatchNormalization()], name="stem")
    x = layers.Bidirectional(layers.LSTM(2), name="both")(stem(given))
    model = keras.Model(given, layers.Dense(2, name="head")(x))
    made = {
        "adam": lambda: keras.optimizers.Adam(0.01),
        "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        "legacy_adam": lambda: keras.optimizers.legacy.Adam(0.01),
    }[optimizer]()
    model.compile(made, "mse", run_eagerly=True)
    rng = np.random.default_rng(6)
    for variable in model.weights:
        variable.assign(rng.uniform(0.25, 1.5, variable.shape))
    variables = model.trainable_variables
    found = [rng.uniform(-1, 1, v.shape).astype("float32") for v in variables]
    made.apply_gradients(zip(map(keras.backend.constant, found), variables, strict=True))
    return model


@cache
def tf_keras_built(optimizer: str) -> Any:
    """Return a model of tf_keras; it is shared, and not to be changed."""
    return tf_keras_model(optimizer)


def _tf_keras_weights_only(model: Any, folder: Path) -> Path:
    model.save_weights(folder / "m.h5")
    return folder / "m.h5"


TF_KERAS_SAVERS: dict[str, Saver] = {
    "weights": save_weights,
    "zip": save_zip,
    "legacy": save_legacy,
    "legacy_weights": _tf_keras_weights_only,
}
"""What tf_keras writes, by name."""


def members(file: Path) -> dict[str, bytes]:
    """Return the files of a saved model by name, in their order."""
    if file.is_dir():
        listed = sorted(path for path in file.rglob("*") if path.is_file())
        return {str(path.relative_to(file)): path.read_bytes() for path in listed}
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    if file.suffix == ".json":
        return {path.name: path.read_bytes() for path in (file, *shards(file))}
    return {os.path.basename(file): file.read_bytes()}
