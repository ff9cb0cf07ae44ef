"""What ``auto`` chooses where TensorFlow sees no GPU."""

import numpy as np
import pytest

import ckptkit
from ckptkit.engine import device

pytest.importorskip("tensorflow")


@pytest.fixture
def draft(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "_GPU_FILES", ())
    monkeypatch.setattr(device, "WORTH_IMPORTING", 3 * 400)
    ckptkit.save(tmp_path / "model", {"w": np.ones(100, "float32")})

    def chosen(edit):
        return device.choose(
            "auto", ckptkit.open(tmp_path / "model").edit(edit).plan(tmp_path / "out").work
        )

    return chosen


@pytest.mark.parametrize(
    ("edit", "chosen"),
    [
        ("w *= 0.5", "numpy"),
        ("w = abs(x) * 2 + 1", "numpy"),
        ("w = tanh(x) * exp(-x)", "cpu"),
        (ckptkit.Map("w", abs), "cpu"),
        ("rename ^w$ -> v", None),
    ],
)
def test_tensorflow_has_to_be_worth_its_import(draft, edit, chosen):
    assert draft(edit) == chosen
