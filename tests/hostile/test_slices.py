"""Partitioned tensors whose slices do not make up the tensor."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptkit
from ckptkit import CorruptError
from ckptkit.engine.check import verify_path
from tests.hostile.forge import FLOAT, PAYLOAD, Record, found, header, record, refused, write
from tests.oracle.ordered import slice_key
from tests.oracle.varint import put_bytes, put_number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Extents = list[tuple[int, int]]

ROWS: list[Extents] = [[(0, 1), (0, -1)], [(1, 1), (0, -1)]]
"""A tensor of shape [2, 3], cut into its rows."""

UINT8 = 4


def whole(slices: Sequence[Extents], dims: Sequence[int] = (2, 3), dtype: int = FLOAT) -> Record:
    return b"w", record(b"", dims, dtype, crc=0, slices=slices)


def part(extents: Extents, value: bytes) -> Record:
    return slice_key(b"w", extents), value


def row(number: int, **fields: object) -> Record:
    payload = PAYLOAD[12 * number : 12 * number + 12]
    return part(ROWS[number], record(payload, [1, 3], offset=12 * number, **fields))


def bundle(folder: Path, *records: Record, data: bytes = PAYLOAD) -> str:
    return write(folder, sorted([header(), *records]), data)


def test_the_forge_makes_sound_slices(tmp_path: Path) -> None:
    path = bundle(tmp_path, whole(ROWS), row(0), row(1))
    assert [*ckptkit.open(path)] == ["w"]
    assert ckptkit.open(path)["w"].read().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert verify_path(path).problems == ()


def test_slice_missing(tmp_path: Path) -> None:
    path = bundle(tmp_path, whole(ROWS), row(0))
    refused(path, CorruptError, "slice [1:2, 0:3] is missing", tensor="w")


def test_slices_do_not_cover(tmp_path: Path) -> None:
    path = bundle(tmp_path, whole(ROWS[:1]), row(0))
    refused(path, CorruptError, "3 of 6 elements", tensor="w")


def test_slice_of_another_rank(tmp_path: Path) -> None:
    extents = [(0, 1)]
    path = bundle(tmp_path, whole([extents]), part(extents, record(PAYLOAD[:4], [1])))
    refused(path, CorruptError, "slice has 1 axes, the tensor has 2", tensor="w")


def test_slice_out_of_bounds(tmp_path: Path) -> None:
    extents = [(1, 2), (0, -1)]
    path = bundle(tmp_path, whole([extents]), part(extents, record()))
    refused(path, CorruptError, "slice [1:3, 0:3] is outside the shape [2, 3]", tensor="w")


def test_slice_at_the_end_of_64_bits(tmp_path: Path) -> None:
    extents = [((1 << 63) - 1, 1), (0, -1)]
    path = bundle(tmp_path, whole([extents]))
    refused(path, CorruptError, "slice", tensor="w")


@pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, 0), (0, -2)])
def test_slice_negative(tmp_path: Path, start: int, length: int) -> None:
    extent = put_number(1, start) + put_number(2, length)
    slices = put_bytes(7, put_bytes(1, extent) + put_bytes(1, b""))
    value = record(b"", crc=0) + slices
    refused(bundle(tmp_path, (b"w", value)), CorruptError, "extent", str(start), tensor="w")


def test_slice_with_a_start_but_no_length(tmp_path: Path) -> None:
    value = record(b"", crc=0) + put_bytes(7, put_bytes(1, put_number(1, 1)) + put_bytes(1, b""))
    refused(bundle(tmp_path, (b"w", value)), CorruptError, "no length", tensor="w")


def test_slices_overlap(tmp_path: Path) -> None:
    slices: list[Extents] = [[(0, 1), (0, -1)], [(0, 2), (0, 1)], [(1, 1), (1, 2)]]
    records = [
        row(0),
        part(slices[1], record(PAYLOAD[:8], [2, 1])),
        part(slices[2], record(PAYLOAD[:8], [1, 2])),
    ]
    refused(bundle(tmp_path, whole(slices), *records), CorruptError, "overlap", tensor="w")


def test_slice_listed_twice(tmp_path: Path) -> None:
    path = bundle(tmp_path, whole([ROWS[0], ROWS[0]]), row(0))
    refused(path, CorruptError, "overlap", tensor="w")


def test_slice_of_another_dtype(tmp_path: Path) -> None:
    path = bundle(tmp_path, whole(ROWS), row(0), row(1, dtype=3))
    refused(path, CorruptError, "slice [1:2, 0:3] is int32, the tensor is float32", tensor="w")


@pytest.mark.parametrize("dims", [[1, 2], [3], [1, 4]], ids=["smaller", "other rank", "larger"])
def test_slice_shape_is_not_its_extent(tmp_path: Path, dims: list[int]) -> None:
    payload = PAYLOAD[: 4 * int(np.prod(dims))]
    path = bundle(tmp_path, whole(ROWS), row(0), part(ROWS[1], record(payload, dims)))
    refused(path, CorruptError, f"stored with shape {dims}", tensor="w")


def test_slice_in_slices_itself(tmp_path: Path) -> None:
    nested = record(b"", [1, 3], crc=0, slices=[[(0, -1), (0, -1)]])
    path = bundle(tmp_path, whole(ROWS), row(0), part(ROWS[1], nested))
    refused(path, CorruptError, "in slices itself", tensor="w")


def test_tensor_whole_and_in_slices(tmp_path: Path) -> None:
    both = b"w", record(slices=ROWS)
    path = bundle(tmp_path, both, row(0), row(1))
    refused(path, CorruptError, "both whole and in slices", tensor="w")


def test_scalar_in_slices(tmp_path: Path) -> None:
    value = record(b"", [], crc=0) + put_bytes(7, b"") * 2
    key = slice_key(b"w", [])
    path = bundle(tmp_path, (b"w", value), (key, record(PAYLOAD[:4], [])), data=PAYLOAD[:4])
    refused(path, CorruptError, "overlap", tensor="w")


def test_too_many_slices(tmp_path: Path) -> None:
    value = record(b"", crc=0) + put_bytes(7, put_bytes(1, b"") * 2) * 70_000
    refused(bundle(tmp_path, (b"w", value)), CorruptError, "70000 slices", tensor="w")


def test_slice_damaged(tmp_path: Path) -> None:
    data = bytearray(PAYLOAD)
    data[13] ^= 4
    path = bundle(tmp_path, whole(ROWS), row(0), row(1), data=bytes(data))
    problem = found(path, CorruptError, "checksum of bytes 12 to 24", offset=12)
    assert problem.message.startswith("slice [1:2, 0:3]: checksum of bytes 12 to 24: expected ")


def test_slices_of_a_string_damaged(tmp_path: Path) -> None:
    from tests.oracle import strings

    parts = [strings.encode([b"a", b"b", b"c"]), strings.encode([b"d", b"e", b"f"])]
    data = parts[0][0] + parts[1][0]
    records = [
        part(extents, record(payload, [1, 3], 7, crc=crc, offset=len(payload) * n))
        for n, (extents, (payload, crc)) in enumerate(zip(ROWS, parts, strict=True))
    ]
    tensor = b"w", record(b"", dtype=7, crc=0, slices=ROWS)
    path = bundle(tmp_path, tensor, *records, data=data)
    assert ckptkit.open(path)["w"].read().tolist() == [[b"a", b"b", b"c"], [b"d", b"e", b"f"]]
    found(bundle(tmp_path, tensor, *records, data=data[:-1] + b"x"), CorruptError, offset=10)


def test_unlisted_slice_is_a_tensor_of_its_own(tmp_path: Path) -> None:
    path = bundle(tmp_path, *[(b"w", record()), row(0)])
    assert len(ckptkit.open(path)) == 2
    assert verify_path(path).ok


@st.composite
def tilings(draw: st.DrawFn) -> tuple[tuple[int, int], list[Extents]]:
    """Draw a shape of two axes, and slices that may or may not tile it."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    if draw(st.booleans()):
        spans = [
            st.integers(0, size - 1).flatmap(
                lambda start, size=size: st.tuples(st.just(start), st.integers(1, size - start))
            )
            for size in shape
        ]
        return shape, draw(st.lists(st.tuples(*spans).map(list), min_size=1, max_size=5))
    cuts = [sorted({0, n, draw(st.integers(0, n))}) for n in shape]
    edges = [[(a, b - a) for a, b in itertools.pairwise(axis)] for axis in cuts]
    return shape, draw(st.permutations([[a, b] for a in edges[0] for b in edges[1]]))


@given(tilings())
def test_slices_open_just_when_they_tile(
    fresh: Callable[[], Path], case: tuple[tuple[int, int], list[Extents]]
) -> None:
    shape, slices = case
    depth = np.zeros(shape, int)
    for extents in slices:
        depth[tuple(slice(start, start + length) for start, length in extents)] += 1
    parts = {
        slice_key(b"w", extents): record(
            b"", [n for _, n in extents], UINT8, size=extents[0][1] * extents[1][1]
        )
        for extents in slices
    }
    path = bundle(fresh(), whole(slices, shape, UINT8), *parts.items(), data=b"\0" * 16)
    if (depth == 1).all():
        assert ckptkit.open(path)["w"].shape == shape
    else:
        refused(path, CorruptError, "its slices", tensor="w")
