"""The log of a disk holds what was done, and the model has done the same."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.crash.forgetful import Logged, Volume, record

pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def test_a_log_keeps_what_the_buffer_held_then(folder):
    def run(disk):
        buffer = bytearray(b"abc")
        with disk.create(str(folder / "a")) as file:
            file.write(buffer, 0)
            buffer[:] = b"xyz"
            file.write(buffer, 3)

    assert record(run, Volume.of(folder)).after().after_kill().under(folder) == {"a": b"abcxyz"}


def test_a_log_keeps_what_is_copied(folder):
    path = str(folder / "a")
    (folder / "a").write_bytes(b"0123456789")

    def run(disk):
        with disk.open(path) as source, disk.create(str(folder / "b")) as file:
            file.copy_from(source, 2, 1, 4)

    tree = record(run, Volume.of(folder)).after().after_kill()

    assert tree.under(folder) == {"a": b"0123456789", "b": b"\x002345"}


def test_a_log_leaves_out_what_the_system_refused(folder):
    path = str(folder / "a")
    (folder / "a").write_bytes(b"1")

    def run(disk):
        for refused in (
            lambda: disk.create(path),
            lambda: disk.link(path, path),
            lambda: disk.make_folder(str(folder)),
            lambda: disk.remove_folder(str(folder)),
            lambda: disk.rename(path + "?", path),
            lambda: disk.remove(path + "?"),
        ):
            with pytest.raises(OSError, match="Errno"):
                refused()

    assert record(run, Volume.of(folder)).calls == ()


def test_a_change_behind_the_back_of_the_disk_is_seen(folder):
    with pytest.raises(AssertionError, match="as the calls tell"):
        record(lambda disk: (folder / "a").write_bytes(b"1"), Volume.of(folder))


def test_a_call_that_the_model_does_not_know_is_refused(folder):
    with pytest.raises(NotImplementedError, match="exchange"):
        record(lambda disk: disk.about_to("exchange", "a", "b"), Volume.of(folder))


def test_a_call_outside_the_folders_that_are_watched_is_refused(folder, tmp_path):
    with pytest.raises(AssertionError, match="not in the folders"):
        record(lambda disk: disk.create(str(tmp_path / "a")).close(), Volume.of(folder))


def test_calls_of_many_threads_are_kept(folder):
    disk = Logged()
    before = Volume.of(folder)

    def make(number):
        with disk.create(str(folder / str(number))) as file:
            file.write(b"x", 0)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make, range(50)))

    assert before.replay(disk.calls).after_kill() == Volume.of(folder).after_kill()
