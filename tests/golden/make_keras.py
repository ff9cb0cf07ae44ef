"""Make the golden files of Keras anew: ``python -m tests.golden.make_keras``, with both Kerases."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.golden.make import FILES

if TYPE_CHECKING:
    from collections.abc import Callable

LISTING = FILES / "keras_listing.jsonl"
"""File, name, dtype, shape and CRC-32 of every tensor, as h5py has them."""


def describe(file: str, tensors: dict[str, Any]) -> list[list[Any]]:
    """Return what tells tensors from others: names, specs, and sums of their bytes."""
    return [
        [file, name, values.dtype.name, list(values.shape), zlib.crc32(native.tobytes())]
        for name, values in sorted(tensors.items())
        for native in [values.astype(values.dtype.newbyteorder("="))]
    ]


def main() -> None:
    """Write every file, and the list of what is in them."""
    from tests.compat import keras_files as files
    from tests.compat import keras_zoo as zoo

    made: dict[str, tuple[Any, Callable[[Any, Path], Path]]] = {
        "keras_nested.weights.h5": (zoo.trained("adam", "nested"), files.save_weights),
        "keras_subclassed.weights.h5": (zoo.build("subclassed"), files.save_weights),
        "keras_dtypes.weights.h5": (zoo.build("odd_dtypes"), files.save_weights),
        "keras_complex.weights.h5": (zoo.build("complex"), files.save_weights),
        "keras_int4.weights.h5": (zoo.build("int4"), files.save_weights),
        "keras_loss_scale.weights.h5": (zoo.trained("loss_scale"), files.save_weights),
        "keras_shards.weights.json": (zoo.trained("ema"), _save_in_few_shards),
        "keras_sequential.keras": (zoo.trained("adam"), files.save_zip),
        "keras_vocabulary.keras": (zoo.build("vocabulary"), files.save_zip),
        "keras_legacy.h5": (zoo.trained("adam"), files.save_legacy),
        "keras_legacy_weights.h5": (zoo.build("nested"), files.save_legacy_weights),
        "keras_tf_keras.weights.h5": (files.tf_keras_model(), files.save_weights),
        "keras_tf_keras.keras": (files.tf_keras_model(), files.save_zip),
        "keras_tf_keras.h5": (files.tf_keras_model(), files.save_legacy),
        "keras_tf_keras_old_adam.h5": (files.tf_keras_model("legacy_adam"), files.save_legacy),
        "keras_old_names.weights.h5": (zoo.build("sequential"), _saved(files.as_before_keras_3)),
        "keras_windows.weights.h5": (zoo.build("sequential"), _saved(files.as_from_windows)),
        "keras_repacked.weights.h5": (zoo.build("sequential"), _saved(files.repack)),
    }
    for old in FILES.glob("keras_*"):
        old.unlink()
    listing = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (model, save) in made.items():
            file = _save_as(model, save, Path(folder), name)
            listing += describe(name, files.h5py_reads(file))
    files.write_keras_1(FILES / "keras_1.h5", files.OLD_LAYERS)
    layers = [list(weights.values()) for weights in files.OLD_LAYERS.values()]
    files.write_before_keras_1(FILES / "keras_0.h5", layers)
    for name in ("keras_1.h5", "keras_0.h5"):
        listing += describe(name, files.h5py_reads(FILES / name))
    LISTING.write_text("".join(json.dumps(line) + "\n" for line in listing))


def _save_in_few_shards(model: Any, folder: Path) -> Path:
    from tests.compat import keras_files as files

    return files.save_sharded(model, folder, largest=300)


def _saved(change: Callable[[Path], None]) -> Callable[[Any, Path], Path]:
    def save(model: Any, folder: Path) -> Path:
        from tests.compat import keras_files as files

        file = files.save_weights(model, folder)
        change(file)
        return file

    return save


def _save_as(model: Any, save: Callable[[Any, Path], Path], folder: Path, name: str) -> Path:
    """Save a model, and move its files to the golden ones under a name."""
    file = save(model, folder)
    stem = name.split(".", maxsplit=1)[0]
    for one in sorted(folder.iterdir()):
        if one != file:
            shutil.move(one, FILES / one.name.replace("m", stem, 1))
    text = file.read_bytes()
    if file.suffix == ".json":
        text = text.replace(b'"m_', f'"{stem}_'.encode())
    (FILES / name).write_bytes(text)
    os.unlink(file)
    return FILES / name


if __name__ == "__main__":
    main()
