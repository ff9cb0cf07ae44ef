"""Header and entry records, slice keys."""

import struct
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import _native
from tests.oracle import MalformedError, ordered
from tests.oracle import entry as oracle
from tests.oracle.varint import put_bytes, put_number

U32 = st.integers(0, 2**32 - 1)
I63 = st.integers(0, 2**63 - 1)
I31 = st.integers(0, 2**31 - 1)

extents = st.just((0, -1)) | st.tuples(st.integers(0, 2**40), st.integers(1, 2**40))
entries = st.builds(
    oracle.Entry,
    dtype=st.integers(-(2**31), 2**31 - 1),
    dims=st.lists(st.integers(0, 300), max_size=5),
    shard=I31,
    offset=I63,
    size=I63,
    crc=U32,
    slices=st.lists(st.lists(extents, max_size=3), max_size=2),
)
fields = st.builds(put_number, st.integers(1, 9), st.integers(0, 5)) | st.builds(
    put_bytes,
    st.sampled_from([2, 7, 8, 2000]),
    st.sampled_from([b"", b"\x12\x02\x08\x03", b"\xff"]),
)
crcs = st.builds(lambda crc: b"\x35" + struct.pack("<I", crc), st.integers(0, 3))
odd_records = st.lists(fields | crcs, max_size=8).map(b"".join)
places = st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(-1, 5), st.integers(0, 3))


def pack(rows: list[bytes]) -> tuple[bytes, bytes]:
    """Return rows as a column."""
    return b"".join(rows), struct.pack(f"={len(rows)}q", *accumulate(map(len, rows)))


def decode(records: list[bytes], first: int = 0) -> list[oracle.Entry]:
    """Decode records natively; the entries have no slices, but flags."""
    packed = _native.entries_decode(*pack(records), first)
    kinds = (np.int32, np.int64, np.int64, np.int32, np.int64, np.int64, np.uint32, np.uint8)
    dtype, ends, dims, *rest = (
        np.frombuffer(column, kind).tolist() for column, kind in zip(packed, kinds, strict=True)
    )
    starts = [0, *ends]
    shapes = [dims[start:end] for start, end in zip(starts, ends, strict=False)]
    return [oracle.Entry(*row) for row in zip(dtype, shapes, *rest, strict=True)]


def splice(record: bytes, shard: int, offset: int, size: int, crc: int) -> bytes:
    """Encode one record natively."""
    numbers = struct.pack("=q", 0), struct.pack("=i", shard), struct.pack("=q", offset)
    column = _native.entries_encode(
        *pack([record]), *numbers, struct.pack("=q", size), struct.pack("=I", crc)
    )
    return column[0]


@given(st.lists(entries, max_size=5))
def test_canonical_records_are_decoded(expected: list[oracle.Entry]) -> None:
    records = [oracle.encode(entry) for entry in expected]
    for entry in expected:
        entry.flags = (oracle.HAS_CRC if entry.crc else 0) | bool(entry.slices)

    found = decode(records)

    for native, entry, record in zip(found, expected, records, strict=True):
        assert oracle.decode(record) == entry
        assert _native.entry_slices(record) == entry.slices
        native.slices = entry.slices
        assert native == entry


@given(odd_records | st.binary(max_size=40))
def test_odd_records_agree_with_twin(record: bytes) -> None:
    try:
        (found,) = decode([record])
    except _native.DecodeError as error:
        assert 0 <= error.offset <= len(record)
        with pytest.raises(MalformedError):
            oracle.decode(record)
    else:
        found.slices = _native.entry_slices(record)
        assert found == oracle.decode(record)


@given(entries, st.data())
def test_mutated_records_agree_with_twin(entry: oracle.Entry, data: st.DataObject) -> None:
    record = bytearray(oracle.encode(entry))
    record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    test_odd_records_agree_with_twin.hypothesis.inner_test(bytes(record))  # type: ignore[attr-defined]


def test_error_offset_is_in_the_joined_buffer() -> None:
    good = oracle.encode(oracle.Entry(dtype=1, dims=[2]))

    with pytest.raises(_native.DecodeError, match="unknown rank") as caught:
        decode([good, b"\x12\x02\x18\x01"])

    assert caught.value.offset == len(good) + 2
    assert len(decode([good, b"\xff", good][:1])) == 1
    assert decode([b"\xff", good], first=1)[0].dims == [2]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"\x08", "within a varint"),
        (b"\x0b", "wire type 3"),
        (b"\x0a\x00", "field 1 holds a length and bytes instead of a varint"),
        (put_number(1, 1 << 31), "more than 32 bits"),
        (put_number(3, -1), "shard is -1"),
        (put_number(4, -1), "offset is -1"),
        (put_number(5, -1), "size is -1"),
        (put_bytes(2, put_bytes(2, put_number(1, -1))), "dimension is -1"),
        (put_bytes(2, put_number(3, 1)), "unknown rank"),
        (put_bytes(2, put_bytes(2, b"") * 255), "more than 254 dimensions"),
        (put_bytes(2, put_bytes(2, put_number(1, 1 << 40)) * 2 + put_bytes(2, b"")), r"2\^63"),
        (put_bytes(7, put_bytes(1, put_number(1, 3))), "no length"),
        (b"\x12\x7f", "needs 127 bytes"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "does not fit 64 bits"),
    ],
)
def test_malformed_records_are_refused(record: bytes, message: str) -> None:
    with pytest.raises(_native.DecodeError, match=message):
        decode([record])


@given(odd_records, places)
def test_splice_agrees_with_twin(record: bytes, place: tuple[int, int, int, int]) -> None:
    try:
        expected = oracle.splice(record, *place)
    except MalformedError:
        return
    spliced = splice(record, *place)

    assert spliced == expected
    if place[2] != -1:
        found = oracle.decode(spliced)
        assert (found.shard, found.offset, found.size, found.crc) == place


@given(entries, I31, I63, I63, U32)
def test_canonical_in_canonical_out(
    entry: oracle.Entry, shard: int, offset: int, size: int, crc: int
) -> None:
    record = oracle.encode(entry)
    entry.shard, entry.offset, entry.size, entry.crc = shard, offset, size, crc

    assert splice(record, shard, offset, size, crc) == oracle.encode(entry)


@given(odd_records, st.integers(0, 3), st.lists(st.integers(0, 3), max_size=2))
def test_respec_agrees_with_twin(record: bytes, dtype: int, dims: list[int]) -> None:
    try:
        expected = oracle.respec(record, dtype, dims)
    except MalformedError:
        return
    found = _native.entry_respec(record, dtype, dims)

    assert found == expected
    decoded = oracle.decode(found)
    assert (decoded.dtype, decoded.dims) == (dtype, dims)


@given(st.integers(0, 100), st.lists(st.integers(0, 300), max_size=5), st.data())
def test_templates_are_canonical(dtype: int, dims: list[int], data: st.DataObject) -> None:
    slices = data.draw(st.lists(st.lists(extents, max_size=3), max_size=3))

    assert _native.entry_encode(dtype, dims) == oracle.encode(oracle.Entry(dtype, dims))
    sliced = oracle.encode(oracle.Entry(dtype, dims, slices=slices))
    assert _native.entry_slices_encode(dtype, dims, slices) == sliced


def test_impossible_arguments_are_refused() -> None:
    record = oracle.encode(oracle.Entry(dtype=1))
    for call in (
        lambda: splice(record, -1, 0, 0, 0),
        lambda: splice(record, 0, -1, 0, 0),
        lambda: splice(record, 0, 0, -2, 0),
        lambda: _native.entry_encode(1, [-1]),
        lambda: _native.entry_encode(1, [1] * 255),
        lambda: _native.entry_encode(1, [1 << 40, 1 << 40, 0]),
        lambda: _native.entry_slices_encode(1, [4], [[(1, -1)]]),
        lambda: _native.slice_key(b"a", [(-1, 2)]),
        lambda: decode([record], first=2),
    ):
        with pytest.raises(ValueError, match=r"."):
            call()


def test_columns_must_agree() -> None:
    one, two = np.zeros(1, np.int64), np.zeros(2, np.int64)
    shard, crc = np.zeros(1, np.int32), np.zeros(1, np.uint32)

    with pytest.raises(ValueError, match="differ in length"):
        _native.entries_encode(b"", one, one, shard, two, one, crc)
    with pytest.raises(ValueError, match="template 1 of 1"):
        _native.entries_encode(b"", one, one + 1, shard, one, one, crc)


@given(st.integers(0, 2**31 - 1))
def test_header_is_canonical(shards: int) -> None:
    value = _native.header_encode(shards)

    assert value == (put_number(1, shards) if shards else b"") + b"\x1a\x02\x08\x01"
    assert _native.header_decode(value) == (shards, 0, 1, 0, [])


@given(st.lists(fields | st.just(b"\x1a\x04\x1a\x02\x01\x02"), max_size=6).map(b"".join), I31)
def test_header_agrees_with_twin(value: bytes, shards: int) -> None:
    try:
        expected = oracle.header_decode(value)
    except MalformedError:
        with pytest.raises(_native.DecodeError):
            _native.header_decode(value)
        return
    assert _native.header_decode(value) == expected
    assert _native.header_splice(value, expected[0]) == value
    spliced = _native.header_splice(value, shards)
    assert _native.header_decode(spliced) == (shards, *expected[1:])


@given(st.binary(max_size=30), st.lists(extents, max_size=4))
def test_slice_keys_equal_twin(name: bytes, slices: list[tuple[int, int]]) -> None:
    key = _native.slice_key(name, slices)

    assert key == ordered.slice_key(name, slices)
    assert _native.slice_key_decode(key) == (name, slices)


@given(st.binary(max_size=30) | st.binary(max_size=10).map(lambda tail: b"\0a\0\1\1\1" + tail))
def test_only_slice_keys_are_decoded(key: bytes) -> None:
    try:
        name, slices = _native.slice_key_decode(key)
    except _native.DecodeError as error:
        assert 0 <= error.offset <= len(key)
    else:
        assert ordered.slice_key(name, slices) == key


def test_golden_slice_key() -> None:
    assert _native.slice_key(b"foo", [(0, -1), (1, 9)]).hex() == "00666f6f00010102807f8189"
