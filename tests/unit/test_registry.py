"""Entering checkpoints in a folder's state file, and putting right one that was moved."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

import ckptkit
from ckptkit import CorruptError, EditError, registry
from ckptkit.formats.tensorflow.state import STATE_BYTES, State, read_state
from ckptkit.storage.sidecar import Lock, sidecar
from ckptkit.tf import latest_checkpoint


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints, each made a minute after the one before."""
    for step in (1, 2, 3):
        ckptkit.save(tmp_path / f"m-{step}", {"w": np.arange(step)})
        os.utime(tmp_path / f"m-{step}.index", (0, 60 * step))
    return tmp_path


def state(folder):
    return read_state(str(folder / "checkpoint"))


def put(folder, *args, **options):
    (folder / "checkpoint").write_bytes(State(*args, **options).render())


def whats(done):
    return [(change.path, change.now, change.what) for change in done.changes]


# --- entering ----------------------------------------------------------------------------------


def test_a_state_file_is_made(folder):
    done = ckptkit.register(folder / "m-2")
    assert done.path == str(folder / "checkpoint")
    assert (done.latest, done.written) == ("m-2", True)
    assert state(folder) == State("m-2", ("m-2",))
    assert latest_checkpoint(str(folder)) == str(folder / "m-2")
    assert sorted(set(os.listdir(folder)) - {"checkpoint"}) == sorted(
        f"m-{step}.{end}" for step in (1, 2, 3) for end in ("index", "data-00000-of-00001")
    )


def test_the_last_one_given_is_the_latest(folder):
    ckptkit.register(folder / "m-3", f"{folder}/m-1.index")
    assert state(folder) == State("m-1", ("m-3", "m-1"))


def test_what_is_registered_moves_to_the_end(folder):
    put(folder, "m-3", (f"{folder}/m-1", "m-2", "./m-1", "m-3"))
    ckptkit.register(folder / "m-1")
    assert state(folder) == State("m-1", ("m-2", "m-3", "m-1"))


def test_times_go_along_where_there_are_some(folder):
    put(folder, "m-1", ("m-1",), (60.5,), 7.0, ("# so", "x: 1"))
    ckptkit.register(folder / "m-3")
    assert state(folder) == State("m-3", ("m-1", "m-3"), (60.5, 180.0), 7.0, ("# so", "x: 1"))


def test_what_is_so_already_is_not_written(folder):
    ckptkit.register(folder / "m-1")
    before = os.stat(folder / "checkpoint")
    assert not ckptkit.register(folder / "m-1").written
    assert os.path.samestat(os.stat(folder / "checkpoint"), before)


def test_a_dry_run_writes_nothing(folder):
    done = ckptkit.register(folder / "m-1", dry_run=True)
    assert done.written
    assert not (folder / "checkpoint").exists()


def test_a_relative_path_will_do(folder, monkeypatch):
    monkeypatch.chdir(folder)
    ckptkit.register("m-2")
    assert state(folder).model_checkpoint_path == "m-2"


def test_permissions_stay(folder):
    put(folder, "m-1", ("m-1",))
    os.chmod(folder / "checkpoint", 0o640)
    ckptkit.register(folder / "m-2")
    assert os.stat(folder / "checkpoint").st_mode & 0o777 == 0o640


def test_all_are_of_one_folder(folder, fresh):
    other = fresh()
    ckptkit.save(other / "m", {"w": 1})
    with pytest.raises(EditError, match="about one folder"):
        ckptkit.register(folder / "m-1", other / "m")
    with pytest.raises(EditError, match="nothing to register"):
        ckptkit.register()
    assert not (folder / "checkpoint").exists()


def test_only_prefixes_are_registered(folder):
    (folder / "model/variables").mkdir(parents=True)
    (folder / "model/saved_model.pb").write_bytes(b"")
    ckptkit.save(folder / "model/variables/variables", {"w": 1})
    ckptkit.save(folder / "k.weights.h5", {"w": 1}, format="keras")
    for path, what in (("model", "a SavedModel"), ("k.weights.h5", "a keras file")):
        with pytest.raises(EditError, match=what):
            ckptkit.register(folder / path)
    with pytest.raises(FileNotFoundError):
        ckptkit.register(folder / "m-4")


@pytest.mark.parametrize(("name", "message"), [("checkpoint", "itself"), ("m\udcff", "UTF-8")])
def test_some_names_are_none_for_a_state_file(folder, name, message):
    ckptkit.save(folder / name, {"w": 1})
    with pytest.raises(EditError, match=message):
        ckptkit.register(folder / name)
    with pytest.raises(EditError, match=message):
        registry.check_place(str(folder / name))


def test_a_damaged_state_file_is_left_alone(folder):
    (folder / "checkpoint").write_text("nonsense")
    for function in (ckptkit.register, registry.check_place):
        with pytest.raises(CorruptError, match="does not parse") as told:
            function(str(folder / "m-1"))
        assert "remove the state file" in told.value.__notes__[0]
    assert (folder / "checkpoint").read_text() == "nonsense"


def test_one_that_would_be_too_long_is_not_written(folder):
    put(folder, "m-1", ("m-1", "x" * (STATE_BYTES - 120)))
    with pytest.raises(EditError, match="is the most"):
        ckptkit.register(folder / "m-2")
    assert state(folder).model_checkpoint_path == "m-1"


def test_who_comes_second_waits(folder):
    """Both are in the list afterwards: nobody writes what somebody else reads to write it."""
    path = str(folder / "checkpoint")
    second = threading.Thread(target=ckptkit.register, args=(folder / "m-2",))
    with Lock(path):
        second.start()
        put(folder, "m-1", ("m-1",))
    second.join()
    assert state(folder).all_model_checkpoint_paths == ("m-1", "m-2")
    assert not os.path.lexists(sidecar(path, "lock"))


def test_many_at_once_are_all_there(folder):
    for step in range(4, 12):
        ckptkit.save(folder / f"m-{step}", {"w": 1})
    paths = [f"m-{step}" for step in range(1, 12)]
    threads = [threading.Thread(target=ckptkit.register, args=(folder / name,)) for name in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(state(folder).all_model_checkpoint_paths) == sorted(paths)


# --- putting right -----------------------------------------------------------------------------


def test_absolute_paths_become_relative_after_a_move(folder):
    put(folder, "/old/run/m-3", ("/old/run/m-2", "/old/run/m-3"), (1.0, 2.0), 0.5, ("# so",))
    with pytest.raises(CorruptError, match="outside its folder"):
        ckptkit.open(folder)
    done = ckptkit.repair_state(folder)
    assert whats(done) == [
        ("/old/run/m-2", "m-2", "relative"),
        ("/old/run/m-3", "m-3", "relative"),
    ]
    assert state(folder) == State("m-3", ("m-2", "m-3"), (1.0, 2.0), 0.5, ("# so",))
    assert len(ckptkit.open(folder)["w"].read()) == 3
    assert not ckptkit.repair_state(folder).written


@pytest.mark.parametrize("path", ["../other/m-1", "run/m-1", "{}/m-1", "/m-1", "../m-1/"])
def test_whatever_leads_elsewhere_is_looked_for_by_its_name(folder, path):
    put(folder, path.format(folder).rstrip("/"))
    assert ckptkit.repair_state(folder).latest == "m-1"


def test_what_lies_deeper_stays(folder):
    (folder / "sub").mkdir()
    ckptkit.save(folder / "sub/m-1", {"w": 1})
    put(folder, "sub/m-1", ("sub/m-1",))
    assert not ckptkit.repair_state(folder).written
    put(folder, f"{folder}/sub/m-9", (f"{folder}/sub/m-9",))
    ckptkit.save(folder / "sub/m-9", {"w": 1})
    assert ckptkit.repair_state(folder).latest == "sub/m-9"


def test_what_is_gone_is_left_out_only_where_asked_for(folder):
    put(folder, "/old/m-3", ("/old/m-0", "m-2", "/old/m-3"), (0.0, 2.0, 3.0))
    done = ckptkit.repair_state(folder)
    assert whats(done)[0] == ("/old/m-0", "/old/m-0", "gone")
    assert state(folder).all_model_checkpoint_paths == ("/old/m-0", "m-2", "m-3")
    done = ckptkit.repair_state(folder, prune=True)
    assert whats(done) == [("/old/m-0", None, "left out")]
    assert state(folder) == State("m-3", ("m-2", "m-3"), (2.0, 3.0))


def test_if_the_latest_is_gone_the_last_one_there_is(folder):
    put(folder, "m-9", ("m-1", "m-2", "m-9"))
    assert ckptkit.repair_state(folder).latest == "m-9"
    assert ckptkit.repair_state(folder, prune=True).latest == "m-2"


def test_one_that_is_there_twice_is_there_once(folder):
    put(folder, "m-3", ("/old/m-1", "m-1", "m-3"), (1.0, 2.0, 3.0))
    done = ckptkit.repair_state(folder)
    assert whats(done) == [("/old/m-1", "m-1", "relative"), ("m-1", "m-1", "twice")]
    assert state(folder) == State("m-3", ("m-1", "m-3"), (2.0, 3.0))


def test_what_is_outside_is_not_looked_at(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    ckptkit.save(other / "m-7", {"w": 1})
    put(folder, "m-1", (f"{other}/m-7", "m-1"))
    assert whats(ckptkit.repair_state(folder)) == [(f"{other}/m-7", f"{other}/m-7", "gone")]


def test_a_folder_of_that_name_is_no_checkpoint(folder):
    (folder / "run").mkdir()
    put(folder, "m-1", ("/old/run", "m-1"))
    assert whats(ckptkit.repair_state(folder)) == [("/old/run", "/old/run", "gone")]


def test_nothing_is_written_where_nothing_would_be_left(folder):
    put(folder, "gone", ("gone",))
    with pytest.raises(EditError, match="none of those that it names is left"):
        ckptkit.repair_state(folder, prune=True)
    put(folder, "")
    with pytest.raises(EditError, match="none of those"):
        ckptkit.repair_state(folder)


def test_there_has_to_be_a_state_file(folder):
    with pytest.raises(FileNotFoundError):
        ckptkit.repair_state(folder)
    with pytest.raises(FileNotFoundError):
        ckptkit.repair_state(folder / "nowhere")
    assert not os.path.lexists(sidecar(str(folder / "checkpoint"), "lock"))


def test_a_repair_may_be_only_shown(folder):
    put(folder, "/old/m-1")
    done = ckptkit.repair_state(folder, dry_run=True)
    assert (done.latest, done.written) == ("m-1", True)
    assert state(folder).model_checkpoint_path == "/old/m-1"
