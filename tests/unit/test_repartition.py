"""Repartition: how it is written, what it does to a catalog, and what it refuses."""

import numpy as np
import pytest

import ckptkit
from ckptkit.errors import EditError
from ckptkit.language import parse
from ckptkit.surgery import Repartition
from tests.golden.handmade import Bundle, grid
from tests.unit.engine.limited import BUDGET, run_limited

KERNEL = np.arange(35, dtype=np.float32).reshape(7, 5)
TEXT = np.array([b"a", b"", b"c\0", b"dd"], object)


@pytest.fixture
def model(tmp_path):
    """A checkpoint with a tensor in two slices, a whole one, a scalar, strings, and a half."""
    bundle = Bundle(2)
    bundle.add_slices(b"cut", KERNEL, grid((7, 5), [[4], []]), shards=(0, 1))
    bundle.add(b"half", KERNEL.astype(np.float16))
    bundle.add(b"scalar", np.float32(1))
    bundle.add_slices(b"text", TEXT, grid((4,), [[1, 2]]), "string")
    bundle.add(b"whole", KERNEL)
    return bundle.write(tmp_path / "model")


def boxes(path, name):
    with ckptkit.open(path) as found:
        return [box.slices() for box in found.catalog[name].boxes]


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("repartition a/* -> 4", Repartition("a/*", 4)),
        ("repartition a/* -> 4 axis=1", Repartition("a/*", 4, 1)),
        ("repartition a/* -> 4 axis 1", Repartition("a/*", 4, 1)),
        ("repartition a/* -> 4 axis  -1 ", Repartition("a/*", 4, -1)),
        ("repartition a/* -> whole", Repartition("a/*")),
        ('repartition "a b" -> 65536', Repartition("a b", 65536)),
    ],
)
def test_how_it_is_written(text, edit):
    assert parse(text) == edit
    assert parse(str(edit)) == edit


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("repartition w", 13, "and a number of parts, or whole"),
        ("repartition w ->", 16, "expected a number of parts, or whole"),
        ("repartition w -> 0", 17, "in 1 to 65536 parts, not in 0"),
        ("repartition w -> 65537", 17, "in 1 to 65536 parts"),
        ("repartition w -> -1", 17, "expected a number of parts, or whole, not '-1'"),
        ("repartition w -> two", 17, "expected a number of parts, or whole, not 'two'"),
        ("repartition w -> 2, 3", 20, "expected a number of parts, or whole"),
        ("repartition w -> whole axis 0", 28, "cut along no axis"),
        ("repartition w -> 2 axis", 19, "expected the end, or key=value"),
        ("repartition w -> 2 axis x", 24, "expected an integer"),
        ("repartition w -> 2 axes 1", 19, "there is no option 'axes' here"),
    ],
)
def test_mistakes_point_at_their_place(text, column, message):
    with pytest.raises(EditError, match=message) as caught:
        parse(text)
    assert caught.value.offset == column


@pytest.mark.parametrize("how", ["copy", "link", "append"])
def test_cut_and_joined(model, tmp_path, how):
    target = None if how == "append" else tmp_path / "new"
    with ckptkit.open(model) as found:
        draft = found.edit("repartition whole -> 3", "repartition cut -> whole")
        draft.plan(target, how).run(device="numpy")
    path = target or model
    rows = [slice(0, 3), slice(3, 5), slice(5, 7)]
    assert boxes(path, "whole") == [(one, slice(0, 5)) for one in rows]
    assert boxes(path, "cut") == [(slice(0, 7), slice(0, 5))]
    with ckptkit.open(path) as found:
        assert np.array_equal(found["whole"].read(), KERNEL)
        assert np.array_equal(found["cut"].read(), KERNEL)
        assert np.array_equal(found["whole"][2:6, 1], KERNEL[2:6, 1])
        assert found["text"].read().tolist() == TEXT.tolist()
        verdict = found.verify()
        assert verdict.ok
        assert [one.tensor for one in verdict.problems if one.tensor] == ["text"]


@pytest.mark.parametrize("how", ["copy", "append"])
def test_strings(model, tmp_path, how):
    for number, edit in enumerate(["repartition text -> 2", "repartition text -> whole"]):
        target = tmp_path / f"new{number}" if how == "copy" else None
        with ckptkit.open(model) as found:
            found.edit(edit).plan(target, how).run()
        path = target or model
        assert len(boxes(path, "text")) == 2 - number
        with ckptkit.open(path) as found:
            assert found["text"].read().tolist() == TEXT.tolist()
            assert found.verify().ok


def test_damaged_strings_are_refused(model, tmp_path):
    with ckptkit.open(model) as found:
        place = found.catalog["text"].source.pieces[1].extent
        draft = found.edit("repartition text -> whole")
    with open(place.path, "r+b") as file:
        file.seek(place.offset)
        file.write(b"\x7f")
    with pytest.raises(ckptkit.CorruptError) as caught:
        ckptkit.open(model).edit("repartition text -> whole").plan(tmp_path / "new")
    assert (caught.value.tensor, caught.value.path) == ("text", place.path)
    assert caught.value.offset is not None
    assert place.offset <= caught.value.offset < place.offset + place.length
    with pytest.raises(ckptkit.CkptError):
        draft.plan(tmp_path / "new")


def test_a_damaged_slice_is_refused(model, tmp_path):
    with ckptkit.open(model) as found:
        place = found.catalog["cut"].source.pieces[1].extent
    with open(place.path, "r+b") as file:
        file.seek(place.offset + 5)
        file.write(b"\x7f")
    plan = ckptkit.open(model).edit("repartition cut -> whole").plan(tmp_path / "new")
    with pytest.raises(ckptkit.CorruptError, match="expected") as caught:
        plan.run(device="numpy")
    assert caught.value.tensor == "cut"
    assert not (tmp_path / "new.index").exists()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("repartition scalar -> 2", r"'scalar' \(float32\[\]\): a scalar cannot be cut"),
        ("repartition whole -> 8", "7 rows along axis 0 do not make 8 parts"),
        ("repartition whole -> 6 axis 1", "5 rows along axis 1 do not make 6 parts"),
        ("repartition whole -> 2 axis 2", "there is no axis 2 in 2 axes"),
        ("repartition nothing -> 2", "no tensor 'nothing'"),
        ("repartition no*thing -> whole", "no tensor matches"),
        ("repartition sca* -> 2", "a scalar cannot be cut"),
        ("repartition ha* -> 2", "TensorFlow does not join slices of float16; name the tensor"),
    ],
)
def test_refused(model, edit, message):
    with pytest.raises(EditError, match=message):
        ckptkit.open(model).edit(edit)


def test_what_has_no_elements_is_not_cut(tmp_path):
    ckptkit.save(tmp_path / "m", {"w": np.zeros((4, 0), np.float32)})
    with pytest.raises(EditError, match="without elements cannot be cut"):
        ckptkit.open(tmp_path / "m").edit("repartition w -> 2")


def test_what_a_wildcard_passes_over_is_told(model):
    found = ckptkit.open(model).edit("repartition ** -> 2")
    assert found.notes == (
        (
            "repartition ** -> 2: passed over 3 tensors: half (TensorFlow does not join slices of"
            " float16; name the tensor), scalar (a scalar cannot be cut), text (TensorFlow does"
            " not join slices of string; name the tensor)"
        ),
        "repartition ** -> 2: stored like that already: 1 tensor: cut",
    )
    found = ckptkit.open(model).edit("repartition ** -> whole")
    (note,) = found.notes
    assert note.endswith("stored like that already: 3 tensors: half, scalar, whole")
    assert {*found.catalog.single} == {"cut", "text"}


def test_what_is_so_already_is_carried_over(model, tmp_path):
    plan = ckptkit.open(model).edit("repartition cut -> 2").plan(tmp_path / "new", "copy")
    assert (plan.tensors_changed, plan.bytes_computed) == (0, 0)


def test_a_patch_does_not_move_slices(model):
    draft = ckptkit.open(model).edit("repartition cut -> 3")
    with pytest.raises(EditError, match="stored in other slices than before; append it instead"):
        draft.plan(how="patch")
    plan = draft.plan()
    assert plan.how == "append"
    assert any("stored in other slices" in note for note in plan.notes)


def test_a_tensor_in_a_single_slice_becomes_a_plain_one(tmp_path):
    bundle = Bundle()
    bundle.add_slices(b"w", KERNEL, [[(0, 7), (0, 5)]])
    path = bundle.write(tmp_path / "m")
    with ckptkit.open(path) as found:
        assert found.catalog.columns.parts
        plan = found.edit("repartition w -> whole").plan(tmp_path / "n")
        assert plan.bytes_computed == 0
        plan.run()
    with ckptkit.open(tmp_path / "n") as found:
        assert not found.catalog.columns.parts
        assert np.array_equal(found["w"].read(), KERNEL)
        assert found.verify().problems == ()


def test_it_goes_on_from_what_edits_made(model, tmp_path):
    edits = ["whole *= 2", "repartition whole -> 2", "whole[0] = 1"]
    edits += [ckptkit.Put("n", np.zeros((4, 2)))]
    edits += ["repartition n -> 4", "cast whole -> float64", "repartition cut -> whole"]
    edits += ["repartition cut -> 5", "copy cut -> again", "rename ^cut -> moved/cut"]
    with ckptkit.open(model) as found:
        found.edit(*edits).plan(tmp_path / "new").run(device="numpy")
    expected = KERNEL.astype(np.float64) * 2
    expected[0] = 1
    with ckptkit.open(tmp_path / "new") as found:
        assert np.array_equal(found["whole"].read(), expected)
        assert np.array_equal(found["moved/cut"].read(), KERNEL)
        assert np.array_equal(found["again"].read(), KERNEL)
        assert found["n"].read().tolist() == [[0, 0]] * 4
        shapes = {name: len(found.catalog[name].boxes) for name in found}
        assert found.verify().ok
    assert shapes | {"half": 1, "scalar": 1, "text": 3} == shapes
    assert (shapes["whole"], shapes["n"], shapes["moved/cut"], shapes["again"]) == (2, 4, 5, 5)


def test_listing_and_showing(model, run, as_json):
    code, out, _ = run("ls", model, "-l")
    assert code == 0
    assert next(line for line in out.splitlines() if line.startswith("cut")).endswith("2 slices")
    (found,) = as_json("ls", model, "cut")["tensors"]
    assert [piece["extent"] for piece in found["pieces"]] == [[4, 5], [3, 5]]
    shown = as_json("show", model, "cut[3:5, 1:3]")
    assert shown["values"] == KERNEL[3:5, 1:3].tolist()


def test_on_the_command_line(model, tmp_path, as_json):
    found = as_json("edit", model, tmp_path / "new", "-e", "repartition whole -> 2 axis 1")
    assert found["plan"]["tensors_changed"] == 1
    assert boxes(tmp_path / "new", "whole")[1] == (slice(0, 7), slice(3, 5))
    found = as_json("edit", model, "--in-place", "-e", "repartition ** -> whole")
    assert found["plan"]["how"] == "append"
    assert as_json("verify", model)["ok"]


def test_no_tensor_is_in_memory_as_a_whole(tmp_path):
    rng = np.random.default_rng(3)
    for name, rows in (("tiny", 64), ("large", 4096)):
        values = rng.standard_normal((rows, 8200), np.float32)
        ckptkit.save(tmp_path / name, {"w": values})
    assert values.nbytes >= 4 * BUDGET
    cut = ["repartition w -> 5 axis 1"]
    run_limited(tmp_path / "large", tmp_path / "tiny", tmp_path / "made", cut)
    with ckptkit.open(tmp_path / "made") as found:
        assert len(found.catalog["w"].boxes) == 5
        assert np.array_equal(found["w"][1000:1004], values[1000:1004])
        assert found.verify().ok


@pytest.mark.parametrize("target", ["copy.weights.h5", None])
def test_a_keras_file_has_no_slices(tmp_path, target):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = KERNEL
    before = path.read_bytes()
    draft = ckptkit.open(path).edit("** += 1", "repartition ** -> 2")
    with pytest.raises(EditError, match="in one piece, and 'layers/dense/vars/0' is to be in sl"):
        draft.plan(target and tmp_path / target)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["w", "w*", "graph:w"])
def test_a_copy_for_protection_joins_what_tensorflow_does_not(tmp_path, name):
    values = np.arange(12, dtype=np.float16).reshape(4, 3)
    bundle = Bundle()
    bundle.add_slices(name.encode(), values, grid((4, 3), [[2], []]))
    bundle.write(tmp_path / "cut")
    draft, verdict = ckptkit.open(tmp_path / "cut").cleaned()
    assert draft.edits == (f"made clean (in one piece: 1 tensor: {name})",)
    draft.plan(tmp_path / "clean").run()
    clean = ckptkit.open(tmp_path / "clean")
    assert [problem.tensor for problem in verdict.problems] == [name]
    assert not clean.verify().problems
    assert np.array_equal(clean[name].read(), values)
