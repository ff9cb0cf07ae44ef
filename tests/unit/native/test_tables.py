"""Tables, names and Snappy blocks."""

import struct
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import _native
from tests.oracle import MalformedError, hashed, snappy
from tests.oracle import table as oracle
from tests.oracle.varint import put_varint

GOLDEN = bytes.fromhex(
    "00000608011a020801000115610809120812020801120208032008281835e1f28a2a00010f62080112041202"
    "0802280835593ce53500020f65330807120212002024280435f6c10c640105116d7074793008011206120012"
    "020803202435d8ea82a200060d7363616c6172080312002020280435d9c69c430000000001000000002ebc2d"
    "bf000000000100000000c0f2a1b00001037400800100000000010000000058fa401685010892010f00000000"
    "00000000000000000000000000000000000000000000000000000000000057fb808b247547db"
)
"""An index that TensorFlow wrote."""

LIMIT = 1 << 20

tables = st.dictionaries(st.binary(max_size=12), st.binary(max_size=40), max_size=60).map(
    lambda entries: sorted(entries.items())
)


def pack(rows: list[bytes]) -> tuple[bytes, bytes]:
    """Return rows as a column."""
    return b"".join(rows), struct.pack(f"={len(rows)}q", *accumulate(map(len, rows)))


def unpack(data: bytes, ends: bytes) -> list[bytes]:
    """Return the rows of a column."""
    stops = struct.unpack(f"={len(ends) // 8}q", ends)
    return [data[start:stop] for start, stop in zip((0, *stops), stops, strict=False)]


def encode(entries: list[oracle.Entry]) -> bytes:
    """Encode a table natively."""
    return _native.table_encode(*pack([key for key, _ in entries]), *pack([v for _, v in entries]))


def decode(table: bytes, limit: int = LIMIT) -> list[oracle.Entry]:
    """Decode a table natively."""
    keys, key_ends, values, value_ends = _native.table_decode(table, limit)
    return list(zip(unpack(keys, key_ends), unpack(values, value_ends), strict=True))


def test_golden_table_round_trips() -> None:
    entries = decode(GOLDEN)

    assert [key for key, _ in entries] == [b"", b"a", b"b", b"e3", b"empty0", b"scalar"]
    assert entries == oracle.decode(GOLDEN)
    assert encode(entries) == GOLDEN == oracle.encode(entries)
    assert _native.table_warnings(GOLDEN) == []
    assert _native.fingerprint64(GOLDEN) == 236576835171936222


@given(tables)
def test_round_trip_equals_twin(entries: list[oracle.Entry]) -> None:
    table = encode(entries)

    assert table == oracle.encode(entries)
    assert decode(table) == entries == oracle.decode(table)
    assert _native.table_warnings(table) == []


@pytest.mark.parametrize("difference", [-30, -3, -2, -1, 0, 1, 30])
def test_block_cuts_equal_twin_around_the_limits(difference: int) -> None:
    for size in (oracle.BLOCK_SIZE, 2 * oracle.BLOCK_SIZE):
        length = size + difference
        entries = [
            (b"a", b"1"),
            (b"b" * 9, b"x" * (length - 9)),
            (b"c", b"2"),
            (b"d", b"y" * (length - 22)),
            (b"e", b"3"),
        ]

        assert encode(entries) == oracle.encode(entries)


def test_many_small_entries_make_several_blocks() -> None:
    entries = [(b"name/%06d" % i, b"v" * 250) for i in range(4000)]

    table = encode(entries)

    assert decode(table, 1 << 24) == entries


@given(tables, st.sampled_from([snappy.compress_literal, snappy.compress_runs]))
def test_compressed_blocks_are_read(entries: list[oracle.Entry], compress: object) -> None:
    if not entries:
        return
    body = oracle.encode_block(entries, 16)
    stored = oracle.seal(compress(body), 1)  # type: ignore[operator]

    table = around(stored, entries[-1][0])

    assert decode(table) == entries == oracle.decode(table)


def around(stored: bytes, separator: bytes) -> bytes:
    """Return a table of one stored data block."""
    handle = put_varint(0) + put_varint(len(stored) - 5)
    meta = oracle.encode_block([], 16)
    index = oracle.encode_block([(separator, handle)], 1)
    out, handles = stored, b""
    for body in (meta, index):
        handles += put_varint(len(out)) + put_varint(len(body))
        out += oracle.seal(body)
    return out + handles.ljust(40, b"\0") + struct.pack("<Q", oracle.MAGIC)


@given(tables, st.data())
def test_mutated_tables_raise_only_decode_errors(
    entries: list[oracle.Entry], data: st.DataObject
) -> None:
    table = bytearray(encode(entries))
    for _ in range(data.draw(st.integers(1, 5))):
        table[data.draw(st.integers(0, len(table) - 1))] = data.draw(st.integers(0, 255))
    mutated = bytes(table)[: data.draw(st.integers(0, len(table)))]
    for variant in (bytes(table), mutated):
        try:
            found = decode(variant)
        except _native.DecodeError as error:
            assert 0 <= error.offset <= len(variant)
            with pytest.raises(MalformedError):
                oracle.decode(variant)
        else:
            assert found == oracle.decode(variant)


@given(st.binary(max_size=200))
def test_mutated_bodies_agree_with_twin(body: bytes) -> None:
    table = around(oracle.seal(body), b"\xff" * 20)
    try:
        found = decode(table)
    except _native.DecodeError:
        with pytest.raises(MalformedError):
            oracle.decode(table)
    else:
        assert found == oracle.decode(table)


def test_error_has_message_and_offset() -> None:
    broken = bytearray(GOLDEN)
    broken[20] ^= 1

    with pytest.raises(_native.DecodeError, match="block checksum mismatch") as caught:
        decode(bytes(broken))

    assert caught.value.message == str(caught.value)
    assert caught.value.offset == 129
    assert isinstance(caught.value, ValueError)


def test_limit_counts_keys_and_values() -> None:
    table = encode([(b"a", b"12"), (b"b", b"345")])

    assert len(decode(table, 7)) == 2
    with pytest.raises(_native.DecodeError, match="the limit is 6"):
        decode(table, 6)


def test_warnings_name_what_reading_ignores() -> None:
    padded = bytearray(GOLDEN)
    padded[-9] = 1
    gap = around(b"unowned" + oracle.seal(b""), b"")
    meta = bytearray(GOLDEN)
    meta[134] ^= 1

    assert [text for _, text in _native.table_warnings(bytes(padded))] == [
        "footer padding is not zero"
    ]
    assert "metaindex" in _native.table_warnings(bytes(meta))[0][1]
    with pytest.raises(_native.DecodeError):
        _native.table_warnings(gap[:-1])


def test_keys_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="key 1 is not greater"):
        encode([(b"b", b""), (b"a", b"")])
    with pytest.raises(ValueError, match="1 keys but 2 values"):
        _native.table_encode(*pack([b"a"]), *pack([b"", b""]))


@given(st.lists(st.binary(max_size=25)) | st.lists(st.sampled_from([b"", b"a", b"a" * 30])))
def test_order_is_stable_and_unsigned(keys: list[bytes]) -> None:
    found = np.frombuffer(_native.keys_order(*pack(keys)), np.int64).tolist()

    assert found == sorted(range(len(keys)), key=keys.__getitem__)


@given(st.lists(st.binary(max_size=25)), st.integers(0, 3))
def test_names_are_any_bytes(keys: list[bytes], first: int) -> None:
    if first > len(keys):
        return
    names = _native.names_decode(*pack(keys), first)

    assert names == [key.decode("utf-8", "surrogateescape") for key in keys[first:]]
    assert unpack(*_native.names_encode(names)) == keys[first:]


def test_names_beyond_the_last_row_are_refused() -> None:
    with pytest.raises(ValueError, match="first row is 2 of 1"):
        _native.names_decode(*pack([b"a"]), 2)
    with pytest.raises(UnicodeEncodeError):
        _native.names_encode(["\ud800"])


@given(st.binary(max_size=500))
def test_snappy_equals_twin(data: bytes) -> None:
    for compress in (snappy.compress_literal, snappy.compress_runs):
        compressed = compress(data)

        assert snappy.decompress(compressed) == data
        assert _native.snappy_decompress(compressed, len(data)) == data


@given(st.binary(max_size=60))
def test_hostile_snappy_agrees_with_twin(data: bytes) -> None:
    try:
        found = _native.snappy_decompress(data, LIMIT)
    except _native.DecodeError:
        with pytest.raises(MalformedError):
            snappy.decompress(data)
    else:
        assert found == snappy.decompress(data)


def test_snappy_claims_are_capped() -> None:
    with pytest.raises(_native.DecodeError, match="claims to hold"):
        _native.snappy_decompress(b"\xff\xff\xff\xff\x0f\x00a", 1 << 60)
    with pytest.raises(_native.DecodeError, match="the limit is 9"):
        _native.snappy_decompress(snappy.compress_literal(b"0123456789"), 9)


def test_many_threads_decode_one_table() -> None:
    table = encode([(b"%05d" % i, b"v" * (i % 50)) for i in range(5000)])
    expected = _native.table_decode(table, LIMIT)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: _native.table_decode(table, LIMIT), range(40)))

    assert all(one == expected for one in found)


def hashed_order(keys: list[bytes]) -> list[bytes]:
    """Return keys in the order of a hash map, natively."""
    rows = struct.unpack(f"={len(keys)}q", _native.keys_hashed(*pack(keys)))
    return [keys[row] for row in rows]


@given(st.lists(st.binary(max_size=40), unique=True, max_size=70))
def test_the_order_of_a_hash_map_equals_that_of_the_twin(keys: list[bytes]) -> None:
    assert hashed_order(keys) == hashed.order(keys)


@pytest.mark.parametrize("count", [0, 1, 13, 14, 29, 30, 59, 60, 1000, 5000])
def test_a_hash_map_grows_as_the_twin_does(count: int) -> None:
    keys = [f"layer_{number}/kernel".encode() for number in range(count)]
    assert hashed_order(keys) == hashed.order(keys)


def test_the_order_of_keys_that_are_none_is_refused() -> None:
    with pytest.raises(ValueError, match="rows end at 9"):
        _native.keys_hashed(b"abc", struct.pack("=q", 9))
