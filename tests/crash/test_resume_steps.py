"""A copy that is cut short goes on where it stopped, and believes no receipt."""

from __future__ import annotations

import errno
import json
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptkit
from ckptkit import _native
from ckptkit.engine import queue, run
from ckptkit.errors import ConflictError, EditError
from ckptkit.storage.disk import Disk
from tests.crash.disks import Killing, Recording, Stopping
from tests.crash.forgetful import Volume, differing, record
from tests.crash.scene import files, hidden, visible
from tests.crash.tensorflow_scenes import saved_model

pytestmark = pytest.mark.usefixtures("unsynced")

EDITS = ("a *= 2", "c[2:5] = 1", "drop e")
SEALED = 4000
"""More bytes than are written outside of steps: receipts, index, text that is given whole."""


@pytest.fixture(autouse=True)
def many_steps(monkeypatch):
    monkeypatch.setattr(run, "MAX_CHUNK", 500)
    monkeypatch.setattr(queue, "COPY", 600)


@pytest.fixture(params=["bundle", "model"])
def source(request, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    rng = np.random.default_rng(2)
    if request.param == "model":
        saved_model(tmp_path / "in")
        return tmp_path / "in" / "m"
    tensors = {
        "a": rng.standard_normal((30, 20)).astype("float32"),
        "b": rng.standard_normal((40, 20)).astype("float32"),
        "c": np.arange(400, dtype="int32").reshape(8, 50),
        "e": np.ones(7),
        "text": ["some", "text"],
    }
    ckptkit.save(tmp_path / "in" / "m", tensors, layout=ckptkit.Layout(shards=2))
    return tmp_path / "in" / "m"


@pytest.fixture
def copy(source, tmp_path):
    """Copies, by default to the same place each time."""
    edits = EDITS if not source.is_dir() else ("w *= 2", "v[2:5] = 1")

    def do(disk=None, *, resume=True, edits=edits):
        with ckptkit.open(source) as found:
            plan = found.edit(*edits).plan(tmp_path / "out" / "new")
            return plan.run(device="numpy", disk=disk, resume=resume)

    return do


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def expected(copy, out):
    """What an uninterrupted run makes."""
    copy(resume=False)
    found = files(out)
    clear(out)
    return found


@pytest.fixture
def calls(copy, out, expected):
    disk = Recording()
    copy(disk)
    assert files(out) == expected
    clear(out)
    return disk.calls


def clear(folder):
    for place, folders, names in os.walk(folder, topdown=False):
        for name in names:
            os.unlink(os.path.join(place, name))
        for name in folders:
            os.rmdir(os.path.join(place, name))


def staging(out):
    (name,) = hidden(out)
    return out / name


def receipts(folder):
    """Return the receipts that lie in a staging folder, without what the run was asked for."""
    if not (folder / "receipts").exists():
        return []
    lines = (folder / "receipts").read_bytes().split(b"\n")[:-1]
    return [json.loads(line[9:]) for line in lines[1:]]


def interrupt(copy, at, error=None):
    error = error or OSError(errno.EIO, "the disk fails here")
    with pytest.raises(type(error)) as caught:
        copy(Stopping(at, error))
    assert caught.value is error
    return error


def steps_end(calls):
    """Return after how many calls all steps are done, and have their receipts."""
    return next(at for at, (call, _, _) in enumerate(calls) if call == "sync")


def first_name(calls, out):
    """Return the number of the call that gives the first of the final names."""
    return next(at for at, (_, _, new) in enumerate(calls) if new.startswith(str(out / "new")))


# --- interrupted -------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError(errno.EIO, "fails"), KeyboardInterrupt()])
def test_after_an_error_at_any_call_a_second_run_does_what_is_left(
    copy, calls, out, expected, error
):
    everything = all_bytes(copy, calls, out)
    seen = set()
    for at in range(steps_end(calls) + 1):
        interrupt(copy, at, error)
        assert visible(out) == {}, calls[at]
        done = bytes_done(out)
        disk = Disk()
        report = copy(disk)
        assert differing(visible(out), expected) == []
        assert report.bytes_resumed == done, calls[at]
        # What has no receipt is done again, and nothing else.
        again = disk.traffic.written + disk.traffic.copied
        assert everything - done <= again <= everything - done + SEALED
        seen.add(done)
        clear(out)
    assert {0, everything} < seen


def bytes_done(out):
    left = [out / name for name in hidden(out)]
    return sum(known["length"] for folder in left for known in receipts(folder))


def all_bytes(copy, calls, out):
    """Return how many bytes there are receipts of when all steps are done."""
    interrupt(copy, steps_end(calls))
    found = bytes_done(out)
    clear(out)
    return found


def test_an_error_in_any_sync_of_a_file_spares_a_second_run_all_steps(copy, calls, out, expected):
    """It takes the device a while to have everything: a likely moment to lose patience."""
    everything = all_bytes(copy, calls, out)
    spared = {}
    for at in [at for at, (call, _, _) in enumerate(calls) if call == "sync"]:
        interrupt(copy, at)
        assert visible(out) == {}, calls[at]
        spared[at] = copy().bytes_resumed
        assert differing(visible(out), expected) == []
        clear(out)
    assert {calls[at]: found for at, found in spared.items() if found != everything} == {}


def test_an_error_while_the_names_appear_takes_them_back(copy, calls, out, expected):
    for at in range(first_name(calls, out), len(calls)):
        interrupt(copy, at)
        assert visible(out) == {}, calls[at]
        copy()
        assert differing(visible(out), expected) == []
        clear(out)


def test_nothing_is_left_beside_the_result_of_a_second_run(copy, calls, out, expected):
    left = {}
    for at in range(len(calls)):
        with pytest.raises(OSError, match="Errno"):
            copy(Stopping(at, OSError(errno.EIO, "the disk fails here")))
        if not visible(out):
            copy()
        left[calls[at]] = hidden(out)
        clear(out)
    assert {call: names for call, names in left.items() if names} == {}


def test_a_kill_at_any_call_leaves_nothing_in_sight_and_is_gone_on_with(copy, calls, out, expected):
    for at in range(first_name(calls, out) + 1):
        killed(copy, at)
        assert visible(out) == {}, calls[at]
        report = copy()
        assert differing(visible(out), expected) == []
        if at == steps_end(calls):
            assert report.bytes_resumed
        clear(out)


def killed(copy, at):
    child = os.fork()
    if child == 0:
        copy(Killing(at))
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


def test_a_kill_while_the_names_appear_can_be_cleared_away(copy, calls, out, expected):
    """Between the first name and the last one there is something to see, but no checkpoint."""
    for at in range(first_name(calls, out) + 1, len(calls)):
        killed(copy, at)
        try:
            ckptkit.open(out / "new").close()
        except (FileNotFoundError, ckptkit.CorruptError):
            ckptkit.recover(out / "new")
            assert files(out) == {}, calls[at]
            copy()
        else:
            ckptkit.recover(out / "new")
        assert differing(files(out), expected) == []
        clear(out)


def test_a_power_failure_at_any_call_is_gone_on_with(copy, out, expected):
    """Receipts may be there and what they are about not, or the other way round."""
    history = record(copy, Volume.of(out))
    clear(out)
    last = next(
        at for at, call in enumerate(history.calls) if call.new.startswith(str(out / "new"))
    )
    seen = dict.fromkeys(tree for count, tree in history.states(draws=3) if count <= last)
    gone_on = 0
    for tree in seen:
        put(tree, out)
        if visible(out):
            clear(out)
            continue
        gone_on += bool(copy().bytes_resumed)
        assert differing(visible(out), expected) == []
        clear(out)
    assert gone_on


def put(tree, out):
    """Make the files of a tree where they were: receipts name their inputs by path."""
    for folder in sorted(tree.folders):
        os.makedirs(folder, exist_ok=True)
    for path, content in tree.files.items():
        with open(path, "xb") as file:
            file.write(content)


@given(data=st.data())
def test_several_interruptions_are_gone_on_with(copy, calls, out, expected, data):
    clear(out)
    for at in data.draw(st.lists(st.integers(0, steps_end(calls)), min_size=1, max_size=3)):
        disk = Stopping(at, OSError(errno.EIO, "the disk fails here"))
        try:
            copy(disk)
        except OSError:
            assert visible(out) == {}
            continue
        break
    else:
        copy()
    assert differing(visible(out), expected) == []


@pytest.mark.parametrize("source", ["bundle"], indirect=True)
def test_a_link_is_gone_on_with(source, out):
    def link(disk):
        with ckptkit.open(source) as found:
            plan = found.edit(*EDITS).plan(out / "new", how="link")
            return plan.run(device="numpy", disk=disk, resume=True)

    disk = Recording()
    link(disk)
    expected, spared = files(out), 0
    clear(out)
    for at in range(steps_end(disk.calls) + 1):
        with pytest.raises(OSError, match="fails here"):
            link(Stopping(at, OSError(errno.EIO, "the disk fails here")))
        assert visible(out) == {}, disk.calls[at]
        spared = link(Disk()).bytes_resumed
        assert differing(visible(out), expected) == []
        clear(out)
    assert spared


# --- what is not believed ----------------------------------------------------------------------


def test_a_finished_range_that_was_altered_is_done_again(copy, calls, out, expected):
    interrupt(copy, steps_end(calls))
    folder = staging(out)
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    known = receipts(folder)
    everything = sum(receipt["length"] for receipt in known)
    assert len(known) > 10
    for receipt in known:
        (part,) = [path for path in kept if path.name == receipt["file"]]
        at = receipt["offset"] + random.Random(receipt["offset"]).randrange(receipt["length"])
        content = bytearray(kept[part])
        content[at] ^= 16
        for path, text in kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if path == part else text)
        report = copy()
        assert report.bytes_resumed == everything - receipt["length"]
        assert differing(files(out), expected) == []
        clear(out)


def signed(line):
    return b"%08x %s\n" % (_native.crc32c(line), line)


@pytest.mark.parametrize("what", ["torn", "garbage", "no numbers", "another order", "binary"])
def test_receipts_that_are_damaged_are_ignored(copy, calls, out, expected, what):
    interrupt(copy, steps_end(calls) - 1)
    path = staging(out) / "receipts"
    text = path.read_bytes()
    lines = text.splitlines(keepends=True)
    broken = {
        "torn": [text[:n] for n in range(0, len(text), 41)],
        "garbage": [text + b"garbage", lines[0] + b"\0" * 99, b"", b"\n" * 5],
        "no numbers": [
            lines[0] + signed(b'{"file": 3}') + signed(b"[]") + signed(b"\xff") + b"".join(lines)
        ],
        "another order": [
            signed(b"{}") + b"".join(lines[1:]),
            signed(lines[0][9:-1].replace(b'"version":"', b'"version":"0')) + b"".join(lines[1:]),
            b"".join(lines[1:]),
        ],
        "binary": [random.Random(1).randbytes(len(text))],
    }[what]
    kept = {path: path.read_bytes() for path in path.parent.rglob("*") if path.is_file()}
    for content in broken:
        for name, held in kept.items():
            name.parent.mkdir(parents=True, exist_ok=True)
            name.write_bytes(content if name == path else held)
        copy()
        assert differing(visible(out), expected) == [], content[:200]
        clear(out)


def test_receipts_of_what_was_never_written_are_not_believed(copy, calls, out, expected):
    """They are sound, but the files are empty."""
    interrupt(copy, steps_end(calls))
    for part in staging(out).rglob("*.part"):
        part.write_bytes(bytes(part.stat().st_size))
    report = copy()
    assert report.bytes_resumed == 0
    assert differing(files(out), expected) == []


def test_receipts_of_another_edit_are_left_alone(copy, calls, out, expected, source):
    other = ("a *= 3", "c[2:5] = 2", "drop e") if not source.is_dir() else ("w *= 3",)
    copy(resume=False, edits=other)
    wanted = files(out)
    clear(out)
    interrupt(copy, steps_end(calls))
    left = hidden(out)
    assert copy(edits=other).bytes_resumed == 0
    assert visible(out) == wanted
    assert hidden(out) == left
    assert ckptkit.recover(out / "new").removed
    assert files(out) == wanted


# --- conflicts ---------------------------------------------------------------------------------


def test_an_input_that_changed_is_a_conflict(copy, calls, out, source):
    interrupt(copy, steps_end(calls))
    before = files(out)
    index = source / "variables" / "variables.index" if source.is_dir() else f"{source}.index"
    found = os.stat(index)
    os.utime(index, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    with pytest.raises(ConflictError, match="ckptkit recover") as caught:
        copy()
    assert f"ckptkit recover {out / 'new'}" in str(caught.value)
    assert files(out) == before
    assert ckptkit.recover(out / "new").removed
    assert os.listdir(out) == []
    copy()


class Pausing(Disk):
    """Waits before it writes the first bytes of a tensor."""

    def __init__(self):
        super().__init__()
        self.reached, self.go_on = threading.Event(), threading.Event()

    def about_to(self, call, path, new="", **details):
        if call in {"copy", "write"} and ".part" in path and not self.reached.is_set():
            self.reached.set()
            assert self.go_on.wait(60)


def test_two_runs_do_not_go_on_with_the_same(copy, calls, out, expected):
    interrupt(copy, steps_end(calls) // 2)
    disk = Pausing()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(copy, disk)
        assert disk.reached.wait(60)
        try:
            with pytest.raises(ConflictError, match="another process is writing here"):
                copy()
            before = hidden(out)
            assert ckptkit.recover(out / "new").removed == ()
            assert hidden(out) == before
        finally:
            disk.go_on.set()
        first.result()
    assert differing(files(out), expected) == []


def test_a_function_cannot_be_resumed(source, out):
    with ckptkit.open(source) as found:
        name = next(name for name in found if found.catalog.spec(name).dtype == "float32")
        plan = found.edit(ckptkit.Map(name, lambda x: x * 2)).plan(out / "new")
    with pytest.raises(EditError, match="statements"):
        plan.run(device="numpy", resume=True)
    assert os.listdir(out) == []


# --- what is left ------------------------------------------------------------------------------


def test_without_resume_an_error_leaves_nothing(copy, out, expected):
    disk = Recording()
    copy(disk, resume=False)
    clear(out)
    for at in range(len(disk.calls)):
        error = OSError(errno.EIO, "the disk fails here")
        with pytest.raises(OSError, match="fails here"):
            copy(Stopping(at, error), resume=False)
        assert os.listdir(out) == [], disk.calls[at]


def test_recover_removes_what_was_left_at_any_call(copy, calls, out):
    for at in range(first_name(calls, out)):
        interrupt(copy, at)
        if os.listdir(out):
            assert ckptkit.recover(out / "new").removed
        assert os.listdir(out) == [], calls[at]


def test_the_error_says_how_to_go_on(copy, calls, out):
    error = interrupt(copy, steps_end(calls))
    (told,) = error.__notes__
    assert "--resume" in told
    assert f"ckptkit recover {out / 'new'}" in told
