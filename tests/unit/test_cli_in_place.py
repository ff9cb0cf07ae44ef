"""The command line of edits in place: flags, recovery, undo, dead bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit._native import crc32c
from ckptkit.storage.disk import Disk
from ckptkit.storage.frames import VERSION, Begin
from ckptkit.storage.journal import Journal
from ckptkit.storage.sidecar import Lock, sidecar

KERNEL = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def model(tmp_path):
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "model"
    ckptkit.save(path, {"dense/kernel": KERNEL, "step": np.int64(7), "big": np.zeros(1000)})
    return str(path)


def files(model):
    return {path.name: path.read_bytes() for path in Path(model).parent.iterdir()}


def test_a_column_in_place(run, model):
    code, out, _ = run("edit", model, "--in-place", "-e", "dense/kernel[:, 1] *= 1.5")
    assert code == 0
    assert out.startswith(f"patch in place {model}\n")
    assert "note: patch: writes" in out
    np.testing.assert_array_equal(ckptkit.open(model)["dense/kernel"].read(), KERNEL * [1, 1.5, 1])
    assert sorted(files(model)) == ["model.data-00000-of-00001", "model.index"]


@pytest.mark.parametrize("how", ["append", "patch", "copy"])
def test_every_way_in_place_says_what_it_did(as_json, model, how):
    found = as_json("edit", model, "--in-place", "-e", "step += 1", "--how", how)
    assert found["plan"]["how"] == found["report"]["how"] == how
    assert found["plan"]["in_place"]
    assert found["report"]["bytes_journal"] > 0
    assert ckptkit.open(model)["step"].read() == 8


def test_a_dry_run_in_place_writes_nothing(run, model):
    before = files(model)
    code, out, _ = run("edit", model, "--in-place", "-e", "step += 1", "--dry-run")
    assert code == 0
    assert "journal" in out
    assert files(model) == before


def test_links(as_json, model, tmp_path):
    found = as_json("edit", model, tmp_path / "new", "-e", "step += 1", "--how", "link")
    assert found["report"]["bytes_written"] < 500
    assert found["plan"]["bytes_kept"] == 8000 + KERNEL.nbytes
    assert ckptkit.open(tmp_path / "new").verify().ok


def test_a_copy_says_what_a_link_would_write(run, model, tmp_path):
    _, out, _ = run("edit", model, tmp_path / "new", "-e", "step += 1", "--dry-run")
    assert "note: copy: stands alone; --how link would write 8 B of 8.0 KiB" in out


def test_linked_files_are_not_edited_in_place_before_the_link_is_broken(run, model, tmp_path):
    run("edit", model, tmp_path / "new", "-e", "step += 1", "--how", "link")
    shared = tmp_path / "new.data-00000-of-00002"
    for how in ("patch", "append"):
        line = ("edit", model, "--in-place", "-e", "dense/kernel[0] = 0", "--how", how)
        code, _, err = run(*line)
        assert code == 5
        assert "--break-links" in err
    before = shared.read_bytes()
    code, _, _ = run(*line, "--break-links")
    assert code == 0
    assert shared.stat().st_nlink == 1
    assert shared.read_bytes() == before
    assert ckptkit.open(model)["dense/kernel"][0].tolist() == [0, 0, 0]


def test_undo_and_undo_again(run, model):
    states = [files(model)]
    for statement in ("dense/kernel[:, 1] *= 1.5", "cast big -> float32", "drop step"):
        assert run("edit", model, "--in-place", "-e", statement, "--keep-undo", "-q")[0] == 0
        states.append({n: t for n, t in files(model).items() if n[0] != "."})
    for expected in reversed(states[:-1]):
        code, out, _ = run("undo", model)
        assert code == 0
        assert "undone" in out
        assert {n: t for n, t in files(model).items() if n[0] != "."} == expected
    code, _, err = run("undo", model)
    assert code == 4
    assert "no undo is kept" in err


def test_what_an_edit_without_undo_covers_up_is_not_undone(run, model):
    run("edit", model, "--in-place", "-e", "step += 1", "--keep-undo")
    code, out, _ = run("edit", model, "--in-place", "-e", "step += 1")
    assert "note: earlier edits can no longer be undone" in out
    code, _, err = run("undo", model)
    assert code == 5
    assert f"ckptkit undo --discard {model}" in err
    code, out, _ = run("undo", model, "--discard")
    assert code == 0
    assert out.startswith("removed ")
    assert sorted(files(model)) == ["model.data-00000-of-00001", "model.index"]


def test_dead_bytes_are_listed_verified_and_left_out(run, as_json, model):
    run("edit", model, "--in-place", "-e", "cast big -> float32", "-q")
    assert as_json("ls", model)["dead_bytes"] == 8000
    assert "7.8 KiB of dead bytes (edit --compact leaves them out)" in run("ls", model)[1]
    assert "8000 bytes belong to no tensor" in run("verify", model)[1]
    code, _, _ = run("edit", model, "--compact")
    assert code == 0
    assert as_json("ls", model)["dead_bytes"] == 0
    assert sorted(files(model)) == ["model.data-00000-of-00001", "model.index"]


def test_shards_are_cut_anew_in_place(run, model):
    assert run("edit", model, "--in-place", "--shards", 2)[0] == 0
    assert sorted(files(model)) == [
        "model.data-00000-of-00002",
        "model.data-00001-of-00002",
        "model.index",
    ]
    assert ckptkit.open(model).verify().ok


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--compact", "--how", "patch"], "does not go with --how patch"),
        (["--compact", "--keep-undo"], "cannot be undone"),
        (["--in-place", "-e", "step = 0", "--resume"], "`ckptkit recover`"),
        (["--in-place", "-e", "step = 0", "--how", "link"], "give a destination"),
    ],
)
def test_flags_that_contradict_one_another(run, model, options, words):
    code, _, err = run("edit", model, *options)
    assert code == 2
    assert words in err


def test_what_cannot_be_patched_says_why(run, model):
    for statement, words in (
        ("cast big -> float32", "becomes float32[1000] and was float64[1000]"),
        ("copy step -> twin", "a new tensor has no place yet"),
    ):
        code, _, err = run("edit", model, "--in-place", "--how", "patch", "-e", statement)
        assert code == 4
        assert words in err


def test_a_half_done_edit_is_not_opened_but_recovered(run, as_json, model):
    journal = sidecar(model, "journal")
    state = crc32c(files(model)["model.index"])
    begun = Journal(Disk(), journal, Begin(VERSION, "patch", "model.index", state, {}))
    begun.sync()
    begun.abandon()
    for command in (["ls"], ["verify"], ["diff", model]):
        code, _, err = run(*command, model)
        assert code == 5, command
        assert f"ckptkit recover {model}" in err
    code, _, err = run("edit", model, "--in-place", "-e", "step = 0")
    assert code == 5
    assert as_json("recover", model)["recovered"][0]["state"] == "back"
    assert as_json("recover", model)["recovered"][0]["state"] == "nothing"
    assert run("ls", model)[0] == 0


def test_two_editors(run, model):
    with Lock(model):
        code, _, err = run("edit", model, "--in-place", "-e", "step = 0")
    assert code == 5
    assert "another process edits this checkpoint" in err
    assert run("edit", model, "--in-place", "-e", "step = 0", "-q")[0] == 0


def test_recover_removes_what_a_killed_copy_left(run, model, tmp_path):
    left = tmp_path / ".new.ckptkit-0123456789ab"
    left.mkdir()
    (left / "00000.part").write_bytes(b"half")
    code, out, _ = run("recover", tmp_path / "new")
    assert code == 0
    assert "removed 1 folder of interrupted copies" in out
    assert not left.exists()
    code, _, err = run("recover", tmp_path / "new")
    assert code == 6
    assert "no checkpoint of this name" in err


def test_the_page_on_ways_of_writing(run):
    code, out, _ = run("help", "writing")
    assert code == 0
    for word in ("copy", "link", "append", "patch", "--compact", "recover", "undo", "--resume"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 100
