"""We edit, Keras reads: the weights, predictions and state that it has after the same edit."""

from __future__ import annotations

import shutil
import zipfile

import h5py
import numpy as np
import pytest

import ckptkit
from tests.compat import keras_files as files
from tests.compat import keras_zoo as zoo
from tests.compat.keras_results import (
    WHOLE,
    arrays,
    check_same,
    edited,
    equal,
    load,
    run,
    statements,
)
from tests.golden.handmade import numpy_dtype

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("unsynced")]

KINDS = ("weights", "sharded", "zip", "folder", "legacy")
HOWS = ("copy", "patch")
MIXED = tuple(zip(KINDS, (*HOWS, *HOWS, "copy"), strict=True))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", KINDS)
def test_values(tmp_path, kind, how):
    file = files.SAVERS[kind](zoo.trained("adam"), tmp_path)
    found = load(kind, run(file, tmp_path, how, *statements(file)))
    check_same(found, edited(zoo.fresh_trained("adam")), kind)


@pytest.mark.parametrize(("kind", "how"), MIXED)
def test_values_by_the_names_of_layers(tmp_path, kind, how):
    file = files.SAVERS[kind](zoo.trained("adam"), tmp_path)
    edits = (
        "layer:first/kernel *= 0.5",
        "layer:head/kernel[:, 1] *= 1.5",
        "layer:head/bias[1] *= 1.5",
        "layer:batch_normalization/moving_mean += 0.3",
    )
    found = load(kind, run(file, tmp_path, how, *edits))
    check_same(found, edited(zoo.fresh_trained("adam")), kind)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", KINDS)
def test_all_else_keeps_its_bytes(tmp_path, kind, how):
    file = files.SAVERS[kind](zoo.trained("adam"), tmp_path)
    before, others = files.h5py_reads(file), files.members(file)
    noted = None if kind == "sharded" else files.attributes(file)
    edits = statements(file)
    after = run(file, tmp_path, how, *edits)
    found = files.h5py_reads(after)
    changed = {edit.split()[0].partition("[")[0] for edit in edits}
    assert list(found) == list(before)
    same = {name for name in before if found[name].tobytes() == before[name].tobytes()}
    assert same == set(before) - changed
    now = files.members(after)
    assert list(now) == list(others)
    for name in now:
        if not name.endswith(".h5"):
            assert now[name] == others[name], name
        assert len(now[name]) == len(others[name]), name
    if noted is not None:
        assert files.attributes(after) == noted
    with ckptkit.open(after) as result:
        assert result.verify().ok


SAME = [*((kind, None) for kind in KINDS), ("sharded", "own_keys"), ("zip", "vocabulary")]


@pytest.mark.parametrize(("kind", "model"), SAME)
def test_a_copy_without_edits_is_the_same_bytes(tmp_path, kind, model):
    file = files.SAVERS[kind](zoo.build(model) if model else zoo.trained("adam"), tmp_path)
    before = files.members(file)
    whole = file.read_bytes() if file.is_file() else b""
    after = run(file, tmp_path, "copy")
    assert files.members(after) == before
    assert not whole or after.read_bytes() == whole


def test_members_stay_three_and_stored(tmp_path):
    file = files.save_zip(zoo.trained("adam"), tmp_path)
    after = run(file, tmp_path, "copy", "layers/dense/vars/0 *= 0.5", "drop optimizer/**")
    with zipfile.ZipFile(after) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize("how", HOWS)
def test_assets_stay(tmp_path, how):
    file = files.save_zip(zoo.build("vocabulary"), tmp_path)
    before = files.members(file)
    assert sum(name.startswith("assets/") for name in before) >= 2
    after = run(file, tmp_path, how, "layers/dense/vars/0 *= 0.5")
    now = files.members(after)
    assert list(now) == list(before)
    assert all(now[name] == before[name] for name in now if name != "model.weights.h5")
    keras = zoo.import_keras()
    found, expected = keras.models.load_model(after), zoo.fresh("vocabulary")
    expected.set_weights(zoo.build("vocabulary").get_weights())
    kernel = expected.get_layer("head").kernel
    kernel.assign(kernel.numpy() * np.float32(0.5))
    assert equal(zoo.predict(found, "vocabulary"), zoo.predict(expected, "vocabulary"))


@pytest.mark.parametrize("edit", ["layers/dense/vars/0 *= 0.5", "drop **/idf_weights"])
def test_archives_that_somebody_compressed(tmp_path, edit):
    file = files.save_zip(zoo.build("vocabulary"), tmp_path)
    packed = tmp_path / "packed.keras"
    before = files.members(file)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in before.items():
            archive.writestr(name, content)
    whole, again = run(file, tmp_path, "copy", edit), tmp_path / "again.keras"
    with ckptkit.open(packed) as found:
        found.edit(edit).plan(again).run(device="numpy")
    assert list(files.members(again)) == list(before)
    assert files.h5py_reads(again).keys() == files.h5py_reads(whole).keys()
    for name, content in files.members(whole).items():
        if name != "model.weights.h5":
            assert files.members(again)[name] == content


FLOATS = {*zoo.FLOATS, "complex64", "complex128"}


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        *((m, "weights") for m in zoo.MODELS),
        *((m, "zip") for m in ("nested", "subclassed", "int8")),
    ],
)
def test_every_model(tmp_path, model, kind):
    file = files.SAVERS[kind](zoo.build(model), tmp_path)
    before = files.h5py_reads(file)
    # Those weights of words are twice in the file, which other tests are about.
    floats = [n for n, v in before.items() if v.dtype.name in FLOATS and "idf_weights" not in n]
    after = run(file, tmp_path, "copy", *(f"{name} *= 0.5" for name in floats))
    expected = {n: v * v.dtype.type(0.5) if n in floats else v for n, v in before.items()}
    found = load(kind, after, None, model)
    (tmp_path / "again").mkdir()
    again = files.h5py_reads(files.SAVERS[kind](found, tmp_path / "again"))
    assert list(again) == list(expected)
    assert equal(list(again.values()), list(expected.values()))


@pytest.mark.parametrize("optimizer", zoo.OPTIMIZERS)
def test_every_optimizer_goes_on(tmp_path, optimizer):
    file = files.save_zip(zoo.trained(optimizer), tmp_path)
    found = load("zip", run(file, tmp_path, "patch", *statements(file)))
    check_same(found, edited(zoo.fresh_trained(optimizer)))


def load_without_state(kind, file):
    if kind == "legacy":
        return load(kind, file)
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        return load(kind, file)


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("optimizer", ["adam", "loss_scale"])
def test_dropping_the_optimizer(tmp_path, optimizer, kind):
    file = files.SAVERS[kind](zoo.trained(optimizer), tmp_path)
    pattern = "optimizer_weights/**" if kind == "legacy" else "optimizer/**"
    after = run(file, tmp_path, "copy", f"drop {pattern}")
    assert not any("optimizer" in name for name in files.h5py_reads(after))
    found = load_without_state(kind, after)
    assert equal(arrays(found.weights), arrays(zoo.trained(optimizer).weights))


@pytest.mark.parametrize(
    ("kind", "how"), [("weights", "auto"), ("zip", "auto"), ("zip", "copy"), ("sharded", "copy")]
)
def test_renaming_layers_exchanges_their_weights(tmp_path, kind, how):
    model = zoo.fresh("eleven")
    file = files.SAVERS[kind](model, tmp_path)
    edits = (
        "rename ^layers/dense/ -> layers/other/",
        "rename ^layers/dense_10/ -> layers/dense/",
        "rename ^layers/other/ -> layers/dense_10/",
    )
    found = load(kind, run(file, tmp_path, how, *edits), None, "eleven")
    one, other = model.layers[0], model.layers[10]
    weights = one.get_weights()
    one.set_weights(other.get_weights())
    other.set_weights(weights)
    assert equal(arrays(found.weights), arrays(model.weights))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("weights", "float16"), ("weights", "float64"), ("zip", "bfloat16"), ("sharded", "bfloat16")],
)
def test_casting(tmp_path, kind, dtype):
    file = files.SAVERS[kind](zoo.build("sequential"), tmp_path)
    after = run(file, tmp_path, "copy", f"cast layers/** -> {dtype}")
    assert {values.dtype.name for values in files.h5py_reads(after).values()} == {dtype}
    found = load(kind, after, None)
    expected = [
        values.astype(numpy_dtype(dtype)).astype(np.float32)
        for values in arrays(zoo.build("sequential").weights)
    ]
    assert equal(arrays(found.weights), expected)


def test_int4_is_carried_and_its_scales_are_edited(tmp_path):
    file = files.save_zip(zoo.build("int4"), tmp_path)
    before = files.h5py_reads(file)
    packed = {name for name, values in before.items() if values.dtype == np.int8}
    scale = "layers/dense/vars/2"
    after = run(file, tmp_path, "copy", f"{scale} *= 2")
    found = files.h5py_reads(after)
    assert all(found[name].tobytes() == before[name].tobytes() for name in packed)
    head = load("zip", after).get_layer("head")
    assert np.array_equal(head.kernel_scale.numpy(), before[scale] * 2)
    assert np.array_equal(head._kernel.numpy(), before["layers/dense/vars/0"])


@pytest.mark.parametrize(
    ("kind", "name", "after"),
    [
        ("sharded", "n.weights.json", "sharded"),
        ("folder", "n.keras", "zip"),
        ("zip", "n.weights.h5", "weights"),
    ],
)
def test_other_kinds_of_files_under_other_names(tmp_path, kind, name, after):
    file = files.SAVERS[kind](zoo.trained("ema"), tmp_path)
    with ckptkit.open(file) as found:
        found.edit(*statements(file)).plan(tmp_path / name).run(device="numpy")
    check_same(load(after, tmp_path / name, "ema"), edited(zoo.fresh_trained("ema")))


@pytest.mark.parametrize("how", HOWS)
def test_what_h5py_edits_alike(tmp_path, how):
    file = files.save_weights(zoo.build("recurrent"), tmp_path)
    theirs = tmp_path / "theirs.weights.h5"
    shutil.copy(file, theirs)
    names = [name for name, values in files.h5py_reads(file).items() if values.ndim == 2]
    with h5py.File(theirs, "r+") as root:
        for name in names:
            root[name][:, ::2] = root[name][:, ::2] * np.float32(0.75)
    after = run(file, tmp_path, how, *(f"{name}[:, ::2] *= 0.75" for name in names))
    found, expected = files.h5py_reads(after), files.h5py_reads(theirs)
    assert equal(list(found.values()), list(expected.values()))
    ours, other = (load("weights", one, None, "recurrent") for one in (after, theirs))
    check_same(ours, other, name="recurrent")


def _load_tf_keras(kind, file):
    if kind in {"zip", "legacy"}:
        return files.import_tf_keras().models.load_model(file)
    model = files.tf_keras_model()
    for variable in model.weights:
        variable.assign(variable * 0 + 7)
    model.load_weights(file)
    return model


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("weights", "copy"),
        ("zip", "patch"),
        ("legacy", "copy"),
        ("legacy", "patch"),
        ("legacy_weights", "patch"),
    ],
)
def test_files_of_tf_keras(tf, tmp_path, kind, how):
    model = files.tf_keras_model()
    file = files.TF_KERAS_SAVERS[kind](model, tmp_path)
    with ckptkit.open(file) as found:
        shaped = {
            name for name in found if found[name].shape == model.get_layer("head").kernel.shape
        }
        (name,) = (
            n for n in shaped if n.startswith(("model_weights/head", "head", "layers/dense/"))
        )
    head = model.get_layer("head").kernel
    kernel = head.numpy()
    kernel[:, 1] *= np.float32(1.5)
    head.assign(kernel)
    found = _load_tf_keras(kind, run(file, tmp_path, how, f'"{name}"[:, 1] *= 1.5'))
    assert equal([v.numpy() for v in found.weights], [v.numpy() for v in model.weights])
    given = np.random.default_rng(3).uniform(size=(2, 3, 2)).astype("float32")
    assert np.array_equal(found(given).numpy(), model(given).numpy())
    if kind in {"zip", "legacy"}:
        state = [v.numpy() for v in model.optimizer.variables]
        assert equal([v.numpy() for v in found.optimizer.variables], state)


@pytest.mark.parametrize("change", [files.as_before_keras_3, files.remove_names, files.repack])
def test_files_of_older_and_other_writers(tmp_path, change):
    file = files.save_weights(zoo.build("sequential"), tmp_path)
    change(file)
    before = files.h5py_reads(file)
    after = run(file, tmp_path, "copy", "**/dense/vars/0 *= 0.5")
    found = load("weights", after, None)
    expected = zoo.fresh("sequential")
    expected.get_layer("first").kernel.assign(before_half(before))
    check_same(found, expected)


def before_half(before):
    (values,) = (v for name, v in before.items() if name.endswith("/dense/vars/0"))
    return values.astype(np.float32) * np.float32(0.5)


@pytest.mark.parametrize("how", HOWS)
def test_a_real_archive_with_nested_containers(corpus, tmp_path, how):
    real = corpus / "keras" / "pre_pr22362_nested_container.keras"
    if not real.exists():
        pytest.skip("that file is not in this corpus")
    file = tmp_path / real.name
    shutil.copyfile(real, file)
    before, others = files.h5py_reads(file), files.members(file)
    name = next(name for name, values in before.items() if values.ndim == 2)
    after = run(file, tmp_path, how, f"{name} *= 0.5")
    found, now = files.h5py_reads(after), files.members(after)
    assert list(now) == list(others)
    for one, values in before.items():
        expected = values * np.float32(0.5) if one == name else values
        assert np.array_equal(found[one], expected)
    with ckptkit.open(after) as opened:
        assert opened.verify().ok
