"""Protobuf on the wire: fields of messages that are longer than what is looked at together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit.errors import CorruptError
from ckptkit.formats.tensorflow import wire
from tests.oracle.varint import put_bytes, put_number

NUMBERS = st.integers(1, (1 << 29) - 1)


@given(
    st.lists(
        st.one_of(
            st.tuples(NUMBERS, st.integers(1, (1 << 64) - 1)),
            st.tuples(NUMBERS, st.integers(0, 10_000).map(bytes)),
        ),
        max_size=30,
    ),
    st.binary(max_size=3),
)
def test_fields_are_found_wherever_they_are(given_fields, before):
    """Numbers at the ends of chunks, and values longer than a chunk, are no matter."""
    message = b"".join(
        put_number(number, value) if isinstance(value, int) else put_bytes(number, value)
        for number, value in given_fields
    )
    data = before + message + b"\x08"
    found = []
    for one in wire.fields(data, len(before), len(before) + len(message)):
        value = one.value if one.kind == wire.VARINT else data[one.body : one.end]
        found.append((one.number, value))
    assert found == given_fields


@pytest.mark.parametrize("length", [1, 20, 4090, 4095, 4096, 4097, 9000])
def test_a_field_that_is_cut_off_is_refused_where_it_starts(length):
    message = put_bytes(1, bytes(length)) + b"\x08\xff"
    with pytest.raises(CorruptError) as caught:
        list(wire.fields(message))
    assert caught.value.offset == len(message) - 1


def test_a_varint_does_not_go_on_behind_its_message():
    with pytest.raises(CorruptError):
        list(wire.fields(b"\x08\x80\x01", 0, 2))
