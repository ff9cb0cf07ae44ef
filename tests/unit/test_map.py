"""Functions of the user: what they see, what they may give, and that nothing is written if not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit import EditError, Map
from ckptkit.engine import device, program, run
from ckptkit.engine.work import SMALL
from ckptkit.storage.disk import Disk
from tests.golden.handmade import Bundle, grid

RNG = np.random.default_rng(11)
VALUES = {
    "a/0": RNG.standard_normal((9, 20), np.float32),
    "a/1": RNG.standard_normal((13, 20), np.float32),
    "deep": RNG.standard_normal((4, 3, 5)),
    "empty": np.zeros((0, 4), np.float32),
    "half": RNG.standard_normal((6, 4)).astype(np.float16),
    "matrix": RNG.standard_normal((20, 7), np.float32),
    "numbers": np.arange(30, dtype=np.int32).reshape(5, 6),
    "row": RNG.standard_normal(20).astype(np.float32),
    "scalar": np.array(2.5, np.float32),
    "sliced": RNG.standard_normal((9, 11), np.float32),
}
DEVICES = ["numpy", pytest.param("cpu", marks=pytest.mark.tensorflow)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Make every tensor several blocks."""
    monkeypatch.setattr(run, "MAX_CHUNK", 300)
    monkeypatch.setattr(program, "BLOCK", 200)


@pytest.fixture
def source(tmp_path):
    made = Bundle(2)
    for name, values in VALUES.items():
        if name == "sliced":
            made.add_slices(b"sliced", values, grid((9, 11), [[4], [7]]), shards=(0, 1))
        else:
            made.add(name.encode(), values)
    return made.write(tmp_path / "m")


@pytest.fixture
def used(monkeypatch):
    """The TensorFlow devices that runs made."""
    made = []

    class Counted(device.TensorFlowDevice):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(device, "TensorFlowDevice", Counted)
    return made


@pytest.fixture
def mapped(source, tmp_path, request):
    """Run edits into a new checkpoint, and return what is in it."""

    def call(name, *edits, **options):
        if name == "cpu":
            request.getfixturevalue("tf")
        with ckptkit.open(source) as found:
            found.edit(*edits).plan(tmp_path / "n").run(device=name, **options)
        with ckptkit.open(tmp_path / "n") as found:
            assert found.verify().ok
            return {tensor: found[tensor].read() for tensor in found}

    return call


def state(folder):
    """Return the bytes and the times of all files below a folder."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def rest(name):
    """Return what is not edited."""
    return {other: values for other, values in VALUES.items() if other != name}


def check(found, expected, **tolerance):
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype, name
        assert found[name].shape == values.shape, name
        if tolerance:
            np.testing.assert_allclose(found[name], values, **tolerance, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], values, err_msg=name)


# --- what functions see ------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("tensor", ["a/0", "deep", "empty", "half", "numbers", "scalar", "sliced"])
def test_by_element_blocks_of_any_cut(mapped, name, tensor):
    found = mapped(name, Map(tensor, lambda x: x * x + x))
    values = VALUES[tensor]
    check(found, {**VALUES, tensor: values * values + values})


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("tensor", ["a/0", "deep", "half", "row", "sliced"])
def test_by_row_blocks_have_whole_rows(mapped, name, tensor):
    values = VALUES[tensor]
    seen = []

    def reverse(x):
        seen.append(tuple(x.shape))
        return x[..., ::-1] if x.ndim > 1 else x + x

    found = mapped(name, Map(tensor, reverse, granularity="row"))
    check(found, {**VALUES, tensor: values[..., ::-1] if values.ndim > 1 else values + values})
    if name == "numpy" and values.nbytes > program.BLOCK:
        assert {shape[1:] for shape in seen} == {values.shape[1:]}
        assert seen[0][0] == 1, "it was tried on a single row"
        # One row is more than a block for the rows of some, and still goes whole.
        assert max(shape[0] for shape in seen) < values.shape[0]


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("tensor", ["a/0", "deep", "half", "row", "scalar", "sliced"])
def test_by_tensor_all_of_it(mapped, name, tensor):
    values = VALUES[tensor]
    seen = []

    def turn(x):
        seen.append(tuple(x.shape))
        return (x + x)[::-1] if x.ndim else x + x

    found = mapped(name, Map(tensor, turn, granularity="tensor"))
    check(found, {**VALUES, tensor: (values + values)[::-1] if values.ndim else values + values})
    assert set(seen) == {values.shape}, "TensorFlow is told the shape as well"


@pytest.mark.parametrize("name", DEVICES)
def test_by_tensor_another_shape_and_dtype(mapped, name):
    def narrow(x):
        summed = x[:4] + x[4:8]
        return summed.astype(np.float64) if isinstance(x, np.ndarray) else to_double(summed)

    def to_double(x):
        import tensorflow as tf

        return tf.cast(x, tf.float64)

    edit = Map("a/0", narrow, granularity="tensor", out=("float64", (4, 20)))
    values = VALUES["a/0"]
    check(mapped(name, edit), {**VALUES, "a/0": (values[:4] + values[4:8]).astype(np.float64)})


def test_another_dtype_by_element(mapped):
    found = mapped("numpy", Map("a/*", lambda x: x.astype(np.float16), out="float16"))
    check(
        found,
        {**VALUES, **{name: VALUES[name].astype(np.float16) for name in ("a/0", "a/1")}},
    )


@pytest.mark.parametrize("name", DEVICES)
def test_further_tensors_lie_where_the_block_is(mapped, name):
    edits = [
        Map("a/(*)", lambda x, row: x - row, inputs=("row",)),
        Map("sliced", lambda x, same: x + same, inputs="sliced"),
        Map("numbers", lambda x, one: x * one, inputs=("numbers",), granularity="row"),
    ]
    found = mapped(name, *edits)
    expected = {name: VALUES[name] - VALUES["row"] for name in ("a/0", "a/1")}
    expected["sliced"] = 2 * VALUES["sliced"]
    expected["numbers"] = VALUES["numbers"] ** 2
    check(found, {**VALUES, **expected})


@pytest.mark.parametrize("name", DEVICES)
def test_by_tensor_further_tensors_come_whole(mapped, name):
    def multiply(x, matrix):
        return x @ matrix

    edit = Map("a/0", multiply, granularity="tensor", out=(None, (9, 7)), inputs=("matrix",))
    expected = VALUES["a/0"] @ VALUES["matrix"]
    check(mapped(name, edit), {**VALUES, "a/0": expected}, rtol=1e-5, atol=1e-5)


def test_groups_of_the_glob_name_further_tensors(tmp_path):
    values = {f"{kind}/{n}": np.full(5, n + 1, np.float32) for kind in "xy" for n in range(3)}
    ckptkit.save(tmp_path / "m", values)
    with ckptkit.open(tmp_path / "m") as found:
        edit = Map("x/(*)", lambda x, y: x * y, inputs=("y/{1}",))
        found.edit(edit).plan(tmp_path / "n").run(device="numpy")
    with ckptkit.open(tmp_path / "n") as found:
        assert [found[f"x/{n}"][0] for n in range(3)] == [1, 4, 9]


def test_in_a_chain_with_statements(mapped):
    edits = ["a/0 *= 2", Map("a/0", lambda x: x + 1), "a/0 = x - mean(x)"]
    doubled = VALUES["a/0"] * 2 + 1
    expected = doubled - np.float32(doubled.mean(dtype=np.float64))
    check(mapped("numpy", *edits), {**VALUES, "a/0": expected}, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("granularity", ["element", "row", "tensor"])
@pytest.mark.parametrize("how", ["patch", "append", "copy"])
@pytest.mark.parametrize("tensor", ["a/1", "sliced", "deep"])
def test_in_place(source, tensor, how, granularity):
    values = VALUES[tensor]
    turned = {
        "element": (lambda x: -x, -values),
        "row": (lambda x: x[:, ::-1].copy(), values[:, ::-1]),
        "tensor": (lambda x: x[::-1].copy(), values[::-1]),
    }
    function, expected = turned[granularity]
    with ckptkit.open(source) as found:
        edit = Map(tensor, function, granularity=granularity)
        plan = found.edit(edit).plan(how=how)
        # Rows of slices are read from others, which change as well: the journal has to know.
        crossing = tensor == "sliced" and granularity != "element"
        assert plan.entangled == (crossing and how == "patch")
        plan.run(device="numpy")
    with ckptkit.open(source) as found:
        assert found.verify().ok
        check({name: found[name].read() for name in found}, {**VALUES, tensor: expected})


# --- how often TensorFlow traces ---------------------------------------------------------------


@pytest.mark.tensorflow
@pytest.mark.parametrize("granularity", ["element", "row"])
def test_many_tensors_are_one_trace(tf, tmp_path, used, granularity):
    values = {f"w/{n}": np.full((3 + n, 40 + n), n, np.float32) for n in range(30)}
    ckptkit.save(tmp_path / "m", values)
    with ckptkit.open(tmp_path / "m") as found:
        plan = found.edit(Map("w/*", tf.math.square, granularity=granularity)).plan(tmp_path / "n")
        plan.run(device="cpu")
    assert [one.traces for one in used] == [1]
    with ckptkit.open(tmp_path / "n") as found:
        check({name: found[name].read() for name in found}, {n: v * v for n, v in values.items()})


@pytest.mark.tensorflow
def test_whole_tensors_are_a_trace_for_each_shape(tf, tmp_path, used):
    ckptkit.save(tmp_path / "m", {f"w/{n}": np.ones((3 + n % 2, 40)) for n in range(8)})
    with ckptkit.open(tmp_path / "m") as found:
        edit = Map("w/*", lambda x: x * x.shape[0], granularity="tensor")
        found.edit(edit).plan(tmp_path / "n").run(device="cpu")
    assert [one.traces for one in used] == [2]
    with ckptkit.open(tmp_path / "n") as found:
        assert [found[f"w/{n}"][0, 0] for n in range(8)] == [3, 4] * 4


# --- what they may not give --------------------------------------------------------------------


def _shorter(x):
    return x[:-1]


def _one(x):
    return x[:1, :1]


def _nothing(x):
    del x


def _flags(x):
    return x > 0


def _list(x):
    return [x]


WRONG = {
    "shorter": (_shorter, "element"),
    "shorter row": (_shorter, "row"),
    "shorter tensor": (_shorter, "tensor"),
    "one element": (_one, "element"),
    "one element of all": (_one, "tensor"),
    "no array": (_nothing, "element"),
    "no array of all": (_nothing, "tensor"),
    "flags": (_flags, "element"),
    "flags of all": (_flags, "tensor"),
    "a list": (_list, "row"),
}


def _refused(source, tmp_path, name, wrong, how):
    function, granularity = WRONG[wrong]
    destination = tmp_path / "n" if how in {"copy", "link"} else None
    before, disk = state(tmp_path), Disk()
    with ckptkit.open(source) as found:
        draft = found.edit("a/0 *= 2", Map("sliced", function, granularity=granularity))
        plan = draft.plan(destination, how.replace("compact", "copy"))
        with pytest.raises(EditError, match=r"map _\w+: expected .*the function (returned|gave)"):
            plan.run(device=name, disk=disk)
    assert state(tmp_path) == before
    assert sorted(os.listdir(tmp_path)) == [
        *("m.data-00000-of-00002", "m.data-00001-of-00002", "m.index")
    ]
    assert (disk.traffic.read, disk.traffic.written, disk.traffic.copied) == (0, 0, 0)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("how", ["copy", "link", "append", "patch", "compact"])
def test_a_wrong_result_is_refused_before_anything_is_written(source, tmp_path, wrong, how):
    _refused(source, tmp_path, "numpy", wrong, how)


@pytest.mark.tensorflow
@pytest.mark.parametrize("wrong", WRONG)
def test_tensorflow_is_told_as_early(tf, source, tmp_path, wrong):
    _refused(source, tmp_path, "cpu", wrong, "patch")


@pytest.mark.parametrize(
    "edit",
    [
        Map("a/0", lambda x: x.sum(), granularity="tensor", out=("float32", (2,))),
        Map("a/0", lambda x: x[:3], granularity="tensor", out=("float32", (2, 20))),
        Map("a/0", lambda x: x, out="float64"),
        Map("a/0", lambda x, row: row, inputs=("row",)),
    ],
)
def test_what_out_says_is_what_has_to_come(source, tmp_path, edit):
    with ckptkit.open(source) as found:
        plan = found.edit(edit).plan(tmp_path / "n")
        with pytest.raises(EditError, match="expected float"):
            plan.run(device="numpy")
    assert not list(tmp_path.glob("*n.*"))


def test_a_function_under_another_edit_is_tried_as_well(source, tmp_path):
    """Where it is not the last one of its tensor, or only a statistic needs it."""
    edits = (
        ["a/0 *= 2", "a/0 = x - mean(x)"],
        ['row = t("a/0")[0] + mean(t("a/0"))', "drop a/0"],
        ["transpose a/0"],
    )
    for after in edits:
        with ckptkit.open(source) as found:
            plan = found.edit(Map("a/0", _shorter), *after).plan(tmp_path / "n")
            with pytest.raises(EditError, match="map _shorter"):
                plan.run(device="numpy")
        assert not list(tmp_path.glob("*n.*"))


def test_an_error_of_the_function_itself_comes_out_as_it_is(source, tmp_path):
    def fail(x):
        msg = "not today"
        raise RuntimeError(msg)

    with ckptkit.open(source) as found:
        plan = found.edit(Map("a/0", fail)).plan(tmp_path / "n")
        with pytest.raises(RuntimeError, match="not today"):
            plan.run(device="numpy")
    assert not list(tmp_path.glob("*n.*"))


def test_what_only_shows_in_a_large_block_leaves_nothing_either(source, tmp_path):
    """Ones in a corner tell no more than they can; the run itself looks at every block."""

    def fickle(x):
        return x if x.shape[0] <= 2 else x[:1]

    before = state(tmp_path)
    for destination, how in ((tmp_path / "n", "copy"), (None, "append"), (None, "patch")):
        with ckptkit.open(source) as found:
            plan = found.edit(Map("row", fickle)).plan(destination, how)
            with pytest.raises(EditError, match="map fickle: expected"):
                plan.run(device="numpy")
        after = state(tmp_path)
        assert {path: kept for path, (kept, _) in after.items()} == {
            path: kept for path, (kept, _) in before.items()
        }


def test_functions_that_have_no_hash(mapped):
    class Scale:
        __hash__ = None

        def __init__(self, factor):
            self.factor = factor

        def __eq__(self, other):
            return self is other

        def __call__(self, x):
            return x * np.float32(self.factor)

    found = mapped("numpy", Map("a/0", Scale(2)), Map("a/1", Scale(3)))
    check(found, {**VALUES, "a/0": VALUES["a/0"] * 2, "a/1": VALUES["a/1"] * 3})


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"granularity": "column"}, "granularity"),
        ({"out": ("float32", (3, 4))}, "sees all"),
    ],
)
def test_contradictions_are_refused_at_once(options, what):
    with pytest.raises(EditError, match=what):
        Map("a", lambda x: x, **options)


def test_further_tensors_that_do_not_fit_are_refused(source):
    with ckptkit.open(source) as found, pytest.raises(EditError, match="does not broadcast"):
        found.edit(Map("a/0", lambda x, y: x, inputs=("deep",)))


# --- memory ------------------------------------------------------------------------------------

MEMORY = 32 << 20
LARGE = 48 << 20


@pytest.fixture
def large(tmp_path):
    """A checkpoint with a tensor, and a row, larger than the least memory."""
    values = np.zeros((1, LARGE // 4), np.float32)
    ckptkit.save(tmp_path / "m", {"wide": values, "small": np.ones((4, 5), np.float32)})
    return tmp_path / "m"


@pytest.mark.parametrize("granularity", ["row", "tensor"])
def test_more_than_the_memory_is_refused_with_the_figure(large, tmp_path, granularity):
    before = state(tmp_path)
    with ckptkit.open(large) as found:
        draft = found.edit(Map("wide", lambda x: x + x.dtype.type(1), granularity=granularity))
        for destination, how in ((tmp_path / "n", "copy"), (None, "patch")):
            plan = draft.plan(destination, how)
            whole = plan.to_dict()["bytes_whole"]
            assert whole == 3 * LARGE, "what is read, what is made of it, and what is written"
            assert f"{whole:,} bytes for what has to be seen whole" in str(plan)
            noun = "whole rows" if granularity == "row" else "whole tensors in memory"
            assert noun in str(plan)
            with pytest.raises(EditError, match=rf"see {whole} bytes at a time.*--allow-whole"):
                plan.run(device="numpy", memory=MEMORY)
            assert state(tmp_path) == before
        draft.plan(tmp_path / "n").run(device="numpy", memory=MEMORY, allow_whole=True)
    with ckptkit.open(tmp_path / "n") as found:
        assert found.verify().ok
        assert (found["wide"][0, ::1000] == 1).all()


def test_what_fits_needs_no_leave(large, tmp_path):
    with ckptkit.open(large) as found:
        plan = found.edit(Map("wide", lambda x: x + x.dtype.type(1), granularity="row")).plan(
            tmp_path / "n"
        )
        plan.run(device="numpy", memory=plan.to_dict()["bytes_whole"])
    with ckptkit.open(tmp_path / "n") as found:
        assert (found["wide"][0, ::1000] == 1).all()


def test_small_tensors_say_nothing_of_memory(large, tmp_path):
    with ckptkit.open(large) as found:
        edit = Map("small", lambda x: x[::-1], granularity="tensor")
        plan = found.edit(edit).plan(tmp_path / "n")
    assert plan.to_dict()["bytes_whole"] == 0
    assert VALUES["a/0"].nbytes < SMALL
    assert "seen whole" not in str(plan)


@pytest.mark.tensorflow
def test_large_tensors_are_traced_and_not_called_before(tf, large, tmp_path, used):
    with ckptkit.open(large) as found:
        draft = found.edit(Map("wide", lambda x: x[:, 1:], granularity="tensor"))
        plan = draft.plan(how="patch")
        before, disk = state(tmp_path), Disk()
        with pytest.raises(EditError, match=r"expected float32\[1, 12582912\]"):
            plan.run(device="cpu", disk=disk, allow_whole=True)
    assert disk.traffic.read == 0
    assert state(tmp_path) == before
    assert [one.traces for one in used] == [1]
