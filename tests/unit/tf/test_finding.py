"""Which checkpoint a folder has, as TensorFlow finds it."""

import logging

import numpy as np
import pytest

import ckptkit
import ckptkit.tf as train


@pytest.fixture
def folder(tmp_path):
    for name in ("m-1", "m-2"):
        ckptkit.save(tmp_path / name, {"w": np.float32([int(name[-1])])})
    return tmp_path


def say(folder, text, name="checkpoint"):
    (folder / name).write_text(text)


def test_the_state_file_names_the_latest(folder):
    say(folder, 'model_checkpoint_path: "m-1"\n')
    assert train.latest_checkpoint(folder) == str(folder / "m-1")
    assert train.latest_checkpoint(str(folder)) == str(folder / "m-1")
    assert train.load_variable(folder, "w").tolist() == [1]
    assert train.list_variables(str(folder)) == [("w", [1])]


def test_it_may_have_another_name(folder):
    say(folder, 'model_checkpoint_path: "m-2"\n', "other")
    assert train.latest_checkpoint(folder) is None
    assert train.latest_checkpoint(folder, "other") == str(folder / "m-2")


def test_paths_may_be_absolute_and_elsewhere_as_in_tensorflow(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    say(other, f'model_checkpoint_path: "{folder}/m-2"\n')
    assert train.latest_checkpoint(other) == str(folder / "m-2")


@pytest.mark.parametrize(
    "text",
    ["nonsense", 'model_checkpoint_path: "m-1', "\xff\0", 'model_checkpoint_path: "m-1" x: 1'],
)
def test_what_does_not_parse_is_ignored(folder, text, caplog):
    say(folder, text)
    with caplog.at_level(logging.WARNING, "ckptkit.tf"):
        assert train.latest_checkpoint(folder) is None
    assert "ignored" in caplog.text


def test_what_names_none_is_an_error(folder):
    say(folder, 'all_model_checkpoint_paths: "m-1"\n')
    with pytest.raises(ValueError, match="Invalid checkpoint state loaded from"):
        train.latest_checkpoint(folder)


def test_what_is_not_there_is_not_the_latest(folder, caplog):
    say(folder, 'model_checkpoint_path: "m-3"\n')
    assert train.latest_checkpoint(folder) is None
    assert "there is no checkpoint" in caplog.text
    with pytest.raises(ValueError, match="Couldn't find 'checkpoint' file"):
        train.load_checkpoint(folder)


def test_a_state_file_that_is_a_folder_is_ignored(folder):
    (folder / "checkpoint").mkdir()
    assert train.latest_checkpoint(folder) is None


def test_prefixes_that_exist(folder):
    assert train.checkpoint_exists(str(folder / "m-1"))
    assert train.checkpoint_exists(str(folder / "m-?"))
    assert train.checkpoint_exists(str(folder / "m-1.index"))
    assert train.checkpoint_exists(str(folder))
    for path in (str(folder / "m"), str(folder / "x*"), "", "a\0b"):
        assert not train.checkpoint_exists(path)
