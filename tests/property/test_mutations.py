"""Whatever happens to the bytes of a checkpoint, it opens as it was or says what is wrong."""

from __future__ import annotations

import importlib.util
import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptkit
from ckptkit import CkptError, CorruptError, UnsupportedError
from ckptkit.engine.check import verify_path
from tests.golden.handmade import Bundle, as_bytes, texts
from tests.oracle import MalformedError, table
from tests.oracle.crc import crc32c, mask
from tests.oracle.snappy import compress_literal
from tests.oracle.varint import take_varint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INDEX = ".index"


class Sample(NamedTuple):
    """A sound checkpoint: its files by what follows the prefix, and the bytes of its values."""

    files: dict[str, bytes]
    values: dict[str, object]


def sample(prefix: Path) -> Sample:
    names = sorted(prefix.parent.glob(prefix.name + ".*"))
    files = {path.name.removeprefix(prefix.name): path.read_bytes() for path in names}
    return Sample(files, read_all(prefix))


def read_all(prefix: Path) -> dict[str, object]:
    with ckptkit.open(prefix) as checkpoint:
        return {name: as_bytes(checkpoint[name].read()) for name in checkpoint}


def saved(folder: Path) -> Path:
    """Write two shards of many small tensors, and a larger one."""
    rng = np.random.default_rng(1)
    values = {
        f"model/layer_{n}/{part}": rng.standard_normal((n % 4, 3)).astype(np.float32)
        for n in range(12)
        for part in ("kernel", "bias")
    }
    values["steps"] = np.int64(7)
    values["words"] = texts(b"one", b"", b"\0" * 200)
    ckptkit.save(folder / "saved", values, layout=ckptkit.Layout(shards=2))
    return folder / "saved"


def handmade(folder: Path) -> Path:
    """Write slices, variants and compressed blocks, as nobody writes them together."""
    bundle = Bundle(2)
    values = np.arange(24, dtype=np.int32).reshape(4, 6)
    bundle.add_slices(b"sliced", values, [[(0, 1), (0, -1)], [(1, 3), (0, -1)]], shards=(0, 1))
    bundle.add(b"variants", texts(b"first", b"", b"third"), "variant")
    bundle.add(b"words", texts(b"a", b"bc", b""), shard=1)
    bundle.add(b"flags", np.array([True, False, True]))
    bundle.write(folder / "handmade", compress=compress_literal)
    return folder / "handmade"


def by_tensorflow(folder: Path) -> Path | None:
    """Write what TensorFlow writes, slices included, where it is installed."""
    if importlib.util.find_spec("tensorflow") is None:
        return None
    import tensorflow as tf

    rows = tf.reshape(tf.range(12, dtype=tf.float32), (3, 4))
    tf.raw_ops.SaveV2(
        prefix=str(folder / "tensorflow"),
        tensor_names=["part", "part", "text", "half", "empty", "long/name/a", "long/name/b"],
        shape_and_slices=["5 4 0,3:-", "5 4 3,2:-", "", "", "", "", ""],
        tensors=[
            rows,
            rows[:2] + 100,
            tf.constant(["x", "", "long" * 40]),
            tf.constant([1, 2, 3], tf.bfloat16),
            tf.zeros((0, 3)),
            tf.constant(5, tf.int64),
            tf.constant(1 + 2j, tf.complex128),
        ],
    )
    return folder / "tensorflow"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("sound")
    made = [make(folder) for make in (saved, handmade, by_tensorflow)]
    return [sample(prefix) for prefix in made if prefix is not None]


# --- damage --------------------------------------------------------------------------------------


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Draw something that can happen to bytes; places are fractions of their length."""
    kind = draw(st.sampled_from(["flip", "set", "insert", "delete", "truncate", "splice"]))
    where, other = draw(st.tuples(st.floats(0, 1), st.floats(0, 1)))
    bits, count, new = (
        draw(st.integers(1, 255)),
        draw(st.integers(1, 12)),
        draw(st.binary(max_size=6)),
    )

    def damage(data: bytes) -> bytes:
        at, source = int(where * max(len(data) - 1, 0)), int(other * len(data))
        if kind == "flip":
            return data[:at] + bytes(byte ^ bits for byte in data[at : at + 1]) + data[at + 1 :]
        if kind == "set":
            return data[:at] + new + data[at + len(new) :]
        if kind == "insert":
            return data[:at] + new + data[at:]
        if kind == "delete":
            return data[:at] + data[at + count :]
        if kind == "truncate":
            return data[:at]
        part = data[source : source + count]
        return data[:at] + part + data[at + len(part) :]

    return damage


DAMAGES = st.lists(damages(), min_size=1, max_size=3)


def apply(damage: list[Callable[[bytes], bytes]], data: bytes) -> bytes:
    for one in damage:
        data = one(data)
    return data


def resealed(index: bytes) -> bytes:
    """Return an index with right block checksums, as far as blocks can be found."""
    out = bytearray(index)

    def seal(handle: bytes) -> bytes:
        offset, at = take_varint(handle, 0)
        size, _ = take_varint(handle, at)
        end = offset + size + 1
        if end + 4 <= len(out):
            out[end : end + 4] = struct.pack("<I", mask(crc32c(bytes(out[offset:end]))))
        return bytes(out[offset : end - 1])

    try:
        footer = index[-table.FOOTER :]
        for _ in range(2):
            _, at = take_varint(footer, 0)
            footer = footer[at:]
        for _, handle in table.block_entries(seal(footer)):
            seal(handle)
    except (MalformedError, struct.error, IndexError):
        pass
    return bytes(out)


def with_damaged_record(
    index: bytes, which: float, damage: list[Callable[[bytes], bytes]]
) -> bytes:
    """Return a sound table in which one key or value is damaged."""
    records = table.decode(index)
    at, part = divmod(int(which * (2 * len(records) - 1)), 2)
    key, value = records[at]
    records[at] = (key, apply(damage, value)) if part else (apply(damage, key), value)
    return table.encode(sorted(records))


# --- what must hold ------------------------------------------------------------------------------


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for suffix, content in files.items():
        (folder / f"damaged{suffix}").write_bytes(content)
    return folder / "damaged"


def attempt(look: Callable[[], object]) -> object:
    """Return what a look at a tensor gives, be it our error; any other fails the test."""
    try:
        return look()
    except CkptError as error:
        return error


def survey(prefix: Path) -> dict[str, object]:
    """Read everything in every way; return what there is to read by name, values or errors."""
    found: dict[str, object] = {}
    with ckptkit.open(prefix) as checkpoint:
        assert len([*checkpoint.specs()]) == len(checkpoint)
        for name in checkpoint:
            tensor = checkpoint[name]
            assert name in repr(tensor) or repr(name) in repr(tensor)
            attempt(lambda tensor=tensor: tensor[...])
            attempt(lambda tensor=tensor: [*tensor.blocks()])
            found[name] = attempt(lambda tensor=tensor: as_bytes(tensor.read()))
    return found


def judge(prefix: Path, expected: dict[str, object] | None) -> None:
    """Require that a damaged checkpoint is refused, reported, or equal to what it was."""
    verdict = verify_path(prefix)
    values = attempt(lambda: survey(prefix))
    if isinstance(values, CkptError):
        assert not verdict.ok
        assert values.path is not None
        return
    errors = {name: error for name, error in values.items() if isinstance(error, CkptError)}
    assert all(error.tensor == name for name, error in errors.items())
    corrupt = {name for name, error in errors.items() if isinstance(error, CorruptError)}
    wrong = [problem for problem in verdict.problems if problem.severity == "error"]
    # That a shard is another save's is about no tensor.
    reported = {problem.tensor for problem in wrong if problem.tensor is not None}
    unread = {name for name, error in errors.items() if isinstance(error, UnsupportedError)}
    assert corrupt <= reported <= corrupt | unread
    assert verdict.ok == (not wrong)
    assert bool(wrong) == bool(reported)
    if expected is not None and verdict.ok:
        assert values == expected


@settings(max_examples=200)
@given(st.integers(0, 2), st.floats(0, 1), DAMAGES)
def test_damaged_files(
    samples: list[Sample], fresh: Callable[[], Path], number: int, file: float, damage: list
) -> None:
    files, values = samples[number % len(samples)]
    suffix = sorted(files)[int(file * (len(files) - 1))]
    damaged = {**files, suffix: apply(damage, files[suffix])}
    judge(write(fresh(), damaged), values)


@settings(max_examples=200)
@given(st.integers(0, 2), DAMAGES)
def test_damaged_indexes_with_right_checksums(
    samples: list[Sample], fresh: Callable[[], Path], number: int, damage: list
) -> None:
    files, _ = samples[number % len(samples)]
    judge(write(fresh(), {**files, INDEX: resealed(apply(damage, files[INDEX]))}), None)


@settings(max_examples=300)
@given(st.integers(0, 2), st.floats(0, 1), DAMAGES)
def test_damaged_records_in_sound_tables(
    samples: list[Sample], fresh: Callable[[], Path], number: int, which: float, damage: list
) -> None:
    files, _ = samples[number % len(samples)]
    index = with_damaged_record(files[INDEX], which, damage)
    judge(write(fresh(), {**files, INDEX: index}), None)


@settings(max_examples=150)
@given(st.integers(0, 2), st.floats(0, 1), st.floats(0, 1), st.integers(0, 7))
def test_every_flipped_bit_is_reported_with_its_tensor(
    samples: list[Sample],
    fresh: Callable[[], Path],
    number: int,
    which: float,
    where: float,
    bit: int,
) -> None:
    files, _ = samples[number % len(samples)]
    prefix = write(fresh(), files)
    with ckptkit.open(prefix) as checkpoint:
        pieces = [
            (name, piece.extent)
            for name in checkpoint
            for piece in checkpoint[name].tensor.source.pieces
            if piece.extent.length
        ]
    name, extent = pieces[int(which * (len(pieces) - 1))]
    offset = extent.offset + int(where * (extent.length - 1))
    with open(extent.path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))
    verdict = verify_path(prefix)
    assert not verdict.ok
    # Of a bool that is neither there is a warning besides.
    (problem,) = (one for one in verdict.problems if one.severity == "error")
    assert (problem.path, problem.tensor, problem.severity) == (extent.path, name, "error")
    assert problem.offset is not None
    assert extent.offset <= problem.offset < extent.offset + extent.length
    with pytest.raises(CorruptError):
        ckptkit.open(prefix)[name].read()
