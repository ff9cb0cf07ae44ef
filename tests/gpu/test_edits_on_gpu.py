"""The same edits on a GPU and in NumPy give the same files."""

import filecmp

import numpy as np
import pytest

import ckptkit

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
