"""SavedModels of all sorts, edited in every way, predict what the edit says."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

import ckptkit
from ckptkit import EditError
from ckptkit.cli import main
from tests.compat.saved_models import KEY, SHIFT, SLOPE, SORTS, line, predictions
from tests.compat.test_saved_models import checkpoint_hash, files
from tests.oracle.crc import fingerprint64

pytestmark = pytest.mark.tensorflow

WAYS = ("copy", "link", "shards", "patch", "append", "compact")


@pytest.fixture(scope="module")
def made(tf, tmp_path_factory):
    """Make each sort once."""
    folder = tmp_path_factory.mktemp("made")
    there = {}

    def make(sort):
        if sort not in there:
            there[sort] = folder / f"model-{len(there)}"
            SORTS[sort].make(tf, there[sort])
        return there[sort]

    return make


def expected(sort, slope, shift):
    found = {"serving_default": line(slope, shift), "session": line(slope, shift)}
    if sort == "module":
        found["twice"] = (2 * np.array(line(slope, shift))).tolist()
    if sort == "keras":
        found["serve"] = line(slope, shift)
    if SORTS[sort].whole:
        found["call"] = line(slope, shift)
    return found


def edited(model, target, way, *edits, **options):
    """Edit a SavedModel in one of the ways; return the folder of the result."""
    in_place = way in {"patch", "append", "compact"}
    if in_place:
        shutil.copytree(model, target)
    how = {"shards": "copy", "compact": "copy"}.get(way, way)
    layout = ckptkit.Layout(shards=3) if way == "shards" else ckptkit.Layout()
    with ckptkit.open(target if in_place else model) as found:
        plan = found.edit(*edits).plan(None if in_place else target, how, layout, **options)
        plan.run(device="numpy")
    return target


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sort", SORTS)
def test_predictions_are_those_of_the_edit(tf, made, tmp_path, sort, way):
    model, about = made(sort), SORTS[sort]
    assert predictions(tf, model, about) == expected(sort, SLOPE, SHIFT)
    edits = f'"{about.slope}"[1, :] *= 2', f'"{about.shift}" = 0.5'
    new = edited(model, tmp_path / "new", way, *edits)
    assert predictions(tf, new, about) == expected(sort, SLOPE * [[1], [2]], 0.5)
    assert predictions(tf, model, about) == expected(sort, SLOPE, SHIFT)
    index = (new / "variables/variables.index").read_bytes()
    if (model / "fingerprint.pb").exists():
        assert checkpoint_hash(new) == fingerprint64(index)
        ours, theirs = (
            tf.saved_model.experimental.read_fingerprint(str(folder)) for folder in (new, model)
        )
        assert ours.singleprint().rpartition("/")[0] == theirs.singleprint().rpartition("/")[0]
        assert ours.checkpoint_hash != theirs.checkpoint_hash
    report = ckptkit.open(new).verify()
    assert report.ok
    assert [one for one in report.problems if "fingerprint" in one.message] == []
    around = {name for name in files(model) if not name.startswith("variables/")}
    before, after = files(model), files(new)
    assert around == {name for name in after if not name.startswith("variables/")}
    assert {name for name in around if before[name] != after[name]} <= {"fingerprint.pb"}


@pytest.mark.parametrize("way", ["patch", "append"])
@pytest.mark.parametrize("sort", ["module", "first"])
def test_an_edit_that_is_undone_leaves_what_was(tf, made, tmp_path, sort, way):
    model, about = made(sort), SORTS[sort]
    new = edited(model, tmp_path / "new", way, f'"{about.shift}" = 0.5', keep_undo=True)
    assert predictions(tf, new, about) == expected(sort, SLOPE, 0.5)
    ckptkit.undo(new)
    assert files(new) == files(model)
    assert predictions(tf, new, about) == expected(sort, SLOPE, SHIFT)


def test_the_uuid_stays(tf, made, tmp_path):
    """The same edit gives the same bytes; the hash of the index tells results apart."""
    model = made("module")
    for name in ("one", "two"):
        edited(model, tmp_path / name, "copy", f"shift{KEY} = 0.5")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_model_of_tf_keras_is_one_still(tf, made, tmp_path):
    import tf_keras

    new = edited(made("tf_keras"), tmp_path / "new", "copy", f'"{SORTS["tf_keras"].shift}" = 0.5')
    assert (new / "keras_metadata.pb").read_bytes()
    loaded = tf_keras.models.load_model(str(new))
    assert loaded.predict(np.ones((1, 2)), verbose=0).tolist() == [[5.5]]
    with ckptkit.open(new) as found:
        assert found[f"optimizer/_iterations{KEY}"].read() == 1


@pytest.mark.parametrize("name", ["_all_variables", "variables"])
def test_what_keras_exports_twice_is_not_edited_once(tf, made, tmp_path, name):
    """A session predicts from one of the two, ``tf.saved_model.load`` from the other."""
    with ckptkit.open(made("keras")) as found:
        for target in (tmp_path / "new", None):
            with pytest.raises(EditError, match="which is the same variable") as told:
                found.edit(f"{name}/0{KEY} *= 2").plan(target)
            assert told.value.tensor == f"{name}/0{KEY}"
        found.edit("** *= 2").plan(tmp_path / "new")


def test_twins_that_are_apart_already_are_nobodys_business(tf, made, tmp_path):
    shutil.copytree(made("keras"), tmp_path / "old")
    index = tmp_path / "old/variables/variables"
    (tmp_path / "old/saved_model.pb").rename(tmp_path / "program")
    with ckptkit.open(index) as found:
        found.edit(f"variables/0{KEY} *= 2").plan().run()
    (tmp_path / "program").rename(tmp_path / "old/saved_model.pb")
    with ckptkit.open(tmp_path / "old") as found:
        found.edit(f"variables/0{KEY} *= 2").plan(tmp_path / "new").run()
    expected = {"serve": line(SLOPE * 4, SHIFT), "serving_default": line(SLOPE * 4, SHIFT)}
    expected["session"] = line(SLOPE, SHIFT)
    assert predictions(tf, tmp_path / "new", SORTS["keras"]) == expected


def test_a_model_without_variables_is_copied(tf, tmp_path):
    class Twice(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
        def __call__(self, x):
            return 2 * x

    tf.saved_model.save(Twice(), str(tmp_path / "old"))
    with ckptkit.open(tmp_path / "old") as found:
        assert list(found) == ["_CHECKPOINTABLE_OBJECT_GRAPH"]
        found.edit().plan(tmp_path / "new").run()
    assert files(tmp_path / "new") == files(tmp_path / "old")
    assert tf.saved_model.load(str(tmp_path / "new"))(tf.constant(2.0)).numpy() == 4.0
    assert main(["ls", str(tmp_path / "old")]) == 0


def test_a_program_of_the_first_format_without_variables_says_so(tf, tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [], "x")
        v1.saved_model.simple_save(session, str(tmp_path / "m"), {"x": x}, {"y": 2 * x})
    with pytest.raises(ckptkit.UnsupportedError, match="no values outside its program"):
        ckptkit.open(tmp_path / "m")


# --- refusals ----------------------------------------------------------------------------------

REFUSED = {
    "rename SHIFT -> other": "renames 'SHIFT' to 'other', and saved_model.pb restores 'SHIFT'",
    "drop SHIFT": "drops 'SHIFT', and saved_model.pb restores it",
    "cast SHIFT -> float64": "float64[] of 'SHIFT', and saved_model.pb says float32[]: its dtype",
    "cast ** -> float64": "saved_model.pb says float32",
    "resize SLOPE -> 5": "[5, 1] of 'SLOPE', and saved_model.pb says float32[2, 1]: its shape",
    "copy SHIFT -> more": "adds 'more', and nothing in saved_model.pb would restore it",
}


@pytest.mark.parametrize("edit", REFUSED)
@pytest.mark.parametrize("sort", ["module", "first"])
@pytest.mark.parametrize("in_place", [False, True])
def test_what_the_program_would_contradict_is_refused(made, tmp_path, sort, edit, in_place):
    model, about = made(sort), SORTS[sort]

    def named(text):
        return text.replace("SHIFT", about.shift).replace("SLOPE", about.slope)

    edit, told = named(edit), named(REFUSED[edit])
    if edit.startswith("rename"):
        edit = f"rename ^{about.shift.replace('.', '[.]')}$ -> other"
    before = files(model)
    with ckptkit.open(model) as found, pytest.raises(EditError) as refused:
        found.edit(edit).plan(None if in_place else tmp_path / "new")
    assert told in str(refused.value)
    assert "export it anew" in str(refused.value)
    assert f"{model}/variables/variables.*" in str(refused.value)
    assert files(model) == before


def test_variables_that_change_places_are_refused(made, tmp_path):
    model, about = made("first"), SORTS["first"]
    swap = (
        f"rename ^{about.slope}$ -> spare",
        f"rename ^{about.shift}$ -> {about.slope}",
        f"rename ^spare$ -> {about.shift}",
    )
    with ckptkit.open(model) as found, pytest.raises(EditError, match="its shape would be another"):
        found.edit(*swap).plan(tmp_path / "new")


def test_what_is_refused_can_be_done_as_the_message_says(tf, made, tmp_path):
    model, about = made("first"), SORTS["first"]
    for path in (model / "variables").iterdir():
        shutil.copy(path, tmp_path)
    with ckptkit.open(tmp_path / "variables") as found:
        found.edit(f"cast {about.shift} -> float64").plan(tmp_path / "new").run(device="numpy")
    assert tf.train.load_variable(str(tmp_path / "new"), about.shift).dtype == np.float64


# --- what is around ----------------------------------------------------------------------------


@pytest.fixture
def own(tf, made, tmp_path):
    """A copy of a SavedModel, to change something in it."""
    shutil.copytree(made("module"), tmp_path / "old")
    return tmp_path / "old"


def test_any_path_of_it_stands_for_it(own, capsys):
    for path in ("", "saved_model.pb", "variables/variables", "variables/variables.index"):
        assert main(["ls", str(own / path)]) == 0
        assert f"shift{KEY}" in capsys.readouterr().out
        assert main(["show", str(own / path), f"shift{KEY}"]) == 0
        assert "1." in capsys.readouterr().out
        assert main(["verify", str(own / path)]) == 0
        assert main(["diff", str(own / path), str(own)]) == 0
        capsys.readouterr()


def test_chunks_of_a_program_are_copied(own, tmp_path):
    os.rename(own / "saved_model.pb", own / "saved_model.cpb")
    new = edited(own, tmp_path / "new", "copy", f"shift{KEY} = 0.5")
    assert (new / "saved_model.cpb").read_bytes() == (own / "saved_model.cpb").read_bytes()
    with pytest.raises(EditError, match="renames"):
        ckptkit.open(own).edit(f"rename ^shift{KEY}$ -> x").plan(tmp_path / "other")


def test_links_within_it_are_copied_as_what_they_lead_to(tf, own, tmp_path):
    os.rename(own / "assets.extra", own / "real")
    os.symlink("real", own / "assets.extra")
    os.rename(own / "saved_model.pb", own / "program")
    os.symlink("program", own / "saved_model.pb")
    new = edited(own, tmp_path / "new", "copy", f"shift{KEY} = 0.5")
    assert (new / "assets.extra/notes.txt").read_text() == "why"
    assert not any(path.is_symlink() for path in new.rglob("*"))
    assert predictions(tf, new, SORTS["module"]) == expected("module", SLOPE, 0.5)


def test_verify_tells_of_a_fingerprint_of_other_variables(own, capsys):
    other = own.parent / "other"
    edited(own, other, "copy", f"shift{KEY} = 0.5")
    shutil.copy(other / "fingerprint.pb", own)
    assert main(["verify", str(own)]) == 0
    out = capsys.readouterr().out
    assert "the fingerprint's checkpoint_hash is" in out
    assert "1 warning" in out
    os.remove(own / "fingerprint.pb")
    assert main(["verify", str(own)]) == 0
    assert "no problems" in capsys.readouterr().out


def test_an_edit_puts_a_fingerprint_right(own, tmp_path):
    fingerprint = (own / "fingerprint.pb").read_bytes()
    edited(own, tmp_path / "other", "copy", f"shift{KEY} = 0.5")
    shutil.copy(tmp_path / "other/fingerprint.pb", own)
    edited(own, tmp_path / "new", "copy")
    assert checkpoint_hash(tmp_path / "new") == checkpoint_hash(tmp_path / "new")
    assert ckptkit.open(tmp_path / "new").verify().problems == ()
    assert len((tmp_path / "new/fingerprint.pb").read_bytes()) >= len(fingerprint)


# --- real ones, by others ----------------------------------------------------------------------

REAL = {
    "saved_model_counter": ("counter", "get_counter", 0.0, 5.0),
    "saved_model_half_plus_three": ("b", "serving_default", 7.0, 12.0),
    "saved_model_half_plus_two_mkl": ("b", "serving_default", 6.0, 11.0),
    "saved_model_half_plus_two_tf2_cpu": (f"b{KEY}", "serving_default", 6.0, 11.0),
}
"""By name: a variable, a signature, what it gives for 8, and what after the variable is 5 more."""


INITIALISED = {"saved_model_half_plus_two_mkl"}
"""Their main op gives variables the values of the program once they are restored."""


def served(tf, folder, signature, *, restored=False):
    """Return what a SavedModel gives for 8, as a session of TensorFlow 1 serves it."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        found = v1.saved_model.load(session, ["serve"], str(folder)).signature_def[signature]
        if restored:
            session.run("save/restore_all", {"save/Const:0": f"{folder}/variables/variables"})
        fed = {}
        for one in found.inputs.values():
            shape = session.graph.get_tensor_by_name(one.name).shape
            fed[one.name] = np.full([size or 1 for size in shape], 8, np.float32)
        (told,) = found.outputs.values()
        return session.run(told.name, fed).item()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("real", REAL)
def test_real_models_predict_what_the_edit_says(tf, corpus, tmp_path, real, way):
    model = corpus / "tensorflow-serving" / real
    name, signature, before, after = REAL[real]
    assert served(tf, model, signature) == before
    new = edited(model, tmp_path / "new", way, f'"{name}" += 5')
    assert served(tf, new, signature, restored=real in INITIALISED) == after
    if real in INITIALISED:
        assert served(tf, new, signature) == before
    if real.endswith("cpu"):
        loaded = tf.saved_model.load(str(new)).signatures[signature]
        assert loaded(x=tf.constant([8.0]))["y"].numpy().item() == after
    assert ckptkit.open(new).verify().ok
