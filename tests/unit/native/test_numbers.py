"""Sums, counts by digits of keys, and random values by index."""

import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from statistics import NormalDist
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import _native
from tests.oracle import philox as random_twin
from tests.oracle import radix as radix_twin
from tests.oracle import sums as sums_twin

# NumPy warns of signalling NaNs, which bits at random are.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")

BINS = 1 << 16

DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
"""By the name that a sum takes."""


def same(found: float, expected: float) -> bool:
    return found.hex() == expected.hex() or (math.isnan(found) and math.isnan(expected))


# --- sums --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    data=st.binary(max_size=600),
    count=st.integers(0, 600),
    power=st.sampled_from([1, 2]),
    shift=st.floats(),
)
def test_sum_equals_twin(dtype: str, data: bytes, count: int, power: int, shift: float) -> None:
    stored = DTYPES[dtype]
    data = (data * count)[: count // stored.itemsize * stored.itemsize]
    values = np.frombuffer(data, stored).astype(np.float64).tolist()

    found = _native.power_sum(data, dtype, power, shift)

    assert same(found, sums_twin.power_sum(values, power, shift))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sum_of_many_values_equals_twin(dtype: str) -> None:
    values = np.random.default_rng(3).normal(2, 5, 20_011).astype(DTYPES[dtype])
    exact = values.astype(np.float64).tolist()

    for power, shift in ((1, 0.0), (1, -3.5), (2, 0.0), (2, 2.125)):
        found = _native.power_sum(values.view(np.uint8), dtype, power, shift)
        assert same(found, sums_twin.power_sum(exact, power, shift))
        assert found == pytest.approx(math.fsum((value - shift) ** power for value in exact))


def test_every_value_of_16_bits_is_exact() -> None:
    for dtype in ("float16", "bfloat16"):
        for value in np.arange(BINS, dtype=np.uint16).view(DTYPES[dtype]):
            assert same(_native.power_sum(value.tobytes(), dtype, 1, 0.0), float(value) + 0.0)


@pytest.mark.parametrize(
    ("data", "dtype", "power", "message"),
    [
        pytest.param(bytes(7), "float32", 1, "7 bytes, no multiple of 4", id="part"),
        pytest.param(bytes(8), "int32", 1, "dtype is 'int32'", id="dtype"),
        pytest.param(bytes(8), "", 1, "dtype is ''", id="no dtype"),
        pytest.param(bytes(8), "float64", 0, "power is 0", id="power 0"),
        pytest.param(bytes(8), "float64", 3, "power is 3", id="power 3"),
        pytest.param(np.zeros((2, 2)), "float64", 1, "2 dimensions", id="dimensions"),
        pytest.param(np.zeros(4)[::2], "float64", 1, "not contiguous", id="stride"),
    ],
)
def test_sums_of_bad_arguments_are_refused(data: Any, dtype: str, power: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _native.power_sum(data, dtype, power, 0.0)


def test_power_beyond_its_type_is_refused() -> None:
    with pytest.raises(OverflowError):
        _native.power_sum(b"", "float32", -1, 0.0)


# --- counts ------------------------------------------------------------------------------------

ORDERS = [
    pytest.param("float", np.dtype(np.float16), id="float16"),
    pytest.param("bfloat", np.dtype(ml_dtypes.bfloat16), id="bfloat16"),
    pytest.param("float", np.dtype(np.float32), id="float32"),
    pytest.param("float", np.dtype(np.float64), id="float64"),
    pytest.param("magnitude", np.dtype(np.float16), id="magnitude of float16"),
    pytest.param("magnitude", np.dtype(ml_dtypes.bfloat16), id="magnitude of bfloat16"),
    pytest.param("magnitude", np.dtype(np.float32), id="magnitude of float32"),
    pytest.param("magnitude", np.dtype(np.float64), id="magnitude of float64"),
    *(
        pytest.param(kind, np.dtype(f"{kind}{8 * width}"), id=f"{kind}{8 * width}")
        for kind in ("int", "uint")
        for width in (1, 2, 4, 8)
    ),
]


def counted(data: bytes, kind: str, width: int, shift: int, prefix: int) -> np.ndarray:
    counts = np.zeros(BINS, np.uint64)
    assert _native.radix_count(data, kind, width, shift, prefix, counts) is None
    return counts


def ranked(data: bytes, kind: str, width: int, rank: int) -> bytes:
    """Return the element of a rank, by passes over the digits of its key."""
    prefix, shift = 0, max(8 * width - 16, 0)
    while True:
        ends = np.cumsum(counted(data, kind, width, shift, prefix))
        digit = int(np.searchsorted(ends, rank, side="right"))
        rank -= int(ends[digit - 1]) if digit else 0
        prefix = prefix << 16 | digit
        if shift == 0:
            return _native.radix_value(prefix, kind, width)
        shift -= 16


def elements(data: bytes, width: int) -> list[bytes]:
    return [data[at : at + width] for at in range(0, len(data), width)]


@pytest.mark.parametrize(("kind", "dtype"), ORDERS)
@given(data=st.binary(max_size=400), seed=st.integers(0, 99))
def test_counts_equal_twin_in_every_pass(
    kind: str, dtype: np.dtype, data: bytes, seed: int
) -> None:
    width = dtype.itemsize
    data = data[: len(data) // width * width]
    parts = elements(data, width)
    chosen = radix_twin.key(Random(seed).choice(parts), kind) if parts else 0
    for shift in range(max(8 * width - 16, 0), -1, -16):
        expected = radix_twin.count(parts, kind, shift, chosen >> shift + 16)
        found = counted(data, kind, width, shift, chosen >> shift + 16)
        bins = np.flatnonzero(found).tolist()
        assert {digit: int(found[digit]) for digit in bins} == expected


@pytest.mark.parametrize(("kind", "dtype"), ORDERS)
@pytest.mark.parametrize("count", [1, 40, 20_000])
def test_rank_equals_sort(kind: str, dtype: np.dtype, count: int) -> None:
    values = np.frombuffer(np.random.default_rng(count).bytes(count * dtype.itemsize), dtype)
    if kind not in {"int", "uint"}:  # Bits of any kind, and values as they are in models.
        normal = np.random.default_rng(5).normal(0, 0.02, count).astype(dtype)
        values = np.where(np.arange(count) % 3 == 0, values, normal)
    exact = values.astype(np.float32) if dtype == ml_dtypes.bfloat16 else values
    ordered = np.sort(np.abs(exact) if kind == "magnitude" else exact)

    for rank in {0, count // 3, count // 2, count - 1}:
        found = np.frombuffer(ranked(values.tobytes(), kind, dtype.itemsize, rank), dtype)[0]
        assert found == ordered[rank] or (found != found and ordered[rank] != ordered[rank])  # noqa: PLR0124


@pytest.mark.parametrize(("kind", "dtype"), ORDERS)
@given(element=st.binary(min_size=8, max_size=8))
def test_value_inverts_the_key(kind: str, dtype: np.dtype, element: bytes) -> None:
    element = element[: dtype.itemsize]
    key = radix_twin.key(element, kind)

    found = _native.radix_value(key, kind, dtype.itemsize)

    assert radix_twin.key(found, kind) == key
    value = np.frombuffer(element, dtype)[0]
    if kind in {"int", "uint"} or not np.isnan(value):
        assert found == (np.abs(value) if kind == "magnitude" else value).tobytes()


def test_nan_of_either_sign_is_above_infinity() -> None:
    for kind, dtype in (("float", np.float32), ("bfloat", ml_dtypes.bfloat16)):
        values = np.array([np.nan, -1, np.inf, -np.inf], dtype)
        data = values.tobytes() + (-values[:1]).tobytes()
        width = values.itemsize
        order = [np.frombuffer(ranked(data, kind, width, rank), dtype)[0] for rank in range(5)]
        assert order[:3] == [-np.inf, -1, np.inf]
        assert np.isnan(np.array(order[3:], np.float64)).all()


def test_counts_are_added() -> None:
    counts = np.full(BINS, 2**64 - 2, np.uint64)

    _native.radix_count(b"\x00\x01\x01", "uint", 1, 0, 0, counts)

    assert counts[:3].tolist() == [2**64 - 1, 0, 2**64 - 2]


def test_counts_of_parts_are_those_of_the_whole() -> None:
    values = np.random.default_rng(7).normal(0, 1, 50_000).astype(np.float32)
    whole = counted(values.tobytes(), "float", 4, 16, 0)
    parts = np.zeros(BINS, np.uint64)
    for part in np.array_split(values, [3, 20_000, 20_000, 41_111]):
        _native.radix_count(part, "float", 4, 16, 0, parts)

    assert whole.sum() == len(values)
    assert np.array_equal(whole, parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"data": bytes(7)}, "7 bytes, no multiple of 4", id="part"),
        pytest.param({"kind": "double"}, "kind is 'double'", id="kind"),
        pytest.param({"width": 3}, "width is 3", id="width"),
        pytest.param({"width": 0}, "width is 0", id="no width"),
        pytest.param({"kind": "float", "width": 1}, "width is 1", id="float of a byte"),
        pytest.param({"kind": "bfloat", "width": 4}, "width is 4", id="wide bfloat"),
        pytest.param({"shift": 17}, "shift is 17, at most 16", id="shift"),
        pytest.param({"shift": 2**32 - 1}, "shift is", id="far shift"),
        pytest.param({"width": 1, "shift": 1}, "at most 0", id="shift of a byte"),
        pytest.param({"prefix": 1}, "prefix is 0x1, of at most 0 bits", id="prefix on top"),
        pytest.param({"shift": 0, "prefix": 65536}, "of at most 16 bits", id="prefix"),
        pytest.param({"counts": np.zeros(BINS - 1, np.uint64)}, "65535 counts", id="few"),
        pytest.param({"counts": np.zeros(BINS, np.int64)}, "native uint64", id="signed"),
        pytest.param({"counts": np.zeros(BINS, ">u8")}, "native uint64", id="swapped"),
        pytest.param({"counts": bytearray(8 * BINS)}, "native uint64", id="bytes"),
        pytest.param({"counts": bytes(8 * BINS)}, "read-only", id="read-only"),
        pytest.param({"counts": np.zeros((256, 256), np.uint64)}, "dimensions", id="dimensions"),
        pytest.param({"counts": np.zeros(2 * BINS, np.uint64)[::2]}, "contiguous", id="stride"),
    ],
)
def test_counts_of_bad_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    good = {
        "data": bytes(8),
        "kind": "uint",
        "width": 4,
        "shift": 16,
        "prefix": 0,
        "counts": np.zeros(BINS, np.uint64),
    }
    arguments = good | change
    with pytest.raises(ValueError, match=message):
        _native.radix_count(*arguments.values())


@pytest.mark.parametrize("beyond", [{"width": -1}, {"shift": -1}, {"prefix": -1}])
def test_counts_of_numbers_beyond_their_type_are_refused(beyond: dict[str, int]) -> None:
    numbers = {"width": 4, "shift": 0, "prefix": 0} | beyond
    with pytest.raises(OverflowError):
        _native.radix_count(b"", "uint", *numbers.values(), np.zeros(BINS, np.uint64))


def test_refused_counts_are_left_alone() -> None:
    counts = np.arange(BINS, dtype=np.uint64)
    with pytest.raises(ValueError, match="no multiple"):
        _native.radix_count(bytes(9), "uint", 4, 16, 0, counts)

    assert np.array_equal(counts, np.arange(BINS))


@pytest.mark.parametrize(
    ("key", "kind", "width"),
    [(1 << 32, "uint", 4), (256, "int", 1), (1 << 31, "magnitude", 4), (0x7F_FFFE, "float", 4)],
)
def test_value_of_no_key_is_refused(key: int, kind: str, width: int) -> None:
    with pytest.raises(ValueError, match="no element has the key"):
        _native.radix_value(key, kind, width)


# --- random values -----------------------------------------------------------------------------

WORDS = st.integers(0, 2**64 - 1)
INDICES = st.one_of(st.integers(0, 2**63 - 1), st.integers(0, 50))

DRAWS = [
    pytest.param(kind, dtype, id=f"{kind} of {dtype}")
    for kind, dtype in (
        ("bits", "uint32"),
        ("uniform", "float32"),
        ("uniform", "float64"),
        ("normal", "float32"),
        ("normal", "float64"),
    )
]


GOLDEN = {
    ("bits", "uint32"): "aa3312e6 c1464683 67000000 24ffffff 0036fda1 8ec884a9",
    ("uniform", "float32"): "3312663f 4646033f 00000000 ffff7f3f 36fd213f c884293f",
    ("uniform", "float64"): "1f7a5e7546c2ec3f 12432ad8c868e03f 0000007ee9ef593e "
    "c9a193e4ffffef3f 73ef0bc0a63fe43f 5b21c2119930e53f",
    ("normal", "float32"): "1d1ba33f b859033d 24a3aec0 b454aa40 71abad3e 023cd63e",
    ("normal", "float64"): "d26414ac6363f43f 87a53a02376ba03f b2b2f08264d415c0 "
    "17c04a79964a1540 632cb7176eb5d53f 211c9d3080c7da3f",
}
"""The values of four elements near both ends of the indices and the two of the farthest tails."""


def drawn(kind: str, dtype: str, *arguments: Any) -> np.ndarray:
    return np.frombuffer(_native.philox(kind, dtype, *arguments), dtype)


def run(start: int, width: int, step: int = 1) -> tuple[np.ndarray, int, int]:
    return np.array([start], np.int64), width, step


def normal(key: int, stream: int, index: int) -> float:
    odds, below = random_twin.odds(key, stream, index)
    value = NormalDist().inv_cdf(odds / (1 << 54))
    return value if below else -value


TWINS: dict[tuple[str, str], Callable[[int, int, int], float]] = {
    ("bits", "uint32"): random_twin.bits,
    ("uniform", "float32"): lambda *element: random_twin.uniform(*element, 24),
    ("uniform", "float64"): lambda *element: random_twin.uniform(*element, 53),
}


def test_twin_gives_the_published_vectors() -> None:
    ones = 0xFFFFFFFF
    for counter, key, expected in (
        ((0,) * 4, (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((ones,) * 4, (ones, ones), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ):
        found = random_twin.block(counter, key)
        assert " ".join(f"{word:08x}" for word in found) == expected


@pytest.mark.parametrize(("kind", "dtype"), TWINS)
@given(key=WORDS, stream=WORDS, start=INDICES, width=st.integers(0, 40), step=st.integers(0, 5))
def test_values_equal_twin(
    kind: str, dtype: str, key: int, stream: int, start: int, width: int, step: int
) -> None:
    start = min(start, 2**63 - 1 - width * step)
    twin = TWINS[kind, dtype]
    expected = [twin(key, stream, start + step * at) for at in range(width)]

    assert drawn(kind, dtype, key, stream, *run(start, width, step)).tolist() == expected


@given(key=WORDS, stream=WORDS, start=INDICES)
def test_normal_values_equal_the_inverse_distribution(key: int, stream: int, start: int) -> None:
    start = min(start, 2**63 - 40)
    values = drawn("normal", "float64", key, stream, *run(start, 40))
    rounded = drawn("normal", "float32", key, stream, *run(start, 40))

    expected = [normal(key, stream, start + at) for at in range(40)]
    assert values == pytest.approx(expected, rel=1e-13, abs=1e-15)
    assert np.array_equal(rounded, values.astype(np.float32))


def test_bits_are_kept_for_ever() -> None:
    indices = np.array([0, 5, 148368, 247647, 2**40 + 1, 2**63 - 1], np.int64)
    for (kind, dtype), expected in GOLDEN.items():
        found = _native.philox(kind, dtype, 42, 2**33 + 1, indices, 1, 1)
        assert found == bytes.fromhex(expected), (kind, dtype)


@pytest.mark.parametrize(("kind", "dtype"), DRAWS)
@given(
    start=INDICES,
    count=st.integers(0, 900),
    cuts=st.lists(st.integers(0, 900), max_size=6),
    seed=WORDS,
)
def test_parts_give_the_values_of_the_whole(
    kind: str, dtype: str, start: int, count: int, cuts: list[int], seed: int
) -> None:
    start = min(start, 2**63 - 1 - count)
    whole = _native.philox(kind, dtype, seed, 1, *run(start, count))
    edges = [0, *sorted(min(cut, count) for cut in cuts), count]
    parts = [
        _native.philox(kind, dtype, seed, 1, *run(start + low, high - low))
        for low, high in itertools.pairwise(edges)
    ]

    assert b"".join(parts) == whole


@pytest.mark.parametrize(("kind", "dtype"), DRAWS)
@given(
    starts=st.lists(st.integers(0, 1000), max_size=30),
    width=st.integers(0, 70),
    step=st.integers(-10, 10),
)
def test_runs_give_the_values_of_their_indices(
    kind: str, dtype: str, starts: list[int], width: int, step: int
) -> None:
    whole = np.frombuffer(_native.philox(kind, dtype, 9, 8, *run(0, 2500)), dtype)
    first = np.array(starts, np.int64) + 700
    indices = first[:, None] + step * np.arange(width)

    found = drawn(kind, dtype, 9, 8, first, width, step)

    assert found.tobytes() == whole[indices.ravel()].tobytes()


def test_keys_and_streams_differ() -> None:
    draws = [
        _native.philox("bits", "uint32", key, stream, *run(0, 8))
        for key in (0, 1, 1 << 32, 1 << 63)
        for stream in (0, 1, 1 << 32, 1 << 63)
    ]
    assert len(set(draws)) == len(draws)


def test_moments() -> None:
    count = 1 << 19
    for dtype in ("float32", "float64"):
        uniform = drawn("uniform", dtype, 1, 2, *run(0, count)).astype(np.float64)
        assert uniform.min() >= 0
        assert uniform.max() < 1
        assert abs(uniform.mean() - 0.5) < 5 * 12**-0.5 * count**-0.5
        values = drawn("normal", dtype, 1, 2, *run(0, count)).astype(np.float64)
        # Standard errors of the first four moments of a standard normal sample.
        for power, expected, deviation in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            error = abs((values**power).mean() - expected)
            assert error < 5 * (deviation / count) ** 0.5


@pytest.mark.parametrize("key", [0, 2**64 - 1, 0x0123_4567_89AB_CDEF])
def test_ends_of_the_normal_distribution_are_finite(key: int) -> None:
    """The seams of the approximation, too, and words that no seed finds in a lifetime."""
    odds = [2**-54 * number for number in (1, 3, 5, 9999)]
    odds += [math.exp(-25) * near for near in (0.999, 1.001)]
    odds += [0.075 + near for near in (-1e-9, 1e-9)]
    for probability in odds:
        number = int(probability * 2**53)
        for word, sign in ((number << 11, 1), ((1 << 64) - 1 - (number << 11), -1)):
            stream, index = random_twin.place(word, key)
            assert random_twin.word(key, stream, index) == word
            found = drawn("normal", "float64", key, stream, *run(index, 1)).item()
            expected = NormalDist().inv_cdf((2 * number + 1) / 2**54)
            assert found * sign == pytest.approx(expected, rel=1e-13)


def test_threads_draw_the_same() -> None:
    whole = _native.philox("normal", "float32", 5, 6, *run(0, 40_000))
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(
            lambda start: _native.philox("normal", "float32", 5, 6, *run(start, 1000)),
            range(0, 40_000, 1000),
        )
        assert b"".join(parts) == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"kind": "gamma"}, "kind is 'gamma'", id="kind"),
        pytest.param({"dtype": "float16"}, "dtype is 'float16'", id="dtype"),
        pytest.param({"kind": "bits"}, "expected uint32", id="dtype of bits"),
        pytest.param({"starts": [0, -1]}, "run 1 has an index", id="negative"),
        pytest.param({"starts": [-1], "width": 0}, "run 0 has an index", id="negative of none"),
        pytest.param({"starts": [2**63 - 1]}, "run 0 has an index", id="beyond"),
        pytest.param({"starts": [2], "step": -3}, "run 0 has an index", id="below"),
        pytest.param({"step": 2**63 - 1, "width": 3}, "run 0 has an index", id="far step"),
        pytest.param({"width": 2**64 - 1}, "run 0 has an index", id="endless run"),
        pytest.param({"width": 2**61, "step": 0}, "too many", id="too many"),
    ],
)
def test_draws_of_bad_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    good = {
        "kind": "uniform",
        "dtype": "float64",
        "key": 1,
        "stream": 2,
        "starts": [0],
        "width": 2,
        "step": 1,
    }
    arguments = good | change
    arguments["starts"] = np.array(arguments["starts"], np.int64)
    with pytest.raises(ValueError, match=message):
        _native.philox(*arguments.values())


def test_starts_of_other_items_are_refused() -> None:
    with pytest.raises(ValueError, match="native integers of 64 bits"):
        _native.philox("bits", "uint32", 1, 2, np.array([1.0]), 1, 1)
    with pytest.raises(ValueError, match="no multiple of 8"):
        _native.philox("bits", "uint32", 1, 2, bytes(9), 1, 1)


def test_more_values_than_memory_are_refused() -> None:
    with pytest.raises(MemoryError):
        _native.philox("bits", "uint32", 1, 2, *run(0, 2**60))


@pytest.mark.parametrize("beyond", [{"key": -1}, {"stream": 2**64}, {"width": -1}])
def test_draws_of_numbers_beyond_their_type_are_refused(beyond: dict[str, int]) -> None:
    numbers = {"key": 1, "stream": 2, "width": 3} | beyond
    with pytest.raises(OverflowError):
        _native.philox(
            "bits", "uint32", numbers["key"], numbers["stream"], bytes(8), numbers["width"], 1
        )
