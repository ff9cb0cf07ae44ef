"""A copy appears whole or not at all, whatever stops it, and wherever."""

import errno
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptkit
from ckptkit.errors import ConflictError, EditError
from tests.crash.disks import Killing, Recording, Stopping
from tests.crash.forgetful import Volume, differing, materialise, record

# What is synced is known from the calls; the device need not be kept busy with it.
pytestmark = pytest.mark.usefixtures("unsynced")

EDITS = ("a/kernel *= 0.5", "a/bias[1] = 7", "drop c")


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(1)
    tensors = {
        "a/kernel": rng.standard_normal((40, 30)).astype("float32"),
        "a/bias": rng.standard_normal(30).astype("float32"),
        "b": np.arange(100),
        "c": np.ones(5),
        "d": ["text", "more text"],
    }
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    ckptkit.save(tmp_path / "in" / "model", tensors, layout=ckptkit.Layout(shards=2))
    return ckptkit.open(tmp_path / "in" / "model")


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def calls_of(source, destination):
    disk = Recording()
    source.edit(*EDITS).plan(destination).run(device="numpy", disk=disk)
    return disk.calls


def test_nothing_is_left_after_an_error_at_any_call(source, tmp_path):
    before = bytes_of(tmp_path / "in")
    count = len(calls_of(source, tmp_path / "whole"))

    for at in range(count):
        disk = Stopping(at, OSError(errno.EIO, "the disk fails here"))
        with pytest.raises(OSError, match="the disk fails here"):
            source.edit(*EDITS).plan(tmp_path / "out" / "model").run(device="numpy", disk=disk)

        assert os.listdir(tmp_path / "out") == [], disk.calls[at]
    assert bytes_of(tmp_path / "in") == before


def test_nothing_is_left_after_an_interrupt_at_any_call(source, tmp_path):
    count = len(calls_of(source, tmp_path / "whole"))

    for at in range(count):
        disk = Stopping(at, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            source.edit(*EDITS).plan(tmp_path / "out" / "model").run(device="numpy", disk=disk)

        assert os.listdir(tmp_path / "out") == [], disk.calls[at]


def test_a_full_disk_is_told_as_it_is(source, tmp_path):
    calls = calls_of(source, tmp_path / "whole")
    at = next(number for number, call in enumerate(calls) if call[0] == "write")

    with pytest.raises(OSError, match="No space") as caught:
        source.edit(*EDITS).plan(tmp_path / "out" / "model").run(
            device="numpy", disk=Stopping(at, OSError(errno.ENOSPC, "No space left on device"))
        )

    assert caught.value.errno == errno.ENOSPC


def test_what_would_not_fit_is_refused_before_anything_is_written(source, tmp_path, monkeypatch):
    plan = source.edit(*EDITS).plan(tmp_path / "out" / "model")
    full = os.statvfs(tmp_path)
    nothing_free = os.statvfs_result((*full[:4], 0, *full[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: nothing_free)
    disk = Recording()

    with pytest.raises(OSError, match="0 are free"):
        plan.run(device="numpy", disk=disk)

    assert not [call for call, _, _ in disk.calls if call in {"create", "write", "copy"}]
    assert os.listdir(tmp_path / "out") == []


def test_a_kill_at_any_call_leaves_all_or_nothing(source, tmp_path):
    calls = calls_of(source, tmp_path / "whole")
    expected = bytes_of(tmp_path)
    last = max(number for number, call in enumerate(calls) if call[0] == "rename")

    for at in range(len(calls)):
        folder = tmp_path / f"killed-{at}"
        folder.mkdir()
        child = os.fork()
        if child == 0:
            source.edit(*EDITS).plan(folder / "whole").run(device="numpy", disk=Killing(at))
            os._exit(1)
        _, status = os.waitpid(child, 0)

        assert os.WIFSIGNALED(status)
        visible = {name for name in os.listdir(folder) if not name.startswith(".")}
        if at <= last:
            assert "whole.index" not in visible
            with pytest.raises((FileNotFoundError, ckptkit.CorruptError)):
                ckptkit.open(folder / "whole")
        else:
            assert ckptkit.open(folder / "whole").verify().ok
            assert bytes_of(folder).items() <= expected.items()


@pytest.fixture(params=[1, 3])
def copied(request, source, tmp_path):
    """What a copy does to the disk, of one or more shards; and what it then has made."""
    plan = source.edit(*EDITS).plan(
        tmp_path / "out" / "model", layout=ckptkit.Layout(shards=request.param)
    )
    folders = Volume.of(tmp_path / "in", tmp_path / "out")
    history = record(lambda disk: plan.run(device="numpy", disk=disk), folders)
    return history, bytes_of(tmp_path / "out")


def visible(tree, folder):
    return {name: held for name, held in tree.under(folder).items() if not name.startswith(".")}


def opens(tree, tmp_path, there, expected):
    """Tell whether the copy is there after a failure; if so it is whole. The source is."""
    materialise(tree, tmp_path, there)
    assert differing(bytes_of(there / "in"), bytes_of(tmp_path / "in")) == []
    try:
        copy = ckptkit.open(there / "out" / "model")
    except FileNotFoundError:
        return False
    assert copy.verify().ok
    assert differing(bytes_of(there / "out"), expected) == []
    return True


def test_a_power_failure_at_any_call_leaves_all_or_nothing(copied, tmp_path, fresh):
    history, expected = copied
    trees = dict.fromkeys(tree for _, tree in history.states(draws=12))

    assert {opens(tree, tmp_path, fresh(), expected) for tree in trees} == {False, True}


@given(data=st.data())
def test_a_power_failure_that_is_drawn_leaves_all_or_nothing(copied, tmp_path, fresh, data):
    history, expected = copied
    _, tree = history.draw(data)

    opens(tree, tmp_path, fresh(), expected)


def test_the_index_has_no_name_before_all_the_rest_is_synced(copied, tmp_path):
    history, expected = copied
    for count, tree in history.namings():
        found = visible(tree, tmp_path / "out")
        if "model.index" in found:
            assert differing(found, expected) == [], str(history.calls[count - 1])


def test_the_final_state_needs_no_further_sync(copied, tmp_path):
    history, expected = copied

    assert history.after().is_synced()
    tree = history.after().after_kill()
    assert differing(tree.under(tmp_path / "out"), expected) == []
    assert history.calls[-1].call == "sync_folder"


def test_a_sync_that_is_left_out_shows(copied, tmp_path):
    history, expected = copied

    def goes_wrong(history):
        for count, tree in [*history.states(), *history.namings()]:
            found = visible(tree, tmp_path / "out")
            if ("model.index" in found or count == len(history.calls)) and found != expected:
                return True
        return False

    syncs = [call for call in history.calls if call.call in {"sync", "sync_folder"}]
    spare = {call for call in syncs if not goes_wrong(history.without(call.__eq__))}
    assert not goes_wrong(history)
    # An empty shard has nothing to sync, and names in the staging folder need not last.
    written = {call.path for call in history.calls if call.writes}
    assert not {call.path for call in spare} & {*written, str(tmp_path / "out")}


def test_an_existing_destination_is_refused(source, tmp_path):
    (tmp_path / "out" / "model.index").write_text("somebody's")

    with pytest.raises(EditError, match="destination exists"):
        source.edit(*EDITS).plan(tmp_path / "out" / "model")


def test_a_destination_that_appears_meanwhile_is_not_overwritten(source, tmp_path):
    plan = source.edit(*EDITS).plan(tmp_path / "out" / "model")
    (tmp_path / "out" / "model.index").write_text("somebody's")

    with pytest.raises(ConflictError, match="appeared"):
        plan.run(device="numpy")

    assert bytes_of(tmp_path / "out") == {"model.index": b"somebody's"}


def test_a_source_that_changed_is_refused(source, tmp_path):
    plan = source.edit(*EDITS).plan(tmp_path / "out" / "model")
    shard = tmp_path / "in" / "model.data-00000-of-00002"
    os.utime(shard, ns=(1, 1))

    with pytest.raises(ConflictError, match="changed since"):
        plan.run(device="numpy")

    assert os.listdir(tmp_path / "out") == []


def test_missing_folders_are_made_and_unmade(source, tmp_path):
    deep = tmp_path / "out" / "one" / "two" / "model"
    calls = calls_of(source, deep)
    assert ckptkit.open(deep).verify().ok
    other = tmp_path / "out" / "three" / "four" / "model"

    with pytest.raises(OSError, match="late"):
        source.edit(*EDITS).plan(other).run(
            device="numpy", disk=Stopping(len(calls) - 3, OSError(errno.EIO, "late"))
        )

    assert sorted(os.listdir(tmp_path / "out")) == ["one"]
