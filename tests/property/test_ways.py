"""The laws of writing in place and by links: the same result as a copy, and no byte more."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import ckptkit
from ckptkit import EditError
from ckptkit.globs import is_glob
from ckptkit.naming import Copy, Drop
from ckptkit.storage.disk import Disk
from ckptkit.storage.runs import bytes_touched, read_runs, write_runs
from tests.property.edited import check_values, contents, edited_bundles
from tests.property.strategies import bundles, tensors

pytestmark = pytest.mark.usefixtures("unsynced")

WAYS = ("link", "append", "patch", "copy")


def run_edit(prefix, statements, how, **options):
    """Edit a bundle; return the prefix of the result."""
    target = f"{prefix}-linked" if how == "link" else None
    with ckptkit.open(prefix) as found:
        plan = found.edit(*statements).plan(target, how, **options)
        plan.run(device="numpy")
    return target or prefix


def everything(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@settings(max_examples=100)
@given(
    case=edited_bundles(),
    how=st.sampled_from(WAYS),
    chunk=st.integers(8, 200),
    block=st.integers(8, 200),
)
def test_every_way_gives_what_numpy_gives(fresh, tiny, case, how, chunk, block):
    bundle, statements, values = case
    tiny(chunk, block)
    folder = fresh()
    prefix = bundle.write(folder / "m")
    result = run_edit(prefix, statements, how)
    check_values(result, values)
    with ckptkit.open(result) as found:
        assert found.verify().ok
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


@settings(max_examples=40)
@given(case=edited_bundles(), how=st.sampled_from(["append", "patch"]), data=st.data())
def test_undo_gives_every_file_its_bytes_back(fresh, tiny, case, how, data):
    bundle, statements, _ = case
    tiny(data.draw(st.integers(8, 100)), data.draw(st.integers(8, 100)))
    folder = fresh()
    prefix = bundle.write(folder / "m")
    states = [everything(folder)]
    for statement in statements:
        run_edit(prefix, [statement], how, keep_undo=True)
        kept = {name: text for name, text in everything(folder).items() if name[0] != "."}
        states.append(kept)
    for expected in reversed(states[:-1]):
        undone = ckptkit.undo(prefix)
        assert undone.state == "back"
        found = everything(folder)
        assert {name: text for name, text in found.items() if name[0] != "."} == expected
    assert everything(folder) == states[0]


@given(case=edited_bundles())
def test_a_patch_touches_no_byte_that_no_region_names(fresh, case):
    bundle, statements, _ = case
    folder = fresh()
    prefix = bundle.write(folder / "m")
    before = everything(folder)
    with ckptkit.open(prefix) as found:
        plan = found.edit(*statements).plan(None, "patch")
        report = plan.run(device="numpy")
    after = everything(folder)
    changed = sum(
        int(np.count_nonzero(np.frombuffer(before[name], np.uint8) != new))
        for name, new in ((n, np.frombuffer(t, np.uint8)) for n, t in after.items())
        if name != "m.index"
    )
    assert changed <= plan.bytes_computed == plan.bytes_written
    assert report.bytes_written <= plan.bytes_written + len(after["m.index"])
    assert [len(text) for text in before.values()] == [len(after[name]) for name in before]


@given(made=bundles(), how=st.sampled_from(["link", "append", "copy"]), data=st.data())
def test_names_move_no_tensor_byte(fresh, made, how, data):
    assume(made.values and not any(map(is_glob, made.values)))
    folder = fresh()
    prefix = made.bundle.write(folder / "m")
    names = sorted(made.values)
    expected = {f"new/{name}": value for name, value in made.values.items()}
    edits = ['rename "\\A" -> "new/"']
    if len(names) > 1:
        gone = data.draw(st.sampled_from(names))
        edits.append(Drop(f"new/{gone}"))
        del expected[f"new/{gone}"]
    with ckptkit.open(prefix) as found:
        plan = found.edit(*edits).plan(f"{prefix}2" if how == "link" else None, how)
        report = plan.run()
    assert (report.bytes_read, plan.bytes_computed) == (0, 0)
    if how != "copy":
        assert report.bytes_reused == 0
    check_values(f"{prefix}2" if how == "link" else prefix, expected)


@given(made=bundles(), extra=tensors(max_size=3), how=st.sampled_from(["link", "append", "copy"]))
def test_values_and_second_names_are_added_every_way(fresh, made, extra, how):
    folder = fresh()
    prefix = made.bundle.write(folder / "m")
    puts = [ckptkit.Put(name, values) for name, values in extra.items()]
    expected = {**made.values, **extra}
    if made.values:
        first = min(made.values)
        # A name with wildcards is a glob to a copy, and may stand for more than itself.
        assume("twin" not in expected and first not in extra and not is_glob(first))
        puts.append(Copy(first, "twin"))
        expected["twin"] = made.values[first]
    with ckptkit.open(prefix) as found:
        target = f"{prefix}2" if how == "link" else None
        try:
            plan = found.edit(*puts).plan(target, how)
        except EditError as error:
            assert how == "append"
            assert "nothing to append to" in error.message
            return
        plan.run(device="numpy")
    check_values(target or prefix, expected)
    with ckptkit.open(target or prefix) as found:
        assert found.verify().ok
        assert not [p for p in found.verify().problems if "more than one" in p.message]


@given(case=edited_bundles())
def test_links_leave_the_source_alone_and_share_its_bytes(fresh, case):
    bundle, statements, _ = case
    folder = fresh()
    prefix = bundle.write(folder / "m")
    before = everything(folder)
    with ckptkit.open(prefix) as found:
        plan = found.edit(*statements).plan(f"{prefix}2", "link")
        report = plan.run(device="numpy")
    after = everything(folder)
    assert {name: after[name] for name in before} == before
    new = [path for path in folder.iterdir() if path.name.startswith("m2")]
    fresh_bytes = sum(path.stat().st_size for path in new if path.stat().st_nlink == 1)
    assert report.bytes_written == plan.bytes_written == fresh_bytes


@given(case=edited_bundles())
def test_dead_bytes_are_counted_and_left_out(fresh, case):
    bundle, statements, values = case
    folder = fresh()
    prefix = bundle.write(folder / "m")
    size = sum(len(text) for name, text in contents(prefix).items() if name != ".index")
    run_edit(prefix, statements, "append")
    with ckptkit.open(prefix) as found:
        grown = sum(len(text) for name, text in contents(prefix).items() if name != ".index")
        assert found.dead_bytes == grown - size
        found.edit().plan(None, "copy").run()
    with ckptkit.open(prefix) as found:
        assert found.dead_bytes == 0
    check_values(prefix, values)


@given(
    width=st.integers(1, 40),
    gaps=st.lists(st.integers(0, 9000), min_size=1, max_size=60),
    first=st.integers(0, 5000),
    seed=st.integers(0, 2**32 - 1),
)
def test_runs_are_read_and_written_wherever_they_lie(fresh, width, gaps, first, seed):
    offsets = first + np.cumsum([0, *(gap + width for gap in gaps)]).astype(np.int64)
    length = int(offsets[-1]) + width + 7
    rng = np.random.default_rng(seed)
    content = rng.integers(0, 256, length, np.uint8)
    path = fresh() / "file"
    path.write_bytes(content.tobytes())
    disk = Disk()
    with disk.open_to_change(str(path)) as file:
        found = read_runs(file, width, offsets)
        assert disk.traffic.read == bytes_touched(width, offsets)
        new = rng.integers(0, 256, width * len(offsets), np.uint8)
        write_runs(file, width, offsets, new)
    for number, offset in enumerate(offsets.tolist()):
        part = slice(number * width, (number + 1) * width)
        assert found[part].tobytes() == content[offset : offset + width].tobytes()
        content[offset : offset + width] = new[part]
    assert path.read_bytes() == content.tobytes()
