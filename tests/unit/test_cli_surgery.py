"""Named edits on the command line: other checkpoints, plans that show what runs, and leave."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ckptkit
from ckptkit.language import REFERENCE
from ckptkit.language.statements import VERBS
from tests.unit.listed import values

RNG = np.random.default_rng(8)
MODEL = {
    "a/kernel": RNG.standard_normal((6, 4), np.float32),
    "b/kernel": RNG.standard_normal((6, 4), np.float32),
    "b/bias": np.zeros(4, np.float32),
}
DONOR = {"a/kernel": MODEL["a/kernel"] + 1, "b/kernel": MODEL["b/kernel"] + 2}


@pytest.fixture
def model(tmp_path):
    ckptkit.save(tmp_path / "model", MODEL)
    ckptkit.save(tmp_path / "donor", DONOR)
    return tmp_path / "model"


class TestWith:
    def test_tensors_of_another_checkpoint(self, run, model, tmp_path):
        code, _, err = run(
            "edit", model, tmp_path / "n", "--device", "numpy",
            "--with", f"donor={tmp_path / 'donor'}",
            "-e", '"(*)/kernel" = (x + t("donor:{1}/kernel")) / 2',
            "-e", 'new c = t("donor:a/kernel")',
        )  # fmt: skip
        assert code == 0, err
        found = values(tmp_path / "n")
        np.testing.assert_array_equal(
            found["a/kernel"], (MODEL["a/kernel"] + DONOR["a/kernel"]) / np.float32(2)
        )
        np.testing.assert_array_equal(
            found["b/kernel"], (MODEL["b/kernel"] + DONOR["b/kernel"]) / np.float32(2)
        )
        np.testing.assert_array_equal(found["c"], DONOR["a/kernel"])
        np.testing.assert_array_equal(values(tmp_path / "donor")["a/kernel"], DONOR["a/kernel"])

    def test_in_place(self, run, model, tmp_path):
        code, _, err = run(
            "edit", model, "--in-place", "--device", "numpy",
            "--with", f"donor={tmp_path / 'donor'}", "-e", 'b/kernel = t("donor:b/kernel")',
        )  # fmt: skip
        assert code == 0, err
        assert values(model).keys() == MODEL.keys()
        np.testing.assert_array_equal(values(model)["b/kernel"], DONOR["b/kernel"])

    def test_a_new_tensor_with_their_bytes_that_is_edited(self, run, model, tmp_path):
        code, _, err = run(
            "edit", model, tmp_path / "n", "--device", "numpy",
            "--with", f"donor={tmp_path / 'donor'}",
            "-e", 'new c = reshape(t("donor:a/kernel"), [4, 6])', "-e", "c[0] = 5",
        )  # fmt: skip
        assert code == 0, err
        expected = DONOR["a/kernel"].reshape(4, 6).copy()
        expected[0] = 5
        np.testing.assert_array_equal(values(tmp_path / "n")["c"], expected)

    @pytest.mark.parametrize(
        ("given", "what"),
        [
            (["donor"], "expected NAME=PATH"),
            (["=x"], "expected NAME=PATH"),
            (["donor="], "expected NAME=PATH"),
            (["a:b=x"], "expected NAME=PATH"),
            (["donor=x", "donor=y"], "given twice"),
        ],
    )
    def test_what_is_no_binding_is_a_wrong_call(self, run, model, tmp_path, given, what):
        words = [word for text in given for word in ("--with", text)]
        code, _, err = run("edit", model, tmp_path / "n", *words, "-e", "b/bias = 1")
        assert code == 2
        assert what in err

    def test_what_is_not_bound_is_said(self, run, model, tmp_path):
        code, _, err = run("edit", model, tmp_path / "n", "-e", 'b/bias = t("donor:b/bias")')
        assert code == 4
        assert "--with donor=PATH" in err
        code, _, err = run(
            "edit", model, tmp_path / "n", "--with", f"donor={tmp_path / 'donor'}",
            "-e", 'b/bias = t("donor:b/bias")',
        )  # fmt: skip
        assert code == 4
        assert "b/bias" in err
        assert not list(tmp_path.glob("n.*"))


class TestPlan:
    def test_edits_of_one_tensor_are_one_chain(self, run, model, tmp_path):
        edits = ["a/kernel *= 2", "clip a/kernel -> -1, 1", "cast a/kernel -> bfloat16"]
        words = [word for text in edits for word in ("-e", text)]
        code, out, _ = run("edit", model, tmp_path / "n", "--dry-run", "--json", *words)
        assert code == 0
        plan = json.loads(out)["plan"]
        assert plan["edits"] == edits
        (stage,) = plan["stages"]
        assert stage == {
            "chain": "x * 2 -> clip(x, -1, 1) -> cast bfloat16",
            "tensors": 1,
            "granularity": "element",
            "passes": 1,
            "measures": False,
        }
        assert (plan["passes"], plan["bytes_read"]) == (1, MODEL["a/kernel"].nbytes)
        _, out, err = run("edit", model, tmp_path / "n", "--dry-run", *words)
        assert f"compute {stage['chain']} (1 tensor)" in out + err
        assert not list(tmp_path.glob("n.*"))

    def test_passes_before_the_edit_are_shown(self, run, model, tmp_path):
        code, out, _ = run(
            "edit", model, tmp_path / "n", "--dry-run", "--json", "-e", "prune */kernel -> 50%"
        )
        assert code == 0
        plan = json.loads(out)["plan"]
        measure, compute = plan["stages"]
        assert (measure["measures"], measure["passes"], measure["tensors"]) == (True, 2, 2)
        assert "of magnitudes" in measure["chain"]
        assert (compute["measures"], compute["tensors"]) == (False, 2)
        assert plan["passes"] == 3


class TestAllowWhole:
    @pytest.fixture
    def wide(self, tmp_path):
        """A tensor of which the mean along an axis is more than its share of memory."""
        ckptkit.save(tmp_path / "wide", {"w": np.ones((2, 1 << 20), np.float32)})
        return tmp_path / "wide"

    def test_more_than_the_memory_takes_leave(self, run, wide, tmp_path):
        words = ["--device", "numpy", "--memory", "32M", "-e", "w = x - mean(x, axis=0)"]
        code, _, err = run("edit", wide, tmp_path / "n", *words)
        assert code == 4
        assert "--allow-whole" in err
        assert "bytes of memory" in err
        assert not list(tmp_path.glob("*n.*"))
        code, _, err = run("edit", wide, tmp_path / "n", *words, "--allow-whole")
        assert code == 0, err
        assert not values(tmp_path / "n")["w"].any()

    def test_or_more_memory(self, run, wide, tmp_path):
        words = ["--device", "numpy", "--memory", "64M", "-e", "w = x - mean(x, axis=0)"]
        code, _, err = run("edit", wide, tmp_path / "n", *words)
        assert code == 0, err


class TestHelp:
    def test_every_named_edit_is_in_the_reference(self, run):
        code, out, err = run("help", "language")
        assert (code, out, err) == (0, REFERENCE, "")
        flowing = " ".join(out.split())
        for name, verb in VERBS.items():
            assert verb.form.startswith(name)
            assert f"  {verb.form}" in out
            assert verb.doc in flowing
        assert "--with donor=PATH" in out

    @pytest.mark.parametrize("statement", [verb.form for verb in VERBS.values()])
    def test_a_mistake_after_a_named_edit_points_at_its_place(
        self, run, model, tmp_path, statement
    ):
        code, _, err = run("edit", model, tmp_path / "n", "-e", f"{statement} ?! nonsense")
        assert code in {2, 4}
        assert "^" in err or "no tensor" in err or "nonsense" in err


NAMED = {
    "clip */kernel -> -1, 1": ["a/kernel", "b/bias", "b/kernel"],
    "quantize b/kernel -> int8 axis=1": ["a/kernel", "b/bias", "b/kernel", "b/kernel_scale"],
    "split b/kernel -> q, k axis=1": ["a/kernel", "b/bias", "k", "q"],
    "concat a/kernel, b/kernel -> c": ["b/bias", "c"],
    "stack */kernel -> c": ["b/bias", "c"],
    "unstack b/bias -> n{}": ["a/kernel", "b/kernel", "n0", "n1", "n2", "n3"],
    "resize a/kernel -> 9 fill=mean": ["a/kernel", "b/bias", "b/kernel"],
    "take b/bias -> 3, 0": ["a/kernel", "b/bias", "b/kernel"],
    "prune */kernel -> 2:4": ["a/kernel", "b/bias", "b/kernel"],
}


@pytest.mark.parametrize("statement", NAMED)
@pytest.mark.parametrize("place", ["copy", "append"])
def test_named_edits_from_the_command_line(run, model, tmp_path, statement, place):
    where = [tmp_path / "n"] if place == "copy" else ["--in-place", "--how", "append"]
    code, _, err = run("edit", model, *where, "--device", "numpy", "-e", statement)
    assert code == 0, err
    assert list(values(tmp_path / "n" if place == "copy" else model)) == NAMED[statement]
    assert run("verify", model)[0] == 0
