"""Commands that read, as their user meets them."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit.cli import text
from ckptkit.cli.ls import Row
from ckptkit.region import Box
from tests.golden.damage import flip
from tests.golden.make import FILES
from tests.unit.listed import KERNEL, TENSORS, loaded, process

HOSTILE = "red\x1b[31m\u202e/\udcff\n"


@pytest.fixture
def model(tmp_path):
    ckptkit.save(tmp_path / "model", TENSORS)
    return str(tmp_path / "model")


class TestLs:
    def test_lines_up_what_there_is(self, run, model):
        code, out, err = run("ls", model)
        assert (code, err) == (0, "")
        assert out.splitlines()[:3] == [
            "name          dtype    shape  size",
            "dense/bias    float32  [3]    12 B",
            "dense/kernel  float32  [4,3]  48 B",
        ]
        assert out.splitlines()[-1].startswith("4 tensors, 78 B; tensorflow checkpoint of 1 shard")

    def test_long_says_where(self, run, model):
        _, out, _ = run("ls", "-l", model, "dense/kernel")
        assert out.splitlines()[0].split() == [
            *("name", "dtype", "shape", "size", "shard", "offset", "checksum")
        ]
        assert "crc32c:" in out.splitlines()[1]

    def test_json(self, as_json, model):
        found = as_json("ls", model)
        assert (found["format"], found["path"]) == ("tensorflow", model)
        kernel = found["tensors"][1]
        stored = ckptkit.open(model)["dense/kernel"].tensor.source.pieces[0]
        assert kernel == {
            "name": "dense/kernel",
            "dtype": "float32",
            "shape": [4, 3],
            "nbytes": 48,
            "shard": 0,
            "file": "model.data-00000-of-00001",
            "offset": stored.extent.offset,
            "checksum": str(stored.checksum),
        }

    @pytest.mark.parametrize("pattern", ["dense/*", "**/b*", "step"])
    def test_patterns_choose(self, as_json, model, pattern):
        wanted = {"dense/*": ["dense/bias", "dense/kernel"], "**/b*": ["dense/bias"]}
        names = [tensor["name"] for tensor in as_json("ls", model, pattern)["tensors"]]
        assert names == wanted.get(pattern, ["step"])

    def test_a_pattern_that_matches_nothing_is_an_error(self, run, model):
        code, _, err = run("ls", model, "dens/*")
        assert code == 4
        assert err.startswith("ckptkit: error: no tensor matches 'dens/*'")

    def test_an_empty_checkpoint(self, as_json, run, tmp_path):
        ckptkit.save(tmp_path / "empty", {})
        assert as_json("ls", tmp_path / "empty")["tensors"] == []
        assert run("ls", tmp_path / "empty")[1].splitlines()[-1].startswith("0 tensors, 0 B")

    def test_names_cannot_drive_a_terminal(self, run, as_json, tmp_path):
        ckptkit.save(tmp_path / "odd", {HOSTILE: KERNEL})
        for line in (("ls", tmp_path / "odd"), ("show", tmp_path / "odd", HOSTILE)):
            _, out, _ = run(*line)
            assert "red\\x1b[31m\\u202e/\\xff" in out
            assert all(character.isprintable() or character == "\n" for character in out)
        assert as_json("ls", tmp_path / "odd")["tensors"][0]["name"] == HOSTILE

    def test_an_ascii_terminal_gets_escapes(self, tmp_path):
        ckptkit.save(tmp_path / "odd", {"größe": KERNEL})
        done = process("ls", tmp_path / "odd", env={**os.environ, "PYTHONIOENCODING": "ascii"})
        assert (done.returncode, done.stderr) == (0, b"")
        assert rb"gr\xf6\xdfe" in done.stdout

    def test_a_tensor_in_slices_lists_them(self, tmp_path):
        halves = {"a": KERNEL[:1], "b": KERNEL[1:], "x": KERNEL}
        ckptkit.save(tmp_path / "m", halves)
        catalog = ckptkit.open(tmp_path / "m").catalog
        boxes = (Box((0, 0), (1, 3)), 0), (Box((1, 0), (3, 3)), 1)
        row = Row("x", catalog.spec("x"), catalog.columns.with_parts({2: boxes}), 2)
        found = row.to_dict()
        assert (found["nbytes"], found["shard"], found["offset"]) == (48, None, None)
        assert found["pieces"][1] == {
            "shard": 0,
            "file": "m.data-00000-of-00001",
            "offset": 12,
            "nbytes": 36,
            "checksum": str(catalog["b"].source.pieces[0].checksum),
            "start": [1, 0],
            "extent": [3, 3],
        }
        assert row.cells(long=True)[-3:] == ("", "", "2 slices")

    def test_a_terminal_gets_a_table(self, model):
        ours, theirs = pty.openpty()
        done = subprocess.run(
            [sys.executable, "-m", "ckptkit", "ls", model], stdout=theirs, check=False
        )
        os.close(theirs)
        shown = os.read(ours, 1 << 16).decode()
        os.close(ours)
        assert done.returncode == 0
        assert "─" in shown
        assert "dense/kernel" in shown

    def test_a_long_table_streams(self, capsys, monkeypatch):
        monkeypatch.setattr(text, "PRETTY_ROWS", 2)
        seen = []

        def rows():
            for number in range(5):
                seen.append(capsys.readouterr().out)
                yield ("n" * number, str(number))

        text.write_table((text.Column("name"), text.Column("size", right=True)), rows())
        assert "".join(seen[:3]) == ""
        assert seen[3].startswith("name  size\n")


def test_a_listing_starts_quickly(model):
    assert not {"tensorflow", "h5py", "numpy", "rich", "json"} & loaded("ls", model)


@pytest.mark.parametrize(
    "name",
    [
        "keras_sequential.keras",
        "keras_nested.weights.h5",
        "keras_shards.weights.json",
        "keras_legacy.h5",
    ],
)
def test_a_listing_of_a_keras_file_starts_quickly(name):
    heavy = {"tensorflow", "keras", "h5py", "numpy", "rich", "tempfile", "zipfile"}
    assert not heavy & loaded("ls", FILES / name)


class TestShow:
    def test_values(self, run, as_json, model):
        found = as_json("show", model, "dense/kernel[1:3, 1]")
        assert found == {
            "name": "dense/kernel",
            "dtype": "float32",
            "shape": [4, 3],
            "region": "[1:3, 1]",
            "values": [4, 7],
            "stats": None,
        }
        assert run("show", model, "dense/kernel[1:3, 1]")[1].splitlines()[1:] == ["[4., 7.]"]

    def test_what_json_lacks(self, as_json, tmp_path):
        tensors = {
            "bias": np.array([0, np.nan, -np.inf], np.float32),
            "text": np.array([b"a\xff", b""], object),
            "pair": np.complex64(1 + 2j),
            "flag": np.array([True]),
        }
        ckptkit.save(tmp_path / "m", tensors)
        found = {name: as_json("show", tmp_path / "m", name)["values"] for name in tensors}
        assert found == {
            "bias": [0, "nan", "-inf"],
            "text": ["a\udcff", ""],
            "pair": [1, 2],
            "flag": [True],
        }

    @pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "int4", "uint4"])
    def test_small_dtypes(self, as_json, tmp_path, dtype):
        import ml_dtypes

        ckptkit.save(tmp_path / "m", {"x": np.array([1, 2], getattr(ml_dtypes, dtype))})
        assert as_json("show", tmp_path / "m", "x")["values"] == [1, 2]
        assert as_json("show", tmp_path / "m", "x", "--stats")["stats"]["mean"] == 1.5

    @pytest.mark.parametrize("region", ["", "[3:, ::2]", "[..., 5]"])
    def test_corners_of_a_large_tensor_are_numpys(self, run, tmp_path, region):
        values = np.arange(40 * 50 * 60, dtype=np.int32).reshape(40, 50, 60)
        ckptkit.save(tmp_path / "m", {"x": values})
        _, out, _ = run("show", tmp_path / "m", f"x{region}")
        chosen = {"": values, "[3:, ::2]": values[3:, ::2], "[..., 5]": values[..., 5]}[region]
        wanted = np.array2string(chosen, threshold=0, separator=", ")
        assert out.partition("\n")[2] == wanted + "\n"

    def test_stats_are_numpys_in_any_number_of_blocks(self, as_json, tmp_path, monkeypatch):
        from ckptkit.cli import values

        monkeypatch.setattr(values, "BLOCK", 100)
        array = np.random.default_rng(1).normal(1e6, 1, (7, 11, 3))
        array[0, 0], array[1, :2, 0] = [np.nan, np.inf, -np.inf], 0
        ckptkit.save(tmp_path / "m", {"x": array})
        found = as_json("show", tmp_path / "m", "x", "--stats")
        finite = array[np.isfinite(array)]
        exact = {"count": array.size, "nan": 1, "inf": 2, "zeros": 2}
        assert found["values"] is None
        assert found["stats"] == {
            **exact,
            "min": finite.min(),
            "max": finite.max(),
            "mean": pytest.approx(finite.mean(), rel=1e-12),
            "std": pytest.approx(finite.std(), rel=1e-12),
        }

    def test_stats_of_nothing_and_of_text(self, as_json, run, tmp_path):
        ckptkit.save(tmp_path / "m", {"none": np.zeros((0, 2)), "text": "a", "nan": np.nan})
        for name in ("none", "nan"):
            assert as_json("show", tmp_path / "m", name, "--stats")["stats"]["mean"] is None
        code, _, err = run("show", tmp_path / "m", "text", "--stats")
        assert code == 4
        assert "real numbers" in err

    def test_stats_as_text(self, run, model):
        _, out, _ = run("show", model, "dense/kernel[:, 1]", "--stats")
        assert out.splitlines()[0] == "dense/kernel[:, 1]: float32[4, 3], 4 elements of 48 B stored"
        assert out.splitlines()[2].split() == ["min", "1.0"]

    def test_a_name_with_brackets_goes_before_a_region(self, as_json, tmp_path):
        ckptkit.save(tmp_path / "m", {"x[0]": np.array([5, 6]), "x": np.array([1, 2])})
        assert as_json("show", tmp_path / "m", "x[0]")["values"] == [5, 6]
        assert as_json("show", tmp_path / "m", "x[0][1]")["values"] == 6
        assert as_json("show", tmp_path / "m", "x[1]")["values"] == 2

    def test_an_unknown_name_is_refused_with_the_nearest(self, run, model):
        code, _, err = run("show", model, "dense/kernl")
        assert code == 4
        assert "did you mean 'dense/kernel'" in err


class TestVerify:
    def test_sound(self, run, as_json, model):
        assert run("verify", model)[:2] == (0, f"{model}: ok, 78 B checked, no problems\n")
        assert as_json("verify", model) == {
            "ok": True,
            "checked_bytes": 78,
            "problems": [],
            "notes": [],
        }

    def test_damage_is_named(self, run, as_json, model, tmp_path):
        ckptkit.save(tmp_path / "bad", {"x": KERNEL})
        flip(tmp_path / "bad.data-00000-of-00001", -1)
        code, out, _ = run("verify", tmp_path / "bad", model)
        assert code == 1
        assert "tensor 'x'" in out
        assert "FAILED" in out
        found = as_json("verify", model, tmp_path / "bad", code=1)
        assert found["checked_bytes"] == 78 + 48
        assert [problem["tensor"] for problem in found["problems"]] == ["x"]
        assert set(found["problems"][0]) == {"path", "tensor", "offset", "message", "severity"}

    def test_a_damaged_index_is_a_problem(self, as_json, tmp_path):
        ckptkit.save(tmp_path / "bad", {"x": KERNEL})
        flip(tmp_path / "bad.index", -1)
        found = as_json("verify", tmp_path / "bad", code=1)
        assert (found["ok"], len(found["problems"])) == (False, 1)

    def test_quiet(self, run, model):
        assert run("verify", "-q", model) == (0, "", "")


class TestManifest:
    def test_it_is_written_and_compared(self, run, as_json, model):
        path = f"{model}.manifest.json"
        assert run("manifest", model)[:2] == (0, f"{path}: 4 tensors, 78 B summed\n")
        assert as_json("manifest", model) == {
            "manifests": [{"path": str(model), "manifest": path, "tensors": 4, "bytes": 78}]
        }
        code, out, _ = run("verify", model)
        assert (code, out.splitlines()[0]) == (
            0,
            f"{model}: its tensors were compared with {path}",
        )
        notes = as_json("verify", model)["notes"]
        assert notes == [{"path": str(model), "message": f"its tensors were compared with {path}"}]

    def test_what_is_no_manifest_fails(self, run, model):
        Path(f"{model}.manifest.json").write_text("{}")
        code, out, _ = run("verify", model)
        assert code == 1
        assert "this is no manifest" in out


class TestDiff:
    def test_equal(self, run, as_json, model):
        assert run("diff", model, model)[:2] == (0, "no differences\n")
        assert as_json("diff", model, model) == {"equal": True, "differences": []}

    def test_different(self, run, as_json, model, tmp_path):
        changed = {**TENSORS, "dense/kernel": KERNEL + 1, "step": np.int32(7)}
        changed["new"] = changed.pop("note")
        ckptkit.save(tmp_path / "other", changed)
        code, out, _ = run("diff", model, tmp_path / "other", "--values")
        assert code == 1
        assert out.splitlines()[-1] == "4 differences"
        found = as_json("diff", model, tmp_path / "other", "--values", code=1)
        kinds = {entry["name"]: entry["kind"] for entry in found["differences"]}
        assert kinds == {
            "dense/kernel": "values",
            "new": "only_in_b",
            "note": "only_in_a",
            "step": "dtype",
        }
        values = next(entry for entry in found["differences"] if entry["kind"] == "values")
        assert (values["max_abs"], values["count"]) == (1, 12)
