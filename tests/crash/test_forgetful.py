"""The disk that forgets keeps what POSIX makes it keep, and may lose the rest."""

import itertools
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit.storage.disk import Disk
from tests.crash.forgetful import Volume, every, materialise, record

pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def put(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return str(path)


def make(disk, path, content=b"", *, sync=True):
    with disk.create(str(path)) as file:
        if content:
            file.write(content, 0)
        if sync:
            file.sync()


def left(folder, run):
    """Every set of files that may be there when the power fails after a run."""
    volume = record(run, Volume.of(folder)).after()
    return {tuple(sorted(tree.under(folder).items())) for tree in every(volume.after_power_failure)}


def contents(folder, run):
    """Everything that may be in the one file there."""
    found = left(folder, run)
    assert {tuple(path for path, _ in files) for files in found} == {("a",)}
    return {content for ((_, content),) in found}


def change(path, run):
    def changing(disk):
        with disk.open_to_change(path) as file:
            run(file)

    return changing


def test_a_synced_file_may_have_no_name_until_its_folder_is_synced(folder):
    def run(disk):
        make(disk, folder / "a", b"abc")

    assert left(folder, run) == {(), (("a", b"abc"),)}


def test_a_file_with_a_synced_name_may_have_any_part_of_what_was_written(folder):
    def run(disk):
        make(disk, folder / "a", b"abc", sync=False)
        disk.sync_folder(str(folder))

    images = (b"\0\0\0", b"abc", b"a\0\0", b"ab\0", b"\0bc", b"\0\0c")
    assert contents(folder, run) == {image[:length] for image in images for length in range(4)}


def test_nothing_is_drawn_when_all_is_synced(folder):
    def run(disk):
        make(disk, folder / "a", b"abc")
        disk.sync_folder(str(folder))

    def no_draw(count):
        raise AssertionError

    volume = record(run, Volume.of(folder)).after()
    assert volume.after_power_failure(no_draw) == volume.after_kill()


def test_two_writes_to_one_place_may_both_be_there_in_part(folder):
    path = put(folder / "a", b"xx")

    def run(file):
        file.write(b"aa", 0)
        file.write(b"bb", 0)

    pairs = itertools.product(b"xab", repeat=2)
    assert contents(folder, change(path, run)) == {bytes(pair) for pair in pairs}


def test_a_sync_keeps_what_was_written_before_it_and_nothing_after(folder):
    path = put(folder / "a", b"xx")

    def run(file):
        file.write(b"a", 0)
        file.sync()
        file.write(b"b", 1)

    assert contents(folder, change(path, run)) == {b"ax", b"ab"}


def test_runs_of_one_write_are_lost_one_by_one(folder):
    path = put(folder / "a", b"....")

    found = contents(folder, change(path, lambda file: file.write_runs(1, [0, 2], b"ab")))

    assert found == {b"....", b"a...", b"..b.", b"a.b."}


def test_bytes_that_are_appended_may_be_lost_without_the_length(folder):
    path = put(folder / "a", b"x")

    found = contents(folder, change(path, lambda file: file.write(b"a", 1)))

    assert found == {b"x", b"x\0", b"xa"}


def test_a_file_that_shrank_and_grew_has_zeros_or_what_was_there(folder):
    path = put(folder / "a", b"xy")

    def run(file):
        file.resize(1)
        file.resize(2)

    assert contents(folder, change(path, run)) == {b"x", b"xy", b"x\0"}


def test_a_resize_may_stop_at_any_length_between(folder):
    path = put(folder / "a", b"")

    found = contents(folder, change(path, lambda file: file.resize(3)))

    assert found == {bytes(length) for length in range(4)}


def test_a_long_write_is_torn_between_sectors_or_between_bytes(folder):
    path = put(folder / "a", b"." * 1200)
    run = change(path, lambda file: file.write(b"x" * 1000, 100))
    volume = record(run, Volume.of(folder)).after()
    draw = random.Random(0).randrange

    drawn = [volume.after_power_failure(draw).under(folder)["a"] for _ in range(400)]

    cuts = [100 + image[100:1100].index(b".x") + 1 for image in drawn if b".x" in image[100:1100]]
    cuts += [image.index(b"x.") + 1 for image in drawn if b"x." in image[:1100]]
    between_sectors = sum(cut % 512 == 0 for cut in cuts)
    assert 0 < len(cuts) - between_sectors < between_sectors
    assert all(image[:100] == b"." * 100 and image[1100:] == b"." * 100 for image in drawn)
    assert {b"." * 1000, b"x" * 1000} <= {image[100:1100] for image in drawn}


def test_a_rename_leaves_the_old_name_or_the_new(folder):
    path = put(folder / "a", b"1")

    found = left(folder, lambda disk: disk.rename(path, str(folder / "b")))

    assert found == {(("a", b"1"),), (("b", b"1"),)}


def test_a_rename_over_a_file_leaves_one_or_the_other_under_its_name(folder):
    new, old = put(folder / "new", b"2"), put(folder / "old", b"1")

    found = left(folder, lambda disk: disk.rename(new, old))

    assert found == {(("new", b"2"), ("old", b"1")), (("old", b"2"),)}


def test_a_rename_is_sure_once_the_folder_is_synced(folder):
    path = put(folder / "a", b"1")

    def run(disk):
        disk.rename(path, str(folder / "b"))
        disk.sync_folder(str(folder))

    assert left(folder, run) == {(("b", b"1"),)}


@pytest.mark.parametrize(
    ("synced", "expected"),
    [
        ([], [("one/a",), ("one/a", "two/a"), ("two/a",)]),
        (["two"], [("one/a", "two/a"), ("two/a",)]),
        (["one"], [("two/a",)]),
        (["one", "two"], [("two/a",)]),
    ],
)
def test_a_rename_between_folders_leaves_either_name_or_both(folder, synced, expected):
    path = put(folder / "one" / "a", b"1")
    (folder / "two").mkdir()

    def run(disk):
        disk.rename(path, str(folder / "two" / "a"))
        for name in synced:
            disk.sync_folder(str(folder / name))

    found = left(folder, run)

    assert sorted(tuple(name for name, _ in files) for files in found) == expected


def test_a_folder_goes_only_after_what_was_renamed_out_of_it_came(folder):
    path = put(folder / "one" / "a", b"1")
    (folder / "two").mkdir()

    def run(disk):
        disk.rename(path, str(folder / "two" / "a"))
        disk.remove_folder(str(folder / "one"))
        disk.sync_folder(str(folder))

    assert left(folder, run) == {(("two/a", b"1"),)}


def test_a_name_that_a_rename_gave_up_is_taken_only_after_the_rename(folder):
    path = put(folder / "a", b"1")

    def run(disk):
        disk.rename(path, str(folder / "b"))
        make(disk, path)

    assert left(folder, run) == {
        (("a", b"1"),),
        (("b", b"1"),),
        (("a", b""), ("b", b"1")),
    }


def test_a_file_renamed_twice_has_one_of_its_names(folder):
    path = put(folder / "a", b"1")

    def run(disk):
        disk.rename(path, str(folder / "b"))
        disk.rename(str(folder / "b"), str(folder / "c"))

    assert left(folder, run) == {((name, b"1"),) for name in "abc"}


def test_changes_of_different_names_are_lost_one_by_one(folder):
    path = put(folder / "a", b"")

    def run(disk):
        disk.remove(path)
        make(disk, folder / "b")

    assert left(folder, run) == {(), (("a", b""),), (("b", b""),), (("a", b""), ("b", b""))}


def test_a_removed_file_may_come_back_until_the_folder_is_synced(folder):
    path = put(folder / "a", b"1")

    assert left(folder, lambda disk: disk.remove(path)) == {(), (("a", b"1"),)}


def test_a_removed_file_is_gone_once_the_folder_is_synced(folder):
    path = put(folder / "a", b"1")

    def run(disk):
        disk.remove(path)
        disk.sync_folder(str(folder))

    assert left(folder, run) == {()}


def test_a_link_gives_a_second_name_to_the_same_contents(folder):
    path = put(folder / "a", b"1")

    def run(disk):
        disk.link(path, str(folder / "b"))
        with disk.open_to_change(str(folder / "b")) as file:
            file.write(b"2", 0)
            file.sync()

    assert left(folder, run) == {(("a", b"2"),), (("a", b"2"), ("b", b"2"))}


def test_a_linked_file_may_lose_both_names_when_the_first_is_removed(folder):
    path = put(folder / "a", b"1")

    def run(disk):
        disk.link(path, str(folder / "b"))
        disk.remove(path)

    assert left(folder, run) == {
        (),
        (("a", b"1"),),
        (("b", b"1"),),
        (("a", b"1"), ("b", b"1")),
    }


def test_a_synced_folder_without_a_synced_name_is_not_there(folder):
    def run(disk):
        disk.make_folder(str(folder / "new"))
        make(disk, folder / "new" / "a", b"1")
        disk.sync_folder(str(folder / "new"))

    assert left(folder, run) == {(), (("new/a", b"1"),)}


def test_a_folder_with_a_synced_name_may_lack_its_files(folder):
    def run(disk):
        disk.make_folder(str(folder / "new"))
        make(disk, folder / "new" / "a", b"1")
        disk.sync_folder(str(folder))

    volume = record(run, Volume.of(folder)).after()
    trees = set(every(volume.after_power_failure))

    assert all(str(folder / "new") in tree.folders for tree in trees)
    assert sorted(len(tree.files) for tree in trees) == [0, 1]


def test_a_file_may_be_written_after_its_rename(folder):
    def run(disk):
        with disk.create(str(folder / "a")) as file:
            disk.rename(str(folder / "a"), str(folder / "b"))
            file.write(b"1", 0)
            file.sync()
            disk.sync_folder(str(folder))

    assert left(folder, run) == {(("b", b"1"),)}


def test_everything_that_a_kill_leaves_is_there(folder):
    path = put(folder / "a", b"1")

    def run(disk):
        disk.rename(path, str(folder / "b"))
        make(disk, folder / "c", b"xyz", sync=False)

    tree = record(run, Volume.of(folder)).after().after_kill()

    assert tree.under(folder) == {"b": b"1", "c": b"xyz"}


def test_subsets_of_names_come_with_contents_that_were_not_synced_lost(folder):
    def run(disk):
        make(disk, folder / "a", b"1")
        make(disk, folder / "b", b"2", sync=False)

    history = record(run, Volume.of(folder))

    found = [tree.under(folder) for count, tree in history.namings() if count == 5]
    assert found == [{}, {"a": b"1"}, {"b": b""}, {"a": b"1", "b": b""}]


def test_a_tree_becomes_a_folder_with_its_links(folder, tmp_path):
    path = put(folder / "one" / "a", b"1")
    os.link(path, folder / "b")
    put(folder / "c", b"1")
    (folder / "empty").mkdir()
    before = Volume.of(folder)

    there = materialise(before.after_kill(), folder, tmp_path / "there")

    assert sorted(os.listdir(there)) == ["b", "c", "empty", "one"]
    assert os.path.samefile(there / "one" / "a", there / "b")
    assert not os.path.samefile(there / "b", there / "c")
    assert Volume.of(there).after_kill() == before.moved(folder, there).after_kill()


def test_a_moved_volume_forgets_the_same(folder, tmp_path):
    def run(disk):
        make(disk, folder / "a", b"1")

    killed = record(run, Volume.of(folder)).after()
    there = materialise(killed.after_kill(), folder, tmp_path / "there")

    def go_on(disk):
        disk.rename(str(there / "a"), str(there / "b"))

    volume = record(go_on, killed.moved(folder, there)).after()

    found = [tree.under(there) for tree in set(every(volume.after_power_failure))]
    assert sorted(map(sorted, found)) == [[], ["a"], ["b"]]


def test_trees_differ_by_what_is_linked(folder, tmp_path):
    put(folder / "a", b"1")
    put(folder / "b", b"1")
    apart = Volume.of(folder).after_kill()
    os.unlink(folder / "b")
    os.link(folder / "a", folder / "b")

    assert Volume.of(folder).after_kill() != apart


@given(data=st.data())
def test_no_file_that_is_only_renamed_is_ever_lost(data, fresh):
    root = fresh()
    folders = [root / "one", root / "two"][: data.draw(st.integers(1, 2))]
    for folder in folders:
        put(folder / "a", folder.name.encode())
        put(folder / "b", folder.name.encode() * 2)
    paths = st.builds(os.path.join, st.sampled_from(folders), st.sampled_from("abc"))

    def run(disk):
        for old, new in data.draw(st.lists(st.tuples(paths, paths), max_size=12)):
            if os.path.exists(old) and not os.path.exists(new):
                disk.rename(old, new)
            else:
                disk.sync_folder(os.path.dirname(new))

    history = record(run, Volume.of(*folders))
    _, tree = history.draw(data)

    assert {*tree.files.values()} == {*history.after(0).after_kill().files.values()}
    if len(folders) == 1:
        assert len(tree.files) == 2


@given(data=st.data())
def test_any_state_can_be_made_real(data, fresh):
    folder = fresh()
    names = st.sampled_from("abc")
    done = data.draw(st.lists(st.tuples(st.sampled_from("wrusfl"), names, names), max_size=12))
    history = record(lambda disk: [step(disk, folder, *one) for one in done], Volume.of(folder))

    _, tree = history.draw(data)

    again = Volume.of(materialise(tree, folder, fresh()))
    (root,) = again.roots
    assert again.after_kill().under(root) == tree.under(folder)
    assert sorted(map(len, same_files(again.after_kill()))) == sorted(map(len, same_files(tree)))


def same_files(tree):
    """Names by file."""
    found = {}
    for path, inode in tree.inodes.items():
        found.setdefault(inode, []).append(path)
    return found.values()


def step(disk: Disk, folder, what, name, other):
    """Do one of the things that a disk can, where it can be done."""
    path, new = str(folder / name), str(folder / other)
    if what == "w" and not os.path.exists(path):
        make(disk, path, b"12", sync=False)
    elif what == "f":
        disk.sync_folder(str(folder))
    elif os.path.exists(path):
        if what == "r":
            disk.rename(path, new)
        elif what == "u":
            disk.remove(path)
        elif what == "l" and not os.path.exists(new):
            disk.link(path, new)
        elif what == "s":
            with disk.open_to_change(path) as file:
                file.resize(1)
                file.sync()


def test_every_tries_all_sequences_of_draws():
    def outcome(draw):
        first = draw(2)
        return (first, draw(3)) if first else (first,)

    assert list(every(outcome)) == [(0,), (1, 0), (1, 1), (1, 2)]
