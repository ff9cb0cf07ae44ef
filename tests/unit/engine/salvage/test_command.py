"""``ckptkit salvage``, and the account that it gives."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ckptkit
from tests.golden.damage import damage
from tests.unit.engine.salvage.saves import shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("unsynced")


def test_a_dry_run_says_what_would_be_saved(run: Run, model: str, out: str) -> None:
    damage(model, "step")
    code, text, _ = run("salvage", model, out, "--dry-run", "--memory", "64M")
    assert code == 1
    assert "would save 15 tensors" in text
    assert "lost: tensor 'step'" in text


def test_it_tells_json(as_json: Callable[..., Any], model: str, donor: str, out: str) -> None:
    damage(model, "step")
    found = as_json("salvage", model, out, "--donor", donor, code=1)
    assert [fate["tensor"] for fate in found["filled"]] == ["step"]
    assert found["report"]["destination"] == out


def test_exit_codes(run: Run, model: str, donor: str, tmp_path: Path) -> None:
    damage(model, "step")
    assert run("salvage", model, tmp_path / "kept", "--keep-damaged", "-q") == (1, "", "")
    code, text, _ = run("salvage", donor, tmp_path / "sound")
    assert (code, text.splitlines()[-1]) == (0, "nothing is lost")
    (tmp_path / "sizes").write_text("a int8 [1]\n")
    os.unlink(model + ".index")
    assert run("salvage", model, tmp_path / "x", "--sizes", tmp_path / "sizes")[0] == 3


def test_bars_are_shown_one_after_the_other(
    run: Run, model: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ckptkit.cli.session import Session

    shown = []

    @contextmanager
    def bar(_: Session, what: str) -> Iterator[Callable[[int, int], None]]:
        shown.append(f"{what} begins")
        yield lambda *_: None
        shown.append(f"{what} ends")

    monkeypatch.setattr(Session, "bar", bar)
    assert run("salvage", model, out, "-q")[0] == 0
    assert shown == ["reading begins", "reading ends", "writing begins", "writing ends"]


def test_long_accounts_are_cut_for_people(tmp_path: Path, out: str) -> None:
    ckptkit.save(tmp_path / "m", {f"v{n:03d}": np.int64(n) for n in range(300)})
    path = shard(str(tmp_path / "m"), 0, 1)
    path.write_bytes(path.read_bytes()[:8])
    found = ckptkit.salvage(tmp_path / "m", out)
    lines = list(found.lines())
    assert len([line for line in lines if line.startswith("lost: tensor")]) == 100
    assert "lost: 199 tensors more (--json lists all)" in lines
