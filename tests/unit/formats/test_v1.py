"""TensorFlow's first format: which path means one, what is made of it, what the commands say."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit import EditError
from ckptkit.cli import main
from ckptkit.engine import work
from ckptkit.formats import by_name, find
from ckptkit.storage import disk, packed
from tests.golden.damage import flip
from tests.golden.handmade import random_array, same
from tests.oracle import first, table
from tests.unit.listed import loaded

W = np.arange(12, dtype=np.float32).reshape(3, 4)
ROWS = [[(0, 1), (0, -1)], [(1, 2), (0, -1)]]
TENSORS = {
    b"half": ("float16", random_array("float16", (3, 4), 1), ROWS),
    b"ids": first.whole("int64", np.array([5, -1, 1 << 40])),
    b"ok": first.whole("bool", np.array([True, False])),
    b"text": first.whole("string", np.array([b"a", b"", b"ccc"], object)),
    b"w": ("float32", W, ROWS),
}


def write(folder, tensors=TENSORS, name="m"):
    (folder / name).write_bytes(first.encode(tensors))
    return str(folder / name)


@pytest.fixture
def path(tmp_path):
    """A checkpoint of a few dtypes, two of them in slices."""
    return write(tmp_path)


# --- finding -----------------------------------------------------------------------------------


def test_a_file_is_a_checkpoint(path):
    form, source = find(path)
    assert (form.name, str(source)) == ("tensorflow-v1", path)
    assert by_name("tensorflow-v1") is form
    assert form.files(source, form.scan(source)) == [path, path]
    assert not form.owns(source, path)


def test_a_bundle_of_the_same_name_goes_first(path, tmp_path):
    ckptkit.save(tmp_path / "new", {"new": 1})
    for end in (".index", ".data-00000-of-00001"):
        os.rename(f"{tmp_path}/new{end}", f"{path}{end}")
    assert list(ckptkit.open(path)) == ["new"]


def test_a_folder_whose_state_file_names_one(path, tmp_path):
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "m"\n')
    (tmp_path / "m.meta").write_bytes(b"a graph")
    assert ckptkit.open(tmp_path).path == path
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "gone"\n')
    with pytest.raises(ckptkit.CorruptError, match=r"no gone.index"):
        ckptkit.open(tmp_path)


def test_a_folder_with_its_name_is_not_it(tmp_path):
    write(tmp_path, name="m-00000-of-00001")
    (tmp_path / "m").mkdir()
    with pytest.raises(ckptkit.UnknownFormatError):
        ckptkit.open(tmp_path / "m")
    assert len(ckptkit.open(tmp_path / "m-00000-of-00001")) == len(TENSORS)


def test_the_index_of_a_bundle_under_another_name(tmp_path):
    ckptkit.save(tmp_path / "b", {"w": 1})
    shutil.move(tmp_path / "b.index", tmp_path / "other")
    with pytest.raises(ckptkit.CorruptError, match=r"name should end in \.index"):
        ckptkit.open(tmp_path / "other")


# --- reading -----------------------------------------------------------------------------------


def test_values_and_regions(path):
    with ckptkit.open(path) as found:
        assert list(found) == ["half", "ids", "ok", "text", "w"]
        for name, (_, values, _) in TENSORS.items():
            assert same(found[name.decode()].read(), values)
        assert same(found["half"][::2, 1:3], TENSORS[b"half"][1][::2, 1:3])
        assert found["ids"][-1] == 1 << 40
        assert found["text"][1:].tolist() == [b"", b"ccc"]
        assert found.dead_bytes == 0
        assert [box.shape for box, _ in found["half"].blocks(8)] == [(1, 4)] * 3


def test_names_may_be_any_bytes(tmp_path):
    names = [b"\xff\xfe", b"a\0b", "é".encode(), b"a/b", b"a"]
    path = write(
        tmp_path, {name: first.whole("int32", np.int32([at])) for at, name in enumerate(names)}
    )
    with ckptkit.open(path) as found:
        assert [name.encode("utf-8", "surrogateescape") for name in found] == sorted(names)
        for at, name in enumerate(names):
            assert found[name.decode("utf-8", "surrogateescape")].read() == [at]
    ckptkit.convert(path, tmp_path / "new")
    assert list(ckptkit.open(tmp_path / "new")) == list(ckptkit.open(path))


def test_a_catalog_goes_to_another_process(path):
    with ckptkit.open(path) as found:
        again = pickle.loads(pickle.dumps(found.catalog))  # noqa: S301
    assert again.specs() is not None
    assert list(again.shapes().values()) == list(found.shapes().values())
    assert again["ids"] == found.catalog["ids"]


def test_a_checkpoint_of_nothing(tmp_path):
    path = write(tmp_path, {})
    assert len(ckptkit.open(path)) == 0
    ckptkit.convert(path, tmp_path / "new")
    assert ckptkit.open(tmp_path / "new").verify().ok


# --- writing -----------------------------------------------------------------------------------


def test_a_copy_is_a_bundle(path, tmp_path):
    plan = ckptkit.open(path).edit().plan(tmp_path / "new")
    assert (plan.bytes_read, plan.bytes_computed) == (24, 24)
    (note,) = plan.notes
    assert note == "slices of 'half' are joined: TensorFlow reads no such slices from a bundle"
    plan.run()
    with ckptkit.open(tmp_path / "new") as made:
        assert made.format == "tensorflow"
        assert made.verify().ok
        for name, (_, values, _) in TENSORS.items():
            assert same(made[name.decode()].read(), values)
        assert {name: len(made[name].tensor.boxes) for name in ("half", "w")} == {"half": 1, "w": 2}
    assert ckptkit.diff(path, tmp_path / "new") == ()


def test_what_is_not_edited_is_carried_over(path, tmp_path):
    report = ckptkit.open(path).edit("ids = 7").plan(tmp_path / "new").run()
    # All but "ids", which is given, and the slices that are joined.
    assert report.bytes_reused == W.nbytes + 2 + (3 + 4 + 4)
    assert report.bytes_read == 24
    assert ckptkit.open(tmp_path / "new")["ids"].read().tolist() == [7, 7, 7]


@pytest.mark.parametrize("how", ["auto", "patch", "append", "copy"])
def test_nothing_is_changed_in_place(path, how):
    before = Path(path).read_bytes()
    with pytest.raises(EditError, match=r"copy|destination"):
        ckptkit.open(path).edit("w *= 2").plan(how=how)
    assert Path(path).read_bytes() == before


def test_in_place_says_what_to_do_instead(path):
    with pytest.raises(EditError, match=r"give a destination.* second format \(V2\)"):
        ckptkit.open(path).edit("w *= 2").plan()


def test_links_are_refused_with_what_to_do_instead(path, tmp_path):
    with pytest.raises(EditError, match="write a copy"):
        ckptkit.open(path).edit("w *= 2").plan(tmp_path / "new", how="link")


def test_it_has_no_configuration(path, tmp_path):
    with pytest.raises(EditError, match="no configuration"):
        ckptkit.open(path).edit().plan(tmp_path / "new", sync_config=True)


def test_it_is_not_written(tmp_path):
    with pytest.raises(EditError, match="format 'tensorflow'"):
        ckptkit.save(tmp_path / "m", {"w": 1}, format="tensorflow-v1")


def test_a_part_of_a_large_tensor_without_a_checksum(tmp_path, monkeypatch):
    """No checksum of the whole follows from that of the part: all of it is computed."""
    ids = np.arange(3_000_000, dtype=np.int32).reshape(3000, 1000)
    path = write(tmp_path, {b"ids": first.whole("int32", ids[:2])})
    monkeypatch.setattr(work, "blocks_of", lambda tensor, box: iter(_halves(box)))
    ckptkit.open(path).edit("ids[0] = -1").plan(tmp_path / "new").run(device="numpy")
    with ckptkit.open(tmp_path / "new") as made:
        assert made["ids"].read().tolist() == [[-1] * 1000, ids[1].tolist()]
        assert made.verify().ok


def _halves(box):
    first_row, *_ = box.start
    return [box.along(0, first_row + at, 1) for at in range(box.shape[0])]


def test_layouts_and_donors(path, tmp_path):
    other = write(tmp_path, {b"w": first.whole("float32", W * 10)}, "other")
    draft = ckptkit.open(path).edit('w = t("old:w") + 1', others={"old": other})
    draft.plan(tmp_path / "new", layout=ckptkit.Layout(shards=2)).run()
    with ckptkit.open(tmp_path / "new") as made:
        np.testing.assert_array_equal(made["w"].read(), W * 10 + 1)
        assert made.catalog.columns.shards == 2
        assert made.verify().ok


def test_slices_of_strings_are_joined(tmp_path):
    text = np.array([[b"a", b"bb"], [b"", b"d" * 300]], object)
    halves = [[(0, -1), (0, 1)], [(0, -1), (1, 1)]]
    path = write(tmp_path, {b"text": ("string", text, halves)})
    assert ckptkit.open(path)["text"].read().tolist() == text.tolist()
    ckptkit.convert(path, tmp_path / "new")
    assert same(ckptkit.open(tmp_path / "new")["text"].read(), text)
    given = np.array([[b"x", b"y"], [b"z", b""]], object)
    edits = [ckptkit.Put("text", given), "copy text -> again", "rename ^text$ -> words"]
    ckptkit.convert(path, tmp_path / "edited", *edits)
    with ckptkit.open(tmp_path / "edited") as made:
        for name in ("words", "again"):
            assert same(made[name].read(), given)
            assert len(made[name].tensor.boxes) == 1


def test_edited_slices_are_joined(path, tmp_path):
    ckptkit.convert(
        path, tmp_path / "new", "copy half -> again", "half[1:] = 1", "cast w -> uint16"
    )
    half = TENSORS[b"half"][1].copy()
    half[1:] = 1
    with ckptkit.open(tmp_path / "new") as made:
        assert same(made["half"].read(), half)
        assert same(made["again"].read(), TENSORS[b"half"][1])
        assert same(made["w"].read(), W.astype(np.uint16))
        assert [len(made[name].tensor.boxes) for name in ("half", "again", "w")] == [1, 1, 1]
        assert made.verify().ok


def test_a_resumed_copy(path, tmp_path):
    plan = ckptkit.open(path).edit("w *= 2").plan(tmp_path / "new")
    plan.run(resume=True)
    assert ckptkit.open(tmp_path / "new")["w"].read().tolist() == (W * 2).tolist()


def test_a_file_that_changed_meanwhile(path, tmp_path):
    with ckptkit.open(path) as found:
        plan = found.edit("w *= 2").plan(tmp_path / "new")
        write(tmp_path, {b"w": first.whole("float32", W)})
        with pytest.raises(ckptkit.ConflictError):
            plan.run()
        with pytest.raises(ckptkit.ConflictError):
            found["w"].read()


# --- commands ----------------------------------------------------------------------------------


def test_listing(path, capsys):
    assert main(["ls", "-l", path]) == 0
    listing = capsys.readouterr().out
    assert "tensorflow-v1 checkpoint of 1 shard" in listing
    assert "encoded" in listing
    assert main(["ls", path, "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["tensors"]}
    assert rows["ids"]["offset"] is None
    assert rows["ids"]["checksum"] is None
    assert rows["ok"]["checksum"].startswith("crc32c:")
    assert rows["ok"]["file"] == "m"
    assert len(rows["w"]["pieces"]) == 2


def test_listing_needs_no_numpy(path):
    assert not {"tensorflow", "h5py", "numpy"} & loaded("ls", path)


def test_show_verify_and_diff(path, tmp_path, capsys):
    assert main(["show", path, "ids"]) == 0
    assert "1099511627776" in capsys.readouterr().out
    assert main(["verify", path]) == 0
    assert "no problems" in capsys.readouterr().out
    other = {**TENSORS, b"ids": first.whole("int64", np.array([5, -1, 3]))}
    assert main(["diff", path, write(tmp_path, other, "other")]) == 1
    assert "ids" in capsys.readouterr().out


def test_converted_and_edited_by_commands(path, tmp_path, capsys):
    assert main(["convert", path, str(tmp_path / "new")]) == 0
    assert main(["edit", path, str(tmp_path / "made"), "-e", "w *= 2", "-e", "drop half"]) == 0
    assert os.path.exists(tmp_path / "new.index")
    assert list(ckptkit.open(tmp_path / "made")) == ["ids", "ok", "text", "w"]
    assert main(["edit", path, "-e", "w *= 2", "--in-place"]) == 4
    assert "give a destination" in capsys.readouterr().err


def test_a_manifest(path, tmp_path, capsys):
    assert main(["manifest", path]) == 0
    assert main(["verify", path]) == 0
    assert "compared with" in capsys.readouterr().out


def test_damage_names_the_tensors_of_a_block(tmp_path, capsys):
    tensors = {b"b": first.whole("float32", np.arange(400_000, dtype=np.float32))}
    found = first.entries(tensors)
    path = tmp_path / "m"
    content = table.assemble([found[:1], found[1:]])
    path.write_bytes(content)
    flip(path, len(content) // 2, bits=4)
    assert main(["verify", str(path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    text = json.dumps(report)
    assert "block at byte" in text
    assert "with 'b'" in text


def test_reads_are_bounded(tmp_path, monkeypatch):
    """However long a tensor is, it is decoded window by window."""
    values = np.arange(200_000, dtype=np.int64)
    path = write(tmp_path, {b"ids": first.whole("int64", values)})
    asked = []
    read = disk.File.read

    def counted(self, offset, length):
        asked.append(length)
        return read(self, offset, length)

    with ckptkit.open(path) as found:
        monkeypatch.setattr(disk.File, "read", counted)
        np.testing.assert_array_equal(found["ids"].read(), values)
    assert max(asked) <= packed.WINDOW
