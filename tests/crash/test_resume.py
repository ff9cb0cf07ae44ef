"""A copy that was interrupted goes on where it stopped, and believes nothing that it finds."""

from __future__ import annotations

import errno
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit import ConflictError, EditError
from ckptkit.engine import queue, run
from ckptkit.storage.disk import Disk
from ckptkit.storage.publish import RECEIPTS, Staging
from ckptkit.storage.sidecar import staging_folders
from tests.crash.disks import Recording, Stopping

EDITS = ("w *= 0.5", "v[3:30] += 1", "b = 7")


@pytest.fixture(autouse=True)
def many_steps(monkeypatch):
    monkeypatch.setattr(run, "MAX_CHUNK", 2000)
    monkeypatch.setattr(queue, "COPY", 3000)
    monkeypatch.setattr("ckptkit.engine.program.BLOCK", 2000)
    monkeypatch.setattr("ckptkit.engine.steps.LIGHT", 2000)


@pytest.fixture
def model(tmp_path):
    for name in ("in", "out", "whole"):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(2)
    values = {
        "w": rng.standard_normal((60, 50)).astype(np.float32),
        "v": rng.standard_normal((100, 40)).astype(np.float32),
        "rest": rng.standard_normal(3000),
        "b": np.arange(60, dtype=np.float32),
        "text": ["some", "text"],
    }
    ckptkit.save(tmp_path / "in" / "m", values, layout=ckptkit.Layout(shards=2))
    return tmp_path


def copy(folder, name="out", *, edits=EDITS, resume=True, **options):
    with ckptkit.open(folder / "in" / "m") as found:
        return (
            found.edit(*edits)
            .plan(folder / name / "n", "copy")
            .run(device="numpy", resume=resume, **options)
        )


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def interrupted(folder, at):
    error = OSError(errno.EIO, "stops")
    with pytest.raises(OSError, match="stops"):
        copy(folder, disk=Stopping(at, error))
    return error


def middle(folder):
    """Return the call by which about half of the bytes are written, and all calls."""
    disk = Recording()
    copy(folder, "whole", disk=disk)
    moves = [at for at, (call, path, _) in enumerate(disk.calls) if call in {"write", "copy"}
             and path.endswith(".part")]  # fmt: skip
    return moves[len(moves) // 2], disk.calls


def test_an_interruption_at_any_call_is_gone_on_from(model):
    _, calls = middle(model)
    expected = files(model / "whole")
    for at in range(len(calls)):
        error = interrupted(model, at)
        # Before there are receipts nothing is worth keeping.
        if os.listdir(model / "out"):
            assert "--resume" in error.__notes__[0]
        report = copy(model) if not (model / "out" / "n.index").exists() else None
        assert files(model / "out") == expected, calls[at]
        assert report is None or report.bytes_written == sum(map(len, expected.values()))
        for path in (model / "out").iterdir():
            path.unlink()


def test_what_was_done_is_not_done_again(model):
    at, _ = middle(model)
    interrupted(model, at)
    (staged,) = staging_folders(str(model / "out" / "n"))
    noted = (Path(staged) / RECEIPTS).read_bytes().count(b"\n") - 1
    disk = Disk()
    report = copy(model, disk=disk)
    expected = files(model / "whole")
    assert noted > 5
    assert report.bytes_resumed > 10_000
    moved = disk.traffic.written + disk.traffic.copied
    index = len(expected["n.index"])
    receipts = 300 * (report.bytes_written // 1000)
    assert moved <= report.bytes_written - report.bytes_resumed + index + receipts
    assert files(model / "out") == expected


def test_what_was_altered_meanwhile_is_found_out_and_done_again(model):
    at, _ = middle(model)
    interrupted(model, at)
    (staged,) = staging_folders(str(model / "out" / "n"))
    for path in Path(staged).glob("*.part"):
        content = bytearray(path.read_bytes())
        for offset in range(0, len(content), 500):
            content[offset] ^= 1
        path.write_bytes(content)
    assert copy(model).bytes_resumed == 0
    assert files(model / "out") == files(model / "whole")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace(b"offset", b"upset!"),
        lambda text: text[:100] + b"\0" + text[101:],
        lambda text: text + b"00000000 {}\n" + b"x" * 1000,
        lambda _: b"",
        lambda _: b"\xff" * 10_000,
    ],
)
def test_receipts_that_are_damaged_count_for_nothing(model, spoil):
    at, _ = middle(model)
    interrupted(model, at)
    (staged,) = staging_folders(str(model / "out" / "n"))
    path = Path(staged) / RECEIPTS
    path.write_bytes(spoil(path.read_bytes()))
    copy(model)
    assert files(model / "out") == files(model / "whole")


def test_an_edit_of_another_wording_starts_anew(model):
    at, _ = middle(model)
    interrupted(model, at)
    assert copy(model, edits=("w *= 0.25", *EDITS[1:])).bytes_resumed == 0
    assert ckptkit.open(model / "out" / "n").verify().ok
    recovered = ckptkit.recover(model / "out" / "n")
    assert len(recovered.removed) == 1
    assert sorted(os.listdir(model / "out")) == sorted(files(model / "whole"))


def test_an_input_that_changed_is_refused(model):
    at, _ = middle(model)
    interrupted(model, at)
    os.utime(model / "in" / "m.index", ns=(1, 1))
    with pytest.raises(ConflictError, match="ckptkit recover"):
        copy(model)
    ckptkit.recover(model / "out" / "n")
    assert os.listdir(model / "out") == []
    copy(model)


def test_without_resume_nothing_is_left(model):
    at, _ = middle(model)
    with pytest.raises(OSError, match="stops"):
        copy(model, resume=False, disk=Stopping(at, OSError(errno.EIO, "stops")))
    assert os.listdir(model / "out") == []


def test_a_run_without_resume_leaves_what_an_earlier_one_did(model):
    at, _ = middle(model)
    interrupted(model, at)
    copy(model, resume=False)
    assert len(staging_folders(str(model / "out" / "n"))) == 1


def test_two_runs_do_not_go_on_with_the_same(model):
    at, _ = middle(model)
    interrupted(model, at)
    (staged,) = staging_folders(str(model / "out" / "n"))
    with Staging(str(model / "out" / "n"), whole_folder=False, adopt=staged):
        with pytest.raises(ConflictError, match="another process"):
            copy(model)
        # Nor does anybody clean up behind one that is still at work.
        with pytest.raises(FileNotFoundError), ThreadPoolExecutor(1):
            ckptkit.open(model / "out" / "n")
        assert ckptkit.recover(model / "out" / "n").removed == ()
    copy(model)


def test_what_a_function_does_is_not_resumed(model):
    with ckptkit.open(model / "in" / "m") as found:
        plan = found.edit(ckptkit.Map("w", lambda x: x * 2)).plan(model / "out" / "n")
        with pytest.raises(EditError, match="nothing tells what a function does"):
            plan.run(resume=True)


def test_other_chunks_are_taken_as_they_were_begun(model, monkeypatch):
    at, _ = middle(model)
    interrupted(model, at)
    monkeypatch.setattr(run, "MAX_CHUNK", 9000)
    assert copy(model).bytes_resumed > 10_000
    assert files(model / "out") == files(model / "whole")


def test_a_saved_model_is_resumed(model):
    folder = model / "in" / "saved"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")
    ckptkit.save(folder / "variables" / "variables", {"w": np.arange(5000.0)})

    def edit(name, disk=None):
        with ckptkit.open(folder) as found:
            plan = found.edit("w *= 2").plan(model / name / "s")
            plan.run(device="numpy", resume=True, disk=disk)

    for at in itertools.count():
        try:
            edit("out", Stopping(at, OSError(errno.EIO, "stops")))
        except OSError:
            assert not (model / "out" / "s").exists()
        else:
            break
    with ckptkit.open(model / "out" / "s") as found:
        np.testing.assert_array_equal(found["w"].read(), np.arange(5000.0) * 2)
    assert os.listdir(model / "out") == ["s"]
    assert sorted(os.listdir(model / "out" / "s" / "variables")) == [
        "variables.data-00000-of-00001",
        "variables.index",
    ]
