"""Values in protobuf messages, against the plain-Python twin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import _native
from tests.oracle import MalformedError, packed

KINDS = [("int", 1), ("int", 2), ("int", 4), ("int", 8), ("uint", 1), ("uint", 2), ("bool", 1)]

numbers = st.lists(st.integers(-(1 << 63), (1 << 64) - 1), max_size=30)
small = st.lists(st.integers(0, 127), max_size=30)


def outcome(function, *arguments):
    """Return what a function gives, or that it refuses."""
    try:
        return function(*arguments)
    except (MalformedError, _native.DecodeError):
        return "refused"


@given(st.one_of(numbers, small), st.sampled_from(KINDS), st.integers(0, 40))
def test_decoding_equals_the_twin(values, kind, limit):
    data = packed.encode(values)
    found = outcome(_native.varints_decode, data, limit, *kind)
    assert found == outcome(packed.decode, data, limit, *kind)


@given(st.binary(max_size=60), st.sampled_from(KINDS), st.integers(0, 40))
def test_any_bytes_decode_as_the_twin_does(data, kind, limit):
    found = outcome(_native.varints_decode, data, limit, *kind)
    assert found == outcome(packed.decode, data, limit, *kind)


@given(numbers, st.data())
def test_skipping_is_decoding_without_values(values, data):
    encoded = packed.encode(values)
    part = encoded[: data.draw(st.integers(0, len(encoded)))]
    limit = data.draw(st.integers(0, 40))
    used, count = _native.varints_skip(part, limit)
    assert (used, b"".join([bytes(1)] * count)) == (used, bytes(count))
    taken, found = packed.decode(part, limit, "bool", 1)
    assert (used, count) == (taken, len(found))


@given(st.lists(st.binary(max_size=200), max_size=8), st.integers(0, 9), st.data())
def test_fields_are_found_as_by_the_twin(texts, limit, data):
    message = b"".join(b"\x42" + packed.encode([len(text)]) + text for text in texts) + b"\x3a\x00"
    part = message[: data.draw(st.integers(0, len(message)))]
    after, found = _native.fields_scan(part, 0x42, limit)
    assert (after, list(memoryview(found).cast("q"))) == packed.strings(part, 0x42, limit)


@given(st.binary(max_size=40))
def test_any_bytes_are_scanned_as_by_the_twin(data):
    message = b"".join(b"\x42" + bytes([byte]) for byte in data)
    found = outcome(_native.fields_scan, message, 0x42, 99)
    expected = outcome(packed.strings, message, 0x42, 99)
    if found != "refused":
        found = found[0], list(memoryview(found[1]).cast("q"))
    assert found == expected


def test_errors_say_where():
    with pytest.raises(_native.DecodeError, match="does not fit an element of 1 bytes") as caught:
        _native.varints_decode(packed.encode([1, 2, 300]), 9, "int", 1)
    assert caught.value.offset == 2
    with pytest.raises(ValueError, match="expected int, uint, or bool"):
        _native.varints_decode(b"", 9, "float", 4)
    with pytest.raises(ValueError, match="expected 1, 2, 4 or 8"):
        _native.varints_decode(b"", 9, "int", 3)
