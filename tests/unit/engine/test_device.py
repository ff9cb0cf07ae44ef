"""Devices: TensorFlow gives the bits of NumPy, and traces a kernel once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit import EditError
from ckptkit.engine import device, exact, program, run
from ckptkit.kernels import Expression
from ckptkit.language import parse
from tests.golden.handmade import Bundle, as_bytes, grid, numpy_dtype
from tests.unit.engine.test_run import Pickling

ROOT = Path(__file__).resolve().parents[3]


def contents(prefix):
    folder, name = os.path.split(prefix)
    found = sorted(file for file in os.listdir(folder) if file.startswith(f"{name}."))
    return [Path(folder, file).read_bytes() for file in found]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Make many chunks of different lengths."""
    monkeypatch.setattr(run, "MAX_CHUNK", 1000)
    monkeypatch.setattr(program, "BLOCK", 900)
    device._TRACED.clear()


def bundle(dtype="float32", **options):
    rng, made = np.random.default_rng(3), Bundle(**options)

    def values(*shape):
        numbers = rng.integers(-40, 40, shape)
        return np.asarray(numbers / 8 if "float" in dtype else numbers, numpy_dtype(dtype))

    for number in range(4):
        made.add(f"w/{number}".encode(), values(13, 20 + number))
    made.add(b"row", values(23))
    made.add(b"scalar", values())
    made.add(b"empty", values(0, 3))
    made.add_slices(b"sliced", values(9, 23), grid((9, 23), [[4], [7]]))
    return made


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


EDITS = {
    "float": ("w/* *= 0.5", "w/1[2:9, ::3] += 0.25", 'w/3 = where(x > t("row"), x, t("row"))',
              "scalar += 1", "empty *= 2", "sliced[1:7, 5:9] -= 1", "w/2[3, 4] = -x"),
    "int": ("w/* *= 3", "w/1[2:9, ::3] += 7", 'w/3 = maximum(x, t("row"))',
            "scalar += 1", "empty *= 2", "sliced[1:7, 5:9] -= 1", "w/2[3, 4] = -x"),
}  # fmt: skip


@pytest.mark.tensorflow
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "bfloat16", "int32", "int64", "int16", "uint8"]
)
def test_tensorflow_gives_the_bytes_of_numpy(tf, tmp_path, used, dtype, big):
    edits = EDITS["float" if "float" in dtype else "int"]
    with ckptkit.open(bundle(dtype, big_endian=big).write(tmp_path / "m")) as found:
        for name in ("numpy", "cpu"):
            found.edit(*edits).plan(tmp_path / name).run(device=name)
    assert used
    assert contents(tmp_path / "cpu") == contents(tmp_path / "numpy")


@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int4", "uint2", "float4_e2m1fn", "bool"])
def test_narrow_dtypes_are_the_same_everywhere(tf, tmp_path, dtype):
    made = Bundle()
    values = np.asarray(np.arange(40) % 2, numpy_dtype(dtype))
    made.add(b"w", values)
    edit = "w = not x" if dtype == "bool" else "w = x * x"
    with ckptkit.open(made.write(tmp_path / "m")) as found:
        for name in ("numpy", "cpu"):
            found.edit(edit).plan(tmp_path / name).run(device=name)
    assert contents(tmp_path / "cpu") == contents(tmp_path / "numpy")


@pytest.mark.tensorflow
def test_a_kernel_is_traced_once_whatever_the_chunks(tf, tmp_path, used):
    with ckptkit.open(bundle().write(tmp_path / "m")) as found:
        report = found.edit("w/* *= 0.5").plan(tmp_path / "n").run(device="cpu")
    assert report.device == "cpu"
    assert [one.traces for one in used] == [1]


@pytest.mark.tensorflow
def test_each_dtype_is_traced_once(tf, tmp_path, used):
    made = Bundle()
    for number, dtype in enumerate(["float32", "float64", "float32", "float64", "int32"]):
        made.add(f"w{number}".encode(), np.arange(900 + number).astype(dtype))
    with ckptkit.open(made.write(tmp_path / "m")) as found:
        found.edit("w* *= 2").plan(tmp_path / "n").run(device="cpu")
    assert [one.traces for one in used] == [3]


@pytest.mark.tensorflow
def test_a_mapped_function_is_traced_once_for_each_rank(tf, tmp_path, used):
    with ckptkit.open(bundle().write(tmp_path / "m")) as found:
        before = {name: found[name].read() for name in ("w/0", "w/3", "sliced", "scalar")}
        draft = found.edit(*(ckptkit.Map(name, tf.math.square) for name in ("w/*", "sliced")))
        draft.edit(ckptkit.Map("scalar", tf.math.square)).plan(tmp_path / "n").run()
    assert [one.traces for one in used] == [2]
    with ckptkit.open(tmp_path / "n") as found:
        for name, values in before.items():
            assert as_bytes(found[name].read()) == as_bytes(values * values)


@pytest.mark.tensorflow
def test_steps_from_elsewhere_share_their_traces(tf, tmp_path, used):
    """Another process gets a kernel anew with every step."""
    with ckptkit.open(bundle().write(tmp_path / "m")) as found:
        draft = found.edit("w/* *= 0.5", ckptkit.Map("sliced", tf.math.square))
        draft.plan(tmp_path / "n").run(device="cpu", executor=Pickling())
        draft.plan(tmp_path / "o").run(device="cpu")
    # What is built in is traced for all runs, a function of the user for each.
    assert [one.traces for one in used] == [2, 1]
    assert contents(tmp_path / "n") == contents(tmp_path / "o")


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["gpu:99", "cpu:7", "tpu", "cpu:x", "cpu:"])
def test_a_device_that_is_not_there_is_refused(tf, tmp_path, name):
    with ckptkit.open(bundle().write(tmp_path / "m")) as found:
        plan = found.edit("row *= 2").plan(tmp_path / "n")
        with pytest.raises(EditError, match="device"):
            plan.run(device=name)
    assert not list(tmp_path.glob("n.*"))


def test_where_nothing_is_computed_there_is_no_device(tmp_path):
    with ckptkit.open(bundle().write(tmp_path / "m")) as found:
        assert found.edit("drop row").plan(tmp_path / "n").run().device is None


def test_a_little_work_goes_to_numpy(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "_GPU_FILES", ())
    with ckptkit.open(bundle().write(tmp_path / "m")) as found:
        assert found.edit("row *= 2").plan(tmp_path / "n").run().device == "numpy"


TWO_DEVICES = """
import os, sys
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
logical = tf.config.LogicalDeviceConfiguration
tf.config.set_logical_device_configuration(cpu, [logical(), logical()])
import ckptkit
from ckptkit.engine import device, run, steps
os.sched_getaffinity = lambda _: {0, 1}
run.MAX_CHUNK = steps.LIGHT = 1000
seen = set()
original = device.TensorFlowDevice._device
def watched(self):
    name = original(self)
    seen.add(name)
    return name
device.TensorFlowDevice._device = watched
folder = sys.argv[1]
with ckptkit.open(folder + "/m") as found:
    draft = found.edit("w/* *= 0.5", 'w/3 = x + t("row")')
    draft.plan(folder + "/numpy").run(device="numpy")
    draft.plan(folder + "/both").run(device="cpu")
    assert len(seen) == 2, seen
    seen.clear()
    report = draft.plan(folder + "/second").run(device="cpu:1")
    assert report.device == "cpu:1"
    assert seen and all(name.endswith(":1") for name in seen), seen
"""


@pytest.mark.tensorflow
def test_two_devices_share_the_work_and_give_the_same_bytes(tf, tmp_path):
    made = bundle()
    for number in range(30):
        made.add(f"w/more{number}".encode(), np.full((20, 20 + number), number, np.float32))
    made.write(tmp_path / "m")
    program = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert program.returncode == 0, program.stderr
    assert contents(tmp_path / "both") == contents(tmp_path / "numpy")
    assert contents(tmp_path / "second") == contents(tmp_path / "numpy")


def test_a_number_picks_a_logical_gpu(tf, monkeypatch):
    gpus = [tf.config.LogicalDevice(f"/device:GPU:{number}", "GPU") for number in range(3)]
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda kind: gpus if kind == "GPU" else []
    )
    assert device.logical_devices("gpu") == ["/device:GPU:0", "/device:GPU:1", "/device:GPU:2"]
    assert device.logical_devices("gpu:1") == ["/device:GPU:1"]
    with pytest.raises(EditError, match="no device"):
        device.logical_devices("gpu:3")


@pytest.mark.parametrize(
    ("cores", "gpus", "memory", "threads", "chunk"),
    [
        (1, 1, 256, 3, 256 / 24),
        (1, 2, 1024, 6, 1024 / 48),
        (16, 1, 4096, 16, 32),
        (16, 1, 256, 8, 4),
        (1, 2, 64, 2, 4),
    ],
)
def test_a_gpu_gets_threads_for_its_copies_within_the_memory(
    tmp_path, monkeypatch, cores, gpus, memory, threads, chunk
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(run, "logical_devices", lambda name: ["GPU"] * gpus)
    with ckptkit.open(bundle().write(tmp_path / "m")) as found:
        plan = found.edit("row *= 2").plan(tmp_path / "n")
    agreed = run.terms(plan.work, run.Means("gpu", memory=memory << 20))
    assert (agreed.threads, agreed.chunk) == (threads, int(chunk * (1 << 20)))
    assert threads <= agreed.window <= 2 * threads


@pytest.fixture
def small_device(tf, monkeypatch):
    """Devices whose memory holds a number of elements; more is out of memory, and counted."""

    def make(most):
        failed = []

        class Small(device.TensorFlowDevice):
            def _trace(self, function, key):
                traced = super()._trace(function, key)

                def limited(*tensors):
                    size = max(int(tf.size(tensor)) for tensor in tensors)
                    if size > most:
                        failed.append(size)
                        # What a GPU says when the result, and when the inputs, do not go in.
                        full = tf.errors.ResourceExhaustedError(None, None, "no more memory")
                        no_way_in = tf.errors.InternalError(
                            None,
                            None,
                            "Failed copying input tensor: Dst tensor is not initialized.",
                        )
                        raise (full, no_way_in)[len(failed) % 2]
                    return traced(*tensors)

                return limited

        monkeypatch.setattr(device, "TensorFlowDevice", Small)
        return failed

    return make


@pytest.mark.tensorflow
@pytest.mark.parametrize("most", [1, 7, 64, 10_000])
def test_out_of_memory_goes_on_in_halves_with_the_same_bytes(tf, tmp_path, small_device, most):
    failed = small_device(most)
    edits = (*EDITS["float"], ckptkit.Map("w/0", tf.math.square))
    with ckptkit.open(bundle().write(tmp_path / "m")) as found:
        found.edit(*edits).plan(tmp_path / "numpy").run(device="numpy")
        found.edit(*edits).plan(tmp_path / "cpu").run(device="cpu")
    assert bool(failed) == (most < 10_000)
    assert contents(tmp_path / "cpu") == contents(tmp_path / "numpy")


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "shapes",
    [[(8, 6), (6,)], [(1, 50), (1, 1)], [(5, 7), (5, 1), (1, 7)], [(3, 4, 5), (4, 1)], [()]],
)
def test_inputs_that_broadcast_go_into_both_halves(tf, small_device, shapes):
    small_device(1 if shapes == [()] else 7)
    rng = np.random.default_rng(2)
    inputs = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    names = [f't("{number}")' for number in range(1, len(shapes))]
    kernel = Expression(parse(f"w = {' + '.join(['x', *names])}").expr, "float32")
    found = device.device_from("cpu").run(kernel, inputs, "float32")
    assert as_bytes(found) == as_bytes(device.NumpyDevice().run(kernel, inputs, "float32"))


@pytest.mark.tensorflow
def test_a_size_that_was_too_much_is_not_tried_again(tf, small_device):
    failed = small_device(30)
    kernel = Expression(parse("w = x * 3").expr, "float32")
    small = device.device_from("cpu")
    values = np.arange(100, dtype=np.float32)
    for _ in range(3):
        assert np.array_equal(small.run(kernel, [values], "float32"), values * 3)
    assert failed == [100, 50]


class Whole:
    """A kernel that is about the whole tensor."""

    label = "whole"
    elementwise = False
    callable_kernel = False

    def block(self, ops, inputs):
        return ops.call("negative", inputs)


@pytest.mark.tensorflow
def test_what_cannot_be_cut_says_what_to_do(tf, small_device):
    small_device(30)
    small = device.device_from("cpu")
    assert small.run(Whole(), [np.ones(30, np.float32)], "float32").shape == (30,)
    with pytest.raises(EditError, match=r"whole on \[31\].*smaller parts.*--memory.*--device cpu"):
        small.run(Whole(), [np.ones(31, np.float32)], "float32")


@pytest.mark.tensorflow
def test_one_element_that_is_too_much_is_an_error(tf, small_device):
    small_device(0)
    kernel = Expression(parse("w = x * 3").expr, "float32")
    with pytest.raises(EditError, match=r"memory does not suffice for x \* 3"):
        device.device_from("cpu").run(kernel, [np.ones((2, 2), np.float32)], "float32")


STRICT = [
    (("w/* *= 0.5", "sliced[1] = abs(x)", "w/1 = x ** 2", "cast w/2 -> int8"), ()),
    (("w/* = exp(x)", "sliced[1:3, 2] = tanh(x) + exp(x)"), ("exp", "tanh")),
    (("w/3 = x", "w/3 = x + x ** 3", 'w/3[2] = t("row") * 2'), ("power",)),
    (("w/3 = x ** x ** 2",), ("power",)),
    (("w/3 = cast(x // 3, int32)",), ("floor_divide",)),
    ((ckptkit.Map("w/0", abs),), ("map abs",)),
    (("z *= 2", "w/1 += 1"), ("multiply of complex numbers",)),
    (("z += 2", "w/1 *= 2"), ()),
    (('row = abs(t("z"))',), ("abs of complex numbers",)),
    (
        ("row = abs(cast(x, complex64)) / 3",),
        ("divide of complex numbers", "abs of complex numbers"),
    ),
    (("scalar = abs(2j)",), ("abs of complex numbers",)),
]


@pytest.mark.parametrize(("edits", "expected"), STRICT)
def test_strict_refuses_what_depends_on_the_device_before_anything_is_written(
    tmp_path, edits, expected
):
    made = bundle()
    made.add(b"z", np.ones(23, np.complex64))
    with ckptkit.open(made.write(tmp_path / "m")) as found:
        plan = found.edit(*edits).plan(tmp_path / "n")
    assert exact.inexact(plan.work) == expected
    if not expected:
        assert plan.run("numpy", strict=True).device == "numpy"
        return
    with pytest.raises(EditError, match=r"strict: .* may differ") as caught:
        plan.run("numpy", strict=True)
    assert all(name in str(caught.value) for name in expected)
    assert not list(tmp_path.glob("n.*"))


@pytest.mark.tensorflow
def test_traces_are_kept_for_a_number_of_functions(tf, monkeypatch):
    monkeypatch.setattr(device, "TRACES_KEPT", 2)
    here = device.device_from("cpu")
    for number in (1, 2, 3, 1, 3, 4, 3):
        kernel = Expression(parse(f"w = x * {number}").expr, "float32")
        assert here.run(kernel, [np.ones(2, np.float32)], "float32")[0] == number
    assert here.traces == 5
    assert len(device._TRACED) == 2
