"""Files, folders, and what is counted of them."""

from __future__ import annotations

import errno
import gc
import os
import threading

import pytest

from ckptkit.errors import ConflictError
from ckptkit.storage import disk as module
from ckptkit.storage.disk import Disk, Sources, stamp
from ckptkit.storage.publish import Staging


@pytest.fixture
def disk():
    """A disk that has counted nothing."""
    return Disk()


def moved(disk):
    return disk.traffic.read, disk.traffic.written, disk.traffic.copied


def test_reads_and_writes_are_positioned_and_counted(disk, tmp_path):
    with disk.create(str(tmp_path / "f")) as file:
        file.write(b"abcdef", 10)
        assert file.size == 16
        assert file.read(12, 3) == b"cde"
        buffer = bytearray(2)
        file.read_into(buffer, 10)
        assert buffer == b"ab"
    assert moved(disk) == (5, 6, 0)


def test_short_transfers_are_continued(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_TRANSFER", 3)
    content = bytes(range(100))
    with disk.create(str(tmp_path / "f")) as file, disk.create(str(tmp_path / "g")) as other:
        file.write(content, 0)
        assert file.read(0, 100) == content
        other.copy_from(file, 10, 5, 70)
        assert other.read(5, 70) == content[10:80]
    assert moved(disk) == (170, 100, 70)


def test_a_file_that_is_shorter_than_it_was_is_a_conflict(disk, tmp_path):
    with disk.create(str(tmp_path / "f")) as file, disk.create(str(tmp_path / "g")) as other:
        file.write(b"abc", 0)
        with pytest.raises(ConflictError, match="ends here") as caught:
            file.read(1, 9)
        assert (caught.value.path, caught.value.offset) == (str(tmp_path / "f"), 3)
        with pytest.raises(ConflictError, match="ends here"):
            other.copy_from(file, 0, 0, 4)


@pytest.mark.parametrize("error", [errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_where_the_kernel_cannot_copy_blocks_are(disk, tmp_path, monkeypatch, error):
    def refuse(*_):
        raise OSError(error, "not here")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    monkeypatch.setattr(module, "COPY_BLOCK", 7)
    with disk.create(str(tmp_path / "f")) as file, disk.create(str(tmp_path / "g")) as other:
        file.write(bytes(range(100)), 0)
        other.copy_from(file, 1, 2, 90)
        assert other.read(2, 90) == bytes(range(1, 91))


def test_an_error_while_copying_is_told(disk, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "copy_file_range", fail)
    with disk.create(str(tmp_path / "f")) as file, disk.create(str(tmp_path / "g")) as other:
        file.write(b"abc", 0)
        with pytest.raises(OSError, match="broken"):
            other.copy_from(file, 0, 0, 3)


def test_nothing_is_created_over_something(disk, tmp_path):
    (tmp_path / "f").write_text("old")
    with pytest.raises(FileExistsError):
        disk.create(str(tmp_path / "f"))
    with pytest.raises(FileExistsError):
        disk.make_folder(str(tmp_path))
    assert (tmp_path / "f").read_text() == "old"


def test_a_stamp_tells_change(tmp_path):
    path = tmp_path / "f"
    path.write_text("abc")
    before = stamp(str(path))
    assert stamp(str(path)) == before
    os.utime(path, ns=(1, 1))
    assert stamp(str(path)) != before


def test_a_bounded_number_of_files_is_held_open(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_OPEN_FILES", 4)
    for number in range(20):
        (tmp_path / f"{number}").write_text(f"{number:04d}")
    sources = Sources()
    # What other tests have left is not to go away meanwhile.
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    held = sources.file(str(tmp_path / "0"))
    for number in range(20):
        assert sources.file(str(tmp_path / f"{number}")).read(0, 4) == f"{number:04d}".encode()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 5
    assert held.read(0, 4) == b"0000"
    del held
    sources.close()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_many_threads_share_files(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_OPEN_FILES", 2)
    for number in range(6):
        (tmp_path / f"{number}").write_bytes(bytes([number]) * 1000)
    sources, wrong = Sources(), []

    def use(seed):
        for step in range(100):
            number = (seed + step) % 6
            if sources.file(str(tmp_path / f"{number}")).read(step, 10) != bytes([number]) * 10:
                wrong.append((seed, step))

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sources.disk.traffic.read == 4 * 100 * 10


# --- staging -----------------------------------------------------------------------------------


def test_files_appear_when_they_are_published(tmp_path):
    with Staging(str(tmp_path / "m"), whole_folder=False) as staging:
        staging.create(str(tmp_path / "m.data"), 5).write(b"abc", 1)
        staging.write(str(tmp_path / "m.index"), b"index")
        assert not [name for name in os.listdir(tmp_path) if not name.startswith(".")]
        staging.publish()
    assert (tmp_path / "m.data").read_bytes() == b"\0abc\0"
    assert sorted(os.listdir(tmp_path)) == ["m.data", "m.index"]


def test_without_publication_nothing_stays(tmp_path):
    deep = tmp_path / "new" / "deeper"
    for whole in (False, True):
        with Staging(str(deep / "m"), whole_folder=whole) as staging:
            staging.write(str(deep / "m" / "a" / "b" if whole else deep / "m.index"), b"x")
        assert os.listdir(tmp_path) == []


def test_a_folder_appears_as_a_whole(tmp_path):
    with Staging(str(tmp_path / "m"), whole_folder=True) as staging:
        staging.write(str(tmp_path / "m" / "a" / "b" / "c"), b"deep")
        staging.write(str(tmp_path / "m" / "top"), b"flat")
        staging.publish()
    assert (tmp_path / "m" / "a" / "b" / "c").read_bytes() == b"deep"
    assert sorted(os.listdir(tmp_path / "m")) == ["a", "top"]
    assert os.listdir(tmp_path) == ["m"]


def test_what_appeared_meanwhile_stays_and_nothing_joins_it(tmp_path):
    with Staging(str(tmp_path / "m"), whole_folder=False) as staging:
        staging.write(str(tmp_path / "m.data"), b"x")
        staging.write(str(tmp_path / "m.index"), b"x")
        (tmp_path / "m.index").write_text("somebody's")
        with pytest.raises(ConflictError, match="appeared"):
            staging.publish()
    assert os.listdir(tmp_path) == ["m.index"]
    assert (tmp_path / "m.index").read_text() == "somebody's"


def test_errors_of_the_system_say_which_file_they_are_about(disk, tmp_path):
    """Calls by descriptor know of no name, and leave whoever reads the message to guess."""
    (tmp_path / "source").write_bytes(bytes(10))
    full = module.File(disk, "/dev/full", os.open("/dev/full", os.O_RDWR))
    with full, disk.open(str(tmp_path / "source")) as source:
        for call in (
            lambda: full.write(b"x", 0),
            lambda: full.write_runs(1, [0, 1], b"xy"),
            lambda: full.resize(5),
        ):
            with pytest.raises(OSError, match="/dev/full") as caught:
                call()
            assert caught.value.filename == "/dev/full"
        with pytest.raises(OSError, match="source") as caught:
            full.copy_from(source, 0, 0, 10)
        assert caught.value.filename2 == "/dev/full"
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        full.read(0, 1)
    assert caught.value.filename == "/dev/full"
