"""Salvage of shards and indexes of two saves."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit.engine.check import verify_path
from tests.unit.engine.salvage.saves import assert_equal, index, read, shard, values

pytestmark = pytest.mark.usefixtures("unsynced")


def test_a_shard_of_another_save_is_told(model: str, donor: str, out: str) -> None:
    shutil.copy(shard(donor, 1), shard(model, 1))
    text = "shard 1 of 2 is not of this save: 7 of 7 tensors fail"
    problems = verify_path(model).problems
    assert (problems[0].message, problems[0].tensor) == (text, None)
    # What does not change from save to save is right in either.
    ckptkit.salvage(model, out)
    assert verify_path(out).ok


def test_the_right_shard_is_found_in_the_folder(model: str, donor: str, out: str) -> None:
    for path in Path(model).parent.iterdir():
        shutil.copy(path, path.with_name("other" + path.name.removeprefix("m")))
    shutil.copy(shard(donor, 1), shard(model, 1))
    found = ckptkit.salvage(model, out)
    assert found.ok
    assert found.fates == ()
    (text,) = found.shards
    assert "of 7 tensors fail" in text
    assert "other.data-00001-of-00002 fits, and is used" in text
    assert_equal(read(out), values(1))


def test_the_right_shard_is_found_at_a_donor(model: str, donor: str, out: str) -> None:
    shutil.copy(shard(model, 1), shard(donor, 1))
    # Now the donor is the mixture, and its like has what it lacks.
    copied = Path(model).parent.parent / "second"
    ckptkit.save(copied, values(2), layout=ckptkit.Layout(shards=2))
    found = ckptkit.salvage(donor, out, [model, copied])
    assert found.ok
    assert_equal(read(out), values(2))


def test_shards_that_have_one_another_s_numbers(model: str, out: str, tmp_path: Path) -> None:
    shard(model, 0).rename(tmp_path / "first")
    shard(model, 1).rename(shard(model, 0))
    (tmp_path / "first").rename(shard(model, 1))
    found = ckptkit.salvage(model, out)
    assert found.ok
    assert len(found.shards) == 2
    assert f"{shard(model, 1)} fits, and is used" in found.shards[0]
    assert_equal(read(out), values(1))


def test_an_index_of_another_save(model: str, donor: str, out: str) -> None:
    shutil.copy(index(donor), index(model))
    shutil.copy(index(donor), str(Path(model).with_name("x.index")))
    ckptkit.save(Path(model).with_name("y"), values(1), layout=ckptkit.Layout(shards=2))
    for number in (0, 1):
        shard(str(Path(model).with_name("y")), number).unlink()
    found = ckptkit.salvage(model, out)
    (text,) = found.shards
    assert "the index is not of this save" in text
    assert "y.index fits the shards" in text
    assert found.ok
    assert_equal(read(out), values(1))


def test_thousands_of_lines_become_one_sentence(tmp_path: Path) -> None:
    for seed in (1, 2):
        numbers = {f"v{n:04d}": np.int64(n + seed * 1000) for n in range(500)}
        ckptkit.save(tmp_path / f"m{seed}", numbers)
    shutil.copy(shard(str(tmp_path / "m2"), 0, 1), shard(str(tmp_path / "m1"), 0, 1))
    problems = verify_path(tmp_path / "m1").problems
    assert problems[0].message.startswith("shard 0 of 1 is not of this save: 500 of 500")
    assert len(problems) == 101
