"""What all tests share: a quiet TensorFlow, patient Hypothesis, fresh folders, command lines."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
"""Real checkpoints by others, which lie beside a checkout where there are any."""

# A loaded machine is slow, which is no failure; and a fixture's folder serves many examples.
settings.register_profile(
    "patient",
    deadline=None,
    max_examples=40,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def tf() -> Any:
    """TensorFlow, imported once by each process that runs a test with it."""
    return pytest.importorskip("tensorflow", reason="tensorflow is not installed")


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """Give a new empty folder with every call, so that examples do not meet."""
    numbers = itertools.count()

    def folder() -> Path:
        path = tmp_path / f"example-{next(numbers)}"
        path.mkdir()
        return path

    return folder


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the device, where a test is about bytes and not about crashes."""
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda fd: None)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real checkpoints, where there is one."""
    if not CORPUS.is_dir():
        pytest.skip("the corpus of real checkpoints does not lie beside this checkout")
    return CORPUS


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line; its exit code, and what it wrote to either stream."""

    from ckptkit.cli import main

    def call(*args: object) -> tuple[int, str, str]:
        code = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def as_json(run: Callable[..., tuple[int, str, str]]) -> Callable[..., Any]:
    """Run a command line with ``--json``; the object that it printed."""

    def call(*args: object, code: int = 0) -> Any:
        found, out, err = run(*args, "--json")
        assert found == code, err
        return json.loads(out)

    return call
