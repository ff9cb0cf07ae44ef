"""CRCs, their algebra, and the fingerprint."""

import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import _native
from tests.oracle import crc as oracle

Extend = Callable[..., int]

PAIRS = [
    pytest.param(_native.crc32c, oracle.crc32c, id="crc32c"),
    pytest.param(_native.crc32, oracle.crc32, id="crc32"),
]


@pytest.mark.parametrize(("native", "twin"), PAIRS)
@given(data=st.binary(max_size=2000), value=st.integers(0, 2**32 - 1))
def test_extend_equals_twin(native: Extend, twin: Extend, data: bytes, value: int) -> None:
    assert native(data, value) == twin(data, value)


def test_check_values() -> None:
    assert _native.crc32c(b"123456789") == 0xE3069283
    assert _native.crc32(b"123456789") == 0xCBF43926
    assert _native.crc32c_mask(0) == 0xA282EAD8


@given(st.binary())
def test_crc32_equals_zlib(data: bytes) -> None:
    assert _native.crc32(data) == zlib.crc32(data)


@given(first=st.binary(), second=st.binary())
def test_combine_equals_whole(first: bytes, second: bytes) -> None:
    for extend, combine in (
        (_native.crc32c, _native.crc32c_combine),
        (_native.crc32, _native.crc32_combine),
    ):
        assert combine(extend(first), extend(second), len(second)) == extend(first + second)


@given(head=st.binary(), old=st.binary(), tail=st.binary(), data=st.data())
def test_patch_equals_whole(head: bytes, old: bytes, tail: bytes, data: st.DataObject) -> None:
    new = data.draw(st.binary(min_size=len(old), max_size=len(old)))
    for extend, patch in (
        (_native.crc32c, _native.crc32c_patch),
        (_native.crc32, _native.crc32_patch),
    ):
        patched = patch(extend(head + old + tail), old, new, len(tail))
        assert patched == extend(head + new + tail)


def test_patch_with_a_huge_tail_equals_combination() -> None:
    zeros = _native.crc32c_combine(0, 0, 1 << 50)

    assert zeros == 0
    before = _native.crc32c_combine(_native.crc32c(b"old"), 5, 1 << 50)
    after = _native.crc32c_combine(_native.crc32c(b"new"), 5, 1 << 50)
    assert _native.crc32c_patch(before, b"old", b"new", 1 << 50) == after


def test_patch_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="old has 1 bytes, new has 2"):
        _native.crc32c_patch(0, b"a", b"bc", 0)


WIDTHS = st.integers(1, 80)
SPACES = st.one_of(
    st.lists(st.integers(0, 60), max_size=12),
    st.builds(lambda space, count: [space] * count, st.integers(0, 60), st.integers(0, 12)),
    st.builds(lambda two, count: two * count, st.tuples(*[st.integers(0, 60)] * 2), WIDTHS),
)
"""How many bytes are kept before each run: irregular, all the same, two in turn."""


@given(
    width=WIDTHS, spaces=SPACES, tail=st.integers(0, 100), data=st.randoms(use_true_random=False)
)
def test_patch_of_runs_equals_whole(
    width: int, spaces: Sequence[int], tail: int, data: Random
) -> None:
    stops = np.cumsum([space + width for space in spaces], dtype=np.int64)
    length = sum(spaces) + len(spaces) * width + tail
    before = data.randbytes(length)
    after = bytearray(before)
    old, new = b"", data.randbytes(len(spaces) * width)
    for run, stop in enumerate(stops.tolist()):
        old += before[stop - width : stop]
        after[stop - width : stop] = new[run * width : (run + 1) * width]

    found = _native.crc32c_patch_runs(oracle.crc32c(before), old, new, width, length - stops)

    assert found == oracle.crc32c(bytes(after))


@given(
    value=st.integers(0, 2**32 - 1),
    width=WIDTHS,
    tails=st.lists(st.integers(0, 2**63 - 1), max_size=8),
    data=st.randoms(use_true_random=False),
)
def test_patch_of_runs_far_apart_equals_the_patch_of_each(
    value: int, width: int, tails: list[int], data: Random
) -> None:
    tails = sorted({tail - tail % width for tail in tails}, reverse=True)
    old, new = (data.randbytes(len(tails) * width) for _ in range(2))
    expected = value
    for run, tail in enumerate(tails):
        part = slice(run * width, (run + 1) * width)
        expected = _native.crc32c_patch(expected, old[part], new[part], tail)

    found = _native.crc32c_patch_runs(value, old, new, width, np.array(tails, np.int64))

    assert found == expected


@given(value=st.integers(0, 2**32 - 1), width=WIDTHS)
def test_patch_of_no_runs_changes_nothing(value: int, width: int) -> None:
    assert _native.crc32c_patch_runs(value, b"", b"", width, b"") == value


@pytest.mark.parametrize(
    ("old", "new", "width", "tails", "message"),
    [
        pytest.param(b"abcd", b"abc", 2, [2, 0], "old has 4 bytes, new has 3", id="new"),
        pytest.param(b"", b"", 0, [], "width of 0", id="no width"),
        pytest.param(b"abcd", b"ABCD", 0, [2, 0], "width of 0", id="no width of some runs"),
        pytest.param(b"abcd", b"ABCD", 2, [0], "not 1 runs of 2", id="too few"),
        pytest.param(b"abcd", b"ABCD", 2, [4, 2, 0], "not 3 runs of 2", id="too many"),
        pytest.param(b"abcd", b"ABCD", 3, [3], "not 1 runs of 3", id="part of a run"),
        pytest.param(b"abcd", b"ABCD", 2**63, [2, 0], "not 2 runs", id="overflow"),
        pytest.param(b"abcd", b"ABCD", 2, [0, 2], "does not fall by 2", id="rising"),
        pytest.param(b"abcd", b"ABCD", 2, [2, 2], "does not fall by 2", id="level"),
        pytest.param(b"abcd", b"ABCD", 2, [1, 0], "does not fall by 2", id="overlap"),
        pytest.param(b"abcd", b"ABCD", 2, [2, -1], "run 1 has a tail of -1", id="negative"),
        pytest.param(b"abcd", b"ABCD", 2, [-(2**63), 0], "run 0 has a tail of -", id="least"),
    ],
)
def test_runs_that_do_not_agree_are_refused(
    old: bytes, new: bytes, width: int, tails: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _native.crc32c_patch_runs(0, old, new, width, np.array(tails, np.int64))


def test_runs_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match="column has"):
        _native.crc32c_patch_runs(0, b"ab", b"cd", 1, np.array([1, 0], np.int32))
    with pytest.raises(OverflowError):
        _native.crc32c_patch_runs(0, b"ab", b"cd", -1, np.array([1, 0], np.int64))
    with pytest.raises(OverflowError):
        _native.crc32c_patch_runs(2**32, b"ab", b"cd", 1, np.array([1, 0], np.int64))


@given(st.lists(st.binary(max_size=50)))
def test_segments_equal_single_calls(parts: list[bytes]) -> None:
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)

    found = np.frombuffer(_native.crc32c_segments(b"".join(parts), ends), np.uint32)

    assert found.tolist() == [oracle.crc32c(part) for part in parts]


@pytest.mark.parametrize("ends", [[4], [-1], [2, 1]])
def test_segments_out_of_bounds_are_refused(ends: list[int]) -> None:
    with pytest.raises(ValueError, match="end"):
        _native.crc32c_segments(b"abc", np.array(ends, np.int64))


@given(st.integers(0, 2**32 - 1))
def test_mask_equals_twin(value: int) -> None:
    assert _native.crc32c_mask(value) == oracle.mask(value)
    assert _native.crc32c_unmask(value) == oracle.unmask(value)
    assert _native.crc32c_unmask(_native.crc32c_mask(value)) == value


def test_fingerprint_equals_twin_at_every_short_length() -> None:
    for length in range(301):
        data = bytes((i * 37 + length) % 256 for i in range(length))

        assert _native.fingerprint64(data) == oracle.fingerprint64(data), length


def test_fingerprints_of_the_reference_implementation() -> None:
    # From the published library, over bytes((i * 37 + length) % 256 for i in range(length)).
    for length, expected in FINGERPRINTS.items():
        data = bytes((i * 37 + length) % 256 for i in range(length))

        assert _native.fingerprint64(data) == expected, length


@given(st.binary(max_size=400))
def test_fingerprint_equals_twin(data: bytes) -> None:
    assert _native.fingerprint64(data) == oracle.fingerprint64(data)


def test_any_contiguous_buffer_is_accepted() -> None:
    array = np.arange(10, dtype=np.float32)
    expected = oracle.crc32c(array.tobytes())

    assert _native.crc32c(array) == expected
    assert _native.crc32c(memoryview(array.tobytes())) == expected
    assert _native.crc32c(bytearray(array.tobytes())) == expected
    assert _native.crc32c(memoryview(b"")) == 0
    assert _native.crc32c(np.empty(0, np.int64)) == 0


def test_other_buffers_are_refused() -> None:
    with pytest.raises(ValueError, match="2 dimensions"):
        _native.crc32c(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="not contiguous"):
        _native.crc32c(np.zeros(10)[::2])
    with pytest.raises(TypeError):
        _native.crc32c("text")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "ends",
    [
        np.zeros(2, np.float64),
        np.zeros(2, np.int32),
        np.zeros(2, ">i8"),
        b"1234567",
    ],
)
def test_columns_of_another_type_are_refused(ends: object) -> None:
    with pytest.raises(ValueError, match="column has"):
        _native.crc32c_segments(b"abc", ends)  # type: ignore[arg-type]


def test_column_may_be_plain_bytes() -> None:
    found = _native.crc32c_segments(b"abc", struct.pack("=2q", 1, 3))

    assert struct.unpack("=2I", found) == (oracle.crc32c(b"a"), oracle.crc32c(b"bc"))


def test_many_threads_share_one_buffer() -> None:
    data = bytes(range(256)) * 4096
    expected = _native.crc32c(data)

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(_native.crc32c, [data] * 200))

    assert found == {expected}


def test_buffers_are_released() -> None:
    data = bytearray(b"abc")
    _native.crc32c(data)

    data.append(1)  # A buffer that is still exported cannot grow.

    assert len(data) == 4


FINGERPRINTS = {
    0: 11160318154034397263,
    1: 5161771770385946686,
    2: 215211846435920116,
    3: 1310518540512506342,
    4: 11711337669010882099,
    7: 11057383930293635020,
    8: 15263540642688558600,
    15: 16825489775245598468,
    16: 4338871769482718964,
    17: 2791110717120146389,
    31: 16715815762501656136,
    32: 15611977142726651112,
    33: 2327144085378135765,
    63: 17450762810714445792,
    64: 17972783085266097327,
    65: 16987655963586098774,
    127: 17335364499322211164,
    128: 17840400735072181966,
    129: 6325110817993080408,
    191: 13643634916265814466,
    192: 8353834114642332140,
    193: 2422489553142428356,
    256: 12229228018552921055,
    300: 2427810959306735659,
}
"""Lengths around every change of formula."""
