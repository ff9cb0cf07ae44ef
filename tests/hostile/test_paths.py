"""Paths that are not what they seem."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import ckptkit
from ckptkit import CorruptError, UnknownFormatError
from ckptkit.engine.check import verify_path
from tests.hostile.forge import PAYLOAD, SOUND, refused, write
from tests.oracle import table

if TYPE_CHECKING:
    from pathlib import Path


def state(folder: Path, text: str | bytes) -> str:
    content = text if isinstance(text, bytes) else f'model_checkpoint_path: "{text}"\n'.encode()
    (folder / "checkpoint").write_bytes(content)
    return str(folder)


def test_nothing_there(tmp_path: Path) -> None:
    for function in (ckptkit.open, verify_path):
        with pytest.raises(FileNotFoundError):
            function(tmp_path / "nothing")


def test_file_of_another_format(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    for function in (ckptkit.open, verify_path):
        with pytest.raises(UnknownFormatError, match="not a checkpoint"):
            function(tmp_path / "notes.txt")


def test_data_file_without_an_index(tmp_path: Path) -> None:
    path = tmp_path / "model.data-00000-of-00001"
    path.write_bytes(PAYLOAD)
    refused(str(path), CorruptError, "data file", f"{tmp_path}/model.index")


@pytest.mark.parametrize("name", ["model", "model.index", "model.data-00000-of-00001"])
def test_any_member_file_will_do(tmp_path: Path, name: str) -> None:
    write(tmp_path, SOUND, PAYLOAD)
    assert [*ckptkit.open(tmp_path / name)] == ["w"]


def test_first_format_of_tensorflow(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(table.encode([(b"", b"\x0a\x00"), (b"key", b"value")]))
    refused(str(path), CorruptError, "a protobuf message does not parse")


def test_index_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.index").mkdir()
    with pytest.raises((FileNotFoundError, UnknownFormatError)):
        ckptkit.open(tmp_path / "model")


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/model", "a/../../model", "/model"])
def test_state_file_leads_out_of_its_folder(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    write(folder, SOUND, PAYLOAD)
    (tmp_path / "other").mkdir()
    write(tmp_path / "other", SOUND, PAYLOAD)
    write(tmp_path, SOUND, PAYLOAD)
    refused(state(folder, path), CorruptError, "outside its folder", path, file="checkpoint")


def test_state_file_with_an_absolute_path_into_its_folder(tmp_path: Path) -> None:
    path = write(tmp_path, SOUND, PAYLOAD)
    assert [*ckptkit.open(state(tmp_path, path))] == ["w"]


def test_state_file_names_nothing_that_is_there(tmp_path: Path) -> None:
    refused(state(tmp_path, "gone"), CorruptError, "'gone'", "no gone.index", file="checkpoint")


@pytest.mark.parametrize("content", [b"", b'x: "model"', b"all_model_checkpoint_paths: []"])
def test_state_file_without_a_path(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, SOUND, PAYLOAD)
    path = state(tmp_path, content)
    refused(path, CorruptError, "no model_checkpoint_path", file="checkpoint")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"\xff\xfe\0", "at byte 0: a state file is text in UTF-8"),
        (b"model_checkpoint_path: model", "at byte 23: the state file does not parse"),
    ],
)
def test_state_file_that_is_none(tmp_path: Path, content: bytes, part: str) -> None:
    write(tmp_path, SOUND, PAYLOAD)
    refused(state(tmp_path, content), CorruptError, part, file="checkpoint")


def test_state_file_with_a_nul(tmp_path: Path) -> None:
    refused(state(tmp_path, "mo\\000del"), CorruptError, file="checkpoint")


def test_state_file_of_two_mebibytes(tmp_path: Path) -> None:
    path = state(tmp_path, b" " * (2 << 20))
    refused(path, CorruptError, "at most 1048576 bytes", file="checkpoint")


def test_folder_with_several_checkpoints(tmp_path: Path) -> None:
    write(tmp_path, SOUND, PAYLOAD)
    os.link(tmp_path / "model.index", tmp_path / "second.index")
    for function in (ckptkit.open, verify_path):
        with pytest.raises(UnknownFormatError, match=r"2 checkpoints.*name one: model, second"):
            function(tmp_path)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UnknownFormatError, match="not a checkpoint"):
        ckptkit.open(tmp_path)
