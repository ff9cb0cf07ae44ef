"""TensorFlow reads what was linked, appended, patched, rewritten, recovered and undone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import ckptkit
from tests.crash.disks import Stopping
from tests.golden.handmade import CODES, as_bytes, random_array

pytestmark = pytest.mark.tensorflow

WAYS = ("link", "append", "patch", "copy")
EDITS = (
    "dense/kernel[:, 1] *= 1.5",
    "dense/bias = 0",
    "**/momentum *= 0.5",
    "half[2:4] += 1",
    "flags[1] = cast(1, bool)",
    "step += 1",
)


@pytest.fixture
def saved(tf, tmp_path):
    """A checkpoint by TensorFlow, and what is in it."""
    rng = np.random.default_rng(3)
    values = {
        "dense/kernel": rng.standard_normal((30, 20)).astype(np.float32),
        "dense/bias": rng.standard_normal(20).astype(np.float32),
        "dense/momentum": rng.standard_normal((30, 20)),
        "half": rng.standard_normal(8).astype(np.float16),
        "flags": np.array([True, False, True]),
        "step": np.int64(41),
        "words": np.array([b"some", b"", b"text"], object),
    }
    prefix = str(tmp_path / "model")
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=[tf.constant(value) for value in values.values()],
    )
    return prefix, values


def expected(values):
    new = {name: value.copy() for name, value in values.items()}
    new["dense/kernel"][:, 1] *= np.float32(1.5)
    new["dense/bias"][:] = 0
    new["dense/momentum"] *= 0.5
    new["half"][2:4] += np.float16(1)
    new["flags"][1] = True
    new["step"] = np.int64(42)
    return new


def contents(folder):
    """Return the bytes of every file below a folder."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def check(tf, prefix, values):
    reader = tf.train.load_checkpoint(prefix)
    assert set(reader.get_variable_to_shape_map()) == set(values)
    for name, value in values.items():
        assert as_bytes(np.asarray(reader.get_tensor(name))) == as_bytes(np.asarray(value)), name
    restored = tf.raw_ops.RestoreV2(
        prefix=prefix,
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        dtypes=[tf.constant(value).dtype for value in values.values()],
    )
    for name, found in zip(values, restored, strict=True):
        assert as_bytes(np.asarray(found)) == as_bytes(np.asarray(values[name])), name


@pytest.mark.parametrize("how", WAYS)
def test_every_way_is_read_with_checksums_on(tf, saved, tmp_path, how):
    prefix, values = saved
    target = str(tmp_path / "new") if how == "link" else None
    with ckptkit.open(prefix) as found:
        found.edit(*EDITS).plan(target, how).run(device="numpy")
    check(tf, target or prefix, expected(values))
    if how == "link":
        check(tf, prefix, values)


@pytest.mark.parametrize("how", ["link", "append", "copy"])
def test_names_dtypes_and_new_tensors_every_way(tf, saved, tmp_path, how):
    prefix, values = saved
    target = str(tmp_path / "new") if how == "link" else None
    edits = ["rename ^dense/ -> d/", "drop words", "cast d/kernel -> bfloat16", "copy step -> at"]
    with ckptkit.open(prefix) as found:
        found.edit(*edits, ckptkit.Put("more", ["x", "yy"])).plan(target, how).run(device="numpy")
    new = {name.replace("dense/", "d/"): value for name, value in values.items()}
    del new["words"]
    new["d/kernel"] = tf.cast(new["d/kernel"], tf.bfloat16).numpy()
    check(
        tf, target or prefix, {**new, "at": values["step"], "more": np.array([b"x", b"yy"], object)}
    )


def test_ways_follow_one_another(tf, saved, tmp_path):
    prefix, values = saved
    with ckptkit.open(prefix) as found:
        found.edit("dense/bias = 0").plan(how="append").run(device="numpy")
    with ckptkit.open(prefix) as found:
        found.edit("dense/kernel[:, 1] *= 1.5", "half[2:4] += 1").plan(how="patch").run(
            device="numpy"
        )
    linked = str(tmp_path / "linked")
    with ckptkit.open(prefix) as found:
        found.edit("**/momentum *= 0.5", "flags[1] = cast(1, bool)").plan(linked, "link").run(
            device="numpy"
        )
    with ckptkit.open(linked) as found:
        found.edit("step += 1").plan(how="patch", break_links=True).run(device="numpy")
    check(tf, linked, expected(values))
    with ckptkit.open(linked) as found:
        found.edit().plan(how="copy").run()
    check(tf, linked, expected(values))
    assert ckptkit.open(linked).dead_bytes == 0


@pytest.mark.parametrize("how", ["append", "patch"])
def test_an_undone_edit_leaves_what_tensorflow_wrote(tf, saved, how):
    prefix, values = saved
    folder = os.path.dirname(prefix)
    before = contents(folder)
    with ckptkit.open(prefix) as found:
        found.edit(*EDITS).plan(how=how, keep_undo=True).run(device="numpy")
    check(tf, prefix, expected(values))
    ckptkit.undo(prefix)
    assert contents(folder) == before
    check(tf, prefix, values)


def test_a_recovered_edit_is_read(tf, saved):
    prefix, values = saved

    class Dead(Stopping):
        def about_to(self, call, path, new="", **details):
            if len(self.calls) >= self._at:
                raise self._error
            super().about_to(call, path, new, **details)

    states = set()
    back = ckptkit.Put("dense/kernel", values["dense/kernel"])
    for at in range(60):
        with ckptkit.open(prefix) as found:
            plan = found.edit("dense/kernel[:, 1] *= 1.5").plan(how="patch")
            try:
                plan.run(device="numpy", disk=Dead(at, OSError(5, "dead")))
            except OSError:
                states.add(ckptkit.recover(prefix).state)
            else:
                break
        kernel = tf.train.load_checkpoint(prefix).get_tensor("dense/kernel")
        if not np.array_equal(kernel, values["dense/kernel"]):
            np.testing.assert_array_equal(kernel, expected(values)["dense/kernel"])
            with ckptkit.open(prefix) as found:
                found.edit(back).plan(how="patch").run(device="numpy")
    assert states == {"nothing", "forward"}
    check(tf, prefix, {**values, "dense/kernel": expected(values)["dense/kernel"]})


def test_every_dtype_is_patched(tf, tmp_path):
    names = [name for name in CODES if name not in {"string", "variant"} and name[0] != "q"]
    values = {name: random_array(name, (5, 6), 7) for name in names}
    prefix = str(tmp_path / "all")
    ckptkit.save(prefix, values)
    puts = [ckptkit.Put(name, random_array(name, (5, 6), 8)) for name in names]
    with ckptkit.open(prefix) as found:
        found.edit(*puts).plan(how="patch").run(device="numpy")
    reader = tf.train.load_checkpoint(prefix)
    for name in names:
        new = random_array(name, (5, 6), 8)
        assert as_bytes(np.asarray(reader.get_tensor(name))) == as_bytes(new), name


# --- saved models ------------------------------------------------------------------------------


@pytest.fixture
def model(tf, tmp_path):
    """A SavedModel that multiplies by a matrix."""

    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(tf.ones([4, 3]))

        @tf.function(input_signature=[tf.TensorSpec([None, 4])])
        def __call__(self, x):
            return x @ self.w

    folder = str(tmp_path / "saved")
    tf.saved_model.save(Module(), folder)
    return folder


@pytest.mark.parametrize("how", WAYS)
def test_a_saved_model_every_way(tf, model, tmp_path, how):
    target = str(tmp_path / "new") if how == "link" else None
    with ckptkit.open(model) as found:
        plan = found.edit("w/**[:, 1] *= 2").plan(target, how)
        plan.run(device="numpy")
    folder = target or model
    loaded = tf.saved_model.load(folder)
    np.testing.assert_array_equal(loaded(tf.ones([1, 4])).numpy(), [[4, 8, 4]])
    index = contents(folder)["variables/variables.index"]
    fingerprint = tf.saved_model.experimental.read_fingerprint(folder)
    assert fingerprint.checkpoint_hash == ckptkit._native.fingerprint64(index)
    variables = os.listdir(os.path.join(folder, "variables"))
    assert not [name for name in variables if name.startswith(".")]


def test_a_saved_model_is_undone_with_its_fingerprint(tf, model, tmp_path):
    shutil.copytree(model, tmp_path / "kept")
    for how in ("append", "patch"):
        with ckptkit.open(model) as found:
            found.edit("w/**[:, 1] *= 2").plan(how=how, keep_undo=True).run(device="numpy")
    # A copy takes no journals along.
    with ckptkit.open(model) as found:
        found.edit().plan(tmp_path / "copy").run()
    assert sorted(os.listdir(tmp_path / "copy" / "variables")) == [
        "variables.data-00000-of-00001",
        "variables.index",
    ]
    ckptkit.undo(model)
    ckptkit.undo(model)
    assert contents(model) == contents(tmp_path / "kept")


def test_names_of_a_saved_model_are_not_changed_in_place(model):
    with ckptkit.open(model) as found, pytest.raises(ckptkit.EditError, match=r"saved_model\.pb"):
        found.edit("rename ^w/ -> v/").plan(how="append")
