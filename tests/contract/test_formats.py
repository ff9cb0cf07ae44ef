"""What every format promises; see ``cases.py`` for the formats."""

from __future__ import annotations

import itertools
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit import ConflictError, CorruptError, EditError, Layout, TensorNotFoundError
from ckptkit.formats import known
from ckptkit.model import Box, Stored
from ckptkit.placement import Target
from tests.contract.cases import CASES
from tests.golden.handmade import NUMBERS, random_array, same

SHAPES = ((), (3,), (2, 3), (0,), (4, 1, 5))


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    """One format after another."""
    return request.param


def values_for(case):
    found = {
        f"{dtype}/{number}": random_array(dtype, shape, number)
        for dtype in NUMBERS
        if dtype in case.dtypes
        for number, shape in enumerate(SHAPES)
    }
    if "string" in case.dtypes:
        found["text/some"] = np.array([b"", b"a\0", "é".encode(), b"x" * 200], object)
        found["text/none"] = np.empty(0, object)
    return found


@pytest.fixture
def values(case):
    """Every dtype of the format in several shapes."""
    return values_for(case)


@pytest.fixture
def opened(case, values, tmp_path):
    """A checkpoint of all those values."""
    with ckptkit.open(case.save(tmp_path, values)) as found:
        yield found


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


# --- finding -----------------------------------------------------------------------------------


def test_a_format_knows_its_own_and_nobody_elses(case, opened):
    claims = [one.name for one in known() if one.detect(opened.path) is not None]
    assert claims[0] == case.name
    assert opened.format == case.name


def test_a_format_leaves_alone_what_is_not_its_own(case, tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text.txt").write_text("some text, longer than any footer would be" * 10)
    (tmp_path / "folder").mkdir()
    for name in ("empty", "text.txt", "folder", "nothing"):
        assert case.format.detect(str(tmp_path / name)) is None


def test_every_file_of_a_checkpoint_is_listed(case, opened, tmp_path):
    listed = case.format.files(opened.source, opened.catalog)
    assert {os.path.basename(path) for path in listed} == set(contents(tmp_path))


# --- reading -----------------------------------------------------------------------------------


def test_names_dtypes_and_shapes_are_those_that_were_saved(opened, values):
    assert set(opened) == set(values)
    for name, spec in opened.specs():
        expected = values[name]
        assert spec.shape == expected.shape
        assert spec.dtype == ("string" if expected.dtype == object else expected.dtype.name)
        assert opened[name].spec == spec


def test_values_are_those_that_were_saved(opened, values):
    for name, expected in values.items():
        assert same(opened[name].read(), expected), name


def test_regions_are_those_of_numpy(opened, values):
    for name, expected in values.items():
        index = tuple(slice(size // 3, size, 2) for size in expected.shape)
        assert same(opened[name][index], expected[(*index, ...)]), name


def test_blocks_tile_a_tensor(opened, values):
    for name, expected in values.items():
        if expected.dtype != object:
            parts = [part.reshape(-1) for _, part in opened[name].blocks(16)]
            joined = np.concatenate([np.empty(0, expected.dtype), *parts])
            assert same(joined.reshape(expected.shape), expected), name


def test_extents_lie_in_the_files_and_do_not_overlap(case, opened):
    files = {
        path: os.path.getsize(path) for path in case.format.files(opened.source, opened.catalog)
    }
    taken = []
    for name in opened:
        source = opened.catalog[name].source
        assert isinstance(source, Stored)
        for piece in source.pieces:
            extent = piece.extent
            assert 0 <= extent.offset <= extent.offset + extent.length <= files[extent.path]
            taken.append((extent.path, extent.offset, extent.offset + extent.length))
    taken = sorted(entry for entry in taken if entry[1] < entry[2])
    for (path, _, end), (other, start, _) in itertools.pairwise(taken):
        assert path != other or end <= start


def test_a_name_that_is_not_there_is_an_error_with_a_hint(opened):
    with pytest.raises(TensorNotFoundError, match="float32/1"):
        opened["float32/1x"]


def test_tensors_that_are_just_saved_are_of_no_objects(opened):
    assert opened.graph is None


def test_a_catalog_survives_pickling(opened):
    tensor = opened.catalog["float32/2"]
    assert pickle.loads(pickle.dumps(tensor)) == tensor  # noqa: S301


def test_any_damaged_byte_of_a_tensor_is_found(case, opened):
    if not case.checksums:
        pytest.skip("tensors of this format have no checksums")
    source = opened.catalog["float64/2"].source
    extent = source.pieces[0].extent
    opened.close()
    for at in (0, extent.length // 2, extent.length - 1):
        with open(extent.path, "r+b") as file:
            file.seek(extent.offset + at)
            byte = file.read(1)[0]
            file.seek(extent.offset + at)
            file.write(bytes([byte ^ 0x20]))
        with pytest.raises(CorruptError, match="checksum") as caught:
            opened["float64/2"].read()
        assert caught.value.tensor == "float64/2"
        assert caught.value.path == extent.path
        with open(extent.path, "r+b") as file:
            file.seek(extent.offset + at)
            file.write(bytes([byte]))
    assert opened["float64/2"].read().size == 6


def test_any_damaged_byte_of_a_tensor_is_found_by_a_manifest(opened):
    extent = opened.catalog["float64/2"].source.pieces[0].extent
    ckptkit.manifest(opened.path)
    for at in (0, extent.length // 2, extent.length - 1):
        with open(extent.path, "r+b") as file:
            file.seek(extent.offset + at)
            byte = file.read(1)[0]
            file.seek(extent.offset + at)
            file.write(bytes([byte ^ 0x20]))
        with ckptkit.open(opened.path) as found:
            problems = found.verify().problems
        assert {problem.tensor for problem in problems} == {"float64/2"}
        with open(extent.path, "r+b") as file:
            file.seek(extent.offset + at)
            file.write(bytes([byte]))
    with ckptkit.open(opened.path) as found:
        assert found.verify().ok


def test_a_sound_checkpoint_is_verified(opened):
    verdict = opened.verify()
    assert verdict.ok
    assert not verdict.problems


def test_an_audit_of_a_fresh_checkpoint_finds_nothing(case, opened):
    found = []
    case.format.audit(opened.source, opened.catalog, lambda *finding: found.append(finding))
    assert found == []


# --- writing -----------------------------------------------------------------------------------


def test_saving_twice_gives_the_same_bytes(case, values, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        case.save(tmp_path / folder, values)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_copy_has_the_same_bytes(case, opened, tmp_path):
    (tmp_path / "copy").mkdir()
    plan = opened.edit().plan(case.path(tmp_path / "copy"))
    plan.run()
    assert plan.bytes_read == 0
    assert contents(tmp_path / "copy") == contents(tmp_path)


def test_the_place_of_every_byte_is_known_before_it_is_written(case, opened, tmp_path):
    placement = case.format.reserve(
        opened.catalog, opened.catalog, opened.source, Target(case.path(tmp_path, "new"))
    )
    ends = [0] * len(placement.files)
    for shard, offset, size in zip(
        placement.shard.tolist(), placement.offset.tolist(), placement.size.tolist(), strict=True
    ):
        assert offset >= ends[shard]
        ends[shard] = offset + size
    assert all(end <= size for end, size in zip(ends, placement.file_sizes, strict=True))
    sealed = case.format.seal(opened.catalog, placement, placement.checksum)
    assert [*placement.files, *sealed.files][-1] == placement.index


def test_an_edit_changes_what_it_names_and_nothing_else(case, opened, values, tmp_path):
    opened.edit("float32/2[0] *= 2", "int32/1 += 1").plan(case.path(tmp_path, "new")).run(
        device="numpy"
    )
    expected = {name: array.copy() for name, array in values.items()}
    with np.errstate(all="ignore"):
        expected["float32/2"][0] *= np.float32(2)
        expected["int32/1"] += np.int32(1)
    with ckptkit.open(case.path(tmp_path, "new")) as found:
        assert found.verify().ok
        for name in values:
            assert same(found[name].read(), expected[name]), name


def test_renames_drops_copies_and_casts(case, opened, values, tmp_path):
    if not case.renames:
        pytest.skip("names of this format are fixed")
    draft = opened.edit(
        "rename ^float64/ -> double/", "drop int16/*", "copy int32/1 -> twin",
        "cast float32/2 -> float64",
    )  # fmt: skip
    draft.plan(case.path(tmp_path, "new")).run(device="numpy")
    with ckptkit.open(case.path(tmp_path, "new")) as found:
        assert found.verify().ok
        assert "int16/1" not in found
        assert same(found["double/2"].read(), values["float64/2"])
        assert same(found["twin"].read(), values["int32/1"])
        with np.errstate(all="ignore"):
            cast = values["float32/2"].astype(np.float64)
        assert np.array_equal(found["float32/2"].read(), cast, equal_nan=True)


def test_values_are_put(case, opened, tmp_path):
    new = {"fresh": np.arange(5.0), "float32/1": np.ones((2, 2), np.float32)}
    puts = [ckptkit.Put(name, array) for name, array in new.items()]
    opened.edit(*puts).plan(case.path(tmp_path, "new")).run()
    with ckptkit.open(case.path(tmp_path, "new")) as found:
        assert found.verify().ok
        for name, array in new.items():
            assert same(found[name].read(), array)


@pytest.mark.parametrize("layout", [Layout(shards=3), Layout(max_shard_bytes=100)])
def test_shards_hold_what_one_file_held(case, opened, values, tmp_path, layout):
    if not case.shards:
        pytest.skip("this format is one file")
    opened.edit().plan(case.path(tmp_path, "new"), layout=layout).run()
    with ckptkit.open(case.path(tmp_path, "new")) as found:
        assert len(case.format.files(found.source, found.catalog)) > 2
        for name, expected in values.items():
            assert same(found[name].read(), expected)


def test_an_existing_destination_is_refused(case, opened):
    before = contents(Path(opened.path).parent)
    with pytest.raises(EditError, match="exists"):
        opened.edit("float32/1 *= 2").plan(opened.path)
    assert contents(Path(opened.path).parent) == before


def test_a_source_that_changed_since_is_a_conflict(case, opened, tmp_path):
    plan = opened.edit("float32/1 *= 2").plan(case.path(tmp_path, "new"))
    os.utime(case.format.files(opened.source, opened.catalog)[-1], ns=(5, 5))
    with pytest.raises(ConflictError, match="changed since"):
        plan.run()
    assert not [name for name in contents(tmp_path) if name.startswith("new")]


def test_an_empty_checkpoint_is_one(case, tmp_path):
    with ckptkit.open(case.save(tmp_path, {})) as found:
        assert list(found) == []
        assert found.verify().ok
        found.edit(ckptkit.Put("x", 1)).plan(case.path(tmp_path, "new")).run()
    assert ckptkit.open(case.path(tmp_path, "new"))["x"].read() == 1


def test_boxes_tile_every_tensor(opened):
    for name in opened:
        tensor = opened.catalog[name]
        assert sum(box.count for box in tensor.boxes) == tensor.spec.count
        assert tensor.boxes == (Box.whole(tensor.spec.shape),)
