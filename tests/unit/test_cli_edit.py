"""``ckptkit edit``, as its user meets it."""

import signal
import subprocess
import sys

import numpy as np
import pytest

import ckptkit
from ckptkit.cli import writing
from tests.unit.listed import KERNEL, TENSORS


@pytest.fixture
def model(tmp_path):
    ckptkit.save(tmp_path / "model", TENSORS)
    return str(tmp_path / "model")


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
            (["--how", "link"], "--how link shares the files of SRC"),
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
