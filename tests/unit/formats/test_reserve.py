"""Layouts, placements, fingerprints."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptkit
from ckptkit import CorruptError, EditError, Layout
from ckptkit.formats.tensorflow.savedmodel import checkpoint_hash, with_checkpoint_hash
from tests.oracle import first
from tests.oracle.crc import fingerprint64
from tests.oracle.varint import fields, put_bytes, put_number

VALUES = {
    "b/1": np.zeros(10, np.uint8),
    "a/1": np.zeros(30, np.uint8),
    "b/2": np.zeros(20, np.uint8),
    "a/2": np.zeros(40, np.uint8),
    "none": np.zeros(0, np.uint8),
}


def sizes(folder, layout, name="m"):
    ckptkit.save(folder / name, VALUES, layout=layout)
    return [
        (folder / file).stat().st_size
        for file in sorted(os.listdir(folder))
        if file.startswith(f"{name}.data")
    ]


def where(folder, name="m"):
    with ckptkit.open(folder / name) as found:
        return {n: found.catalog[n].source.pieces[0].extent.path[-14:-9] for n in found}


def test_by_default_there_is_one_shard(tmp_path):
    assert sizes(tmp_path, Layout()) == [100]


@pytest.mark.parametrize(("count", "expected"), [(1, [100]), (2, [40, 60]), (3, [40, 20, 40])])
def test_a_number_of_shards_of_about_equal_size(tmp_path, count, expected):
    assert sizes(tmp_path, Layout(shards=count)) == expected


def test_more_shards_than_tensors_leave_some_empty(tmp_path):
    assert len(sizes(tmp_path, Layout(shards=9))) == 9
    assert ckptkit.open(tmp_path / "m").verify().ok


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(100, [100]), (99, [60, 40]), (60, [60, 40]), (40, [40, 20, 40]), (1, [10, 30, 20, 40])],
)
def test_shards_of_a_largest_size_are_as_few_as_it_takes(tmp_path, limit, expected):
    found = sizes(tmp_path, Layout(max_shard_bytes=limit))
    assert [size for size in found if size] == expected


def test_a_rule_for_each_shard(tmp_path):
    assert sizes(tmp_path, Layout(rules=("b/*", "*/1"))) == [30, 30, 40]
    assert where(tmp_path) == {
        "b/1": "00000", "b/2": "00000", "a/1": "00001", "a/2": "00002", "none": "00002",
    }  # fmt: skip


def test_rules_for_everything_leave_no_empty_shard(tmp_path):
    assert sizes(tmp_path, Layout(rules=("b/*", "**"))) == [30, 70]


def test_a_rule_that_matches_nothing_is_an_error(tmp_path):
    with pytest.raises(EditError, match="'c/\\*' matches no tensor"):
        sizes(tmp_path, Layout(rules=("b/*", "c/*")))


@pytest.mark.parametrize(
    "wishes",
    [{"shards": 0}, {"shards": -1}, {"max_shard_bytes": 0}, {"shards": 2, "rules": ("a",)}],
)
def test_contradictory_layouts_are_refused(wishes):
    with pytest.raises(EditError):
        Layout(**wishes)


def test_a_copy_keeps_the_shards_and_the_order_of_bytes(tmp_path):
    sizes(tmp_path, Layout(rules=("b/*", "*/1")))
    with ckptkit.open(tmp_path / "m") as found:
        found.edit("a/2 += 1", ckptkit.Put("new", 1)).plan(tmp_path / "n").run(device="numpy")
    before, after = where(tmp_path), where(tmp_path, "n")
    assert {name: after[name] for name in before} == before
    assert after["new"] == "00002"


def test_dropped_tensors_leave_no_gap(tmp_path):
    sizes(tmp_path, Layout())
    with ckptkit.open(tmp_path / "m") as found:
        found.edit("drop a/*").plan(tmp_path / "n").run()
    assert (tmp_path / "n.data-00000-of-00001").stat().st_size == 30


def test_what_no_bundle_holds_is_refused(tmp_path):
    for values in (np.array(["2020-01-01"], "datetime64[D]"), np.zeros(2, np.longdouble), object()):
        with pytest.raises(EditError):
            ckptkit.save(tmp_path / "m", {"w": values})
    assert os.listdir(tmp_path) == []


# --- the fingerprint of a SavedModel -----------------------------------------------------------

OTHERS = (
    put_number(1, 7) + put_number(2, 2**63),
    put_bytes(6, put_number(1, 4)) + put_bytes(7, b"8"),
)


def hash_of(fingerprint):
    return [value for number, _, value, _ in fields(fingerprint) if number == 5]


@given(st.binary(max_size=99), st.none() | st.integers(0, 2**64 - 1))
def test_only_the_hash_of_the_index_changes(index, old):
    stored = b"" if old is None else put_number(5, old)
    found = with_checkpoint_hash(OTHERS[0] + stored + OTHERS[1], index, path="f")
    assert hash_of(found) == [fingerprint64(index)]
    assert found.startswith(OTHERS[0])
    assert found.endswith(OTHERS[1])


def test_a_field_of_its_number_and_another_type_is_an_unknown_one():
    before = put_bytes(5, b"unknown")
    assert checkpoint_hash(before, path="f") is None
    found = with_checkpoint_hash(before + put_number(5, 1), b"", path="f")
    assert checkpoint_hash(found, path="f") == fingerprint64(b"")
    assert found.endswith(before)


@given(st.binary(max_size=99), st.binary(max_size=99))
def test_the_length_does_not_depend_on_the_index(one, other):
    before = b"".join(OTHERS)
    lengths = {len(with_checkpoint_hash(before, index, path="f")) for index in (one, other)}
    assert len(lengths) == 1


@given(st.binary(max_size=99))
def test_a_hash_that_is_right_stays_as_it_is(index):
    before = OTHERS[0] + put_number(5, fingerprint64(index)) + OTHERS[1]
    assert with_checkpoint_hash(before, index, path="f") == before
    again = with_checkpoint_hash(b"".join(OTHERS), index, path="f")
    assert with_checkpoint_hash(again, index, path="f") == again


@pytest.mark.parametrize("damaged", [b"\x08", b"\x0a\x05abc", b"\x0b", b"\x09abc", b"\xff" * 11])
def test_a_fingerprint_that_does_not_parse_is_damaged(damaged):
    with pytest.raises(CorruptError, match="does not parse"):
        with_checkpoint_hash(damaged, b"", path="f")


@pytest.mark.parametrize("name", ["m.weights.h5", "m.keras", "m.h5", "m.weights.json"])
def test_a_bundle_is_not_given_the_name_of_a_file_of_keras(tmp_path, name):
    ckptkit.save(tmp_path / "m", VALUES)
    with pytest.raises(EditError, match="one of Keras"):
        ckptkit.convert(tmp_path / "m", tmp_path / name)
    with pytest.raises(EditError, match="one of Keras"):
        ckptkit.save(tmp_path / name, VALUES)
    assert sorted(os.listdir(tmp_path)) == ["m.data-00000-of-00001", "m.index"]


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001"])
def test_any_file_of_a_bundle_stands_for_its_prefix(tmp_path, ending):
    ckptkit.save(f"{tmp_path}/m{ending}", VALUES)
    assert sorted(os.listdir(tmp_path)) == ["m.data-00000-of-00001", "m.index"]


def test_a_prefix_that_ends_like_a_file_is_edited_where_it_is(tmp_path):
    ckptkit.save(tmp_path / "m", VALUES)
    for ending in (".index", ".data-00000-of-00001"):
        os.rename(f"{tmp_path}/m{ending}", f"{tmp_path}/m.index{ending}")
    prefix = str(tmp_path / "m.index")
    for how in ("patch", "append", "copy"):
        with ckptkit.open(prefix) as found:
            found.edit("a/1 *= 1").plan(how=how).run()
    assert ckptkit.open(prefix).verify().ok
    assert sorted(os.listdir(tmp_path)) == ["m.index.data-00000-of-00001", "m.index.index"]


@pytest.mark.parametrize("name", ["m", "m-00000-of-00001"])
def test_a_checkpoint_of_the_first_format_is_not_hidden(tmp_path, name):
    """As a bundle of its name would: that is what the name means from then on."""
    (tmp_path / name).write_bytes(first.encode({b"w": first.whole("float32", np.ones(2, "f"))}))
    with pytest.raises(EditError, match="first format has this name"):
        ckptkit.convert(tmp_path / "m", tmp_path / "m")
    assert os.listdir(tmp_path) == [name]
