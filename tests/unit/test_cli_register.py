"""``ckptkit register``, ``ls --all`` and ``--register``."""

from __future__ import annotations

import os

import numpy as np
import pytest

import ckptkit
from ckptkit.formats.tensorflow.state import State, read_state
from tests.unit.listed import loaded


@pytest.fixture
def folder(tmp_path):
    """Two checkpoints, and no state file."""
    for step in (1, 2):
        ckptkit.save(tmp_path / f"m-{step}", {"w": np.arange(step, dtype=np.float32)})
    return tmp_path


def state(folder):
    return read_state(str(folder / "checkpoint"))


def put(folder, *args):
    (folder / "checkpoint").write_bytes(State(*args).render())


class TestRegister:
    def test_says_what_is_the_latest(self, run, folder):
        code, out, err = run("register", folder / "m-2", folder / "m-1")
        assert (code, err) == (0, "")
        assert out == f"{folder}/checkpoint: written, the latest is m-1\n"
        assert state(folder) == State("m-1", ("m-2", "m-1"))
        _, out, _ = run("register", folder / "m-1")
        assert "as it was" in out

    def test_repairs_what_was_moved(self, run, folder):
        put(folder, "/old/m-2", ("/old/m-0", "/old/m-1", "m-1", "/old/m-2"))
        _, out, _ = run("register", "--repair", folder, "--dry-run")
        assert out.splitlines() == [
            f"{folder}/checkpoint: would be written, the latest is m-2",
            "  /old/m-0 is not there, and stays in the list (--prune leaves it out)",
            "  /old/m-1 is m-1",
            "  m-1 was there twice",
            "  /old/m-2 is m-2",
        ]
        assert state(folder).model_checkpoint_path == "/old/m-2"
        _, out, _ = run("register", "--repair", "--prune", folder)
        assert "/old/m-0 is not there, and is left out" in out
        assert state(folder) == State("m-2", ("m-1", "m-2"))

    def test_says_what_tensorflow_ignores_a_state_file_for(self, run, folder):
        (folder / "checkpoint").write_text('model_checkpoint_path: "m-1"\nbest: "m-1" # by hand\n')
        _, out, _ = run("register", folder / "m-2")
        assert out.splitlines()[1:] == [
            '  TensorFlow knows no field best: "m-1", and ignores a state file with one'
        ]

    def test_tells_json(self, as_json, folder):
        put(folder, "/old/m-2")
        found = as_json("register", "--repair", folder)
        assert found == {
            "dry_run": False,
            "registrations": [
                {
                    "path": f"{folder}/checkpoint",
                    "latest": "m-2",
                    "changes": [{"path": "/old/m-2", "now": "m-2", "what": "relative"}],
                    "written": True,
                }
            ],
        }

    def test_lines_of_a_state_file_are_none_of_ours(self, run, folder):
        put(folder, "m-1", ("x\n/run/checkpoint: written\x1b[31m", "m-1"))
        _, out, _ = run("register", "--repair", folder)
        assert len(out.splitlines()) == 2
        assert r"x\x0a/run" in out
        assert "\x1b" not in out

    def test_quiet_says_nothing(self, run, folder):
        assert run("register", "-q", folder / "m-1") == (0, "", "")

    @pytest.mark.parametrize(
        ("args", "code", "message"),
        [
            (["--prune", "m-1"], 2, "goes with --repair"),
            ([], 2, "Missing argument"),
            (["m-3"], 6, "no checkpoint of this name"),
            (["--repair", "."], 6, "no state file"),
        ],
    )
    def test_refuses_what_makes_no_sense(self, run, folder, monkeypatch, args, code, message):
        monkeypatch.chdir(folder)
        found, _, err = run("register", *args)
        assert found == code
        assert message in err
        assert not (folder / "checkpoint").exists()

    def test_says_of_a_damaged_state_file_what_to_do(self, run, folder):
        (folder / "checkpoint").write_text("nonsense")
        code, _, err = run("register", folder / "m-1")
        assert code == 3
        assert "at byte 8: the state file does not parse" in err
        assert "to begin anew, remove the state file" in err


class TestListAll:
    def test_lists_a_folder(self, run, folder):
        put(folder, "m-2", ("m-0", "m-2"), (1e9, 1.7e9))
        os.truncate(folder / "m-1.index", 3)
        code, out, err = run("ls", folder, "--all")
        assert (code, err) == (0, "")
        head, *lines, foot = out.splitlines()
        assert head.split() == ["checkpoint", "format", "tensors", "size", "registered", "remarks"]
        assert lines[0].split("  ")[0] == "m-0"
        assert "2001-09-09 01:46:40Z  registered, but not there" in lines[0]
        assert lines[1].split() == (
            ["m-2", "tensorflow", "1", "8", "B", "2023-11-14", "22:13:20Z", "latest"]
        )
        assert lines[2].endswith("an index has at least 48 bytes, this file has 3")
        assert foot == f"1 checkpoint, 2 do not open; the latest is {folder}/m-2"

    def test_says_that_nothing_is_the_latest(self, run, folder):
        _, out, _ = run("ls", folder, "--all")
        assert out.endswith("2 checkpoints; no state file says which is the latest\n")

    def test_counts_as_the_listing_of_one_does(self, as_json, folder):
        one = as_json("ls", folder / "m-2")
        (_, found) = as_json("ls", folder, "--all")["checkpoints"]
        assert found["nbytes"] == sum(tensor["nbytes"] for tensor in one["tensors"])
        assert found["path"] == str(folder / "m-2")

    def test_tells_json(self, as_json, folder):
        put(folder, "m-1", ("m-1",), (float("nan"),))
        found = as_json("ls", folder, "--all")
        assert (found["folder"], found["latest"]) == (str(folder), f"{folder}/m-1")
        assert found["checkpoints"][0] == {
            "path": f"{folder}/m-1",
            "format": "tensorflow",
            "tensors": 1,
            "nbytes": 4,
            "registered": True,
            "latest": True,
            "timestamp": "nan",
            "error": None,
        }

    @pytest.mark.parametrize("time", [float("nan"), float("inf"), 1e300, -1e18])
    def test_shows_times_that_are_none(self, run, folder, time):
        put(folder, "m-1", ("m-1",), (time,))
        _, out, _ = run("ls", folder, "--all")
        assert repr(time) in out

    def test_shows_names_as_they_are_and_nothing_else(self, run, folder):
        put(folder, "m-1", ("/x\n\x1b[31m/m-1", "m-1"))
        _, out, _ = run("ls", folder, "--all")
        assert "\x1b" not in out
        assert len(out.splitlines()) == 5

    @pytest.mark.parametrize("more", [["w"], ["-l"]])
    def test_lists_no_tensors(self, run, folder, more):
        code, _, err = run("ls", folder, "--all", *more)
        assert code == 2
        assert "neither a PATTERN nor -l" in err

    def test_is_for_folders(self, run, folder):
        code, _, err = run("ls", folder / "m-1", "--all")
        assert code == 2
        assert "is none" in err

    def test_is_quick_to_start(self, folder):
        assert not {"numpy", "h5py", "tensorflow", "rich"} & loaded("ls", folder, "--all")


class TestWritten:
    def test_an_edit_is_registered(self, run, folder):
        code, out, _ = run("edit", folder / "m-1", folder / "m-3", "-e", "w += 1", "--register")
        assert code == 0
        assert out.endswith(f"{folder}/checkpoint: written, the latest is m-3\n")
        assert state(folder) == State("m-3", ("m-3",))
        assert ckptkit.open(folder)["w"].read() == [1]

    def test_so_is_what_is_converted(self, run, folder):
        line = ["convert", folder / "m-1", folder / "m-3", "--match", folder / "m-1", "--register"]
        assert run(*line)[0] == 0
        assert state(folder).model_checkpoint_path == "m-3"

    def test_nothing_is_unless_asked_for(self, run, folder):
        assert run("edit", folder / "m-1", folder / "m-3", "-e", "w += 1")[0] == 0
        assert not (folder / "checkpoint").exists()

    def test_it_tells_json(self, as_json, folder):
        line = ["edit", folder / "m-1", folder / "m-3", "-e", "w += 1", "--register"]
        assert as_json(*line, "--dry-run")["registration"] is None
        assert not (folder / "checkpoint").exists()
        assert as_json(*line)["registration"]["latest"] == "m-3"

    def test_a_link_is_registered_too(self, run, folder):
        line = ["edit", folder / "m-1", folder / "m-3", "-e", "w += 1", "--how", "link"]
        assert run(*line, "--register")[0] == 0
        assert state(folder).model_checkpoint_path == "m-3"

    def test_in_place_nothing_changes(self, run, folder):
        code, _, err = run("edit", folder / "m-1", "--in-place", "-e", "w += 1", "--register")
        assert code == 2
        assert "--register is for a new destination" in err
        assert ckptkit.open(folder / "m-1")["w"].read() == [0]

    def test_a_saved_model_is_not_registered(self, run, folder):
        (folder / "model/variables").mkdir(parents=True)
        (folder / "model/saved_model.pb").write_bytes(b"")
        ckptkit.save(folder / "model/variables/variables", {"w": 1.0})
        line = ["edit", folder / "model", folder / "new", "-e", "w += 1", "--register"]
        code, _, err = run(*line)
        assert code == 2
        assert "DST becomes a SavedModel" in err
        assert not (folder / "new").exists()

    def test_nor_is_a_keras_file(self, run, folder):
        ckptkit.save(folder / "k.weights.h5", {"w": np.arange(3.0)}, format="keras")
        line = ["edit", folder / "k.weights.h5", folder / "new.weights.h5", "-e", "w += 1"]
        code, _, err = run(*line, "--register")
        assert code == 2
        assert "DST becomes a keras file" in err
        assert not (folder / "new.weights.h5").exists()

    def test_a_damaged_state_file_is_told_before_anything_is_written(self, run, folder):
        (folder / "checkpoint").write_text("nonsense")
        line = ["edit", folder / "m-1", folder / "m-3", "-e", "w += 1", "--register"]
        code, _, err = run(*line)
        assert code == 3
        assert "does not parse" in err
        assert not (folder / "m-3.index").exists()

    def test_what_cannot_be_registered_afterwards_is_written_nevertheless(
        self, run, folder, monkeypatch
    ):
        def fails(*args, **options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("ckptkit.registry._rewritten", fails)
        line = ["edit", folder / "m-1", folder / "m-3", "-e", "w += 1", "--register"]
        code, _, err = run(*line)
        assert code == 6
        assert f"it is written; to register it: ckptkit register {folder}/m-3" in err
        assert ckptkit.open(folder / "m-3")["w"].read() == [1]
