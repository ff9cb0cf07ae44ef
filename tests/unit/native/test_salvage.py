"""Damaged tables and records, natively, against the plain-Python twins."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import _native
from tests.oracle import salvage, table
from tests.oracle.snappy import compress_literal
from tests.unit.native.test_tables import GOLDEN, LIMIT, encode, pack, unpack

Region = tuple[int, int, str, str]


def read(
    index: bytes, limit: int = LIMIT
) -> tuple[list[table.Entry], list[str], list[Region], bool]:
    """Return the entries, the state of the region of each, the regions, and whether that is all."""
    keys, key_ends, values, value_ends, numbers, regions, whole = _native.table_salvage(
        index, limit
    )
    entries = list(zip(unpack(keys, key_ends), unpack(values, value_ends), strict=True))
    states = [regions[number][2] for number in np.frombuffer(numbers, np.int64).tolist()]
    return entries, states, regions, whole


def trusted(index: bytes) -> list[table.Entry]:
    entries, states, _, _ = read(index)
    return [one for one, state in zip(entries, states, strict=True) if state == "good"]


def blocks(*bodies: list[table.Entry], kind: int = 0) -> bytes:
    """Return a table with these data blocks."""
    out, listed = b"", []
    for body in bodies:
        stored = table.encode_block(body, 16)
        stored = compress_literal(stored) if kind else stored
        listed.append((body[-1][0], table_handle(len(out), len(stored))))
        out += table.seal(stored, kind)
    handles = b""
    for body in (table.encode_block([], 16), table.encode_block(listed, 1)):
        handles += table_handle(len(out), len(body))
        out += table.seal(body)
    return out + handles.ljust(40, b"\0") + struct.pack("<Q", table.MAGIC)


def table_handle(offset: int, size: int) -> bytes:
    from tests.oracle.varint import put_varint

    return put_varint(offset) + put_varint(size)


THREE = (
    [(b"", b"\x08\x01\x1a\x02\x08\x01"), (b"a", b"first value")],
    [(b"b", b"second value"), (b"bb", b"third value")],
    [(b"c", b"fourth value")],
)
ALL = [entry for body in THREE for entry in body]


@pytest.mark.parametrize("kind", [0, 1])
def test_sound_tables(kind: int) -> None:
    entries, states, regions, whole = read(blocks(*THREE, kind=kind))
    assert entries == ALL
    assert set(states) == {"good"}
    assert whole
    assert [region[3] for region in regions] == [""] * len(regions)
    assert read(GOLDEN)[0] == table.decode(GOLDEN)


@pytest.mark.parametrize("kind", [0, 1])
def test_blocks_are_found_without_the_index_block(kind: int) -> None:
    index = blocks(*THREE, kind=kind)[:-48]
    entries, states, _, whole = read(index)
    assert entries == ALL
    assert set(states) == {"good"}
    assert whole


@given(st.data())
def test_one_byte_anywhere_is_put_right_or_in_no_block(data: st.DataObject) -> None:
    index = bytearray(blocks(*THREE))
    at = data.draw(st.integers(0, len(index) - 1))
    index[at] ^= data.draw(st.integers(1, 255))
    entries, states, _, _ = read(bytes(index))
    assert entries == ALL
    assert states.count("doubtful") == 0


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=2, max_size=12),
    st.booleans(),
)
def test_damage_is_read_around_as_the_twin_does(damage: list[tuple[int, int]], cut: bool) -> None:
    index = bytearray(blocks(*THREE))
    for at, byte in damage:
        index[at % len(index)] = byte
    content = bytes(index[: damage[0][0] % len(index)] if cut else index)
    found, wanted = trusted(content), salvage.trusted(content)
    # The index block tells of blocks that trying takes for part of what is damaged, or not at all.
    assert set(wanted) <= set(found)
    assert set(found) <= set(ALL)


@given(st.binary(max_size=300))
def test_garbage_is_never_trusted(content: bytes) -> None:
    entries, states, regions, _ = read(content)
    assert len(entries) == len(states)
    assert all(0 <= start <= end <= len(content) for start, end, _, _ in regions)
    assert trusted(content) == salvage.trusted(content)


def test_what_passes_the_limit_is_left_out() -> None:
    index = encode([(b"%04d" % n, b"v" * 50) for n in range(2000)])
    entries, _, _, _ = read(index, 5000)
    assert 0 < len(entries) <= 5000 // 54


def test_handles_that_name_the_same_block_many_times() -> None:
    body = table.encode_block([(b"a", b"value")], 16)
    out = table.seal(body)
    listed = [(b"%06d" % n, table_handle(0, len(body))) for n in range(5000)]
    listing = table.encode_block(listed, 1)
    handles = table_handle(0, 0) + table_handle(len(out), len(listing))
    out += table.seal(listing) + handles.ljust(40, b"\0") + struct.pack("<Q", table.MAGIC)
    assert read(out)[0] == [(b"a", b"value")]


def test_values_that_look_like_handles_are_many() -> None:
    # Each is looked up among the blocks; comparing all of them with all blocks would take hours.
    count = 200_000
    small = table.seal(table.encode_block([(b"k", b"v")], 16))
    entry = struct.pack("<BBB", 0, 7, 2)
    body = b"".join(entry + b"%07d" % number + table_handle(1, 0) for number in range(count))
    covered = body + struct.pack("<IIB", 0, 1, 0)
    checksum = struct.pack("<I", _native.crc32c_mask(_native.crc32c(covered)))
    entries, _, regions, _ = read(small * count + covered + checksum)
    assert len(regions) >= count
    assert entries[0] == (b"k", b"v")


def test_what_looks_like_the_end_of_a_block_everywhere() -> None:
    # Nine zero bytes and a one are the end of a block with one restart; work stays in proportion.
    content = struct.pack("<IIB", 0, 1, 0) * 200_000
    entries, _, regions, _ = read(content)
    assert all(state in {"doubtful", "lost", "directory"} for _, _, state, _ in regions)
    del entries


def test_malformed_records_are_told_and_the_others_decoded() -> None:
    sound = bytes.fromhex("0801120812020802120208032008281835e1f28a2a")
    values, ends = pack([sound, b"\xff\xff", b"", sound, b"\x12\x03\x12\x01\x08"])
    columns, wrong = _native.entries_salvage(values, ends)
    assert [row for row, _ in wrong] == [1, 4]
    assert list(columns[7]) == [2, 8, 0, 2, 8]
    assert np.frombuffer(columns[1], np.int64).tolist() == [2, 2, 2, 4, 4]
    first = _native.entries_decode(*pack([sound]), 0)
    assert columns[2] == first[2] * 2
    with pytest.raises(ValueError, match="rows end"):
        _native.entries_salvage(values[:-1], ends)


def test_all_findings() -> None:
    columns = (
        struct.pack("=3i", 1, 1, 1),
        struct.pack("=3q", 1, 2, 3),
        struct.pack("=3q", 2, 3, 4),
        struct.pack("=3i", 0, 0, 0),
        struct.pack("=3q", 0, 0, 90),
        struct.pack("=3q", 8, 8, 16),
        bytes(3),
    )
    found = _native.entries_check(*columns, (0, 4), ((0, 100),), 3)
    assert [row for row, _ in found] == [1, 2]
    assert _native.entries_check(*columns, (0, 4), ((0, 100),), 1) == found[:1]
