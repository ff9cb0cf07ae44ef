"""Journals from strangers, and damaged ones: an error that names the place, and nothing written."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptkit
from ckptkit import CkptError, ConflictError, CorruptError
from ckptkit._native import crc32c
from ckptkit.engine import overwrite, run
from ckptkit.storage import frames
from ckptkit.storage.changes import Gone, Move, Runs, Tail, Whole
from ckptkit.storage.disk import Disk
from ckptkit.storage.frames import VERSION, Back, Begin, Commit, Piece
from ckptkit.storage.journal import Journal
from ckptkit.storage.sidecar import sidecar
from tests.crash.disks import Recording, Stopping
from tests.crash.orders import Inline

W = np.arange(3000, dtype=np.float32)


@pytest.fixture
def model(tmp_path):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "m"
    ckptkit.save(path, {"w": W, "b": W[:9]})
    (tmp_path / "in" / "other.index").write_bytes(b"other")
    (tmp_path / "victim").write_bytes(b"victim")
    return str(path)


def files(model):
    return {
        path.name: path.read_bytes()
        for path in Path(model).parent.parent.rglob("*")
        if path.is_file()
    }


def differing(one, other):
    return [name for name in {*one, *other} if one.get(name) != other.get(name)]


def begin(model, **fields):
    found = {"version": VERSION, "how": "patch", "index": "m.index", "sizes": {}}
    found["index_sum"] = crc32c(Path(f"{model}.index").read_bytes())
    return Begin(**{**found, **fields})


def write(model, *given):
    """Write a journal of some frames: events, or events with changes."""
    journal = None
    for frame in given:
        event, changes = frame if isinstance(frame, tuple) else (frame, ())
        if journal is None:
            path = sidecar(model, "journal")
            journal = Journal(Disk(), path, event, changes)
        else:
            journal.add(event, changes)
    journal.sync()
    journal.abandon()
    return path


def runs(file, offset=0, new=b"evil"):
    return Runs(file, len(new), np.array([offset], np.int64), b"\0" * len(new), new)


@pytest.mark.parametrize(
    "name",
    ["../victim", "../in/other.index", "/etc/passwd", "other.index", "m.index/../../victim", "m",
     "m.index\0", ".m.ckptkit-journal", "m.data-00000-of-00001/x", "", ".", "..",
     ".m.ckptkit-0123456789ab/../../victim.part"],
)  # fmt: skip
@pytest.mark.parametrize("make", [
    runs, lambda n: Whole(n, b"", b"evil"), lambda n: Tail(n, 0),
    lambda n: Move(n, "m.index"), lambda n: Move("m.index", n), Gone,
])  # fmt: skip
def test_no_file_outside_the_checkpoint_is_touched(model, name, make):
    change = make(name)
    write(model, begin(model), (Piece({}), [change]), Commit(0))
    before = files(model)
    try:
        ckptkit.recover(model)
    except (CkptError, OSError):
        assert {n: t for n, t in files(model).items() if n in before} == before
    else:
        # A tail is cut off on the way back alone; of what is not there nothing is moved.
        assert isinstance(change, Tail | Move)
        del before[".m.ckptkit-journal"]
        assert files(model) == before


@pytest.mark.parametrize(
    "index", ["../victim", "/etc/passwd", "other.index", "m.data-00000-of-00001x"]
)
def test_the_index_that_it_names_is_that_of_the_checkpoint(model, index):
    write(model, begin(model, index=index))
    with pytest.raises(CorruptError, match="no file of the checkpoint"):
        ckptkit.recover(model)


def test_a_journal_of_another_state_is_not_followed(model):
    write(model, begin(model, index_sum=1), (Piece({}), [runs("m.data-00000-of-00001")]), Commit(2))
    before = files(model)
    with pytest.raises(ConflictError, match="was written anew"):
        ckptkit.recover(model)
    assert files(model) == before


@pytest.mark.parametrize(
    ("makers", "words"),
    [
        ([lambda m: begin(m, version=3)], "version 3"),
        ([lambda _: Piece({})], "starts with what the edit is"),
        ([lambda _: Commit(1)], "starts with what the edit is"),
        ([begin, begin], "this has two"),
        ([begin, lambda _: (Commit(1), [Gone("m.index")]), lambda _: Back()], "cannot be undone"),
    ],
)
def test_frames_that_contradict_one_another(model, makers, words):
    write(model, *(make(model) for make in makers))
    before = files(model)
    with pytest.raises(CorruptError, match=words):
        ckptkit.recover(model)
    assert files(model) == before


def test_statements_of_a_journal_are_no_code(model):
    write(model, begin(model, done=1, edits=("__import__('os').abort()",), chunk=4 << 20, piece=1))
    before = files(model)
    with pytest.raises(ckptkit.EditError):
        ckptkit.recover(model)
    assert files(model) == before


def test_pieces_larger_than_memory_are_asked_for(model):
    write(model, begin(model, done=1, edits=("w *= 2",), chunk=4 << 20, piece=1 << 60))
    with pytest.raises(ckptkit.EditError, match="--memory"):
        ckptkit.recover(model)


# --- payloads ----------------------------------------------------------------------------------


def payload(head, blobs=b"", size=None):
    text = head if isinstance(head, bytes) else msgspec.json.encode(head)
    return struct.pack("<I", len(text) if size is None else size) + text + blobs


EVENT = {"type": "piece", "sums": {}}


OVERLAP, FALLING = struct.pack("<qq", 4, 5), struct.pack("<qq", 5, 4)
LAST = b"\xff" * 7 + b"\x7f"
"""The largest offset that a signed 64-bit number can be."""


def change(**fields):
    return {"event": EVENT, "changes": [{"kind": "runs", "file": "f", **fields}]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "longer than the frame"),
        (b"\x01\0\0", "longer than the frame"),
        (payload(b"", size=2**32 - 1), "longer than the frame"),
        (payload(b"{"), "does not decode"),
        (payload(b"[" * 100_000), "does not decode"),
        (payload({"event": {"type": "other"}}), "does not decode"),
        (payload({"event": {"type": "piece", "sums": {}, "more": 1}}), "does not decode"),
        (payload({"event": {"type": "piece", "sums": {"a": 1}}}), "does not decode"),
        (payload({"event": EVENT}, b"rest"), "do not fill it"),
        (payload(change(blobs=[2**62, 2**62])), "do not fill it"),
        (payload(change(blobs=[-1, 1])), "do not fill it"),
        (payload(change(kind="nothing")), "does not decode"),
        (payload(change(kind="tail", number=-1)), "kind tail does not decode"),
        (payload(change(kind="whole", blobs=[0])), "kind whole does not decode"),
        (payload(change(number=1, blobs=[7, 0, 0]), bytes(7)), "no multiple of 8"),
        (payload(change(number=0, blobs=[8, 0, 0]), bytes(8)), "contradict"),
        (payload(change(number=2, blobs=[8, 1, 2]), bytes(11)), "contradict"),
        (payload(change(number=1, blobs=[8, 1, 1]), b"\xff" * 8 + b"ab"), "contradict"),
        (
            payload(change(number=9, blobs=[8, 9, 9]), LAST + bytes(18)),
            "contradict",
        ),
        (
            payload(change(number=2, blobs=[16, 4, 4]), struct.pack("<qq", 4, 5) + bytes(8)),
            "contrad",
        ),
        (
            payload(change(number=1, blobs=[16, 2, 2]), struct.pack("<qq", 5, 4) + bytes(4)),
            "contrad",
        ),
        (payload(change(file="\u1234", kind="gone")), "stands for no byte"),
    ],
)
def test_payloads_that_contradict_themselves(data, words):
    with pytest.raises(CorruptError, match=words):
        frames.decode(data)


@given(st.binary(max_size=400))
def test_any_bytes_decode_or_are_refused(data):
    with contextlib.suppress(CorruptError):
        frames.decode(data)


# --- damage ------------------------------------------------------------------------------------


def cut_short(model, at, **options):
    """Begin a patch that a failing disk stops for good."""

    class Dead(Stopping):
        def about_to(self, call, path, new="", **details):
            super().about_to(call, path, new, **details)
            if len(self.calls) > at:
                raise OSError(5, "dead")

    with ckptkit.open(model) as found:
        plan = found.edit("w *= 2", "b[3] = 1").plan(how="patch", **options)
        with pytest.raises(OSError, match=r"dead|stops"):
            plan.run(device="numpy", disk=Dead(at, OSError(5, "stops")))


@pytest.fixture(params=["one piece", "several"])
def half_done(request, model, monkeypatch):
    """A checkpoint whose patch was cut short after its first bytes were written."""
    if request.param == "several":
        monkeypatch.setattr(run, "MAX_CHUNK", 1000)
        monkeypatch.setattr(overwrite, "piece_bytes", lambda *_, **__: 6000)
        monkeypatch.setattr(overwrite, "writers", Inline)
    before = files(model)
    disk = Recording()
    with ckptkit.open(model) as found:
        found.edit("w *= 2", "b[3] = 1").plan(how="patch").run(device="numpy", disk=disk)
    after = files(model)
    for name, text in before.items():
        if name.startswith("m."):
            (Path(model).parent / name).write_bytes(text)
    writes = [n for n, call in enumerate(disk.calls) if call[0] == "write" and ".data-" in call[1]]
    cut_short(model, writes[len(writes) // 2] + 1)
    return model, before, after


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_journal_never_gives_a_third_state(half_done, data):
    model, before, after = half_done
    folder = Path(model).parent
    halfway = {path: path.read_bytes() for path in folder.iterdir()}
    journal = Path(sidecar(model, "journal"))
    content = bytearray(journal.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if at % 512 < 36 and at < 1024:
        # With one of two slots damaged the other one counts, as if this one was being written.
        at = 600
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    journal.write_bytes(content)
    try:
        recovered = ckptkit.recover(model)
        state = files(model)
    except CorruptError as error:
        state = None
        assert error.path == str(journal)
    found = {path: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    for path, text in halfway.items():
        path.write_bytes(text)
    if state is None:
        assert found == {**halfway, journal: content}
    else:
        assert differing(state, before if recovered.state == "back" else after) == []


def test_a_journal_that_is_cut_off_is_damaged(half_done):
    model, _, _ = half_done
    journal = Path(sidecar(model, "journal"))
    content = journal.read_bytes()
    for length in (0, 7, 1023, 1024, 1100):
        journal.write_bytes(content[:length])
        with pytest.raises(CorruptError):
            ckptkit.recover(model)
    journal.write_bytes(content)
    ckptkit.recover(model)
    assert ckptkit.open(model).verify().ok
    assert not os.path.lexists(journal)
