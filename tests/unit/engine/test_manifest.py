"""Manifests: what is written beside a checkpoint, and what differs from it later."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptkit
from ckptkit.engine import manifest as module
from ckptkit.engine.check import verify_path
from ckptkit.engine.manifest import (
    check_manifest,
    manifest_path,
    read_manifest,
    write_manifest,
)
from ckptkit.errors import ConflictError, CorruptError, UnsupportedError
from ckptkit.formats.tensorflow import TENSORFLOW
from ckptkit.model import Source
from ckptkit.storage.disk import Disk
from tests.golden.damage import flip
from tests.golden.handmade import Bundle, grid, random_array
from tests.oracle.crc import crc32c
from tests.property.strategies import tensors

pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.fixture
def small(monkeypatch):
    """Cells so small that tensors span several."""
    monkeypatch.setattr(module, "CELL", 64)
    monkeypatch.setattr(module, "TOGETHER", 3)


@pytest.fixture
def unsummed(monkeypatch):
    """Let bundles seem to have no checksums, as HDF5 files have none."""
    scan = type(TENSORFLOW).scan

    def without(self, source):
        catalog = scan(self, source)
        catalog.columns = replace(catalog.columns, summed=False)
        return catalog

    monkeypatch.setattr(type(TENSORFLOW), "scan", without)


def save(path, values):
    ckptkit.save(path, values)
    return str(path)


def stored(tensor):
    """Return the stored bytes of a tensor."""
    found = b""
    for piece in tensor.tensor.source.pieces:
        with open(piece.extent.path, "rb") as file:
            file.seek(piece.extent.offset)
            found += file.read(piece.extent.length)
    return found


@given(tensors())
def test_a_manifest_has_the_sum_of_every_tensor(small, fresh, values):
    path = save(fresh() / "m", values)
    steps = []
    with ckptkit.open(path) as checkpoint:
        made = write_manifest(checkpoint, progress=lambda *step: steps.append(step))
        assert list(made.tensors) == list(checkpoint)
        for name, tensor in checkpoint.items():
            found = made.tensors[name]
            assert (found.spec, found.nbytes) == (tensor.spec, tensor.nbytes)
            assert found.crc32c == crc32c(stored(tensor))
        assert check_manifest(checkpoint, made) == []
    size = made.nbytes
    assert not steps or steps[-1] == (size, size)
    assert made.path == f"{path}.manifest.json"
    assert read_manifest(made.path) == made
    verdict = verify_path(path)
    assert verdict.ok
    assert verdict.notes == (f"its tensors were compared with {made.path}",)


def test_slices_are_summed_one_after_the_other(small, tmp_path):
    bundle = Bundle(2)
    values = random_array("float32", (9, 40), 1)
    bundle.add_slices(b"w", values, grid((9, 40), [[4], [7]]), shards=(0, 1))
    path = bundle.write(tmp_path / "m")
    assert ckptkit.manifest(path) == f"{path}.manifest.json"
    with ckptkit.open(path) as checkpoint:
        made = read_manifest(f"{path}.manifest.json")
        assert made.tensors["w"].crc32c == crc32c(stored(checkpoint["w"]))
    assert verify_path(path).problems == ()


def test_the_file_is_text_with_a_line_for_each_tensor(tmp_path):
    path = save(tmp_path / "m", {"b/é": np.zeros((2, 3), np.float16), "a": np.arange(3)})
    ckptkit.manifest(path)
    text = (tmp_path / "m.manifest.json").read_text("utf-8")
    assert text.count("\n") == 4
    found = json.loads(text)
    assert found == {
        "version": 1,
        "format": "tensorflow",
        "tensors": {
            "a": {
                "dtype": "int64",
                "shape": [3],
                "nbytes": 24,
                "crc32c": f"{crc32c(np.arange(3).tobytes()):08x}",
            },
            "b/é": {
                "dtype": "float16",
                "shape": [2, 3],
                "nbytes": 12,
                "crc32c": f"{crc32c(bytes(12)):08x}",
            },
        },
    }
    assert list(found["tensors"]) == list(ckptkit.open(path))


ODD = st.text(st.sampled_from('a/é\0\n"\\\udcff\udc80\x1b中'), min_size=1, max_size=6)


@given(st.lists(ODD, unique=True, max_size=5), st.text(max_size=5))
def test_odd_names_come_back(names, form):
    sums = {
        name: module.Sum(ckptkit.model.TensorSpec("dtype 77", (at, 0)), at, 2**32 - 1 - at)
        for at, name in enumerate(names)
    }
    encoded = module._encoded(module.Manifest("p", form, sums))
    json.loads(encoded)
    content = module.msgspec.json.decode(encoded, type=module._File)
    assert [module._unpacked(name) for name in content.tensors] == names


def test_an_odd_name_in_a_bundle_comes_back(tmp_path):
    bundle = Bundle()
    bundle.add(b"a\xff\xc3\xa9", np.arange(3))
    path = bundle.write(tmp_path / "m")
    ckptkit.manifest(path)
    assert list(read_manifest(f"{path}.manifest.json").tensors) == ["a\udcffé"]
    assert verify_path(path).ok


# --- what differs ------------------------------------------------------------------------------


def kinds(problems):
    return {problem.tensor: problem.message for problem in problems}


def test_what_changed_is_named(tmp_path):
    values = {name: np.arange(4, dtype="float32") for name in ("same", "values", "cast", "gone")}
    path = save(tmp_path / "m", {**values, "shape": np.zeros((2, 2), "float32")})
    made = read_manifest(ckptkit.manifest(path))
    changed = save(
        tmp_path / "changed",
        {
            "same": values["same"],
            "values": values["values"] + 1,
            "cast": values["cast"].astype("float16"),
            "shape": np.zeros(4, "float32"),
            "more": values["same"],
        },
    )
    with ckptkit.open(changed) as checkpoint:
        found = check_manifest(checkpoint, made)
    old, new = crc32c(values["values"].tobytes()), crc32c((values["values"] + 1).tobytes())
    assert kinds(found) == {
        "values": f"checksum of its bytes: the manifest has {old:08x}, found {new:08x}",
        "cast": "the manifest has float32[4], found float16[4]",
        "shape": "the manifest has float32[2, 2], found float32[4]",
        "more": "the manifest has no such tensor",
        "gone": "the checkpoint has no such tensor (float32[4]) any more",
    }
    assert {problem.severity for problem in found} == {"error"}
    (problem,) = (problem for problem in found if problem.tensor == "gone")
    assert problem.path == made.path
    os.rename(made.path, f"{changed}.manifest.json")
    verdict = verify_path(changed)
    assert not verdict.ok
    assert kinds(verdict.problems) == kinds(found)
    assert ckptkit.open(changed).verify() == verdict


def test_an_edit_shows(tmp_path):
    path = save(tmp_path / "m", {"w": np.arange(4.0), "v": np.arange(4.0)})
    ckptkit.manifest(path)
    ckptkit.open(path).edit("w[1] = 7").plan().run()
    assert list(kinds(verify_path(path).problems)) == ["w"]
    ckptkit.manifest(path)
    assert verify_path(path).ok


@given(st.lists(st.integers(1, 300), min_size=1, max_size=6), st.data())
def test_without_other_checksums_every_flipped_bit_is_found(small, unsummed, fresh, sizes, data):
    path = save(fresh() / "m", {f"t{n}": np.full(size, n, "u1") for n, size in enumerate(sizes)})
    assert ckptkit.open(path)["t0"].tensor.source.pieces[0].checksum is None
    note = f"its tensors have no checksums; this makes some: ckptkit manifest {path}"
    assert (verify_path(path).notes, verify_path(path).checked_bytes) == ((note,), 0)
    ckptkit.manifest(path)
    verdict = verify_path(path)
    assert (verdict.ok, verdict.checked_bytes) == (True, sum(sizes))
    offset = data.draw(st.integers(0, sum(sizes) - 1))
    flip(f"{path}.data-00000-of-00001", offset)
    (problem,) = verify_path(path).problems
    hit = int(np.searchsorted(np.cumsum(sizes), offset, "right"))
    start = sum(sizes[:hit])
    assert (problem.tensor, problem.offset) == (f"t{hit}", start)
    assert problem.path == f"{path}.data-00000-of-00001"
    assert problem.message.startswith("checksum of its bytes: the manifest has ")


def test_a_file_that_ends_early_is_a_problem(small, unsummed, tmp_path):
    path = save(tmp_path / "m", {"a": np.zeros(50, "u1"), "b": np.zeros(500, "u1")})
    checkpoint = ckptkit.open(path)
    made = write_manifest(checkpoint)
    os.truncate(f"{path}.data-00000-of-00001", 400)
    found = check_manifest(checkpoint, made)
    assert [(problem.tensor, problem.offset) for problem in found] == [("b", 400)]
    with pytest.raises(ConflictError, match="the file ends here"):
        write_manifest(checkpoint)


def test_own_checksums_are_not_read_a_second_time(tmp_path, monkeypatch):
    words = np.array([b"a", b"bc"], object)
    path = save(tmp_path / "m", {"w": np.arange(1000.0), "s": words})
    made = read_manifest(ckptkit.manifest(path))
    checkpoint = ckptkit.open(path)
    sources = module.Sources()
    problems, _ = module.differences(checkpoint.catalog, made, sources, None, trusted=True)
    assert problems == []
    # What the checksum of strings is over is not what a manifest sums.
    assert sources.disk.traffic.read == checkpoint["s"].nbytes


def test_a_damaged_tensor_gets_no_manifest(tmp_path):
    path = save(tmp_path / "m", {"w": np.arange(10.0)})
    flip(f"{path}.data-00000-of-00001", 17)
    with pytest.raises(CorruptError, match="expected") as caught:
        ckptkit.manifest(path)
    assert caught.value.tensor == "w"
    assert sorted(os.listdir(tmp_path)) == ["m.data-00000-of-00001", "m.index"]


# --- the file ----------------------------------------------------------------------------------


def test_it_is_beside_a_folder(tmp_path):
    assert manifest_path(Source(str(tmp_path / "s/variables/variables"), f"{tmp_path}/s/")) == (
        str(tmp_path / "s.manifest.json")
    )


def test_it_replaces_the_old_one_at_once_and_only_if_all_is_well(tmp_path):
    path = save(tmp_path / "m", {"w": np.arange(10.0)})
    before = read_manifest(ckptkit.manifest(path))

    class Full(Disk):
        def about_to(self, call, path, new="", *, length=0, writes=None):
            if call == "write":
                raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        ckptkit.manifest(path, disk=Full())
    assert read_manifest(before.path) == before
    assert len(os.listdir(tmp_path)) == 3
    elsewhere = tmp_path / "elsewhere.json"
    assert write_manifest(ckptkit.open(path), elsewhere).path == str(elsewhere)
    assert read_manifest(elsewhere).tensors == before.tensors


GOOD = '"dtype": "float32", "shape": [2], "nbytes": 8, "crc32c": "0123abcd"'


def text(tensors="", version=1, more=""):
    return f'{{"version": {version}, "format": "f", "tensors": {{{tensors}}}{more}}}'


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "nonsense",
        text(more=', "x": 1'),
        text('"a": 1'),
        text(f'"a": {{{GOOD}, "x": 1}}'),
        text(f'"a": {{{GOOD.replace("8", "-8")}}}'),
        text(f'"a": {{{GOOD.replace("[2]", "[-2]")}}}'),
        text(f'"a": {{{GOOD.replace("8", "8.5")}}}'),
        text(f'"a": {{{GOOD.replace("0123abcd", "0123ABCD")}}}'),
        text(f'"a": {{{GOOD.replace("0123abcd", "0123abcd0")}}}'),
        text(f'"\\u0000\\u4e2d": {{{GOOD}}}'),
        "[" * 100_000,
        '{"version": 1, "format": ' + "[" * 100_000,
    ],
)
def test_what_is_no_manifest_is_told(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(CorruptError, match="this is no manifest") as caught:
        read_manifest(path)
    assert caught.value.path == str(path)


def test_a_sound_one_is_read(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(text(f'"a": {{{GOOD}}}'))
    (found,) = read_manifest(path).tensors.values()
    assert (str(found.spec), found.nbytes, found.crc32c) == ("float32[2]", 8, 0x0123ABCD)


def test_a_later_version_and_too_long_a_file_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_text(text(version=2, more=', "new": 1'))
    with pytest.raises(UnsupportedError, match="version 2"):
        read_manifest(path)
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    with pytest.raises(CorruptError, match="at most 10 bytes"):
        read_manifest(path)
    with pytest.raises(FileNotFoundError):
        read_manifest(tmp_path / "none")


def test_a_damaged_manifest_is_a_problem_of_the_checkpoint(tmp_path):
    path = save(tmp_path / "m", {"w": np.arange(10.0)})
    (tmp_path / "m.manifest.json").write_text("{")
    verdict = verify_path(path)
    assert not verdict.ok
    assert [problem.path for problem in verdict.problems] == [f"{path}.manifest.json"]
