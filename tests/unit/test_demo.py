"""The demo: what it shows is true, and what it needs is said."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import ckptkit
from ckptkit import demo
from ckptkit.cli import main


def ckptkit_process(*args):
    return subprocess.run(
        [sys.executable, "-m", "ckptkit", *args], capture_output=True, check=False, text=True
    )


@pytest.mark.tensorflow
def test_tensorflow_agrees_with_every_job(tmp_path):
    done = ckptkit_process("demo", "--json", "--keep", str(tmp_path / "kept"))
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["ok"]
    assert len(found["jobs"]) == 3
    for job in found["jobs"]:
        assert job["equal"]
        assert job["predictions_moved"] > 1e-4
        assert job["plan"]["bytes_written"] == job["report"]["bytes_written"]
        assert job["report"]["bytes_reused"] > 0


@pytest.mark.tensorflow
def test_text_shows_commands_that_work(tmp_path):
    done = ckptkit_process("demo", "--keep", str(tmp_path / "kept"))
    assert (done.returncode, done.stderr) == (0, "")
    commands = [line[2:] for line in done.stdout.splitlines() if line.startswith("$ ckptkit edit")]
    assert len(commands) == 3
    assert done.stdout.count("equal bits") == 3
    again = commands[2].replace("/scaled/", "/again/").removeprefix("ckptkit ")
    subprocess.run(["/bin/sh", "-c", f"{sys.executable} -m ckptkit {again}"], check=True)
    kept = tmp_path / "kept"
    assert ckptkit.diff(kept / "scaled/model", kept / "again/model") == ()
    before, after = (ckptkit.open(kept / name / "model") for name in ("cnn", "scaled"))
    kernel = "model/dense/_kernel/.ATTRIBUTES/VARIABLE_VALUE"
    scale = np.where(np.arange(demo.CLASSES) == 1, np.float32(1.5), np.float32(1))
    np.testing.assert_array_equal(after[kernel].read(), before[kernel].read() * scale)


def test_without_tensorflow_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert main(["demo", "-q"]) == 2
    capsys.readouterr()
    assert main(["demo"]) == 4
    assert "pip install 'ckptkit[tensorflow]'" in capsys.readouterr().err


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine").write_text("mine")
    assert main(["demo", "--keep", str(tmp_path)]) == 4
    assert "not empty" in capsys.readouterr().err


def test_a_prediction_that_differs_fails(tmp_path, monkeypatch, capsys):
    ckptkit.save(tmp_path / "m", {"x": np.zeros(3)})
    plan = ckptkit.open(tmp_path / "m").edit("x = 1").plan(tmp_path / "n")
    outcome = demo.Outcome(demo.jobs()[0], "ckptkit edit", plan, plan.run(), 0.5, 0.25, equal=False)
    monkeypatch.setattr(demo, "make", lambda _: str(tmp_path / "m"))
    monkeypatch.setattr(demo, "run", lambda *_: iter([outcome]))
    assert main(["demo"]) == 1
    assert "max abs difference 0.25" in capsys.readouterr().out
    assert main(["demo", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_jobs_do_the_same_to_a_model_in_memory():
    class Variable(SimpleNamespace):
        def numpy(self):
            return self.value.copy()

        def assign(self, value):
            self.value = value

        def __mul__(self, factor):
            return self.value * factor

        def __add__(self, term):
            return self.value + term

    for job, wanted in zip(demo.jobs(), ([0.5, 0.5], [1, 1], [1, 1.5]), strict=True):
        kernel = Variable(value=np.ones((2, 2)))
        layer = SimpleNamespace(weights=[kernel])
        first = SimpleNamespace(weights=[Variable(value=np.ones(1))])
        job.in_memory(SimpleNamespace(dense=layer, conv1=first))
        assert kernel.value.tolist() == [wanted, wanted]
