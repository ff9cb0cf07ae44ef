"""SavedModels: made by TensorFlow and edited here; and real ones, by others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit import EditError
from tests.golden.handmade import as_bytes
from tests.oracle.crc import fingerprint64
from tests.oracle.varint import fields

pytestmark = pytest.mark.tensorflow

KEY = "/.ATTRIBUTES/VARIABLE_VALUE"
CHECKPOINT_HASH = 5


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def model(tf, folder):
    class Line(tf.Module):
        def __init__(self):
            super().__init__()
            asset = folder.parent / "words.txt"
            asset.write_text("one\ntwo\n")
            self.slope = tf.Variable([[2.0], [3.0]])
            self.shift = tf.Variable(1.0)
            self.asset = tf.saved_model.Asset(str(asset))

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])
        def __call__(self, x):
            return x @ self.slope + self.shift

    tf.saved_model.save(Line(), str(folder))
    return folder


@pytest.fixture(scope="module")
def line(tf, tmp_path_factory):
    """A SavedModel with an asset: it predicts 2a + 3b + 1."""
    return model(tf, tmp_path_factory.mktemp("model") / "line")


def predict(tf, folder):
    return tf.saved_model.load(str(folder))(tf.constant([[1.0, 1.0], [0.0, 2.0]])).numpy().ravel()


def checkpoint_hash(folder):
    found = fields(Path(folder, "fingerprint.pb").read_bytes())
    return next(value for number, _, value, _ in found if number == CHECKPOINT_HASH)


def test_the_folder_and_its_variables_stand_for_the_model(line):
    for path in (line, line / "variables" / "variables", line / "variables/variables.index"):
        with ckptkit.open(path) as found:
            assert found.source.folder == str(line)
            assert found[f"shift{KEY}"].read() == 1.0


def test_an_edited_model_loads_and_predicts_what_the_edit_says(tf, line, tmp_path):
    with ckptkit.open(line) as found:
        found.edit(f"slope{KEY}[1] *= 2", f"shift{KEY} = 0.5").plan(tmp_path / "new").run()
    assert predict(tf, line).tolist() == [6.0, 7.0]
    assert predict(tf, tmp_path / "new").tolist() == [8.5, 12.5]


def test_paths_of_objects_stay_as_the_program_knows_them(tf, line, tmp_path):
    with ckptkit.open(line) as found:
        found.edit("graph:slope *= 2").plan(tmp_path / "twice").run()
        with pytest.raises(EditError, match=r"the paths of objects, which saved_model\.pb"):
            found.edit("rename graph:asset -> graph:other").plan(tmp_path / "no")
        for edit in (
            "rename graph:slope -> graph:other",
            "drop graph:slope",
            "new graph:other = t('graph:slope')",
            "rename ^s -> t",
        ):
            with pytest.raises(EditError, match=r"saved_model\.pb"):
                found.edit(edit).plan(tmp_path / "no")
    assert predict(tf, tmp_path / "twice").tolist() == [11.0, 13.0]


def test_the_fingerprint_follows_the_index(tf, line, tmp_path):
    with ckptkit.open(line) as found:
        found.edit(f"shift{KEY} = 0.5").plan(tmp_path / "new").run()
    index = (tmp_path / "new/variables/variables.index").read_bytes()
    assert checkpoint_hash(tmp_path / "new") == fingerprint64(index)
    theirs = tf.saved_model.experimental.read_fingerprint(str(tmp_path / "new"))
    assert theirs.checkpoint_hash == fingerprint64(index)
    before = tf.saved_model.experimental.read_fingerprint(str(line))
    assert theirs.checkpoint_hash != before.checkpoint_hash
    assert theirs.saved_model_checksum == before.saved_model_checksum
    assert theirs.graph_def_program_hash == before.graph_def_program_hash


def test_a_copy_is_the_same_files(line, tmp_path):
    with ckptkit.open(line) as found:
        plan = found.edit().plan(tmp_path / "new")
        report = plan.run()
    assert files(tmp_path / "new") == files(line)
    assert report.bytes_written == plan.bytes_written == sum(map(len, files(line).values()))


def test_an_edit_changes_only_variables_and_fingerprint(line, tmp_path):
    with ckptkit.open(line) as found:
        found.edit(f"shift{KEY} = 0.5").plan(tmp_path / "new").run()
    before, after = files(line), files(tmp_path / "new")
    assert set(before) == set(after)
    assert {name for name in before if before[name] != after[name]} == {
        "fingerprint.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
    }


@pytest.mark.parametrize(
    "edit", [f"rename shift{KEY} -> other", f"drop shift{KEY}", f"cast shift{KEY} -> float64"]
)
def test_what_the_program_would_contradict_is_refused(line, tmp_path, edit):
    with ckptkit.open(line) as found, pytest.raises(EditError, match=r"saved_model\.pb"):
        found.edit(edit).plan(tmp_path / "new")


def test_a_model_without_a_fingerprint_gets_none(tf, line, tmp_path):
    shutil.copytree(line, tmp_path / "old")
    os.remove(tmp_path / "old/fingerprint.pb")
    with ckptkit.open(tmp_path / "old") as found:
        found.edit(f"shift{KEY} = 0.5").plan(tmp_path / "new").run()
    assert not (tmp_path / "new/fingerprint.pb").exists()
    assert predict(tf, tmp_path / "new").tolist() == [5.5, 6.5]


def test_resharded_variables_load(tf, line, tmp_path):
    with ckptkit.open(line) as found:
        plan = found.edit().plan(tmp_path / "new", layout=ckptkit.Layout(shards=3))
        plan.run()
    assert predict(tf, tmp_path / "new").tolist() == [6.0, 7.0]


# --- real ones ---------------------------------------------------------------------------------

REAL = (
    "saved_model_counter",
    "saved_model_half_plus_three",
    "saved_model_half_plus_two_mkl",
    "saved_model_half_plus_two_tf2_cpu",
    "tf_text_regression",
)


@pytest.fixture
def real(corpus, request):
    """A SavedModel by others."""
    return corpus / "tensorflow-serving" / request.param


@pytest.mark.parametrize("real", REAL, indirect=True)
def test_real_variables_are_those_that_tensorflow_reads(tf, real):
    reader = tf.train.load_checkpoint(str(real / "variables/variables"))
    shapes = reader.get_variable_to_shape_map()
    with ckptkit.open(real) as found:
        assert {name: list(found[name].shape) for name in found} == shapes
        for name in found:
            expected = reader.get_tensor(name)
            ours = found[name].read()
            if isinstance(expected, bytes):
                assert ours.item() == expected
            elif np.asarray(expected).dtype == object:
                assert ours.tolist() == np.asarray(expected).tolist()
            else:
                assert as_bytes(ours) == as_bytes(np.asarray(expected))


@pytest.mark.parametrize("real", REAL, indirect=True)
def test_real_models_are_copied_byte_for_byte(real, tmp_path):
    with ckptkit.open(real) as found:
        found.edit().plan(tmp_path / "new").run()
    assert files(tmp_path / "new") == files(real)


@pytest.mark.parametrize("real", ["saved_model_half_plus_two_tf2_cpu"], indirect=True)
def test_a_real_model_is_edited(tf, real, tmp_path):
    with ckptkit.open(real) as found:
        name = next(name for name in found if "a/" in name or name.startswith("a"))
        found.edit(f'"{name}" *= 2').plan(tmp_path / "new").run()

    def call(folder):
        served = tf.saved_model.load(str(folder)).signatures["serving_default"]
        (argument,) = served.structured_input_signature[1].values()
        (result,) = served(**{argument.name: tf.constant([[4.0]])}).values()
        return result.numpy().item()

    assert call(real) == 4.0
    assert call(tmp_path / "new") == 6.0
    index = (tmp_path / "new/variables/variables.index").read_bytes()
    assert checkpoint_hash(tmp_path / "new") == fingerprint64(index)
