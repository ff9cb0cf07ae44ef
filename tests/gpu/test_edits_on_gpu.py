"""The same edits on a GPU and in NumPy give the same files."""

import filecmp
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit.engine.device import device_from
from ckptkit.engine.pinned import Pinned, find_driver
from ckptkit.engine.steps import Arena
from tests.property.agreement import SINGLE, check_agreement, single

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.gpu

EXACT = (
    "** *= 0.5",
    "** = where(x > 0, x, 0.25 * x)",
    "** = clip(x, -1, 1) + 0.01",
    "kernel[:, 1] *= 1.5",
    'kernel += t("bias")',
    "cast ** -> bfloat16",
)


@pytest.fixture(scope="module", autouse=True)
def _needs_gpu():
    tf = pytest.importorskip("tensorflow")
    if not tf.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow sees no GPU")


@pytest.fixture
def checkpoint(tmp_path):
    rng = np.random.default_rng(5)
    tensors = {
        "bias": rng.standard_normal(700).astype("float32"),
        "kernel": rng.standard_normal((9000, 700)).astype("float32"),
    }
    ckptkit.save(tmp_path / "model", tensors)
    return ckptkit.open(tmp_path / "model")


@pytest.mark.parametrize("edit", EXACT)
def test_exact_operations_give_the_bits_of_numpy(checkpoint, tmp_path, edit):
    draft = checkpoint.edit(edit)
    draft.plan(tmp_path / "numpy").run(device="numpy")

    report = draft.plan(tmp_path / "gpu").run(device="gpu")

    assert report.device == "gpu"
    for suffix in (".index", ".data-00000-of-00001"):
        assert filecmp.cmp(tmp_path / f"numpy{suffix}", tmp_path / f"gpu{suffix}", shallow=False)


def test_auto_takes_the_gpu(checkpoint, tmp_path):
    assert checkpoint.edit("** *= 0.5").plan(tmp_path / "out").run().device == "gpu"


def test_a_mapped_function_gets_tensors_on_the_gpu(checkpoint, tmp_path):
    def halve(x):
        return x * 0.5

    checkpoint.edit(ckptkit.Map("kernel", halve)).plan(tmp_path / "out").run(device="gpu")

    expected = checkpoint["kernel"].read() * np.float32(0.5)
    assert np.array_equal(ckptkit.open(tmp_path / "out")["kernel"].read(), expected)


@pytest.mark.parametrize("op", sorted({op for op, _ in SINGLE}))
def test_an_exact_operation_gives_the_bits_of_numpy(op):
    run = device_from("gpu").run
    for dtype in (dtype for name, dtype in SINGLE if name == op):
        for seed in range(3):
            check_agreement(single(op, dtype), dtype, 4099, seed, run)


def test_staging_memory_is_page_locked():
    device_from("gpu")
    pinned = Pinned(find_driver())
    try:
        Arena(pinned).take(1 << 20)
        assert (pinned.nbytes, pinned.refused) == (1 << 20, 0)
    finally:
        pinned.close()
    assert pinned.nbytes == 0


SMALL_GPUS = """
import sys
import tensorflow as tf
gpu = tf.config.list_physical_devices("GPU")[0]
part = tf.config.LogicalDeviceConfiguration(memory_limit=96)
tf.config.set_logical_device_configuration(gpu, [part, part])
import ckptkit
from ckptkit.engine import device
used, original = set(), device.TensorFlowDevice._device
def watched(self):
    used.add(original(self))
    return original(self)
device.TensorFlowDevice._device = watched
draft = ckptkit.open(sys.argv[1]).edit("w = (x * 0.5 + 1) * (x - 3) + abs(x)")
assert draft.plan(sys.argv[2] + "/one").run("gpu:1", memory=2 << 30).device == "gpu:1"
assert all(name.endswith("GPU:1") for name in used), used
used.clear()
draft.plan(sys.argv[2] + "/both").run("gpu", memory=2 << 30)
assert len(used) == 2, used
"""


def test_little_memory_and_several_gpus_give_the_same_files(tmp_path):
    """Two logical GPUs, each with less memory than the chunks of its threads take."""
    rng = np.random.default_rng(6)
    ckptkit.save(tmp_path / "m", {"w": rng.standard_normal(100 << 20).astype("float32")})
    draft = ckptkit.open(tmp_path / "m").edit("w = (x * 0.5 + 1) * (x - 3) + abs(x)")
    draft.plan(tmp_path / "numpy").run(device="numpy")

    program = subprocess.run(
        [sys.executable, "-c", SMALL_GPUS, str(tmp_path / "m"), str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert program.returncode == 0, program.stderr
    for name in ("one", "both"):
        for suffix in (".index", ".data-00000-of-00001"):
            expected, found = tmp_path / f"numpy{suffix}", tmp_path / f"{name}{suffix}"
            assert filecmp.cmp(expected, found, shallow=False)
