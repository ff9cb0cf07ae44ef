"""Keras writes, we read: every bit that h5py sees, whoever wrote it and in whatever file."""

from __future__ import annotations

import shutil
import zipfile

import h5py
import numpy as np
import pytest

import ckptkit
from tests.compat import keras_files as files
from tests.compat import keras_zoo as zoo

pytestmark = pytest.mark.tensorflow

KINDS = [(m, s) for m in zoo.MODELS for s in files.SAVERS if files.can_save(s, m)]

UNNAMED = {("adafactor", "legacy")}
"""Keras gives variables of this one the same name, and fails to write it."""


def check(file, expected=None):
    """Compare all that is read with what h5py sees; and nothing is wrong with the file."""
    expected = files.h5py_reads(file) if expected is None else expected
    assert expected
    with ckptkit.open(file) as found:
        assert sorted(found) == sorted(expected)
        for name, values in expected.items():
            native = values.astype(values.dtype.newbyteorder("="))
            assert found[name].shape == native.shape, name
            assert found[name].dtype == native.dtype.name, name
            read = found[name].read()
            assert (read.dtype, read.shape) == (native.dtype, native.shape), name
            assert read.tobytes() == native.tobytes(), name
        assert found.verify().ok


@pytest.mark.parametrize(("model", "saver"), KINDS)
def test_every_model_by_every_writer(tmp_path, model, saver):
    check(files.SAVERS[saver](zoo.build(model), tmp_path))


STATES = [(o, s) for o in zoo.OPTIMIZERS for s in ("zip", "legacy") if (o, s) not in UNNAMED]


@pytest.mark.parametrize(("optimizer", "saver"), STATES)
def test_every_optimizer(tmp_path, optimizer, saver):
    model = zoo.trained(optimizer)
    file = files.SAVERS[saver](model, tmp_path)
    check(file)
    with ckptkit.open(file) as found:
        state = [name for name in found if name.startswith("optimizer")]
    assert len(state) >= len(model.optimizer.variables)


@pytest.mark.parametrize("optimizer", ["loss_scale", "ema", "schedule"])
def test_optimizers_in_shards(tmp_path, optimizer):
    file = files.save_sharded(zoo.trained(optimizer), tmp_path)
    assert len(files.shards(file)) > 3
    check(file)


@pytest.mark.parametrize("saver", files.TF_KERAS_SAVERS)
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "legacy_adam"])
def test_files_of_tf_keras(tf, tmp_path, optimizer, saver):
    check(files.TF_KERAS_SAVERS[saver](files.tf_keras_built(optimizer), tmp_path))


@pytest.mark.parametrize(
    "change", [files.remove_names, files.as_before_keras_3, files.as_from_windows, files.repack]
)
def test_files_of_older_and_other_writers(tmp_path, change):
    file = files.save_weights(zoo.trained("adam"), tmp_path)
    before = files.h5py_reads(file)
    change(file)
    assert len(files.h5py_reads(file)) == len(before)
    check(file)


@pytest.mark.parametrize(
    ("model", "saver"),
    [
        (model, saver)
        for model, saver in KINDS
        if model not in {"own_keys", "vocabulary"} and saver in {"weights", "legacy_weights"}
    ],
)
def test_labels_are_what_keras_calls_the_variables(tmp_path, model, saver):
    built = zoo.build(model)
    known = {variable.path: variable.numpy() for variable in built.weights}
    with ckptkit.open(files.SAVERS[saver](built, tmp_path)) as found:
        labels = found.catalog.labels
        assert len(labels) == len(set(labels)) == len(known)
        for name, label in zip(found, labels, strict=True):
            *_, layer, weight = label.split("/")
            value = found[name].read()
            alike = [path for path in known if known[path].tobytes() == value.tobytes()]
            # What layers that are no part of Keras call their weights is in no such file.
            assert weight.isdecimal() or any(
                path.split("/")[-2:] == [layer, weight] for path in alike
            ), (name, label, alike)


def test_files_of_keras_1(tmp_path):
    check(files.write_keras_1(tmp_path / "m.h5", files.OLD_LAYERS))


def test_files_from_before_keras_1(tmp_path):
    layers = [list(weights.values()) for weights in files.OLD_LAYERS.values()]
    check(files.write_before_keras_1(tmp_path / "m.h5", layers))


def test_files_of_the_newest_hdf5(tmp_path):
    old = files.save_weights(zoo.build("sequential"), tmp_path)
    with h5py.File(old) as source, h5py.File(tmp_path / "new.h5", "w", libver="latest") as root:
        for name in source:
            source.copy(name, root)
    check(tmp_path / "new.h5")


def test_a_user_block(tmp_path):
    old = files.save_weights(zoo.build("sequential"), tmp_path)
    new = tmp_path / "new.weights.h5"
    with h5py.File(old) as source, h5py.File(new, "w", userblock_size=1024) as root:
        for name in source:
            source.copy(name, root)
    check(new)


@pytest.mark.parametrize("saver", ["weights", "zip", "legacy", "legacy_weights"])
def test_content_decides_and_not_the_extension(tmp_path, saver):
    file = files.SAVERS[saver](zoo.build("sequential"), tmp_path)
    shutil.move(file, tmp_path / "file.bin")
    check(tmp_path / "file.bin")


def test_archives_that_somebody_compressed(tmp_path):
    file = files.save_zip(zoo.build("sequential"), tmp_path)
    again = tmp_path / "again.keras"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(again, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    check(again)


def test_archives_with_large_headers(tmp_path):
    file = files.save_zip(zoo.build("sequential"), tmp_path)
    again = tmp_path / "again.keras"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(again, "w") as new:
        for name in old.namelist():
            with new.open(name, "w", force_zip64=True) as member:
                member.write(old.read(name))
    check(again)


def test_a_real_archive_with_nested_containers(corpus):
    file = corpus / "keras" / "pre_pr22362_nested_container.keras"
    if not file.exists():
        pytest.skip("that file is not in this corpus")
    check(file)


@pytest.mark.parametrize("saver", ["weights", "zip", "legacy", "sharded"])
def test_regions_are_read_where_they_are(tmp_path, saver):
    file = files.SAVERS[saver](zoo.build("convolutions"), tmp_path)
    for name, values in files.h5py_reads(file).items():
        if values.ndim < 2:
            continue
        with ckptkit.open(file) as found:
            assert np.array_equal(found[name][0], values[0])
            assert np.array_equal(found[name][..., 1:], values[..., 1:])
            assert np.array_equal(found[name][::2, -1], values[::2, -1])
            blocks = [block for _, block in found[name].blocks(16)]
            assert b"".join(block.tobytes() for block in blocks) == values.tobytes()
