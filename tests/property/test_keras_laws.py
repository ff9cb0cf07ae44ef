"""The laws of editing Keras files: any small file, any edit, any way; h5py and zipfile judge."""

from __future__ import annotations

import errno
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import ckptkit
from ckptkit.errors import EditError, NeedsRecoveryError
from tests.crash.disks import Broken, Recording
from tests.golden.handmade import as_bytes
from tests.property.keras_models import cases, look, members, models

pytestmark = pytest.mark.usefixtures("unsynced")

WAYS = ("copy", "patch", "copy in place")
LAYOUT = ckptkit.Layout()


def run(path, edits, way, *, executor=None, disk=None, **options):
    """Edit a file; return the path of the result, and the plan."""
    target = path.with_name(f"new{''.join(path.suffixes[-2:])}") if way == "copy" else None
    with ckptkit.open(path) as found:
        plan = found.edit(*edits).plan(target, way.split()[0], **options)
        plan.run(device="numpy", executor=executor, disk=disk)
    return target or path, plan


def may_refuse(case, way, error):
    """Tell whether an edit is one of those that are not done where the bytes are."""
    if way != "patch" or "copy" not in str(error):
        return False
    return case.remade or case.indirect or (case.model.archived and case.renamed)


def check(result, case, before):
    """See that a result is what NumPy says, and that all else is as it was."""
    values, stored, groups = look(result)
    old_stored, old_groups = before
    assert values.keys() == case.values.keys()
    for path, expected in case.values.items():
        native = values[path].astype(values[path].dtype.newbyteorder("="))
        assert native.dtype == expected.dtype, path
        assert native.shape == expected.shape, path
        assert as_bytes(native) == as_bytes(expected), path
    for path, old in case.origin.items():
        if old not in case.touched:
            assert stored[path] == old_stored[old], path
    if not case.renamed and values.keys() == old_stored.keys():
        assert groups == old_groups
    with ckptkit.open(result) as found:
        assert found.verify().ok
        assert set(found) == set(values)


@settings(max_examples=150)
@given(case=cases(), way=st.sampled_from(WAYS), chunk=st.integers(8, 200))
def test_every_way_gives_what_numpy_gives(fresh, tiny, case, way, chunk):
    tiny(chunk, chunk)
    path = fresh() / f"m{case.model.suffix}"
    case.model.write(path)
    _, *before = look(path)
    around, old = members(path), path.read_bytes()
    try:
        result, _ = run(path, case.edits, way)
    except EditError as error:
        assert may_refuse(case, way, error), error
        assert path.read_bytes() == old
        return
    check(result, case, before)
    assert list(members(result).items()) == list(around.items())
    assert not [one for one in path.parent.iterdir() if one.name.startswith(".")]


@given(case=cases(names=False, anew=False), way=st.sampled_from(["copy", "patch"]))
def test_no_byte_changes_that_no_edit_names(fresh, case, way):
    assume(not case.indirect)
    path = fresh() / f"m{case.model.suffix}"
    case.model.write(path)
    before = np.frombuffer(path.read_bytes(), np.uint8)
    with ckptkit.open(path) as found:
        tensors = [found[name].tensor for name in case.touched]
        extents = [piece.extent for one in tensors for piece in one.source.pieces]
    result, plan = run(path, case.edits, way)
    after = np.frombuffer(result.read_bytes(), np.uint8)
    assert len(after) == len(before)
    other = before != after
    for extent in extents:
        other[extent.offset : extent.offset + extent.length] = False
    # Of an archive, the checksum in two headers.
    assert np.count_nonzero(other) <= 8 * case.model.archived
    assert plan.bytes_computed <= sum(extent.length for extent in extents)


@given(model=models())
def test_a_copy_without_edits_is_the_same_file(fresh, model):
    path = fresh() / f"m{model.suffix}"
    model.write(path)
    result, _ = run(path, [], "copy")
    assert result.read_bytes() == path.read_bytes()


@given(
    case=cases(),
    way=st.sampled_from(WAYS),
    sizes=st.tuples(st.integers(8, 200), st.integers(8, 200)),
    jobs=st.integers(1, 4),
)
def test_chunks_and_jobs_make_no_difference(fresh, tiny, case, way, sizes, jobs):
    results = []
    for number in range(2):
        path = fresh() / f"m{case.model.suffix}"
        case.model.write(path)
        if number:
            tiny(*sizes)
        else:
            tiny(1 << 20, 1 << 16)
        with ThreadPoolExecutor(jobs if number else 1) as executor:
            try:
                result, _ = run(path, case.edits, way, executor=executor)
            except EditError as error:
                results.append(str(error).rpartition("/")[2])
                continue
        results.append(result.read_bytes())
    assert results[0] == results[1]


@given(case=cases(anew=False), data=st.data())
def test_undo_gives_the_file_its_bytes_back(fresh, tiny, case, data):
    tiny(data.draw(st.integers(8, 100)), data.draw(st.integers(8, 100)))
    path = fresh() / f"m{case.model.suffix}"
    case.model.write(path)
    states = [path.read_bytes()]
    for edit in case.edits:
        try:
            run(path, [edit], "patch", keep_undo=True)
        except EditError as error:
            assert "copy" in str(error), error
            break
        states.append(path.read_bytes())
    for expected in reversed(states[:-1]):
        assert ckptkit.undo(path).state == "back"
        assert path.read_bytes() == expected
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@given(case=cases(), way=st.sampled_from(["patch", "copy in place"]), data=st.data())
def test_what_is_cut_short_is_recovered_to_before_or_after(fresh, tiny, case, way, data):
    tiny(data.draw(st.integers(8, 100)), data.draw(st.integers(8, 100)))
    whole = fresh() / f"m{case.model.suffix}"
    case.model.write(whole)
    path = Path(shutil.copy(whole, fresh()))
    before = path.read_bytes()
    disk = Recording()
    try:
        run(whole, case.edits, way, disk=disk)
    except EditError:
        return
    assume(disk.calls)
    at = data.draw(st.integers(0, len(disk.calls) - 1))
    with pytest.raises(OSError, match="stops"):
        run(path, case.edits, way, disk=Broken(at, OSError(errno.EIO, "stops")))
    try:
        ckptkit.open(path).close()
    except NeedsRecoveryError:
        ckptkit.recover(path)
    assert path.read_bytes() in (before, whole.read_bytes())
    ckptkit.recover(path)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
