"""The command line, as its user meets it."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit.cli import text, writing
from ckptkit.cli.failure import report
from ckptkit.cli.ls import Row
from ckptkit.cli.progress import Bar
from ckptkit.cli.session import Session
from ckptkit.region import Box

KERNEL = np.arange(12, dtype=np.float32).reshape(4, 3)
TENSORS = {
    "dense/bias": np.array([0, np.nan, np.inf], np.float32),
    "dense/kernel": KERNEL,
    "note": "hello",
    "step": np.int64(7),
}
HOSTILE = "red\x1b[31m\u202e/\udcff\n"


@pytest.fixture
def model(tmp_path):
    ckptkit.save(tmp_path / "model", TENSORS)
    return str(tmp_path / "model")


def process(*args, **options):
    command = [sys.executable, "-m", "ckptkit", *map(str, args)]
    return subprocess.run(command, capture_output=True, check=False, **options)


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


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
    code = (
        "import sys; from ckptkit.cli import main; main(['ls', sys.argv[1]]);"
        "print(*sorted({'tensorflow', 'h5py', 'numpy', 'rich', 'json'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, model], capture_output=True, check=True, text=True
    )
    assert done.stdout.splitlines()[-1] == ""


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
    code = (
        "import sys; from ckptkit.cli import main; main(['ls', sys.argv[1]]);"
        "heavy = {'tensorflow', 'keras', 'h5py', 'numpy', 'rich', 'tempfile', 'zipfile'};"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    path = Path(__file__).parents[1] / "golden" / "files" / name
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, check=True, text=True
    )
    *listed, heavy = done.stdout.splitlines()
    assert len(listed) > 3
    assert heavy == ""


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
        flip(tmp_path / "bad.data-00000-of-00001")
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
        flip(tmp_path / "bad.index")
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


class TestEdit:
    def test_writes_what_was_asked_for(self, as_json, model, tmp_path):
        out = tmp_path / "out/model"
        found = as_json("edit", model, out, "-e", "dense/kernel[:, 1] *= 1.5", "-e", "drop note")
        assert found["plan"]["tensors"] == 3
        assert found["plan"]["bytes_written"] == found["report"]["bytes_written"]
        assert {"bytes_read", "bytes_reused", "seconds"} <= set(found["report"])
        edited = ckptkit.open(out)
        assert "note" not in edited
        np.testing.assert_array_equal(edited["dense/kernel"].read(), KERNEL * [1, 1.5, 1])

    def test_a_dry_run_writes_nothing(self, as_json, run, model, tmp_path):
        before = set(tmp_path.iterdir())
        line = ("edit", model, tmp_path / "out", "-e", "dense/kernel = 0", "--dry-run")
        assert as_json(*line)["report"] is None
        _, out, _ = run(*line)
        assert "dense/kernel = 0" in out
        assert set(tmp_path.iterdir()) == before

    def test_text_says_what_was_written(self, run, model, tmp_path):
        code, out, _ = run("edit", model, tmp_path / "out", "-e", "step += 1")
        assert code == 0
        assert out.splitlines()[-1].startswith("copy: wrote ")
        assert run("edit", model, tmp_path / "b", "-e", "step += 1", "-q") == (0, "", "")

    def test_edits_from_a_file_come_first(self, as_json, model, tmp_path):
        (tmp_path / "edits").write_text("# more\n\n  step += 1\nrename ^step$ -> steps\n")
        as_json("edit", model, tmp_path / "out", "-f", tmp_path / "edits", "-e", "steps *= 10")
        assert ckptkit.open(tmp_path / "out")["steps"].read() == 80

    @pytest.mark.parametrize(
        ("options", "shards"),
        [
            (["--shards", 2], 2),
            (["--max-shard-size", "48"], 3),
            (["--shard-rule", "dense/*", "--shard-rule", "step"], 3),
        ],
    )
    def test_shards(self, as_json, model, tmp_path, options, shards):
        found = as_json("edit", model, tmp_path / "out", *options)
        assert found["plan"]["shards"] == shards
        assert ckptkit.diff(model, tmp_path / "out") == ()

    def test_threads_device_and_memory(self, as_json, model, tmp_path):
        line = ("--jobs", 2, "--memory", "64M", "--device", "numpy", "--how", "copy")
        found = as_json("edit", model, tmp_path / "out", "-e", "dense/kernel = 0", *line)
        assert found["report"]["device"] == "numpy"

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ([], "nothing to do"),
            (["-e", "step = 0", "--memory", "much"], "'much' is no size"),
            (["-e", "step = 0", "--device", "tpu"], "'tpu' is none of auto"),
            (["-e", "step = 0", "--jobs", "0"], "0 is not in the range"),
            (["-e", "step = 0", "--how", "move"], "'move' is not one of"),
            (["-e", "step = 0", "--how", "patch"], "is for an edit in place"),
            (["-e", "step = 0", "--in-place"], "has no destination"),
            (["--shards", "2", "--max-shard-size", "1M"], "choose one of --shards"),
            (["--max-shard-size", "0"], "above 0"),
        ],
    )
    def test_usage(self, run, model, tmp_path, options, words):
        code, out, err = run("edit", model, tmp_path / "out", *options)
        assert (code, out) == (2, "")
        assert err.startswith("Usage: ckptkit edit")
        assert words in err

    def test_without_a_destination(self, run, model):
        code, _, err = run("edit", model, "-e", "step = 0")
        assert code == 2
        assert "give a destination" in err

    @pytest.mark.parametrize("dst", ["", ".", "{}", "{}/"])
    def test_a_folder_is_no_destination(self, run, model, tmp_path, dst):
        code, _, err = run("edit", model, dst.format(tmp_path), "-e", "step = 0")
        assert code == 2
        assert "is a folder" in err

    @pytest.mark.parametrize("statement", ["step ! 0", "stop = 0", "dense/kernel[9] = 0"])
    def test_refused(self, run, model, tmp_path, statement):
        code, out, err = run("edit", model, tmp_path / "out", "-e", statement)
        assert (code, out) == (4, "")
        assert err.startswith("ckptkit: error: ")
        assert not list(tmp_path.glob("out*"))

    @pytest.mark.parametrize("options", [[], ["--dry-run"]])
    def test_strict_refuses_what_depends_on_the_device(self, run, model, tmp_path, options):
        line = ("edit", model, tmp_path / "out", "--strict", *options)
        code, out, err = run(*line, "-e", "dense/kernel = exp(x) * 2")
        assert (code, out) == (4, "")
        assert "strict: exp may differ" in err
        assert not list(tmp_path.glob("out*"))
        assert run(*line, "-e", "dense/kernel *= 2")[0] == 0

    def test_an_existing_destination_is_refused(self, run, model):
        assert run("edit", model, model, "-e", "step = 0")[0] == 4

    @pytest.mark.parametrize(
        ("text", "nbytes"),
        [
            ("1048576", 1 << 20),
            ("256M", 256 << 20),
            ("1GiB", 1 << 30),
            ("1.5k", 1536),
            ("2 TB", 2 << 40),
        ],
    )
    def test_sizes(self, text, nbytes):
        assert writing.size(text) == nbytes


class TestErrors:
    def test_no_such_file(self, run, as_json, tmp_path):
        code, out, err = run("ls", tmp_path / "none")
        assert (code, out) == (6, "")
        assert err == f"ckptkit: error: {tmp_path}/none: no checkpoint of this name\n"
        error = as_json("ls", tmp_path / "none", code=6)["error"]
        assert (error["kind"], error["path"]) == ("FileNotFoundError", f"{tmp_path}/none")

    def test_unknown_format(self, run, as_json, tmp_path):
        (tmp_path / "notes.txt").write_text("hello")
        assert run("verify", tmp_path / "notes.txt")[0] == 3
        error = as_json("ls", tmp_path / "notes.txt", code=3)["error"]
        assert error["kind"] == "UnknownFormatError"
        assert set(error) == {"kind", "message", "path", "tensor", "offset"}

    def test_usage_as_json(self, as_json):
        assert as_json("ls", "--nope", code=2)["error"]["kind"] == "NoSuchOption"

    def test_a_name_in_a_message_cannot_drive_a_terminal(self, run, model):
        _, _, err = run("show", model, "no\x1b[31m\nckptkit: error: fake")
        assert "\x1b" not in err
        assert len([line for line in err.splitlines() if line.startswith("ckptkit: error:")]) == 1

    @pytest.mark.parametrize("line", [("--traceback", "ls", "{}"), ("ls", "{}", "--traceback")])
    def test_traceback_before_or_after(self, run, tmp_path, line):
        _, _, err = run(*(part.format(tmp_path / "none") for part in line))
        assert err.startswith("Traceback")
        assert err.splitlines()[-1].startswith("ckptkit: error: ")

    def test_an_unexpected_error_is_a_bug(self, run, model, monkeypatch):
        monkeypatch.setattr("ckptkit.open", lambda _: 1 / 0, raising=False)
        code, _, err = run("ls", model)
        assert code == 70
        assert err.startswith("ckptkit: error: this is a bug in ckptkit: ZeroDivisionError")

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (ckptkit.CorruptError("m"), 3),
            (ckptkit.EditError("m"), 4),
            (ckptkit.ConflictError("m"), 5),
            (OSError(28, "No space left on device", "file"), 6),
            (OSError("odd"), 6),
            (MemoryError(), 6),
        ],
    )
    def test_exit_codes(self, capsys, error, code):
        assert report(error, Session()) == code
        assert capsys.readouterr().err.startswith("ckptkit: error: ")

    def test_full_standard_output(self, model):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "ckptkit", "ls", model],
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
            )
        assert done.returncode == 6
        assert done.stderr == b"ckptkit: error: No space left on device\n"

    @pytest.mark.parametrize("line", [("ls", "{}"), ("ls", "{}", "--json"), ("help", "language")])
    def test_a_closed_pipe_is_quiet(self, model, line):
        ours, theirs = os.pipe()
        os.close(ours)
        done = subprocess.run(
            [sys.executable, "-m", "ckptkit", *(part.format(model) for part in line)],
            stdout=theirs,
            stderr=subprocess.PIPE,
            check=False,
        )
        os.close(theirs)
        assert (done.returncode, done.stderr) == (141, b"")


HELD_STEP = """
import sys
from ckptkit.engine import run

perform = run.perform

def held(settings, step):
    print("working", flush=True)
    sys.stdin.read()
    return perform(settings, step)

run.perform = held
from ckptkit.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("jobs", [(), ("--jobs", "1")])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing_behind(model, tmp_path, number, code, jobs):
    out = tmp_path / "out"
    out.mkdir()
    line = ["edit", model, str(out / "deep" / "model"), "-e", "dense/kernel *= 2", "-q", *jobs]
    with subprocess.Popen(
        [sys.executable, "-c", HELD_STEP, *line],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout.readline() == b"working\n"
        assert list((out / "deep").iterdir())
        running.send_signal(number)
        running.stdin.close()
        assert running.wait() == code
        word = b"interrupted" if number == signal.SIGINT else b"terminated"
        assert running.stderr.read() == b"ckptkit: error: " + word + b"\n"
    assert not list(out.iterdir())


class TestAround:
    def test_version(self, run):
        assert run("--version")[1] == f"ckptkit, version {ckptkit.__version__}\n"

    @pytest.mark.parametrize("line", [(), ("--help",), ("help",)])
    def test_help_lists_every_command(self, run, line):
        code, out, _ = run(*line)
        assert code == 0
        assert out.count("\n  ") > 8

    def test_help_language(self, run):
        from ckptkit.language import REFERENCE

        assert run("help", "language") == (0, REFERENCE, "")

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_completion(self, run, shell):
        code, out, _ = run("completion", shell)
        assert code == 0
        assert "_CKPTKIT_COMPLETE" in out

    def test_a_shell_asks_for_commands(self):
        asked = {
            "_CKPTKIT_COMPLETE": "bash_complete",
            "COMP_WORDS": "ckptkit ver",
            "COMP_CWORD": "1",
        }
        done = process(env={**os.environ, **asked})
        assert done.stdout == b"plain,verify\n"

    def test_an_unknown_command(self, run):
        code, _, err = run("list")
        assert code == 2
        assert "No such command 'list'" in err

    def test_signal_handlers_are_put_back(self, run, model):
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        run("ls", model)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


class TestBar:
    def test_short_work_shows_none(self, capsys):
        with Bar("writing", enabled=True) as bar:
            bar(1, 2)
        assert capsys.readouterr().err == ""

    def test_long_work_shows_bytes(self, monkeypatch, capsys):
        monkeypatch.setattr("ckptkit.cli.progress.PATIENCE", 0)
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "120")
        with Bar("writing", enabled=True) as bar:
            bar(1 << 20, 4 << 20)
            bar(4 << 20, 4 << 20)
        shown = capsys.readouterr().err
        assert "writing" in shown
        assert "4.2/4.2 MB" in shown or "4.0/4.0 MiB" in shown

    def test_no_terminal_no_bar(self, monkeypatch, capsys):
        monkeypatch.setattr("ckptkit.cli.progress.PATIENCE", 0)
        with Session().bar("writing") as bar:
            bar(1, 2)
        assert capsys.readouterr().err == ""
