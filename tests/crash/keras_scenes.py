"""Edits of Keras files that tests cut short."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import ckptkit
from tests.crash import keras_files as made
from tests.crash.scene import Scene, edit, undone

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from tests.crash.scene import Do

WEIGHTS, ARCHIVE, ZIP, FOLDER = "m.weights.h5", "m.keras", "m.zip", "m"
SHARDS, LEGACY = "m.weights.json", "m.h5"

PIECES = 700, 4500
"""Bytes of a step and of a piece of a journal, where a scene is to have many of both."""

ASSETS = {"words.txt": b"one\ntwo\n"}


# --- what is there before ----------------------------------------------------------------------


def weights(folder: Path) -> None:
    """Make a file of weights."""
    made.save_weights(folder / WEIGHTS, made.dense_model())


def archive(folder: Path) -> None:
    """Make an archive with an asset behind the weights."""
    made.save_archive(folder / ARCHIVE, made.dense_model(), ASSETS)


def zipped(folder: Path) -> None:
    """Make one that only its contents show to be one."""
    made.save_archive(folder / ZIP, made.dense_model())


def unzipped(folder: Path) -> None:
    """Make the same as a folder."""
    made.save_folder(folder / FOLDER, made.dense_model(), ASSETS)


def shards(folder: Path) -> None:
    """Make a map of three shards."""
    made.save_shards(folder / SHARDS, made.dense_model(), 3)


def legacy(folder: Path) -> None:
    """Make a whole model with its configuration in an attribute."""
    made.save_legacy(folder / LEGACY, made.dense_model())


def linked(folder: Path) -> None:
    """Make an archive that has another name as well."""
    archive(folder)
    (folder / "other.keras").hardlink_to(folder / ARCHIVE)


# --- what is done ------------------------------------------------------------------------------

KERNEL, BIAS = "layers/dense/vars/0", "layers/dense/vars/1"
LITTLE = (f"{KERNEL}[:, 1] *= 2", f"{BIAS} = 7", "layers/dense_1/vars/1[3] = 5")
MUCH = (f"{KERNEL} *= 2", f"{BIAS} += 1", "layers/dense_1/vars/0[:, 2:17] *= 0.5")
NAMES = (r"rename ^layers/dense/(.*) -> layers/first/\1",)
LONG = f"layers/{'a long name, ' * 20}"
LONGER = (rf"rename ^layers/dense/(.*) -> {LONG}/\1",)
GONE = ("drop optimizer/**",)
OTHER = ("cast layers/dense_1/** -> float16",)
THREE, FIVE, ONE = (ckptkit.Layout(shards=n) for n in (3, 5, 1))


def _in(
    name: str, make: Any, *statements: str, pieces: Any = None, late: bool = False, **options: Any
) -> Scene:
    """Return an edit of one of the files where it is."""
    do = edit(*statements, name=name, **options)
    return Scene(make, do, pieces=pieces, name=name, late=late)


def _anew(name: str, make: Any, new: str, *statements: str, index: str = "") -> Scene:
    do = edit(*statements, name=name, to=new, how="copy")
    return Scene(make, do, name=name, new=new, index=index)


def _patch(name: str, *statements: str, **options: Any) -> Do:
    return edit(*statements, name=name, how="patch", **options)


def _sound(path: Path) -> None:
    """See that h5py opens what is there, and that members of an archive match their sums."""
    shards = path.parent.glob(f"{path.name.removesuffix('.weights.json')}_*")
    files = sorted(shards) if path.suffix == ".json" else [made.content_of(path)]
    assert any(made.arrays_in(file) for file in files)


_KERAS = {
    "weights, patch": _in(WEIGHTS, weights, *LITTLE, how="patch"),
    "weights, patch in pieces": _in(WEIGHTS, weights, *MUCH, how="patch", pieces=PIECES),
    "weights, patch with undo": _in(WEIGHTS, weights, *LITTLE, how="patch", keep_undo=True),
    "weights, names": _in(WEIGHTS, weights, *NAMES, how="patch"),
    "weights, longer names": _in(WEIGHTS, weights, *LITTLE, *LONGER, how="patch"),
    "weights, longer names in pieces": _in(
        WEIGHTS, weights, *MUCH, *LONGER, how="patch", pieces=PIECES
    ),
    "weights, longer names with undo": _in(WEIGHTS, weights, *LONGER, how="patch", keep_undo=True),
    "weights, dropped": _in(WEIGHTS, weights, *GONE, f"{BIAS} = 7", how="patch"),
    "weights, compact": _in(WEIGHTS, weights, *GONE, *LITTLE, how="copy"),
    "weights, undo of patch": undone(
        weights, _patch(WEIGHTS, *LITTLE, keep_undo=True), name=WEIGHTS
    ),
    "weights, undo of longer names": undone(
        weights, _patch(WEIGHTS, *LITTLE, *LONGER, keep_undo=True), name=WEIGHTS
    ),
    "weights, undo of the second": undone(
        weights,
        _patch(WEIGHTS, *LONGER, keep_undo=True),
        _patch(WEIGHTS, *GONE, "layers/dense_1/vars/1 = 7", keep_undo=True),
        name=WEIGHTS,
    ),
    "archive, patch": _in(ARCHIVE, archive, *LITTLE, how="patch"),
    "archive, patch in pieces, late": _in(
        ARCHIVE, archive, *MUCH, how="patch", pieces=PIECES, late=True
    ),
    "archive, patch in pieces": _in(ARCHIVE, archive, *MUCH, how="patch", pieces=PIECES),
    "archive of another name, patch": _in(ZIP, zipped, *LITTLE, how="patch"),
    "archive, names": _in(ARCHIVE, archive, *NAMES, *LITTLE[2:], how="patch"),
    "archive, names in pieces": _in(
        ARCHIVE, archive, *MUCH, *NAMES, *GONE, how="patch", pieces=PIECES
    ),
    "archive, undo of patch": undone(
        archive, _patch(ARCHIVE, *LITTLE, *NAMES, keep_undo=True), name=ARCHIVE
    ),
    "archive, broken links, patch": _in(ARCHIVE, linked, *LITTLE, how="patch", break_links=True),
    "archive, mirrored": _in(ARCHIVE, archive, *LITTLE, how="copy"),
    "archive, rebuilt": _in(ARCHIVE, archive, *OTHER, how="copy", sync_config=True),
    "archive, new": _anew(ARCHIVE, archive, "new.keras", *LITTLE),
    "archive, new, rebuilt": _anew(ARCHIVE, archive, "new.keras", *OTHER, *GONE),
    "folder, patch": _in(FOLDER, unzipped, *LITTLE, *NAMES, how="patch"),
    "folder, rebuilt": _in(FOLDER, unzipped, *OTHER, how="copy", sync_config=True),
    "folder, new": _anew(FOLDER, unzipped, "new", *OTHER, index="new/model.weights.h5"),
    "shards, patch": _in(SHARDS, shards, *LITTLE, how="patch"),
    "shards, mirrored": _in(SHARDS, shards, *LITTLE, how="copy"),
    "shards, more of them": _in(SHARDS, shards, *OTHER, how="copy", layout=FIVE),
    "shards, fewer of them": _in(SHARDS, shards, *OTHER, how="copy", layout=ONE),
    "shards, new": _anew(SHARDS, shards, "new.weights.json", *LITTLE),
    "legacy, patch": _in(
        LEGACY, legacy, "layer:dense/kernel *= 2", "drop layer:dense_1/bias", how="patch"
    ),
}

KERAS = {name: dataclasses.replace(scene, sound=_sound) for name, scene in _KERAS.items()}
