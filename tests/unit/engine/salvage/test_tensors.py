"""Salvage of bad tensors, whole or in slices, and what paths and donors may be."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptkit
from ckptkit.errors import CorruptError, EditError, UnknownFormatError, UnsupportedError
from ckptkit.storage.disk import File
from tests.golden.damage import damage, flip
from tests.golden.handmade import Bundle
from tests.hostile import forge
from tests.unit.engine.salvage.saves import assert_equal, fates, index, read, shard, values, where

pytestmark = pytest.mark.usefixtures("unsynced")


def test_a_sound_checkpoint_is_copied(model: str, out: str) -> None:
    found = ckptkit.salvage(model, out)
    assert found.ok
    assert found.fates == ()
    assert found.notes == ("nothing is wrong with this checkpoint",)
    assert index(out).read_bytes() == index(model).read_bytes()
    assert shard(out, 1).read_bytes() == shard(model, 1).read_bytes()


def test_nothing_is_written_on_a_dry_run(model: str, out: str) -> None:
    damage(model, "step")
    found = ckptkit.salvage(model, out, dry_run=True)
    assert fates(found) == {"step": "lost"}
    assert found.report is None
    assert not list(Path(out).parent.glob("out*"))


def test_a_bad_tensor_is_left_out(model: str, out: str) -> None:
    damage(model, "layer3/kernel")
    path, start, length = where(model, "layer3/kernel")
    found = ckptkit.salvage(model, out)
    (fate,) = found.fates
    assert (fate.how, fate.path, fate.start, fate.end) == ("lost", str(path), start, start + length)
    assert "expected" in fate.reason
    assert not found.ok
    wanted = values(1)
    del wanted["layer3/kernel"]
    assert_equal(read(out), wanted)


def test_a_bad_tensor_is_kept_where_that_is_asked(model: str, out: str) -> None:
    damage(model, "const")
    damage(model, "names")
    found = ckptkit.salvage(model, out, keep_damaged=True)
    assert fates(found)["const"] == "kept"
    after = read(out)
    assert after["const"].shape == (7,)
    assert (after["const"] != np.arange(7)).any()
    assert not found.ok


def test_strings_with_broken_lengths_cannot_be_kept(model: str, out: str) -> None:
    path, offset, _ = where(model, "names")
    flip(path, offset)
    found = ckptkit.salvage(model, out, keep_damaged=True)
    assert fates(found) == {"names": "lost"}
    assert "string" in found.fates[0].reason


def test_a_donor_fills(model: str, donor: str, out: str) -> None:
    for name in ("const", "names", "step"):
        damage(model, name)
    found = ckptkit.salvage(model, out, donor)
    assert {fate.tensor: (fate.how, fate.same) for fate in found.fates} == {
        "const": ("filled", True),
        "names": ("filled", False),
        "step": ("filled", False),
    }
    assert all(fate.donor == donor for fate in found.fates)
    wanted = values(1) | {name: values(2)[name] for name in ("names", "step")}
    assert_equal(read(out), wanted)
    assert not found.ok


def test_a_donor_with_the_same_values_loses_nothing(model: str, donor: str, out: str) -> None:
    damage(model, "const")
    found = ckptkit.salvage(model, out, donor)
    assert found.ok
    assert_equal(read(out), values(1))


def test_a_damaged_donor_is_not_believed(model: str, donor: str, tmp_path: Path, out: str) -> None:
    ckptkit.save(tmp_path / "third", values(3))
    damage(model, "step")
    damage(donor, "step")
    found = ckptkit.salvage(model, out, [donor, tmp_path / "third"])
    assert fates(found) == {"step": "filled"}
    assert found.fates[0].donor == str(tmp_path / "third")
    assert read(out)["step"] == 3


def test_a_donor_of_another_shape_or_dtype_does_not_fill(
    model: str, tmp_path: Path, out: str
) -> None:
    ckptkit.save(tmp_path / "third", {"step": np.int32(3), "const": np.arange(8)})
    damage(model, "step")
    damage(model, "const")
    found = ckptkit.salvage(model, out, tmp_path / "third")
    assert fates(found) == {"step": "lost", "const": "lost"}


def test_a_truncated_shard(model: str, out: str) -> None:
    path, offset, _ = where(model, "names")
    path.write_bytes(path.read_bytes()[: offset + 2])
    found = ckptkit.salvage(model, out)
    # Empty tensors have no bytes to lose.
    assert fates(found) == {"names": "lost", "const": "lost", "step": "lost"}
    assert all("beyond the end of the file" in fate.reason for fate in found.fates)


def test_a_missing_shard(model: str, donor: str, out: str, tmp_path: Path) -> None:
    shard(model, 1).unlink()
    found = ckptkit.salvage(model, out)
    assert all("shard is missing: m.data-00001-of-00002" in fate.reason for fate in found.fates)
    saved = read(out)
    assert saved.keys() == values(1).keys() - fates(found).keys()
    assert "empty" in saved
    found = ckptkit.salvage(model, tmp_path / "filled", donor)
    assert set(fates(found).values()) == {"filled"}
    assert read(str(tmp_path / "filled")).keys() == values(1).keys()


def test_bytes_that_the_device_does_not_give(
    model: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, offset, length = where(model, "layer3/kernel")
    plain = File.read_into

    def read_into(self: File, buffer: Any, at: int) -> None:
        if self.path == str(path) and at < offset + length and at + len(buffer) > offset:
            raise OSError(errno.EIO, "Input/output error", self.path)
        plain(self, buffer, at)

    monkeypatch.setattr(File, "read_into", read_into)
    found = ckptkit.salvage(model, out)
    assert fates(found) == {"layer3/kernel": "lost"}
    assert "cannot be read" in found.fates[0].reason


def test_nothing_can_be_saved(tmp_path: Path, out: str) -> None:
    ckptkit.save(tmp_path / "m", {"a": np.arange(3)})
    shard(str(tmp_path / "m"), 0, 1).unlink()
    with pytest.raises(CorruptError, match="nothing can be saved") as caught:
        ckptkit.salvage(tmp_path / "m", out)
    assert caught.value.exit_code == 3


# --- partitioned tensors -----------------------------------------------------------------------


def sliced(folder: Path, seed: int) -> tuple[str, Any]:
    folder.mkdir()
    whole = np.random.default_rng(seed).normal(size=(4, 6)).astype("float32")
    bundle = Bundle()
    bundle.add_slices(b"w", whole, [[(0, -1), (0, 2)], [(0, -1), (2, 4)]])
    bundle.add(b"b", np.arange(3.0))
    return str(bundle.write(folder / "m")), whole


def test_a_lost_slice(tmp_path: Path, out: str) -> None:
    path, whole = sliced(tmp_path / "m", 1)
    donor, other = sliced(tmp_path / "d", 2)
    damage(path, "w", 1)
    found = ckptkit.salvage(path, out)
    assert fates(found) == {"w": "lost"}
    assert list(read(out)) == ["b"]
    found = ckptkit.salvage(path, tmp_path / "filled", donor)
    assert fates(found) == {"w": "filled"}
    wanted = np.concatenate([whole[:, :2], other[:, 2:]], axis=1)
    np.testing.assert_array_equal(read(str(tmp_path / "filled"))["w"], wanted)
    ckptkit.save(tmp_path / "dense", {"w": other})
    found = ckptkit.salvage(path, tmp_path / "dense-filled", tmp_path / "dense")
    np.testing.assert_array_equal(read(str(tmp_path / "dense-filled"))["w"], other)


def test_a_lost_index_of_slices(tmp_path: Path, out: str) -> None:
    path, whole = sliced(tmp_path / "m", 1)
    donor, _ = sliced(tmp_path / "d", 2)
    index(path).unlink()
    found = ckptkit.salvage(path, out, donor)
    assert found.ok
    np.testing.assert_array_equal(read(out)["w"], whole)


# --- paths -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["model/m", "model/m.index", "model/m.data-00000-of-00002", "model"]
)
def test_paths_that_mean_a_bundle(
    model: str, donor: str, out: str, tmp_path: Path, name: str
) -> None:
    index(model).unlink()
    assert ckptkit.salvage(tmp_path / name, out, donor).ok


def test_paths_that_mean_none(model: str, tmp_path: Path, out: str) -> None:
    with pytest.raises(FileNotFoundError):
        ckptkit.salvage(tmp_path / "nothing", out)
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError):
        ckptkit.salvage(tmp_path / "folder", out)
    (tmp_path / "text").write_text("no checkpoint")
    with pytest.raises(UnknownFormatError, match="what is left of one"):
        ckptkit.salvage(tmp_path / "text", out)
    ckptkit.save(tmp_path / "model" / "second", {"a": 1})
    index(model).unlink()
    with pytest.raises(UnknownFormatError, match="name one: m, second"):
        ckptkit.salvage(tmp_path / "model", out)


def test_other_formats_are_refused(tmp_path: Path, model: str, out: str) -> None:
    ckptkit.save(tmp_path / "k.weights.h5", {"layers/a/vars/0": np.ones(2)}, format="keras")
    with pytest.raises(UnsupportedError, match="one of keras"):
        ckptkit.salvage(tmp_path / "k.weights.h5", out)
    damage(model, "step")
    with pytest.raises(EditError, match="one of keras"):
        ckptkit.salvage(model, out, tmp_path / "k.weights.h5")


def test_a_destination_that_exists_is_refused(model: str) -> None:
    damage(model, "step")
    before = index(model).read_bytes()
    with pytest.raises(EditError, match="exists"):
        ckptkit.salvage(model, model)
    assert index(model).read_bytes() == before


def test_a_donor_of_the_other_byte_order_is_refused(model: str, tmp_path: Path, out: str) -> None:
    (tmp_path / "big").mkdir()
    records = [forge.header(endianness=1), (b"w", forge.record())]
    path = forge.write(tmp_path / "big", records, forge.PAYLOAD)
    damage(model, "step")
    with pytest.raises(EditError, match="big-endian"):
        ckptkit.salvage(model, out, path)


def test_progress_of_both_passes(model: str, out: str) -> None:
    damage(model, "step")
    reading: list[tuple[int, int]] = []
    writing: list[tuple[int, int]] = []
    ckptkit.salvage(
        model,
        out,
        progress=lambda *step: reading.append(step),
        writing=lambda *step: writing.append(step),
    )
    assert reading[-1][0] == reading[-1][1] > 0
    assert writing[-1][0] == writing[-1][1] > 0
