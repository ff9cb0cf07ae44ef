"""A model to be damaged, its donor, and where the result goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import ckptkit
from tests.unit.engine.salvage.saves import values

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model(tmp_path: Path) -> str:
    for seed, name in ((1, "model"), (2, "donor")):
        (tmp_path / name).mkdir()
        ckptkit.save(tmp_path / name / "m", values(seed), layout=ckptkit.Layout(shards=2))
    return str(tmp_path / "model" / "m")


@pytest.fixture
def donor(tmp_path: Path) -> str:
    return str(tmp_path / "donor" / "m")


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "out")
