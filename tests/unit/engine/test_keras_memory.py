"""Memory is bounded by the budget on Keras files, too, whatever the way of writing."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import ckptkit
from tests.crash import keras_files as made
from tests.unit.engine.limited import BUDGET, run_limited

ROWS, COLUMNS = 4096, 8200
KERNEL, BIAS = "layers/dense/vars/0", "layers/dense/vars/1"
SOME = [0, 777, ROWS - 1]


def kernel(rows):
    """Return numbers that compress, and differ from row to row."""
    few = np.arange(COLUMNS, dtype=np.float32) % 97
    return few + np.arange(rows, dtype=np.float32)[:, None]


def model(rows):
    layers = made.dense_model()
    return {**layers, "layers/dense": {"0": kernel(rows), "1": np.ones(COLUMNS, np.float32)}}


def compressed(path, rows):
    """Make a file with the kernel in compressed chunks."""
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/dense/vars")
        made.put(group, "0", kernel(rows), chunks=(64, 1025), compression="gzip", shuffle=True)
        made.put(group, "1", np.ones(COLUMNS, np.float32))


MAKERS = {
    "m.weights.h5": lambda path, rows: made.save_weights(path, model(rows)),
    "m.keras": lambda path, rows: made.save_archive(path, model(rows)),
    "z.weights.h5": compressed,
}


@pytest.fixture(scope="module", params=MAKERS)
def files(request, tmp_path_factory):
    """A file with a tensor of four times the budget, and a tiny one alike."""
    folder = tmp_path_factory.mktemp("memory")
    large, tiny = folder / request.param, folder / f"tiny-{request.param}"
    MAKERS[request.param](large, ROWS)
    MAKERS[request.param](tiny, 64)
    assert kernel(1).nbytes * ROWS >= 4 * BUDGET
    yield large, tiny
    shutil.rmtree(folder)


@pytest.fixture
def edit(files, tmp_path):
    """Edit the large file within limits, and return what is made."""

    def call(how, *statements):
        large, tiny = (shutil.copy(path, tmp_path) for path in files)
        target = tmp_path / f"made{''.join(Path(large).suffixes)}"
        run_limited(large, tiny, target, statements, how)
        return ckptkit.open(large if how.startswith("in place") else target)

    yield call
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("files", "how"),
    [
        *((name, how) for name in MAKERS for how in ("copy", "in place, copy")),
        # What is compressed is not patched.
        ("m.weights.h5", "in place, patch"),
        ("m.keras", "in place, patch"),
    ],
    indirect=["files"],
)
def test_values_of_a_large_tensor(files, edit, how):
    with edit(how, f"{KERNEL} = x * 2 + 1", f"{BIAS} = 3") as found:
        for row in SOME:
            expected = kernel(row + 1)[row] * 2 + 1
            np.testing.assert_array_equal(found[KERNEL][row], expected)
        np.testing.assert_array_equal(found[BIAS].read(), np.full(COLUMNS, 3, np.float32))
        if files[0].suffix == ".keras":
            assert found.verify().ok


@pytest.mark.parametrize("how", ["copy", "in place, copy"])
def test_another_dtype_and_another_name(edit, how):
    with edit(how, f"cast {KERNEL} -> float16", f'rename "^{BIAS}$" -> head/vars/0') as found:
        for row in SOME:
            expected = kernel(row + 1)[row].astype(np.float16)
            np.testing.assert_array_equal(found[KERNEL][row], expected)
        assert found["head/vars/0"].shape == (COLUMNS,)


def test_by_statistics(edit):
    with edit("copy", f"{KERNEL} = x / norm(x)") as found:
        row = found[KERNEL][7]
    norm = np.sqrt(sum(np.square(kernel(ROWS)[at::64], dtype=np.float64).sum() for at in range(64)))
    np.testing.assert_allclose(row, kernel(8)[7] / norm, rtol=1e-5)
