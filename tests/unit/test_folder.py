"""All checkpoints of a folder."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

import ckptkit
from ckptkit.formats.tensorflow.state import State
from tests.golden.make import FILES
from tests.oracle import first


@pytest.fixture
def folder(tmp_path):
    """Some of everything; m-10 is the latest, and m-3 is gone."""
    for step in (2, 9, 10):
        ckptkit.save(tmp_path / f"m-{step}", {"w": np.arange(step), "b": 1})
    state = State("m-10", ("m-3", "m-2", "m-10"), (3.0, 4.0, 5.5))
    (tmp_path / "checkpoint").write_bytes(state.render())
    return tmp_path


def told(folder):
    return {os.path.relpath(one.path, folder): one for one in ckptkit.checkpoints(folder)}


def test_those_of_the_state_file_come_first_in_its_order(folder):
    found = ckptkit.checkpoints(folder)
    assert [os.path.basename(one.path) for one in found] == ["m-3", "m-2", "m-10", "m-9"]
    assert [one.registered for one in found] == [True, True, True, False]
    assert [one.timestamp for one in found] == [3.0, 4.0, 5.5, None]
    assert [one.latest for one in found] == [False, False, True, False]
    assert [one.tensors for one in found] == [None, 2, 2, 2]
    assert [one.nbytes for one in found] == [None, 24, 88, 80]
    assert found[0].error == "registered, but not there"


def test_each_path_opens(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for where in (folder, ".", str(folder) + "/"):
        for one in ckptkit.checkpoints(where)[1:]:
            assert one.path.startswith(str(where))
            with ckptkit.open(one.path) as found:
                assert len(found) == one.tensors


def test_others_are_sorted_by_their_numbers(folder):
    os.remove(folder / "checkpoint")
    assert list(told(folder)) == ["m-2", "m-9", "m-10"]
    assert not any(one.registered or one.latest for one in told(folder).values())


def test_there_are_checkpoints_of_all_kinds(folder):
    (folder / "model/variables").mkdir(parents=True)
    (folder / "model/saved_model.pb").write_bytes(b"")
    ckptkit.save(folder / "model/variables/variables", {"w": 1.0})
    ckptkit.save(folder / "k.weights.h5", {"w": np.arange(3)}, format="keras")
    shutil.copy(FILES / "keras_sequential.keras", folder / "named.keras")
    layout = ckptkit.Layout(max_shard_bytes=100)
    tensors = {f"layers/{name}/vars/0": np.arange(8.0) for name in "abc"}
    ckptkit.save(folder / "cut.weights.json", tensors, format="keras", layout=layout)
    (folder / "notes.txt").write_text("none")
    (folder / "empty").mkdir()
    found = told(folder)
    assert {name: one.format for name, one in found.items() if not one.registered} == {
        "m-9": "tensorflow",
        "model": "tensorflow",
        "k.weights.h5": "keras",
        "named.keras": "keras",
        "cut.weights.json": "keras",
    }
    assert (found["model"].tensors, found["cut.weights.json"].tensors) == (1, 3)


def test_a_folder_within_it_is_no_checkpoint(folder):
    shutil.copytree(folder, folder.parent / "copy")
    shutil.move(folder.parent / "copy", folder / "more")
    os.remove(folder / "more/checkpoint")
    assert "more" not in told(folder)
    (folder / "sub").mkdir()
    ckptkit.save(folder / "sub/only", {"w": 1})
    assert not any("only" in name for name in told(folder))


def test_a_saved_model_lists_itself(tmp_path):
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"")
    ckptkit.save(tmp_path / "variables/variables", {"w": 1.0})
    assert list(told(tmp_path)) == ["."]


def test_damage_does_not_end_the_listing(folder):
    os.truncate(folder / "m-2.index", 20)
    os.remove(folder / "m-9.data-00000-of-00001")
    (folder / "alone.data-00001-of-00002").write_bytes(b"")
    (folder / "alone.data-00000-of-00002").write_bytes(b"")
    (folder / "model").mkdir()
    (folder / "model/saved_model.pb").write_bytes(b"")
    (folder / "bad.keras").write_bytes(b"PK\x03\x04")
    found = told(folder)
    assert "at least 48 bytes" in found["m-2"].error
    assert found["m-2"].registered
    assert "is missing" in found["m-9"].error
    assert "index beside it is missing" in found["alone"].error
    assert "no values outside" in found["model"].error
    assert found["bad.keras"].error
    assert found["m-10"].error is None
    assert len(found) == 7


def test_a_damaged_state_file_is_an_entry(folder):
    (folder / "checkpoint").write_text("nonsense")
    found = told(folder)
    assert "does not parse" in found["checkpoint"].error
    assert [*found] == ["checkpoint", "m-2", "m-9", "m-10"]


def test_what_is_registered_elsewhere_is_not_looked_at(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    ckptkit.save(other / "m", {"w": 1})
    (folder / "checkpoint").write_bytes(State(f"{other}/m").render())
    first = ckptkit.checkpoints(folder)[0]
    assert (first.path, first.latest, first.tensors) == (f"{other}/m", True, None)
    assert first.error == "registered, but not in this folder"


def test_an_edit_that_was_cut_short_is_told(folder):
    (folder / ".m-9.ckptkit-journal").write_bytes(b"")
    assert "ckptkit recover" in told(folder)["m-9"].error


def test_a_link_that_leads_nowhere_is_nothing(folder):
    os.symlink("nowhere", folder / "link")
    os.symlink("m-9.index", folder / "other.index")
    os.symlink("m-9.data-00000-of-00001", folder / "other.data-00000-of-00001")
    found = told(folder)
    assert "link" not in found
    assert found["other"].tensors == 2


def test_what_is_no_folder_cannot_be_listed(folder):
    with pytest.raises(NotADirectoryError):
        ckptkit.checkpoints(folder / "checkpoint")
    with pytest.raises(FileNotFoundError):
        ckptkit.checkpoints(folder / "nowhere")


def test_what_is_named_often_is_opened_once(folder, monkeypatch):
    opened = []

    def counting(path):
        opened.append(path)
        return ckptkit.open(path)

    monkeypatch.setattr("ckptkit.folder.open", counting)
    (folder / "checkpoint").write_bytes(State("m-2", ("m-2", "./m-2", "m-2") * 99).render())
    found = ckptkit.checkpoints(folder)
    assert [one.tensors for one in found[:297]] == [2] * 297
    assert len([path for path in opened if path.endswith("/m-2")]) == 1


def test_damaged_shards_of_the_first_format_are_one_checkpoint(tmp_path):
    """The missing one, one that was cut short, and what is in two of them."""
    value = [first.whole("float32", np.float32([number])) for number in range(3)]
    for name, lost in (("lost", True), ("cut", False)):
        for number in range(3):
            file = tmp_path / f"{name}-{number:05d}-of-00003"
            file.write_bytes(first.encode({f"w{number}".encode(): value[number]}))
        os.remove(file) if lost else os.truncate(file, 60)
    for number in range(2):
        file = tmp_path / f"twice-{number:05d}-of-00002"
        file.write_bytes(first.encode({b"w": value[0]}))
    found = told(tmp_path)
    assert {name: one.tensors for name, one in found.items()} == {
        "cut-?????-of-00003": None,
        "lost-?????-of-00003": None,
        "twice-?????-of-00002": None,
    }
    assert "cut short" in found["cut-?????-of-00003"].error
    assert "shard 2 of 3 is missing" in found["lost-?????-of-00003"].error
    assert found["twice-?????-of-00002"].error.startswith("'w': slice [0:1] is there in twice-0000")
