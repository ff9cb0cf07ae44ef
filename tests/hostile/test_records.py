"""Index records that do not decode, or contradict themselves or the shards."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import ckptkit
from ckptkit import CorruptError, UnsupportedError
from ckptkit.engine.check import verify_path
from tests.hostile.forge import (
    PAYLOAD,
    RESOURCE,
    SOUND,
    STRING,
    VARIANT,
    found,
    header,
    record,
    refused,
    simple,
    warned,
    write,
)
from tests.oracle.varint import put_bytes, put_number

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "value",
    [b"\xff", b"\x08", b"\x0b", b"\x12\x7f", b"\x35\x00", b"\x08" + b"\xff" * 11, b"\x00\x00"],
    ids=["cut tag", "cut varint", "group", "cut message", "cut fixed32", "long varint", "field 0"],
)
def test_record_does_not_decode(tmp_path: Path, value: bytes) -> None:
    refused(simple(tmp_path, value), CorruptError, "does not decode", tensor="w")


def test_dimension_negative(tmp_path: Path) -> None:
    refused(simple(tmp_path, record(dims=[2, -3])), CorruptError, "dimension is -3", tensor="w")


@pytest.mark.parametrize("dims", [[1 << 32, 1 << 31], [1 << 40, 1 << 40, 0]], ids=["all", "zero"])
def test_dimensions_overflow(tmp_path: Path, dims: list[int]) -> None:
    refused(simple(tmp_path, record(dims=dims)), CorruptError, "2^63 elements", tensor="w")


def test_rank_above_the_limit(tmp_path: Path) -> None:
    refused(
        simple(tmp_path, record(dims=[1] * 255)),
        CorruptError,
        "more than 254 dimensions",
        tensor="w",
    )


def test_rank_at_the_limit(tmp_path: Path) -> None:
    path = simple(tmp_path, record(PAYLOAD[:4], [1] * 254), PAYLOAD[:4])
    assert ckptkit.open(path)["w"].shape == (1,) * 254
    assert verify_path(path).problems == ()


def test_rank_unknown(tmp_path: Path) -> None:
    shape = put_bytes(2, put_bytes(2, put_number(1, 6)) + put_number(3, 1))
    value = put_number(1, 1) + shape + put_number(5, 24)
    refused(simple(tmp_path, value), CorruptError, "unknown rank", tensor="w")


@pytest.mark.parametrize("dtype", [0, 34, 99, 101, 1 << 30], ids=["0", "34", "99", "ref", "huge"])
def test_dtype_unknown_is_not_read(tmp_path: Path, dtype: int) -> None:
    path = simple(tmp_path, record(dtype=dtype))
    with pytest.raises(UnsupportedError, match="cannot be read") as caught:
        ckptkit.open(path)["w"].read()
    assert caught.value.tensor == "w"
    with pytest.raises(UnsupportedError):
        ckptkit.open(path)["w"][0]
    with pytest.raises(UnsupportedError):
        next(ckptkit.open(path)["w"].blocks())
    (problem,) = verify_path(path).problems
    assert (problem.tensor, problem.severity) == ("w", "error")
    assert problem.message.startswith(f"dtype {dtype} is ")
    assert problem.message.endswith("; TensorFlow aborts on this")


@pytest.mark.parametrize("dtype", [0, 99, RESOURCE])
def test_dtype_unknown_is_carried_along(tmp_path: Path, dtype: int) -> None:
    path = simple(tmp_path, record(dtype=dtype))
    ckptkit.open(path).edit("rename w -> v").plan(tmp_path / "copy").run()
    copy = ckptkit.open(tmp_path / "copy")
    assert [*copy] == ["v"]
    assert (tmp_path / "copy.data-00000-of-00001").read_bytes() == PAYLOAD
    assert copy["v"].tensor.entry == ckptkit.open(path)["w"].tensor.entry


def test_resource_is_not_read(tmp_path: Path) -> None:
    path = simple(tmp_path, record(dtype=RESOURCE))
    with pytest.raises(UnsupportedError, match="resource cannot be read"):
        ckptkit.open(path)["w"].read()


def test_negative_dtype_is_not_read(tmp_path: Path) -> None:
    path = simple(tmp_path, put_number(1, -5) + record()[2:])
    with pytest.raises(UnsupportedError, match="cannot be read"):
        ckptkit.open(path)["w"].read()


@pytest.mark.parametrize("size", [0, 23, 25, 1 << 40])
def test_size_is_not_that_of_the_shape(tmp_path: Path, size: int) -> None:
    path = simple(tmp_path, record(size=size))
    refused(path, CorruptError, "takes 24 bytes", f"says {size}", tensor="w", file=".data-")


@pytest.mark.parametrize("dtype", [STRING, VARIANT])
def test_size_below_the_least_of_the_shape(tmp_path: Path, dtype: int) -> None:
    path = simple(tmp_path, record(dims=[100], dtype=dtype))
    refused(path, CorruptError, "takes at least", "says 24", tensor="w", file=".data-")


def test_huge_shape_and_small_size(tmp_path: Path) -> None:
    path = simple(tmp_path, record(dims=[1 << 50]))
    refused(path, CorruptError, f"takes {1 << 52} bytes", tensor="w", file=".data-")


def test_huge_shape_and_huge_size(tmp_path: Path) -> None:
    path = simple(tmp_path, record(dims=[1 << 50], size=1 << 52))
    refused(path, CorruptError, "beyond the end", "24 bytes", tensor="w", file=".data-")


@pytest.mark.parametrize("field", ["offset", "size", "shard"])
def test_negative_place(tmp_path: Path, field: str) -> None:
    path = simple(tmp_path, record(**{field: -4}))
    refused(path, CorruptError, f"{field} is -4", tensor="w")


@pytest.mark.parametrize("offset", [1, 24, 1 << 40, (1 << 63) - 1])
def test_offset_beyond_the_shard(tmp_path: Path, offset: int) -> None:
    path = simple(tmp_path, record(offset=offset))
    error = refused(path, CorruptError, "beyond the end", tensor="w", file=".data-00000-of-00001")
    assert error.offset == offset


def test_shard_cut_short(tmp_path: Path) -> None:
    path = simple(tmp_path, record(), PAYLOAD[:-1])
    parts = ("bytes 0 to 24", "which has 23 bytes")
    refused(path, CorruptError, *parts, tensor="w", file=".data-")


def test_shard_missing(tmp_path: Path) -> None:
    path = write(tmp_path, SOUND)
    refused(path, CorruptError, "shard 0 of 1 is missing", "'w'", file=".data-00000-of-00001")


def test_shard_is_a_folder(tmp_path: Path) -> None:
    path = write(tmp_path, SOUND)
    (tmp_path / "model.data-00000-of-00001").mkdir()
    refused(path, CorruptError, "not a file", file=".data-00000-of-00001")


def test_shard_is_a_pipe(tmp_path: Path) -> None:
    path = write(tmp_path, [header(), (b"w", record(b"", [0]))])
    os.mkfifo(tmp_path / "model.data-00000-of-00001")
    refused(path, CorruptError, "not a file", file=".data-00000-of-00001")


def test_shard_cut_short_after_opening(tmp_path: Path) -> None:
    path = simple(tmp_path, record())
    checkpoint = ckptkit.open(path)
    os.truncate(tmp_path / "model.data-00000-of-00001", 10)
    with pytest.raises(ckptkit.ConflictError, match="file ends"):
        checkpoint["w"].read()
    (problem,) = checkpoint.verify().problems
    assert problem.tensor == "w"
    assert "beyond the end" in problem.message


def test_trailing_garbage_is_a_warning(tmp_path: Path) -> None:
    warned(simple(tmp_path, record(), PAYLOAD + b"tail"), "4 bytes belong to no tensor", ".data-")


def test_overlapping_tensors_are_a_warning(tmp_path: Path) -> None:
    data = PAYLOAD + b"\0" * 4
    second = record(data[4:], offset=4)
    path = write(tmp_path, [*SOUND, (b"x", second)], data)
    warned(path, "belong to more than one tensor", "bytes 4 to 24", ".data-")
    assert ckptkit.open(path)["x"].read()[0, 0] == 1


def test_checksum_differs(tmp_path: Path) -> None:
    path = simple(tmp_path, record(crc=0x12345678))
    parts = ("bytes 0 to 24", "expected 12345678, found ")
    problem = found(path, CorruptError, *parts, offset=0)
    assert all(part in problem.message for part in parts)


def test_checksum_absent(tmp_path: Path) -> None:
    value = record()[:-5]
    assert record()[-5] == 6 << 3 | 5
    found(simple(tmp_path, value), CorruptError, "checksum of bytes 0 to 24", offset=0)


def test_checksum_can_be_skipped(tmp_path: Path) -> None:
    path = simple(tmp_path, record(crc=1))
    assert ckptkit.open(path)["w"].read(verify=False)[1, 2] == 5


def test_empty_tensor_with_a_wrong_checksum(tmp_path: Path) -> None:
    found(simple(tmp_path, record(b"", [0, 3], crc=1)), CorruptError, "expected 00000001", offset=0)


def test_several_damaged_tensors_are_all_named(tmp_path: Path) -> None:
    records = [(b"%02d" % n, record(offset=24 * n)) for n in range(20)]
    data = bytearray(PAYLOAD * 20)
    data[24 * 3] ^= 1
    data[24 * 7 + 23] ^= 0x80
    path = write(tmp_path, [header(), *records], bytes(data))
    verdict = verify_path(path)
    assert [problem.tensor for problem in verdict.problems] == ["03", "07"]
    assert [problem.offset for problem in verdict.problems] == [72, 168]
    assert verdict.checked_bytes == 480


@pytest.mark.parametrize("dims", [[1 << 61, 0], [0, 1 << 62]])
def test_empty_shape_too_large_for_an_array(tmp_path: Path, dims: list[int]) -> None:
    tensor = ckptkit.open(simple(tmp_path, record(b"", dims)))["w"]
    for read in (tensor.read, lambda: tensor[...], lambda: next(tensor.blocks())):
        with pytest.raises(UnsupportedError, match="too large for an array") as caught:
            read()
        assert caught.value.tensor == "w"


def test_more_axes_than_an_array_has(tmp_path: Path) -> None:
    path = simple(tmp_path, record(PAYLOAD[:4], [1] * 100), PAYLOAD[:4])
    tensor = ckptkit.open(path)["w"]
    for read in (tensor.read, lambda: tensor[...], lambda: next(tensor.blocks())):
        with pytest.raises(
            UnsupportedError, match="at most 63 axes, this tensor has 100"
        ) as caught:
            read()
        assert caught.value.tensor == "w"
    assert verify_path(path).problems == ()
