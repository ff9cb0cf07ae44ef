"""What lies around the variables of a SavedModel from a stranger."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ckptkit
from ckptkit import CorruptError, EditError
from ckptkit.engine.check import verify_path
from tests.hostile.forge import warned
from tests.oracle.crc import fingerprint64
from tests.oracle.varint import put_number

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A SavedModel with an asset and a sound fingerprint."""
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "assets").mkdir()
    ckptkit.save(folder / "variables/variables", {"w": np.arange(3.0)})
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")
    (folder / "assets/words.txt").write_text("one two")
    index = (folder / "variables/variables.index").read_bytes()
    content = put_number(1, 7) + put_number(5, fingerprint64(index))
    (folder / "fingerprint.pb").write_bytes(content)
    return folder


def copy(model: Path) -> Path:
    target = model.parent / "new"
    with ckptkit.open(model) as found:
        found.edit("w += 1").plan(target).run(device="numpy")
    return target


def edit_in_place(model: Path) -> Path:
    with ckptkit.open(model) as found:
        found.edit("w += 1").plan().run(device="numpy")
    return model


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- fingerprints ------------------------------------------------------------------------------

GARBAGE = {
    "a field is cut off": (b"\x08", 0),
    "a varint is too long": (b"\x28" + b"\xff" * 11, 1),
    "bytes go past the end": (b"\x3a\x7f1", 0),
    "a group": (put_number(1, 7) + b"\x2b", 2),
    "field 0": (b"\x00\x00", 0),
    "text": (b"not a fingerprint", 0),
}


@pytest.mark.parametrize("write", [copy, edit_in_place])
@pytest.mark.parametrize("kind", GARBAGE)
def test_a_fingerprint_that_is_none_is_not_changed(model, kind, write):
    content, _ = GARBAGE[kind]
    (model / "fingerprint.pb").write_bytes(content)
    before = (model / "variables/variables.index").read_bytes()
    with pytest.raises(CorruptError, match="remove it to go on") as told:
        write(model)
    assert told.value.path == str(model / "fingerprint.pb")
    assert told.value.offset is not None
    assert (model / "variables/variables.index").read_bytes() == before
    assert not (model.parent / "new").exists()
    os.remove(model / "fingerprint.pb")
    assert ckptkit.open(write(model))["w"].read().tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("kind", GARBAGE)
def test_verify_warns_of_a_fingerprint_that_is_none(model, kind):
    (model / "fingerprint.pb").write_bytes(GARBAGE[kind][0])
    problem = warned(str(model), "the fingerprint does not parse")
    assert problem.path == str(model / "fingerprint.pb")


def test_a_fingerprint_may_be_long_but_not_very(model):
    sound = (model / "fingerprint.pb").read_bytes()
    more = (1 << 20) - len(sound) - 5
    (model / "fingerprint.pb").write_bytes(sound + b"\x7a" + _varint(more) + bytes(more))
    os.truncate(model / "fingerprint.pb", len(sound) + 1 + len(_varint(more)) + more)
    assert verify_path(model).problems == ()
    (model / "fingerprint.pb").write_bytes(sound + bytes(2 << 20))
    warned(str(model), "at most 1048576 bytes")
    with pytest.raises(CorruptError, match="at most 1048576 bytes"):
        copy(model)


def _varint(number: int) -> bytes:
    return put_number(1, number)[1:]


def test_of_several_hashes_the_last_one_counts(model):
    sound = (model / "fingerprint.pb").read_bytes()
    (model / "fingerprint.pb").write_bytes(put_number(5, 9) + sound)
    assert verify_path(model).problems == ()
    (model / "fingerprint.pb").write_bytes(sound + put_number(5, 9))
    warned(str(model), "checkpoint_hash is 9, that of variables")
    new = copy(model)
    assert verify_path(new).problems == ()


def test_a_fingerprint_without_a_hash_gets_one(model):
    (model / "fingerprint.pb").write_bytes(put_number(1, 7) + put_number(6, 8))
    warned(str(model), "checkpoint_hash is 0, that of variables")
    assert verify_path(copy(model)).problems == ()


@pytest.mark.parametrize("other", ["folder", "pipe"])
def test_what_is_no_file_is_no_fingerprint(model, other):
    path = model / "fingerprint.pb"
    path.unlink()
    os.mkfifo(path) if other == "pipe" else path.mkdir()
    assert verify_path(model).problems == ()
    edit_in_place(model)
    if other == "pipe":
        with pytest.raises(EditError, match="neither a file nor a folder"):
            copy(model)


# --- links, and what else may lie there ----------------------------------------------------------


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("saved_model.pb", "file"),
        *(
            (name, what)
            for name in ("assets/more", "fingerprint.pb", "x")
            for what in ("file", "folder")
        ),
    ],
)
def test_a_link_out_of_it_is_not_followed(model, absolute, what, name):
    secret = model.parent / "secret"
    if what == "file":
        secret.write_text("secret")
    else:
        secret.mkdir()
        (secret / "inner").write_text("secret")
    path = model / name
    path.unlink(missing_ok=True)
    to = str(secret) if absolute else os.path.relpath(secret, path.parent)
    os.symlink(to, path)
    with pytest.raises(EditError, match="a link that leads out of the SavedModel") as told:
        copy(model)
    assert told.value.path == str(path)
    assert str(secret) in str(told.value)
    assert not (model.parent / "new").exists()


def test_nor_is_one_that_goes_out_by_way_of_another(model):
    (model.parent / "secret").write_text("secret")
    os.symlink("..", model / "up")
    with pytest.raises(EditError, match="leads out"):
        copy(model)
    os.remove(model / "up")
    os.symlink("assets", model / "inner")
    os.symlink("../../secret", model / "assets/out")
    with pytest.raises(EditError, match="leads out"):
        copy(model)


def test_a_folder_beside_it_whose_name_begins_alike_is_outside(model):
    (model.parent / "model-2").mkdir()
    os.symlink("../model-2", model / "more")
    with pytest.raises(EditError, match="leads out"):
        copy(model)


def test_a_link_that_leads_nowhere_is_refused(model):
    os.symlink("nothing", model / "assets/none")
    with pytest.raises(EditError, match="leads nowhere"):
        copy(model)
    os.remove(model / "assets/none")
    os.symlink("loop", model / "assets/loop")
    with pytest.raises((EditError, OSError)):
        copy(model)


def test_links_that_go_round_come_to_an_end(model):
    os.symlink("..", model / "assets/up")
    with pytest.raises(
        EditError, match="a link to a folder, in a folder that is reached by a link"
    ):
        copy(model)


def test_links_do_not_multiply(model):
    """Each of twenty folders with two links to the next would be a million."""
    for number in range(20):
        (model / f"d{number:02d}").mkdir()
    for number in range(19):
        for name in "ab":
            os.symlink(f"../d{number + 1:02d}", model / f"d{number:02d}/{name}")
    with pytest.raises(EditError, match="reached by a link"):
        copy(model)


def test_links_within_it_become_what_they_lead_to(model):
    os.symlink("words.txt", model / "assets/same.txt")
    os.symlink("assets", model / "again")
    os.symlink("../variables/variables.index", model / "assets/index")
    new = copy(model)
    assert (new / "assets/same.txt").read_text() == "one two"
    assert (new / "again/words.txt").read_text() == "one two"
    # It is no file of the bundle, which is what changes: it is as it was.
    old = (model / "variables/variables.index").read_bytes()
    assert (new / "assets/index").read_bytes() == old
    assert not any(path.is_symlink() for path in new.rglob("*"))


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_neither_file_nor_folder_is_refused(model, kind):
    path = str(model / "assets/odd")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        import socket

        with socket.socket(socket.AF_UNIX) as made:
            here = os.getcwd()
            os.chdir(model / "assets")
            try:
                made.bind("odd")
            finally:
                os.chdir(here)
    with pytest.raises(EditError, match="neither a file nor a folder"):
        copy(model)


def test_a_link_for_a_fingerprint_is_replaced_and_not_written_through(model):
    elsewhere = model.parent / "elsewhere"
    os.rename(model / "fingerprint.pb", elsewhere)
    before = elsewhere.read_bytes()
    os.symlink("../elsewhere", model / "fingerprint.pb")
    edit_in_place(model)
    assert elsewhere.read_bytes() == before
    assert not (model / "fingerprint.pb").is_symlink()
    assert verify_path(model).problems == ()


def test_files_of_ours_are_not_copied(model):
    (model / ".x.ckptkit-new").write_bytes(b"")
    (model / "variables/.variables.ckptkit-undo-0001").write_bytes(b"")
    expected = [name for name in names(model) if ".ckptkit-" not in name]
    assert names(copy(model)) == expected


def test_reading_follows_no_link_but_those_of_the_bundle(model):
    """A listing needs the index and the shards, and nothing else."""
    for name in ("assets/words.txt", "fingerprint.pb"):
        os.remove(model / name)
        os.symlink("/nowhere", model / name)
    assert list(ckptkit.open(model)) == ["w"]
    assert verify_path(model).problems == ()
