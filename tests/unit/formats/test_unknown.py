"""What is said of a path that is no checkpoint: what it looks like, and what to give instead."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import ckptkit
from ckptkit import CorruptError, UnknownFormatError
from ckptkit.cli import main
from ckptkit.formats import find
from tests.oracle import first

CONTENTS = {
    "an empty file": b"",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
    "a web page": b"\n<!DOCTYPE html><html><body>404</body></html>",
    "a state file; give its folder": b'model_checkpoint_path: "m-1"\n',
    "nothing but zeros": bytes(5000),
}


@pytest.mark.parametrize("clue", CONTENTS)
def test_files_that_lie_where_a_checkpoint_should(tmp_path, clue):
    path = tmp_path / "m"
    path.write_bytes(CONTENTS[clue])
    with pytest.raises(UnknownFormatError, match=f"not a checkpoint of .*{clue}"):
        ckptkit.open(path)


def test_of_any_other_file_nothing_more_is_said(tmp_path):
    (tmp_path / "m").write_bytes(b"import this\n")
    with pytest.raises(UnknownFormatError, match=r"that ckptkit knows$"):
        ckptkit.open(tmp_path / "m")


def test_the_graph_beside_a_checkpoint(tmp_path):
    (tmp_path / "m-7.meta").write_bytes(b"\x0a\x05graph")
    with pytest.raises(UnknownFormatError, match=r"give the prefix, .*m-7$"):
        ckptkit.open(tmp_path / "m-7.meta")


def test_folders(tmp_path):
    with pytest.raises(UnknownFormatError, match="an empty folder"):
        ckptkit.open(tmp_path)
    (tmp_path / "notes").write_text("")
    with pytest.raises(UnknownFormatError, match=f"ckptkit ls {tmp_path} --all"):
        ckptkit.open(tmp_path)


def test_a_link_that_leads_nowhere_is_no_checkpoint(tmp_path):
    os.symlink("nowhere", tmp_path / "m")
    with pytest.raises(FileNotFoundError, match="leads nowhere"):
        find(str(tmp_path / "m"))


def test_what_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "m")
    with pytest.raises(UnknownFormatError, match="no plain file"):
        ckptkit.open(tmp_path / "m")


@pytest.mark.parametrize("kind", ["first", "index"])
@pytest.mark.parametrize("left", [0.2, 0.9])
def test_a_table_that_was_cut_short_is_damaged_and_not_unknown(tmp_path, capsys, kind, left):
    values = {f"layer{number}/kernel": np.float32([number, 1]) for number in range(200)}
    path = tmp_path / "m"
    if kind == "first":
        tensors = {name.encode(): first.whole("float32", one) for name, one in values.items()}
        path.write_bytes(first.encode(tensors))
    else:
        ckptkit.save(tmp_path / "n", values)
        os.replace(tmp_path / "n.index", path)
    os.truncate(path, int(left * path.stat().st_size))
    with pytest.raises(CorruptError, match="cut short") as caught:
        ckptkit.open(path)
    assert caught.value.offset == path.stat().st_size
    assert main(["verify", str(path), "--json"]) == 1
    assert "cut short" in json.loads(capsys.readouterr().out)["problems"][0]["message"]
    errors = [one.error for one in ckptkit.checkpoints(tmp_path) if one.path == str(path)]
    assert "cut short" in errors[0]
