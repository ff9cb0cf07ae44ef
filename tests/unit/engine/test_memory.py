"""Memory is bounded by the budget: tensors of four times as much are edited in little more."""

from __future__ import annotations

import numpy as np
import pytest

import ckptkit
from tests.unit.engine.limited import BUDGET, run_limited

ROWS, COLUMNS, RANK = 4096, 8200, 16
SOME = np.array([0, 1, 777, 2048, ROWS - 1])
"""Rows that are compared."""


def save(path, rows, columns):
    rng = np.random.default_rng(4)
    values = {
        "w": rng.standard_normal((rows, columns), np.float32),
        "half": rng.standard_normal((rows, columns // 2), np.float32),
        "A": rng.standard_normal((rows, RANK), np.float32),
        "B": rng.standard_normal((RANK, columns), np.float32),
        "bn/moving_mean": rng.standard_normal(columns, np.float32),
        "bn/moving_variance": rng.random(columns, np.float32),
        "bias": rng.standard_normal(columns, np.float32),
    }
    ckptkit.save(path, values)
    return values


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A checkpoint with a tensor of four times the budget, a tiny one alike, and the values."""
    folder = tmp_path_factory.mktemp("memory")
    save(folder / "tiny", 64, 72)
    values = save(folder / "large", ROWS, COLUMNS)
    assert values["w"].nbytes >= 4 * BUDGET
    yield folder, values
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture
def edit(models):
    """Edit the large checkpoint within limits, and return what is made."""
    folder, _ = models
    target = folder / "made"

    def call(*statements):
        run_limited(folder / "large", folder / "tiny", target, statements)
        return ckptkit.open(target)

    yield call
    for path in folder.glob("*made*"):
        path.unlink()


def near(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def rows_of(found, name, rows=SOME):
    return np.concatenate([found[name][int(row) : int(row) + 1] for row in rows])


def test_divided_by_its_norm(models, edit):
    w = models[1]["w"]
    with edit("w = x / norm(x)") as found:
        near(rows_of(found, "w"), w[SOME] / np.sqrt(np.square(w).sum(dtype=np.float64)))


def test_normalised(models, edit):
    w = models[1]["w"]
    with edit("w = (x - mean(x)) / std(x, axis=0)") as found:
        expected = (w[SOME] - w.mean(dtype=np.float64)) / w.std(0, dtype=np.float64)
        near(rows_of(found, "w"), expected)


def test_normalised_by_row(models, edit):
    w = models[1]["w"][SOME]
    with edit("w = (x - mean(x, axis=1)) / std(x, axis=1)") as found:
        near(rows_of(found, "w"), (w - w.mean(1, keepdims=True)) / w.std(1, keepdims=True), 1e-4)


def test_pruned(models, edit):
    w = models[1]["w"]
    least = np.partition(np.abs(w).reshape(-1), w.size // 2)[w.size // 2]
    with edit("prune w -> 50%") as found:
        expected = np.where(np.abs(w[SOME]) < least, 0, w[SOME])
        np.testing.assert_array_equal(rows_of(found, "w"), expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_pruned_by_groups(models, edit, axis):
    w = models[1]["w"][:64]
    with edit(f"prune w -> 2:4 axis={axis}") as found:
        made = found["w"][:64]
    kept = np.moveaxis(made != 0, axis, -1).reshape(-1, 4)
    assert (kept.sum(1) == 2).all()
    np.testing.assert_array_equal(made[made != 0], w[made != 0])
    sizes = np.sort(np.abs(np.moveaxis(w, axis, -1)).reshape(-1, 4), axis=1)
    np.testing.assert_array_equal(
        np.sort(np.abs(np.moveaxis(made, axis, -1)).reshape(-1, 4), axis=1)[:, 2:], sizes[:, 2:]
    )


def test_transposed(models, edit):
    w = models[1]["w"]
    with edit("transpose w") as found:
        assert found["w"].shape == (COLUMNS, ROWS)
        np.testing.assert_array_equal(rows_of(found, "w"), w[:, SOME].T)
        assert found.verify().ok


def test_transposed_and_reshaped(models, edit):
    w = models[1]["w"]
    with edit("transpose w", "reshape w -> -1, 8") as found:
        expected = w[:, :16].T.reshape(-1, 8)
        np.testing.assert_array_equal(found["w"][: len(expected)], expected)


def test_updated_by_low_rank(models, edit):
    values = models[1]
    with edit("lora w -> A, B scale=0.5") as found:
        expected = values["w"][SOME] + 0.5 * (values["A"][SOME] @ values["B"])
        near(rows_of(found, "w"), expected)


def test_multiplied_by_what_is_as_large(models, edit):
    values = models[1]
    with edit('new z = transpose(t("half")[:256]) @ t("w")[:256]') as found:
        expected = values["half"][:256, SOME].T @ values["w"][:256]
        near(rows_of(found, "z"), expected, 1e-4)


@pytest.mark.parametrize("fill", ["zeros", "mean", "normal", "7"])
def test_resized(models, edit, fill):
    w = models[1]["w"]
    with edit(f"resize w -> {ROWS + 500} fill={fill}") as found:
        np.testing.assert_array_equal(rows_of(found, "w"), w[SOME])
        more = found["w"][ROWS:]
    expected = {"zeros": w[:1] * 0, "7": w[7:8]}
    if fill in expected:
        np.testing.assert_array_equal(more, np.repeat(expected[fill], 500, 0))
    elif fill == "mean":
        near(more, np.repeat(w.mean(0, keepdims=True, dtype=np.float64), 500, 0))
    else:
        assert abs(more.std() - 1) < 0.01


def test_resized_along_the_last_axis(models, edit):
    w = models[1]["w"][SOME]
    with edit(f"resize w -> {COLUMNS + 300} axis=1 fill=mean") as found:
        made = rows_of(found, "w")
    np.testing.assert_array_equal(made[:, :COLUMNS], w)
    near(made[:, COLUMNS:], np.repeat(w.mean(1, keepdims=True), 300, 1))


def test_taken(models, edit):
    w = models[1]["w"]
    # Rows that the tiny one has as well, as many as go into a statement.
    order = np.random.default_rng(0).integers(0, 64, 2400)
    with edit(f"take w -> {', '.join(map(str, order))}") as found:
        np.testing.assert_array_equal(found["w"][::500], w[order[::500]])


def test_taken_along_the_last_axis(models, edit):
    w = models[1]["w"]
    order = np.random.default_rng(0).integers(0, 72, 2400)
    with edit(f"take w -> {', '.join(map(str, order))} axis=1") as found:
        np.testing.assert_array_equal(rows_of(found, "w"), w[SOME][:, order])


def test_joined(models, edit):
    values = models[1]
    with edit("concat w, half -> z axis=1") as found:
        expected = np.concatenate([values["w"][SOME], values["half"][SOME]], 1)
        np.testing.assert_array_equal(rows_of(found, "z"), expected)


def test_rounded_by_chance(models, edit):
    w = models[1]["w"][SOME]
    with edit("cast w -> bfloat16 rounding=stochastic") as found:
        made = rows_of(found, "w").astype(np.float32)
    assert (np.abs(made - w) <= np.abs(w) * 2.0**-7).all()
    assert abs(np.mean(made - w)) < 1e-4


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_quantized(models, edit, axis):
    w = models[1]["w"]
    words = "" if axis is None else f" axis={axis}"
    with edit(f"quantize w -> int8{words}") as found:
        steps, scale = rows_of(found, "w"), found["w_scale"].read()
    largest = np.abs(w).max(axis=None if axis is None else 1 - axis, keepdims=axis == 0)
    np.testing.assert_array_equal(scale, largest / np.float32(127))
    around = scale[SOME] if axis == 0 else scale
    np.testing.assert_array_equal(steps, np.clip(np.round(w[SOME] / around), -127, 127))


def test_several_edits_as_one(models, edit):
    w = models[1]["w"]
    with edit("transpose w", "w = x / norm(x)", "quantize w -> int8 axis=0") as found:
        steps, scale = rows_of(found, "w"), rows_of(found, "w_scale")
    divided = w[:, SOME].T / np.sqrt(np.square(w).sum(dtype=np.float64)).astype(np.float32)
    near(scale, np.abs(divided).max(1, keepdims=True) / 127)
    assert (np.abs(steps * scale - divided) <= scale * 0.501).all()


def test_folded(models, edit):
    values = models[1]
    with edit("foldbn w -> bn bias=bias") as found:
        factor = 1 / np.sqrt(values["bn/moving_variance"] + np.float32(1e-3))
        near(rows_of(found, "w"), values["w"][SOME] * factor)
        near(found["bias"].read(), (values["bias"] - values["bn/moving_mean"]) * factor)


def test_noise(models, edit):
    w = models[1]["w"][SOME]
    with edit("noise w -> 0.1") as found:
        added = rows_of(found, "w") - w
    assert abs(added.std() - 0.1) < 0.002
