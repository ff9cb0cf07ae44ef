"""The laws that hold whatever the checkpoint, the layout and the edit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import ckptkit
from ckptkit import CorruptError, Layout
from ckptkit.globs import is_glob
from ckptkit.naming import Copy, Drop
from ckptkit.storage.disk import Disk
from tests.golden.handmade import (
    CODES,
    Bundle,
    grid,
    numpy_dtype,
    random_array,
    records_of,
    stored,
)
from tests.oracle import crc, entry, strings
from tests.oracle.varint import put_bytes, put_number
from tests.property.edited import (
    SHAPES,
    check_values,
    contents,
    edited_bundles,
    same,
    small_values,
)
from tests.property.strategies import SEEDS, bundles, layouts, slicings, tensors

pytestmark = pytest.mark.usefixtures("unsynced")


# --- round trips -------------------------------------------------------------------------------


@given(values=tensors(), data=st.data())
def test_what_is_saved_is_read_in_any_layout(fresh, values, data):
    layout = data.draw(layouts(tuple(values)))
    prefix = str(fresh() / "m")
    report = ckptkit.save(prefix, values, layout=layout)
    check_values(prefix, values)
    files = contents(prefix)
    assert report.bytes_written == sum(map(len, files.values()))
    sizes = [len(content) for name, content in files.items() if name != ".index"]
    if layout.shards is not None:
        assert len(sizes) == layout.shards
    if layout.max_shard_bytes is not None:
        with ckptkit.open(prefix) as found:
            largest = max((found[name].nbytes for name in found), default=0)
        assert all(size <= max(layout.max_shard_bytes, largest) for size in sizes)


@given(made=bundles(), data=st.data())
def test_any_bundle_is_read_and_copied_in_any_layout(fresh, made, data):
    layout = data.draw(layouts(tuple(made.values)))
    folder = fresh()
    source = made.bundle.write(folder / "m")
    check_values(source, made.values)
    with ckptkit.open(source) as found:
        assert {name: found[name].dtype for name in found} == made.dtypes
        found.edit().plan(folder / "n", layout=layout).run()
        found.edit().plan(folder / "back", layout=Layout(shards=1)).run()
    check_values(folder / "n", made.values)
    check_values(folder / "back", made.values)


@given(made=bundles())
def test_a_copy_of_a_copy_changes_nothing(fresh, made):
    folder = fresh()
    source = made.bundle.write(folder / "m")
    for old, new in (("m", "n"), ("n", "o")):
        with ckptkit.open(folder / old) as found:
            found.edit().plan(folder / new).run()
    assert contents(f"{folder}/n") == contents(f"{folder}/o")
    # Made in one pass, without dead bytes, a bundle is its own copy.
    assert contents(source) == contents(f"{folder}/n")


@given(made=bundles(), data=st.data())
def test_regions_and_blocks_are_those_of_numpy(fresh, tiny, made, data):
    tiny(64, data.draw(st.integers(1, 64)))
    with ckptkit.open(made.bundle.write(fresh() / "m")) as found:
        for name, values in made.values.items():
            index = tuple(
                slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))))
                for n in values.shape
            )
            assert same(found[name][index], values[(*index, ...)])
            if values.dtype == object:
                continue
            parts = list(found[name].blocks(data.draw(st.integers(1, 40))))
            joined = np.empty_like(values)
            for box, part in parts:
                joined[(*box.slices(), ...)] = part
            assert sum(part.size for _, part in parts) == values.size
            assert same(joined, values)


# --- edits against NumPy -----------------------------------------------------------------------


@settings(max_examples=150)
@given(case=edited_bundles(), chunk=st.integers(8, 200), block=st.integers(8, 200))
def test_edits_give_what_numpy_gives_for_any_chunk(fresh, tiny, case, chunk, block):
    bundle, statements, values = case
    tiny(chunk, block)
    folder = fresh()
    with ckptkit.open(bundle.write(folder / "m")) as found:
        found.edit(*statements).plan(folder / "n").run(device="numpy")
    check_values(folder / "n", values)


@given(case=edited_bundles(), sizes=st.lists(st.integers(8, 300), min_size=4, max_size=4))
def test_the_bytes_of_a_result_do_not_depend_on_chunks(fresh, tiny, case, sizes):
    bundle, statements, _ = case
    folder = fresh()
    source = bundle.write(folder / "m")
    for name, chunk, block in (("n", *sizes[:2]), ("o", *sizes[2:])):
        tiny(chunk, block)
        with ckptkit.open(source) as found:
            found.edit(*statements).plan(folder / name).run(device="numpy")
    assert contents(f"{folder}/n") == contents(f"{folder}/o")


CASTS = ("float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "complex64")


@given(
    data=st.data(),
    shape=SHAPES,
    seed=SEEDS,
    names=st.tuples(st.sampled_from(CASTS[:4]), st.sampled_from(CASTS)),
    big=st.booleans(),
)
def test_casts_change_dtype_and_size_also_of_slices(fresh, tiny, data, shape, seed, names, big):
    old, new = names
    assume(old != new)
    tiny(data.draw(st.integers(16, 99)), data.draw(st.integers(16, 99)))
    values = small_values(old, shape, seed)
    bundle, folder = Bundle(big_endian=big), fresh()
    if data.draw(st.booleans()):
        bundle.add_slices(b"w", values, data.draw(slicings(shape)))
    else:
        bundle.add(b"w", values)
    bundle.add(b"v", values)
    with ckptkit.open(bundle.write(folder / "m")) as found:
        found.edit(f"cast w -> {new}").plan(folder / "n").run(device="numpy")
    check_values(folder / "n", {"w": values.astype(numpy_dtype(new)), "v": values})


@given(made=bundles(), data=st.data())
def test_renames_drops_and_copies_move_no_tensor_byte(fresh, made, data):
    assume(made.values and not any(map(is_glob, made.values)))
    folder = fresh()
    names = sorted(made.values)
    gone = data.draw(st.sampled_from(names))
    expected = {f"new/{name}": value for name, value in made.values.items()}
    with ckptkit.open(made.bundle.write(folder / "m")) as found:
        draft = found.edit(r'rename "\A" -> "new/"')
        if len(names) > 1:
            draft = draft.edit(Drop(f"new/{gone}"))
            del expected[f"new/{gone}"]
        kept = data.draw(st.sampled_from(sorted(expected)))
        draft = draft.edit(Copy(kept, "twin"))
        expected["twin"] = expected[kept]
        plan = draft.plan(folder / "n")
        assert (plan.bytes_read, plan.bytes_computed) == (0, 0)
        plan.run()
    check_values(folder / "n", expected)


@given(made=bundles(), extra=tensors(max_size=3))
def test_values_are_put_into_any_bundle(fresh, made, extra):
    folder = fresh()
    puts = [ckptkit.Put(name, values) for name, values in extra.items()]
    with ckptkit.open(made.bundle.write(folder / "m")) as found:
        found.edit(*puts).plan(folder / "n").run(device="numpy")
    check_values(folder / "n", {**made.values, **extra})


# --- accounting --------------------------------------------------------------------------------


def destinations(plan):
    """Return every byte range of the data files that a plan fills, by shard."""
    placement, moved = plan.placement, plan.work
    ranges = list(
        zip(
            moved.moves.shard.tolist(),
            moved.moves.offset.tolist(),
            moved.moves.size.tolist(),
            strict=True,
        )
    )
    ranges += [(flat.shard, flat.offset, flat.count * flat.spec.itemsize) for flat in moved.flats]
    ranges += [
        (
            boxed.shard,
            boxed.offset + boxed.position(block),
            block.count * boxed.tensor.spec.itemsize,
        )
        for boxed in moved.boxes
        for block in boxed.blocks
    ]
    ranges += [
        (int(placement.shard[at]), int(placement.offset[at]), len(payload))
        for at, payload in placement.payloads.items()
    ]
    return sorted(ranges)


@settings(max_examples=100)
@given(case=edited_bundles(), data=st.data(), block=st.integers(8, 200))
def test_a_plan_fills_every_byte_once_and_moves_what_it_says(fresh, tiny, case, data, block):
    bundle, statements, _ = case
    tiny(data.draw(st.integers(8, 200)), block)
    folder, disk = fresh(), Disk()
    with ckptkit.open(bundle.write(folder / "m")) as found:
        draft = found.edit(*statements, ckptkit.Put("put", np.arange(5)))
        plan = draft.plan(folder / "n", layout=data.draw(layouts()))
    ends = [0] * len(plan.placement.files)
    for shard, offset, size in destinations(plan):
        if size:
            assert offset == ends[shard], "a byte is filled twice, or not at all"
            ends[shard] += size
    assert tuple(ends) == plan.placement.file_sizes
    report = plan.run(device="numpy", disk=disk)
    written = sum(map(len, contents(f"{folder}/n").values()))
    assert (disk.traffic.read, report.bytes_read) == (plan.bytes_read, plan.bytes_read)
    assert (disk.traffic.copied, report.bytes_reused) == (plan.bytes_reused, plan.bytes_reused)
    # Beside the result there is for a moment a list of its names, behind its checksum.
    named = [*plan.placement.files, plan.placement.index]
    listed = len("\n".join(["01234567", *map(os.path.basename, named)]))
    assert disk.traffic.written + disk.traffic.copied == written + listed
    assert (report.bytes_written, plan.bytes_written) == (written, written)


@given(made=bundles(), layout=layouts())
def test_a_copy_without_an_edit_reads_and_computes_nothing(fresh, made, layout):
    folder, disk = fresh(), Disk()
    with ckptkit.open(made.bundle.write(folder / "m")) as found:
        plan = found.edit().plan(folder / "n", layout=layout)
        held = sum(found[name].nbytes for name in found)
    plan.run(disk=disk)
    assert (plan.bytes_read, plan.bytes_computed, plan.bytes_reused) == (0, 0, held)
    assert (disk.traffic.read, disk.traffic.copied) == (0, held)


# --- distrust ----------------------------------------------------------------------------------


def _damaged(folder, seed, *, sliced=False):
    """Write a bundle of three tensors, the second one with a flipped bit."""
    bundle = Bundle()
    values = {name: small_values("float32", (8, 6), seed + n) for n, name in enumerate("abc")}
    for name, array in values.items():
        if sliced and name == "b":
            bundle.add_slices(b"b", array, grid((8, 6), [[3], []]))
        else:
            bundle.add(name.encode(), array)
    bundle.data[0][8 * 6 * 4 + 5] ^= 0x10
    return bundle.write(folder / "m")


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize(
    "edit", ["b *= 2", "b = x + 1", 'a += t("b")', 'a[:] = t("b")', "cast b -> float64"]
)
def test_nothing_is_computed_from_damaged_values(fresh, tiny, edit, sliced):
    tiny(64, 64)
    folder = fresh()
    with ckptkit.open(_damaged(folder, 1, sliced=sliced)) as found:
        plan = found.edit(edit).plan(folder / "n")
        with pytest.raises(CorruptError, match="checksum") as caught:
            plan.run(device="numpy")
    assert caught.value.offset == 8 * 6 * 4
    assert caught.value.path.endswith(".data-00000-of-00001")
    assert sorted(os.listdir(folder)) == ["m.data-00000-of-00001", "m.index"]


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize("edit", ["a *= 2", "rename b -> z", "b[7:, 0] = 1", "b[0, 0] += 1"])
def test_damage_is_never_blessed(fresh, tiny, edit, sliced):
    tiny(64, 48)
    folder = fresh()
    with ckptkit.open(_damaged(folder, 1, sliced=sliced)) as found:
        found.edit(edit).plan(folder / "n").run(device="numpy")
    with ckptkit.open(folder / "n") as found:
        name = "z" if "z" in found else "b"
        with pytest.raises(CorruptError, match="checksum"):
            found[name].read()
        assert found["c"].read().any()


@given(data=st.data(), seed=SEEDS)
def test_any_flipped_bit_of_a_tensor_is_found(fresh, data, seed):
    bundle = Bundle()
    dtype = data.draw(st.sampled_from(sorted(set(CODES) - {"variant"})))
    values = np.array([b"abc", b"", b"de"], object)
    values = values if dtype == "string" else random_array(dtype, (3,), seed)
    bundle.add(b"w", values, dtype)
    at = data.draw(st.integers(0, len(bundle.data[0]) - 1))
    bundle.data[0][at] ^= 1 << data.draw(st.integers(0, 7))
    with ckptkit.open(bundle.write(fresh() / "m")) as found, pytest.raises(CorruptError) as caught:
        found["w"].read()
    assert caught.value.tensor == "w"


# --- fidelity ----------------------------------------------------------------------------------

UNKNOWN = put_number(77, 5) + put_bytes(78, b"from the future")


def _with_unknown_fields(folder):
    bundle = Bundle(2)
    bundle.header += UNKNOWN
    values = small_values("float32", (4, 4), 3)
    bundle.add(b"a", values, unknown=UNKNOWN)
    bundle.add(b"b", values, shard=1, unknown=UNKNOWN)
    bundle.add_slices(b"s", values, grid((4, 4), [[2], []]), unknown=UNKNOWN)
    bundle.add(b"t", np.array([b"text"], object), unknown=UNKNOWN)
    return bundle.write(folder / "m")


@pytest.mark.parametrize(
    ("edits", "renamed"),
    [
        ([], {}),
        (["a *= 2"], {}),
        (["a[0] = 1"], {}),
        (["s *= 2"], {}),
        (["drop t"], {}),
        (["rename ^a$ -> a2", "rename ^s$ -> s2"], {b"a": b"a2", b"s": b"s2"}),
        (["cast a -> float64", "cast s -> float64"], {}),
    ],
)
@pytest.mark.parametrize("layout", [Layout(), Layout(shards=1)])
def test_unknown_fields_survive_edits(fresh, edits, renamed, layout):
    folder = fresh()
    with ckptkit.open(_with_unknown_fields(folder)) as found:
        found.edit(*edits).plan(folder / "n", layout=layout).run(device="numpy")
    records = records_of(Path(folder, "n.index").read_bytes())
    assert records[b""].endswith(UNKNOWN)
    for key in (b"a", b"b", b"s", b"t"):
        if key != b"t" or "drop t" not in edits:
            record = records[renamed.get(key, key)]
            assert record.endswith(UNKNOWN)
            assert entry.decode(record).flags & entry.HAS_UNKNOWN


def test_an_edit_changes_only_the_records_that_it_names(fresh):
    folder = fresh()
    with ckptkit.open(_with_unknown_fields(folder)) as found:
        found.edit("a[0] = 1").plan(folder / "n").run(device="numpy")
    before, after = (records_of(Path(folder, n).read_bytes()) for n in ("m.index", "n.index"))
    assert {key for key in before if before[key] != after[key]} == {b"a"}


def test_a_tensor_in_a_single_slice_becomes_one_that_readers_take(fresh):
    """TensorFlow never writes one, and cannot read a record with both a place and slices."""
    folder, bundle = fresh(), Bundle()
    values = small_values("float32", (4, 4), 3)
    bundle.add_slices(b"s", values, [[(0, 4), (0, -1)]])
    with ckptkit.open(bundle.write(folder / "m")) as found:
        found.edit().plan(folder / "n").run()
    check_values(folder / "n", {"s": values})
    records = records_of(Path(folder, "n.index").read_bytes())
    del records[b""]
    for record in map(entry.decode, records.values()):
        assert not (record.slices and record.size)


def test_checksums_of_results_are_those_of_their_bytes(fresh):
    folder = fresh()
    values = {"n": small_values("float32", (5,), 1), "s": np.array([b"a", b"bc"], object)}
    ckptkit.save(folder / "m", values)
    records = records_of(Path(folder, "m.index").read_bytes())
    assert entry.decode(records[b"n"]).crc == crc.mask(crc.crc32c(stored(values["n"])))
    assert entry.decode(records[b"s"]).crc == crc.mask(strings.encode([b"a", b"bc"])[1])
