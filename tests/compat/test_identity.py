"""Byte for byte: what we write is what TensorFlow writes, and a copy is what it copies."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptkit
from tests.compat.tensors import TEXTS, every_dtype, tensor, texts, write
from tests.property.strategies import tensors

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("unsynced")]


def contents(prefix):
    folder, name = os.path.split(prefix)
    return {
        file.removeprefix(name): Path(folder, file).read_bytes()
        for file in os.listdir(folder)
        if file.startswith(f"{name}.")
    }


def both(tf, folder, values):
    """Save values with both, in the same order; return the bytes of all files of each."""
    given_tensors = {
        name.encode("utf-8", "surrogateescape"): tensor(
            tf, array, "string" if array.dtype == object else array.dtype.name
        )
        for name, array in values.items()
    }
    theirs = write(tf, folder / "theirs", given_tensors)
    ckptkit.save(folder / "ours", values)
    return contents(str(folder / "ours")), contents(theirs)


@settings(max_examples=60)
@given(values=tensors(max_size=8).filter(bool))
def test_saving_anything(tf, fresh, values):
    ours, theirs = both(tf, fresh(), values)
    assert ours == theirs


def test_saving_every_dtype(tf, tmp_path):
    values = {
        name: array for name, (dtype, array) in every_dtype().items() if not dtype.startswith("q")
    }
    ours, theirs = both(tf, tmp_path, dict(reversed(values.items())))
    assert ours == theirs


@pytest.mark.parametrize("elements", [TEXTS, texts(), texts(b""), texts(b"\0" * 70_000, b"x")])
def test_saving_strings(tf, tmp_path, elements):
    ours, theirs = both(tf, tmp_path, {"s": elements, "after": np.arange(3)})
    assert ours == theirs


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("{:05d}", 30_000), ("layer_{}/kernel", 16_000), ("\xff{:x}", 20_000), ("a{:0500d}", 9_000)],
)
def test_indexes_of_many_blocks(tf, tmp_path, pattern, count):
    values = {pattern.format(n): np.int32(n) for n in range(count)}
    ours, theirs = both(tf, tmp_path, values)
    assert len(theirs[".index"]) > 262_144
    assert ours == theirs


@settings(max_examples=10)
@given(
    lengths=st.lists(st.sampled_from([1, 100, 200_000, 262_000, 524_280, 600_000]), max_size=6),
    byte=st.sampled_from("aé\xff"),
)
def test_keys_as_large_as_blocks(tf, fresh, lengths, byte):
    values = {f"{n}{byte * size}": np.float32(n) for n, size in enumerate(lengths)}
    ours, theirs = both(tf, fresh(), {"first": np.float32(1), **values})
    assert ours == theirs


def merged(tf, folder, parts):
    prefixes = [write(tf, folder / f"part{n}", *part) for n, part in enumerate(parts)]
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=prefixes, destination_prefix=str(folder / "m"), delete_old_dirs=False
    )
    return str(folder / "m")


def check_copy(folder):
    with ckptkit.open(folder / "m") as found:
        found.edit().plan(folder / "n").run()
    assert contents(str(folder / "n")) == contents(str(folder / "m"))


def test_copies_of_every_dtype(tf, tmp_path):
    values = every_dtype()
    write(tf, tmp_path / "m", {n: tensor(tf, array, dtype) for n, (dtype, array) in values.items()})
    check_copy(tmp_path)


@pytest.mark.parametrize("shards", [2, 3, 7])
def test_copies_of_several_shards(tf, tmp_path, shards):
    merged(
        tf,
        tmp_path,
        [({f"{n}/{k}": tf.range(k + n) for k in (3, 0, 9)},) for n in reversed(range(shards))],
    )
    check_copy(tmp_path)


def test_copies_of_slices(tf, tmp_path):
    values = tf.reshape(tf.range(50.0), (5, 10))
    merged(
        tf,
        tmp_path,
        [
            ({"w": values[:, 4:], "a": tf.constant(1)}, ["5 10 -:4,6", ""]),
            ({"w": values[:, :4], "v": values[1:]}, ["5 10 -:0,4", "5 10 1,4:-"]),
            ({"v": values[:1]}, ["5 10 0,1:-"]),
        ],
    )
    check_copy(tmp_path)


def test_copies_of_object_checkpoints(tf, tmp_path):
    net = tf.Module()
    net.w, net.b = tf.Variable(tf.range(6.0)), tf.Variable("text")
    tf.train.Checkpoint(net=net).write(str(tmp_path / "m"))
    check_copy(tmp_path)


@pytest.mark.parametrize("limit", [24, 40, 64])
def test_copies_of_shards_of_a_largest_size(tf, tmp_path, limit):
    options = tf.train.CheckpointOptions(
        experimental_sharding_callback=tf.train.experimental.MaxShardSizePolicy(limit)
    )
    held = {f"v{n}": tf.Variable(tf.range(4.0 + n)) for n in range(4)}
    tf.train.Checkpoint(**held).write(str(tmp_path / "m"), options=options)
    check_copy(tmp_path)


def test_edits_that_give_the_same_values_give_the_same_bytes(tf, tmp_path):
    write(tf, tmp_path / "m", {"b": tf.range(5.0), "a": tf.range(9), "s": tf.constant(["x"])})
    with ckptkit.open(tmp_path / "m") as found:
        found.edit("b = x + 0", "a[2:5] += 0").plan(tmp_path / "n").run(device="numpy")
    assert contents(str(tmp_path / "n")) == contents(str(tmp_path / "m"))
