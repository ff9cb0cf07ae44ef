"""The algebra of CRCs, and of the digests that are built on it."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import _native
from ckptkit.errors import CorruptError
from ckptkit.storage.digest import digest
from tests.oracle import crc, strings, variants
from tests.property.strategies import ELEMENTS

DATA = st.binary(max_size=200)


@given(DATA, DATA)
def test_a_checksum_continues_over_the_next_bytes(first, second):
    assert _native.crc32c(second, _native.crc32c(first)) == crc.crc32c(first + second)
    assert _native.crc32(second, _native.crc32(first)) == zlib.crc32(first + second)


@given(DATA, DATA, DATA)
def test_combining_is_associative_and_the_order_of_work_does_not_matter(one, two, three):
    a, b, c = map(_native.crc32c, (one, two, three))
    left = _native.crc32c_combine(_native.crc32c_combine(a, b, len(two)), c, len(three))
    right = _native.crc32c_combine(
        a, _native.crc32c_combine(b, c, len(three)), len(two) + len(three)
    )
    assert left == right == crc.crc32c(one + two + three)


@given(DATA, DATA)
def test_combining_crc32_agrees_with_zlib(one, two):
    joined = _native.crc32_combine(zlib.crc32(one), zlib.crc32(two), len(two))
    assert joined == zlib.crc32(one + two)


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_patch_gives_the_checksum_of_the_new_whole(before, data):
    start = data.draw(st.integers(0, len(before) - 1))
    stop = data.draw(st.integers(start, len(before)))
    new = data.draw(st.binary(min_size=stop - start, max_size=stop - start))
    after = before[:start] + new + before[stop:]
    tail = len(before) - stop
    for function, patch in (
        (_native.crc32c, _native.crc32c_patch),
        (_native.crc32, _native.crc32_patch),
    ):
        assert patch(function(before), before[start:stop], new, tail) == function(after)


@given(st.lists(st.tuples(DATA, DATA), min_size=1, max_size=4))
def test_patches_of_disjoint_ranges_add_up_in_any_order(parts):
    blocks = [(old, (new + old)[: len(old)]) for old, new in parts]
    tails = [sum(len(old) for old, _ in blocks[at + 1 :]) for at in range(len(blocks))]
    total = _native.crc32c(b"".join(old for old, _ in blocks))
    for (old, new), tail in reversed(list(zip(blocks, tails, strict=True))):
        total ^= _native.crc32c_patch(0, old, new, tail)
    assert total == _native.crc32c(b"".join(new for _, new in blocks))


@given(st.binary(min_size=1, max_size=60), st.binary(min_size=1, max_size=9), st.data())
def test_a_patch_of_a_damaged_whole_stays_damaged(before, change, data):
    at = data.draw(st.integers(0, len(before) - 1))
    stored = _native.crc32c(before)
    damaged = bytearray(before)
    damaged[at] ^= 0x40
    old = bytes(damaged[: len(change)])
    new = change[: len(old)]
    patched = new + damaged[len(new) :]
    followed = _native.crc32c_patch(stored, old, new, len(patched) - len(new))
    assert followed != _native.crc32c(patched)


@given(DATA, st.lists(st.integers(0, 200), max_size=8))
def test_segments_are_summed_one_by_one(data, cuts):
    ends = sorted(min(cut, len(data)) for cut in cuts)
    found = memoryview(_native.crc32c_segments(data, np.array(ends, np.int64))).cast("I")
    expected = [crc.crc32c(data[a:b]) for a, b in itertools.pairwise([0, *ends])]
    assert found.tolist() == expected


@given(st.integers(0, 2**32 - 1))
def test_masking_is_undone(value):
    assert _native.crc32c_mask(value) == crc.mask(value)
    assert _native.crc32c_unmask(_native.crc32c_mask(value)) == value


def _fed(stream, payload, cuts):
    edges = [0, *sorted(min(cut, len(payload)) for cut in cuts), len(payload)]
    for a, b in itertools.pairwise(edges):
        stream.update(payload[a:b])
    return stream.value()


CUTS = st.lists(st.integers(0, 400), max_size=8)


@given(st.lists(ELEMENTS, max_size=8), CUTS, st.booleans())
def test_the_digest_of_strings_does_not_depend_on_where_the_stream_is_cut(elements, cuts, big):
    payload, expected = strings.encode(elements, big_endian=big)
    order = "big" if big else "little"
    assert _fed(digest("crc32c-strings", len(elements), order), payload, cuts) == expected


@given(st.lists(ELEMENTS, max_size=8), CUTS)
def test_the_digest_of_variants_does_not_depend_on_where_the_stream_is_cut(elements, cuts):
    payload, expected = variants.encode(elements)
    assert _fed(digest("crc32c-variants", len(elements)), payload, cuts) == expected


@given(DATA, CUTS)
def test_the_digest_of_plain_bytes_is_their_crc(data, cuts):
    assert _fed(digest("crc32c", 0), data, cuts) == crc.crc32c(data)
    assert _fed(digest("crc32", 0), data, cuts) == zlib.crc32(data)


@given(st.lists(ELEMENTS, min_size=1, max_size=5), st.data())
def test_a_cut_stream_of_strings_or_variants_has_no_checksum(elements, data):
    for encode, algorithm in (
        (strings.encode, "crc32c-strings"),
        (variants.encode, "crc32c-variants"),
    ):
        payload, _ = encode(elements)
        end = data.draw(st.integers(0, len(payload) - 1))
        stream = digest(algorithm, len(elements))
        with pytest.raises(CorruptError):
            _fed(stream, payload[:end], [])


@given(st.lists(ELEMENTS, min_size=1, max_size=5), st.binary(min_size=1, max_size=3))
def test_a_stream_that_goes_on_after_its_elements_has_no_checksum(elements, rest):
    for encode, algorithm in (
        (strings.encode, "crc32c-strings"),
        (variants.encode, "crc32c-variants"),
    ):
        payload, _ = encode(elements)
        with pytest.raises(CorruptError):
            _fed(digest(algorithm, len(elements)), payload + rest, [])
