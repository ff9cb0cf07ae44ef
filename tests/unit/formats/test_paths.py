"""Which checkpoint a path means."""

from __future__ import annotations

import os

import numpy as np
import pytest

import ckptkit
from ckptkit import CorruptError, UnknownFormatError, UnsupportedError
from ckptkit.formats import by_name
from ckptkit.formats.tensorflow.paths import (
    FOOTER_BYTES,
    MAGIC,
    data_file,
    is_there,
    resolve,
    shard_path,
)


@pytest.fixture
def prefix(tmp_path):
    """A checkpoint of one tensor."""
    ckptkit.save(tmp_path / "m-7", {"w": np.arange(3)})
    return str(tmp_path / "m-7")


def state(folder, text):
    (folder / "checkpoint").write_text(text)


def test_names_of_shards_have_at_least_five_digits():
    assert shard_path("p", 3, 10) == "p.data-00003-of-00010"
    assert shard_path("p", 123456, 1234567) == "p.data-123456-of-1234567"


def test_prefix_index_and_shard_mean_the_same(prefix):
    for suffix in ("", ".index", ".data-00000-of-00001"):
        assert str(resolve(prefix + suffix)) == prefix


def test_relative_paths_stay_as_they_are(prefix, monkeypatch):
    monkeypatch.chdir(os.path.dirname(prefix))
    assert str(resolve("m-7")) == "m-7"
    assert ckptkit.open("m-7")["w"].read().tolist() == [0, 1, 2]


def test_a_prefix_may_itself_look_like_a_member(tmp_path):
    for name in ("x.index", "x.data-00000-of-00001"):
        ckptkit.save(f"{tmp_path / name}.index", {"w": 1})
        assert str(resolve(str(tmp_path / name))) == str(tmp_path / name)


def test_a_folder_with_a_state_file_means_what_it_names(prefix, tmp_path):
    ckptkit.save(tmp_path / "m-8", {"w": np.arange(4)})
    state(tmp_path, 'model_checkpoint_path: "m-7"\nall_model_checkpoint_paths: "m-8"\n')
    assert str(resolve(str(tmp_path))) == prefix


@pytest.mark.parametrize(
    ("written", "name"),
    [(r"a\"b", 'a"b'), (r"\303\251", "é"), (r"\xc3\xa9", "é"), (r"a\\b", "a\\b"), (r"\'", "'")],
)
def test_escapes_of_the_state_file(tmp_path, written, name):
    ckptkit.save(tmp_path / name, {"w": 1})
    state(tmp_path, f'model_checkpoint_path: "{written}"\n')
    assert str(resolve(str(tmp_path))) == str(tmp_path / name)


@pytest.mark.parametrize("named", ["../m-7", "/etc/m-7", "sub/../../m-7", "gone"])
def test_a_state_file_leads_nowhere_else(prefix, tmp_path, named):
    folder = tmp_path / "folder"
    folder.mkdir()
    state(folder, f'model_checkpoint_path: "{named}"\n')
    with pytest.raises(CorruptError) as caught:
        resolve(str(folder))
    assert caught.value.path == str(folder / "checkpoint")


@pytest.mark.parametrize("text", ["", 'model_checkpoint_path: ""', 'all: "m-7"', "#" * 9])
def test_a_state_file_that_names_nothing_is_damaged(prefix, tmp_path, text):
    state(tmp_path, text)
    with pytest.raises(CorruptError, match="no model_checkpoint_path"):
        resolve(str(tmp_path))


def test_a_folder_that_moved_is_told_how_to_be_repaired(prefix, tmp_path):
    state(tmp_path, 'model_checkpoint_path: "/gone/m-7"')
    with pytest.raises(CorruptError, match=f"ckptkit register --repair {tmp_path}"):
        resolve(str(tmp_path))


def test_a_folder_with_one_checkpoint_means_that(prefix, tmp_path):
    assert str(resolve(str(tmp_path))) == prefix


def test_a_folder_with_several_asks_which(prefix, tmp_path):
    ckptkit.save(tmp_path / "m-8", {"w": 1})
    with pytest.raises(UnknownFormatError, match="m-7, m-8"):
        resolve(str(tmp_path))


def test_a_shard_without_an_index_says_so(prefix):
    os.remove(f"{prefix}.index")
    with pytest.raises(CorruptError, match="index beside it is missing"):
        ckptkit.open(f"{prefix}.data-00000-of-00001")


def test_a_shard_that_is_missing_is_named(prefix):
    os.remove(f"{prefix}.data-00000-of-00001")
    with pytest.raises(CorruptError, match=r"shard 0 of 1 is missing.*'w'"):
        ckptkit.open(prefix)


def test_what_is_not_there_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        ckptkit.open(tmp_path / "nothing")


def test_what_is_no_checkpoint_is_of_unknown_format(tmp_path):
    (tmp_path / "text").write_text("text")
    with pytest.raises(UnknownFormatError):
        ckptkit.open(tmp_path / "text")


def test_variables_of_a_saved_model_stand_for_all_of_it(tmp_path):
    (tmp_path / "model" / "variables").mkdir(parents=True)
    prefix = tmp_path / "model" / "variables" / "variables"
    ckptkit.save(prefix, {"w": 1})
    assert resolve(str(prefix)).folder is None
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"")
    assert resolve(str(prefix)).folder == str(tmp_path / "model")
    for path in ("model", "model/saved_model.pb"):
        assert resolve(str(tmp_path / path)).path == str(prefix)
        assert resolve(str(tmp_path / path)).folder == str(tmp_path / "model")


def test_a_saved_model_may_be_named_by_its_program_where_one_stands(tmp_path, monkeypatch):
    (tmp_path / "variables").mkdir()
    ckptkit.save(tmp_path / "variables/variables", {"w": 1})
    (tmp_path / "saved_model.cpb").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert list(ckptkit.open("saved_model.cpb")) == ["w"]


@pytest.mark.parametrize("path", ["", "saved_model.pb"])
def test_a_saved_model_without_variables_says_so(tmp_path, path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UnsupportedError, match="no values outside its program"):
        ckptkit.open(tmp_path / path)


def test_formats_are_found_by_name():
    assert by_name("tensorflow").name == "tensorflow"
    with pytest.raises(UnknownFormatError, match="'nonsense'"):
        by_name("nonsense")


def test_names_of_data_files_say_which_they_are():
    assert data_file("a/p.data-00003-of-00010") == ("a/p", 3, 10)
    assert data_file("p.data-123456-of-1234567") == ("p", 123456, 1234567)
    for name in ("p.data-3-of-10", "p.data-000003-of-00010", "p.data-00003-of-00010x", "p.index"):
        assert data_file(name) is None


def test_what_is_of_two_checkpoints_is_there(tmp_path):
    for count in (1, 2):
        path = tmp_path / f"m-00000-of-{count:05d}"
        path.write_bytes(bytes(FOOTER_BYTES - len(MAGIC)) + MAGIC)
    assert is_there(str(tmp_path / "m"))
    state(tmp_path, 'model_checkpoint_path: "m"')
    with pytest.raises(UnknownFormatError, match="shards of 2 checkpoints"):
        ckptkit.open(tmp_path)
