"""Payloads of string and variant tensors."""

import struct
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import _native
from tests.oracle import MalformedError, strings, variants

texts = st.lists(st.binary(max_size=200), max_size=20)


def pack(numbers: list[int]) -> bytes:
    """Return a column of int64."""
    return struct.pack(f"={len(numbers)}q", *numbers)


def unpack(column: bytes) -> list[int]:
    """Return the numbers of a column of int64."""
    return list(struct.unpack(f"={len(column) // 8}q", column))


@given(texts, st.booleans())
def test_strings_equal_twin(items: list[bytes], big: bool) -> None:
    payload, crc = strings.encode(items, big_endian=big)
    header, start = _native.strings_encode(pack([len(item) for item in items]), big)

    assert header + b"".join(items) == payload
    assert _native.crc32c(b"".join(items), start) == crc
    size, ends, found = _native.strings_decode(payload, len(items), big)
    expected = (len(header), list(accumulate(map(len, items))), crc)
    assert (size, unpack(ends), found) == expected
    assert strings.decode(payload, len(items), big_endian=big) == expected


def test_golden_empty_string_tensor() -> None:
    header, crc = _native.strings_encode(b"")

    assert header.hex() == "d8ea82a2"
    assert _native.crc32c_mask(crc) == 0x640CC1F6


def test_lengths_above_32_bits_take_8_bytes_in_the_checksum() -> None:
    lengths = [1, 0xFFFFFFFF, 1 << 32, 1 << 40]

    for big in (False, True):
        assert _native.strings_encode(pack(lengths), big) == strings.header(lengths, big_endian=big)


@given(texts, st.data())
def test_scan_continues_over_any_cut(items: list[bytes], data: st.DataObject) -> None:
    header, _ = strings.header([len(item) for item in items])
    stream, at, parsed, total, crc = header, 0, 0, 0, 0
    while parsed < len(items):
        end = data.draw(st.integers(at + 2, at + 40))
        used, count, payload, crc = _native.strings_scan(
            stream[at:end],
            len(items) - parsed,
            crc,
            False,
        )
        assert used > 0
        at, parsed, total = at + used, parsed + count, total + payload

    assert at == len(header) - 4
    assert total == sum(map(len, items))
    assert struct.pack("<I", _native.crc32c_mask(crc)) == header[-4:]


def test_scan_refuses_what_no_writer_makes() -> None:
    for data in (b"\x81\x00", b"\xff" * 12, b"\xff" * 8 + b"\x7f\x01"):
        with pytest.raises(_native.DecodeError):
            _native.strings_scan(data, 5, 0, False)


@given(texts, st.data())
def test_mutated_strings_agree_with_twin(items: list[bytes], data: st.DataObject) -> None:
    payload = bytearray(strings.encode(items)[0])
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    hostile = bytes(payload)[: data.draw(st.integers(0, len(payload)))]
    count = data.draw(st.sampled_from([len(items), len(items) + 1, 2**63]))
    try:
        size, ends, crc = _native.strings_decode(hostile, count, False)
    except _native.DecodeError as error:
        assert 0 <= error.offset <= len(hostile)
        with pytest.raises(MalformedError):
            strings.decode(hostile, count)
    else:
        assert (size, unpack(ends), crc) == strings.decode(hostile, count)


@given(texts)
def test_variants_equal_twin(items: list[bytes]) -> None:
    payload, crc = variants.encode(items)
    ends = pack(list(accumulate(map(len, items))))

    assert _native.variants_encode(b"".join(items), ends) == (payload, crc)
    ranges, found = _native.variants_decode(payload, len(items))
    numbers = unpack(ranges)
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    assert (pairs, found) == variants.decode(payload, len(items))
    assert [payload[start:end] for start, end in pairs] == items


@given(texts, st.data())
def test_mutated_variants_agree_with_twin(items: list[bytes], data: st.DataObject) -> None:
    payload = bytearray(variants.encode(items)[0] + b"\0")
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    hostile = bytes(payload)[: data.draw(st.integers(0, len(payload)))]
    try:
        _, crc = _native.variants_decode(hostile, len(items))
    except _native.DecodeError as error:
        assert 0 <= error.offset <= len(hostile)
        with pytest.raises(MalformedError):
            variants.decode(hostile, len(items))
    else:
        assert crc == variants.decode(hostile, len(items))[1]


def test_negative_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="string 1 has length -1"):
        _native.strings_encode(pack([1, -1]))
    with pytest.raises(ValueError, match=r"2\^63"):
        _native.strings_encode(pack([2**63 - 1, 1]))
