"""Editing in place: pieces, journals that stay small, readers, conflicts, faults."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit import ConflictError, EditError, NeedsRecoveryError
from ckptkit.engine import choose, overwrite, run
from ckptkit.storage.disk import Disk
from ckptkit.storage.sidecar import Lock, is_locked, sidecar
from tests.crash.disks import Recording, Stopping
from tests.crash.orders import Inline
from tests.golden.handmade import Bundle

W = np.arange(6000, dtype=np.float32).reshape(60, 100)
B = np.arange(500, dtype=np.float32)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m"
    values = {"w": W, "b": B, "v": W * 2, "text": ["some", "text"]}
    ckptkit.save(path, values, layout=ckptkit.Layout(shards=2))
    return str(path)


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(run, "MAX_CHUNK", 1000)
    monkeypatch.setattr(overwrite, "piece_bytes", lambda *_, **__: 6000)
    monkeypatch.setattr(overwrite, "writers", Inline)


def files(model):
    folder = Path(model).parent
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def patch(model, *edits, disk=None, **options):
    with ckptkit.open(model) as found:
        plan = found.edit(*edits).plan(how="patch", **options)
        return plan.run(device="numpy", disk=disk)


class Measuring(Disk):
    """Notes how long a journal was at most."""

    longest = 0

    def about_to(self, call, path, new="", **details):
        if "-journal" in path and os.path.exists(path):
            Measuring.longest = max(Measuring.longest, os.path.getsize(path))


def test_a_large_patch_goes_piece_by_piece_and_its_journal_stays_small(model, small_pieces):
    Measuring.longest = 0
    report = patch(model, "** *= 0.5", disk=Measuring())
    assert 2 * W.nbytes + B.nbytes < report.bytes_journal
    assert Measuring.longest < 4 * 6000
    with ckptkit.open(model) as found:
        np.testing.assert_array_equal(found["w"].read(), W / 2)
        np.testing.assert_array_equal(found["v"].read(), W)
        assert found.verify().ok


def test_a_journal_has_many_bytes_once_and_few_bytes_twice(tmp_path):
    model = str(tmp_path / "m")
    values = np.arange(1 << 20, dtype=np.float32)
    ckptkit.save(model, {"w": values})
    before = files(model)
    assert (
        values.nbytes < patch(model, "w *= 0.5", keep_undo=True).bytes_journal < 1.1 * values.nbytes
    )
    assert ckptkit.undo(model).state == "back"
    assert files(model) == before
    assert 8000 < patch(model, "w[:1000] *= 0.5").bytes_journal < 9500


@pytest.mark.parametrize(
    ("edits", "options"),
    [
        (["** *= 0.5"], {"keep_undo": True}),
        ([ckptkit.Put("w", W + 1), ckptkit.Put("v", W + 2)], {}),
        ([ckptkit.Map("w", lambda x: x * 2)], {}),
    ],
)
def test_what_no_statement_can_repeat_keeps_all_of_its_journal(model, small_pieces, edits, options):
    before = files(model)
    count = len(calls(model, edits, options))
    Measuring.longest = 0
    # The last two let go of the journal: then the edit is done.
    for at in range(count // 2, count - 2, 7):
        with pytest.raises(OSError, match="stops"):
            patch(model, *edits, disk=Stopping(at, OSError(errno.EIO, "stops")), **options)
        assert files(model) == before, at


def calls(model, edits, options):
    disk = Recording()
    before = files(model)
    patch(model, *edits, disk=disk, **options)
    for name in files(model):
        if name in before:
            (Path(model).parent / name).write_bytes(before[name])
        else:
            (Path(model).parent / name).unlink()
    return disk.calls


def test_an_error_after_old_bytes_are_gone_says_what_to_do_and_recover_goes_on(model, small_pieces):
    disk = Recording()
    states = set()
    patch(model, "** *= 0.5", disk=disk)
    patch(model, "** *= 2", disk=Recording())
    before, count = files(model), len(disk.calls)
    # Pieces repeat the same calls, so that one stop in five meets them all.
    for at in sorted({*range(3, count, 5), *range(count - 4, count)}):
        error = OSError(errno.EIO, "stops")
        with pytest.raises(OSError, match="stops"):
            patch(model, "** *= 0.5", disk=Stopping(at, error))
        if not os.path.lexists(sidecar(model, "journal")):
            if at < len(disk.calls) - 1:
                assert files(model) == before, disk.calls[at]
                states.add("back")
            else:
                # It was done, but for the word of the device that the journal is gone.
                patch(model, "** *= 2")
            continue
        assert error.__notes__ == [f"to finish it: ckptkit recover {model}"]
        with pytest.raises(NeedsRecoveryError, match="ckptkit recover"):
            ckptkit.open(model)
        assert ckptkit.recover(model).state == "forward", disk.calls[at]
        states.add("forward")
        with ckptkit.open(model) as found:
            np.testing.assert_array_equal(found["w"].read(), W / 2)
            assert found.verify().ok
        patch(model, "** *= 2")
        assert files(model) == before
    assert states == {"back", "forward"}


def test_a_tensor_that_needs_another_one_that_changes_is_in_one_piece(model, small_pieces):
    edits = ('w += t("v")', "v = 0")
    with pytest.raises(EditError, match="--memory"):
        patch(model, *edits)
    assert not os.path.lexists(sidecar(model, "journal"))
    with ckptkit.open(model) as found:
        np.testing.assert_array_equal(found["w"].read(), W)


def test_a_tensor_that_needs_another_one_that_changes_gets_its_old_values(model):
    patch(model, 'w += t("v")', "v = 0", "b[0] = 9")
    with ckptkit.open(model) as found:
        np.testing.assert_array_equal(found["w"].read(), W + W * 2)
        assert not found["v"].read().any()


@pytest.mark.parametrize(
    ("edit", "how", "why"),
    [
        ("w[:, 1] *= 2", "patch", "patch: writes"),
        ("w *= 2", "patch", "and leave as many dead bytes"),
        ("cast w -> bfloat16", "append", "patch does not go: 'w' becomes"),
        ("copy w -> u", "append", "patch does not go: a new tensor has no place yet"),
        ("rename ^w$ -> u", "append", "append: only the index changes"),
        ("drop text", "append", "append: only the index changes"),
    ],
)
def test_auto_says_why(model, edit, how, why):
    with ckptkit.open(model) as found:
        plan = found.edit(edit).plan()
        assert plan.how == how
        assert why in str(plan)


def test_auto_appends_where_a_patch_would_write_more(model, monkeypatch):
    monkeypatch.setattr(choose, "LITTLE", 0)
    with ckptkit.open(model) as found:
        assert found.edit("w *= 2").plan().how == "append"
        assert found.edit("w[:30] *= 2").plan().how == "patch"


def test_tensors_that_share_bytes_are_not_patched(tmp_path):
    bundle = Bundle()
    bundle.add(b"a", B)
    bundle.add(b"b", B)
    bundle.add(b"c", B)
    bundle.records[b"b"] = bundle.records[b"a"]
    prefix = bundle.write(tmp_path / "m")
    with ckptkit.open(prefix) as found:
        with pytest.raises(EditError, match="more than one tensor"):
            found.edit("a[0] = 1").plan(how="patch")
        assert found.edit("a[0] = 1").plan().how == "append"
        found.edit("c[0] = 1").plan(how="patch").run()
        found.edit("a[0] = 1")
    with ckptkit.open(prefix) as found:
        found.edit("a[0] = 1").plan().run()
    with ckptkit.open(prefix) as found:
        assert (found["a"][0], found["b"][0], found["c"][0]) == (1, 0, 1)


# --- readers and other editors -----------------------------------------------------------------


def test_who_opened_before_a_patch_is_told(model):
    with ckptkit.open(model) as early:
        assert early["w"][0, 0] == 0
        patch(model, "w[0] = 5")
        for read in (
            early["w"].read,
            lambda: early["w"][0],
            lambda: list(early["b"].blocks()),
        ):
            with pytest.raises(ConflictError, match="open it again"):
                read()


class Pausing(Disk):
    """Waits at a call until somebody lets it go on."""

    def __init__(self, when):
        super().__init__()
        self.when = when
        self.reached, self.go_on = threading.Event(), threading.Event()

    def about_to(self, call, path, new="", **details):
        if self.when(call, path, new) and not self.reached.is_set():
            self.reached.set()
            assert self.go_on.wait(60)


def test_nobody_reads_or_edits_while_a_patch_goes_on(model):
    disk = Pausing(lambda call, path, _: call == "write" and ".data-" in path)
    with ThreadPoolExecutor(1) as pool, ckptkit.open(model) as early:
        done = pool.submit(patch, model, "w[0] = 5", disk=disk)
        assert disk.reached.wait(60)
        assert is_locked(model)
        try:
            with pytest.raises(ConflictError, match="edits this checkpoint in place just now"):
                ckptkit.open(model)
            with pytest.raises(ConflictError, match="just now"):
                early["w"].read()
            with pytest.raises(ConflictError, match="another process"), Lock(model):
                pass
            with pytest.raises(ConflictError, match="another process"):
                ckptkit.recover(model)
        finally:
            disk.go_on.set()
        done.result()
    assert not is_locked(model)
    assert ckptkit.open(model)["w"][0, 0] == 5


def test_the_old_state_is_read_while_something_is_appended(model):
    disk = Pausing(lambda call, _, new: call == "rename" and new.endswith(".index"))
    edit = "w = 5"

    def append():
        with ckptkit.open(model) as found:
            return found.edit(edit).plan(how="append").run(device="numpy", disk=disk)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(append)
        assert disk.reached.wait(60)
        try:
            with ckptkit.open(model) as found:
                np.testing.assert_array_equal(found["w"].read(), W)
        finally:
            disk.go_on.set()
        done.result()
    with ckptkit.open(model) as found:
        assert (found["w"].read() == 5).all()


def test_a_change_between_opening_and_running_is_a_conflict(model):
    for time, how in enumerate(("patch", "append", "copy")):
        with ckptkit.open(model) as found:
            plan = found.edit("w[0] = 1").plan(how=how)
            os.utime(f"{model}.index", ns=(time, time))
            with pytest.raises(ConflictError, match="changed since"):
                plan.run()
    assert sorted(files(model)) == sorted(name for name in files(model) if name[0] != ".")


def test_a_plan_in_place_runs_once(model):
    with ckptkit.open(model) as found:
        plan = found.edit("w[0] += 1").plan(how="patch")
        plan.run()
        with pytest.raises(ConflictError, match="open it again"):
            plan.run()


# --- corruption --------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 399, 400, 23_999])
def test_a_flipped_bit_stays_found_out_after_a_patch(model, at):
    shard = Path(f"{model}.data-00000-of-00002")
    with ckptkit.open(model) as found:
        start = found.catalog["w"].source.pieces[0].extent.offset
    content = bytearray(shard.read_bytes())
    content[start + at] ^= 4
    shard.write_bytes(content)
    patch(model, "w[1] *= 2", "b += 1")
    verdict = ckptkit.open(model).verify()
    assert [problem.tensor for problem in verdict.problems] == ["w"]


def test_a_tensor_that_is_only_read_has_to_be_sound(model):
    with ckptkit.open(model) as found:
        extent = found.catalog["v"].source.pieces[0].extent
    content = bytearray(Path(extent.path).read_bytes())
    content[extent.offset] ^= 1
    Path(extent.path).write_bytes(content)
    before = files(model)
    with pytest.raises(ckptkit.CorruptError, match="checksum"):
        patch(model, 'w += t("v")')
    with pytest.raises(ckptkit.CorruptError, match="checksum"):
        patch(model, 'w[:, :] += t("v")')
    assert files(model) == before


# --- faults ------------------------------------------------------------------------------------


def test_no_room_for_the_journal_is_told_before_anything_changes(model, monkeypatch):
    before = files(model)
    full = os.statvfs(model + ".index")
    nothing = os.statvfs_result((*full[:4], 0, *full[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: nothing)
    for how in ("patch", "append", "copy"):
        with ckptkit.open(model) as found, pytest.raises(OSError, match="are free") as caught:
            found.edit("w[0] = 1").plan(how=how).run()
        assert caught.value.errno == errno.ENOSPC
        assert files(model) == before


def test_a_limit_on_the_length_of_files_is_told_before(model, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (1000, 1000))
    with ckptkit.open(model) as found, pytest.raises(OSError, match="this process may write") as e:
        found.edit("w = 1").plan(how="append").run()
    assert e.value.errno == errno.EFBIG


def test_a_read_only_folder_is_told_before(model, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with ckptkit.open(model) as found:
        for how in ("patch", "append", "copy"):
            with pytest.raises(PermissionError):
                found.edit("w[0] = 1").plan(how=how).run()
        with pytest.raises(PermissionError):
            found.edit("w[0] = 1").plan(f"{model}2").run()


def test_short_reads_and_writes_are_gone_on_with(model, monkeypatch):
    read, write = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda fd, n, at: read(fd, max(n // 2, 1), at))
    half = lambda fd, data, at: write(fd, data[: max(len(data) // 2, 1)], at)  # noqa: E731
    monkeypatch.setattr(os, "pwrite", half)
    patch(model, "w[::7, 1] *= 2", "v[:, 3] = 1")
    monkeypatch.undo()
    expected = W.copy()
    expected[::7, 1] *= 2
    with ckptkit.open(model) as found:
        np.testing.assert_array_equal(found["w"].read(), expected)
        assert found.verify().ok


def test_a_journal_that_cannot_be_begun_leaves_none(model):
    before = files(model)
    for at in (0, 1, 2):
        with pytest.raises(OSError, match="full"):
            patch(model, "w[0] = 1", disk=Stopping(at, OSError(errno.ENOSPC, "full")))
        assert files(model) == before


@pytest.mark.parametrize("name", ["n" * 235, "\u4e16" * 78, "\udcff" * 235])
def test_the_longest_names_are_edited_every_way(tmp_path, name):
    path = str(tmp_path / name)
    ckptkit.save(path, {"b": B})
    for how in ("patch", "append", "copy"):
        with ckptkit.open(path) as found:
            found.edit("b[0] += 1").plan(how=how, keep_undo=how != "copy").run(device="numpy")
    linked = path[:-1]
    with ckptkit.open(path) as found:
        found.edit("b[0] += 1").plan(linked, "link").run(device="numpy")
    assert ckptkit.open(linked)["b"][0] == 4


def test_processes_patch(model, small_pieces):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as pool, ckptkit.open(model) as found:
        draft = found.edit("w[:, ::3] *= 2", "b += 1", "v = 3")
        draft.plan(how="patch").run(device="numpy", executor=pool)
    expected = W.copy()
    expected[:, ::3] *= 2
    with ckptkit.open(model) as found:
        np.testing.assert_array_equal(found["w"].read(), expected)
        np.testing.assert_array_equal(found["b"].read(), B + 1)
        assert found.verify().ok


def test_files_that_are_links_to_files_elsewhere_are_not_changed(model, tmp_path):
    shard = Path(f"{model}.data-00000-of-00002")
    elsewhere = tmp_path / "store" / "blob"
    elsewhere.parent.mkdir()
    shard.rename(elsewhere)
    shard.symlink_to(elsewhere)
    content = elsewhere.read_bytes()
    with ckptkit.open(model) as found:
        with pytest.raises(ConflictError, match="--break-links"):
            found.edit("w[0] = 1").plan(how="patch").run()
        found.edit("w[0] = 1").plan(tmp_path / "linked", "link").run()
        found.edit("w[0] = 1").plan(how="patch", break_links=True).run()
    assert elsewhere.read_bytes() == content
    assert not shard.is_symlink()
    for path in (model, tmp_path / "linked"):
        assert ckptkit.open(path).verify().ok
        assert ckptkit.open(path)["w"][0, 0] == 1


def test_permissions_stay(model):
    names = [name for name in files(model) if name[0] != "."]
    for name in names:
        (Path(model).parent / name).chmod(0o640)
    for how in ("append", "patch", "copy"):
        with ckptkit.open(model) as found:
            found.edit("w[0] += 1").plan(how=how).run(device="numpy")
        assert {(Path(model).parent / name).stat().st_mode & 0o777 for name in names} == {0o640}


def test_an_edit_while_something_is_verified_is_no_damage(model):
    with ckptkit.open(model) as found:
        patch(model, "w[0] = 5")
        with pytest.raises(ConflictError, match="open it again"):
            found.verify()
        with pytest.raises(ConflictError, match="open it again"):
            ckptkit.diff(found, model)
