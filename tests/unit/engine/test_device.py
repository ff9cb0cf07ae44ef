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
from ckptkit.engine import device, run, work
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
    monkeypatch.setattr(work, "BLOCK", 900)


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
    edits = [edit for edit in edits if not (dtype == "uint8" and "= -x" in edit)]
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
    assert [one.traces for one in used] == [2, 2]
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
from ckptkit.engine import device, run
os.sched_getaffinity = lambda _: {0, 1}
run.MAX_CHUNK = 1000
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
    draft.plan(folder + "/second").run(device="cpu:1")
    assert all(name.endswith(":1") for name in seen), seen
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
