"""Laws of random numbers: they follow from seed, name and index, and from nothing else."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import ckptkit
from ckptkit import _native
from tests.golden.handmade import Bundle, numpy_dtype, random_array
from tests.oracle import philox
from tests.property.edited import contents, regions, written
from tests.property.strategies import slicings

pytestmark = pytest.mark.usefixtures("unsynced")

DRAWS = (
    "{at} = normal()",
    "{at} += 0.1 * normal(seed=3)",
    "{at} = uniform()",
    "{at} = uniform(-1, 3, seed=2)",
    "{at} = normal(1, 2) * uniform(seed=1) - normal()",
    "{at} = where(uniform() < 0.25, 0, x / 0.75)",
    "{at} = stochastic(x, bfloat16)",
    "{at} = stochastic(x * 3, float16, seed=4) + normal()",
    "{at} += std(x) * normal()",
    "{at} += mean(normal(seed=8))",
)
WHOLE = (
    "noise w -> 0.5 seed=6",
    "cast w -> bfloat16 rounding=stochastic",
    "cast w -> int8 rounding=stochastic seed=2",
)
SHAPES = st.lists(st.integers(1, 9), min_size=0, max_size=3).map(tuple)
BYTES = st.integers(8, 300)
DTYPES = st.sampled_from(["float32", "float64", "float16"])


def edited(prefix, statements, target=None, how="auto", **options):
    """Edit; return the bytes of all files of the result, and the values of all tensors."""
    with ckptkit.open(prefix) as found:
        found.edit(*statements).plan(target, how).run(**{"device": "numpy", **options})
    with ckptkit.open(target or prefix) as found:
        assert found.verify().ok
        values = {name: found[name].read() for name in found}
    return contents(str(target or prefix)), values


def made(folder, values, name="w"):
    ckptkit.save(folder / "m", {name: values})
    return str(folder / "m")


def drawn(folder, statement, shape=(40,), dtype="float32", name="w"):
    """Return the values of a tensor of zeros after a statement."""
    prefix = made(folder, np.zeros(shape, numpy_dtype(dtype)), name)
    return edited(prefix, [statement], f"{prefix}-new")[1][name]


def numbers(dtype, shape, seed):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


@st.composite
def drawings(draw):
    """Draw a bundle, the values in it, and a statement that draws numbers."""
    shape, dtype = draw(SHAPES), draw(DTYPES)
    values = numbers(dtype, shape, draw(st.integers(0, 99)))
    bundle, slices = Bundle(2, big_endian=draw(st.booleans())), draw(slicings(shape))
    if len(slices) > 1:
        bundle.add_slices(b"w", values, slices, shards=(0, 1))
    else:
        bundle.add(b"w", values)
    at = "w"
    if draw(st.booleans()):
        at = f"w[{written(draw(regions(shape)))}]"
    texts = [text.format(at=at) for text in DRAWS] + [*WHOLE] * (at == "w")
    return bundle, values, draw(st.sampled_from(texts))


# --- where and how -------------------------------------------------------------------------------


@settings(max_examples=100)
@given(
    case=drawings(),
    ways=st.lists(
        st.tuples(BYTES, BYTES, BYTES, st.integers(1, 4)), min_size=2, max_size=3, unique=True
    ),
    block=BYTES,
)
def test_neither_sizes_nor_jobs_show_in_the_bytes(fresh, tiny, case, ways, block):
    bundle, _, statement = case
    prefix = bundle.write(fresh() / "m")
    # What sums round depends on blocks, and on nothing else.
    sums = "std" in statement or "mean" in statement
    results = []
    for number, (chunk, size, near, jobs) in enumerate(ways):
        tiny(chunk, block if sums else size, near)
        with ThreadPoolExecutor(jobs) as executor:
            results.append(edited(prefix, [statement], f"{prefix}-{number}", executor=executor)[0])
    assert all(result == results[0] for result in results)


@settings(max_examples=100)
@given(case=drawings(), how=st.sampled_from(["append", "patch", "link"]), chunk=BYTES, block=BYTES)
def test_no_way_of_writing_shows_in_the_values(fresh, tiny, case, how, chunk, block):
    bundle, values, statement = case
    assume(how != "patch" or not statement.startswith("cast"))
    prefix = bundle.write(fresh() / "m")
    tiny(chunk, block)
    _, copied = edited(prefix, [statement], f"{prefix}-copy", "copy")
    target = f"{prefix}-linked" if how == "link" else None
    _, found = edited(prefix, [statement], target, how)
    assert (found["w"].dtype, found["w"].shape) == (copied["w"].dtype, values.shape)
    assert found["w"].tobytes() == copied["w"].tobytes()


@settings(max_examples=100)
@given(
    text=st.sampled_from([text for text in DRAWS if "std" not in text and "mean" not in text]),
    shape=SHAPES,
    dtype=DTYPES,
    data=st.data(),
)
def test_a_region_gets_the_numbers_that_it_has_in_the_whole(fresh, tiny, text, shape, dtype, data):
    tiny(data.draw(BYTES), data.draw(BYTES))
    values = numbers(dtype, shape, 5)
    prefix = made(fresh(), values)
    index = data.draw(regions(shape))
    whole = edited(prefix, [text.format(at="w")], f"{prefix}-whole")[1]["w"]
    how = data.draw(st.sampled_from(["copy", "append", "patch"]))
    part = edited(prefix, [text.format(at=f"w[{written(index)}]")], None, how)[1]["w"]
    expected = values.copy()
    expected[(*index, ...)] = whole[(*index, ...)]
    assert part.tobytes() == expected.tobytes()


def every_draw(folder):
    """Make tensors of several chunks each, and return statements for all of them."""
    texts = [text.format(at=f"w{n}") for n, text in enumerate(DRAWS)]
    texts += [text.replace("w ", f"v{n} ") for n, text in enumerate(WHOLE)]
    names = [text.removeprefix("noise ").removeprefix("cast ").split()[0] for text in texts]
    ckptkit.save(folder / "m", {name: numbers("float32", (61, 37), 7) for name in names})
    return str(folder / "m"), texts


def test_processes_draw_the_same(tmp_path, tiny):
    prefix, texts = every_draw(tmp_path)
    alone = edited(prefix, texts, f"{prefix}-1")[0]
    tiny(1000, ckptkit.engine.program.BLOCK)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        assert edited(prefix, texts, f"{prefix}-2", executor=executor)[0] == alone


@pytest.mark.tensorflow
def test_tensorflow_draws_the_same(tmp_path, tf, tiny):
    assert tf.__version__
    prefix, texts = every_draw(tmp_path)
    results = []
    for number, (device, chunk) in enumerate([("numpy", 1 << 20), ("cpu", 1 << 20), ("cpu", 999)]):
        tiny(chunk, 3000)
        results.append(edited(prefix, texts, f"{prefix}-{number}", device=device)[0])
    assert results[0] == results[1] == results[2]


# --- which numbers -------------------------------------------------------------------------------


def streams(seed, number, before, name):
    """Return what seed and name come to; ``number`` is the draw, ``before`` the edits before."""
    stream = f"{number} {before} {name}"
    return _native.fingerprint64(str(seed).encode()), _native.fingerprint64(stream.encode())


@given(
    seed=st.integers(-(2**40), 2**40),
    name=st.sampled_from(["w", "a/b", "été"]),
    shape=SHAPES,
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_the_numbers_are_those_of_philox(fresh, seed, name, shape, dtype):
    found = drawn(fresh(), f"{name} = uniform(seed={seed})", shape, dtype, name)
    at = streams(seed, 1, 0, name)
    digits = 53 if dtype == "float64" else 24
    expected = [philox.uniform(*at, index, digits) for index in range(found.size)]
    assert found.reshape(-1).tolist() == expected
    found = drawn(fresh(), f"{name} = 0 * uniform() + normal(seed={seed})", shape, dtype, name)
    at = streams(seed, 2, 0, name)
    odds = [philox.odds(*at, index) for index in range(found.size)]
    normal = [(1 if below else -1) * NormalDist().inv_cdf(n / 2**54) for n, below in odds]
    assert found.reshape(-1).tolist() == pytest.approx(
        normal, rel=1e-6 if dtype == "float32" else 1e-13
    )


def test_other_seeds_names_draws_and_statements_give_other_numbers(tmp_path):
    values = {name: np.zeros(64, "float32") for name in ("a", "b", "c", "d", "e", "f", "g")}
    ckptkit.save(tmp_path / "m", values)
    statements = (
        "a = normal()",
        "b = normal()",
        "c = normal(seed=1)",
        "d = concat(normal(shape=[64]), normal(shape=[64]))",
        "e = normal()",
        "e = 1000 * x + normal()",
        "f = uniform()",
        "f = 1000 * round(x * 4096) + uniform()",
        "g = normal(seed=-1)",
    )
    _, found = edited(tmp_path / "m", statements, tmp_path / "n")
    first = np.asarray(found["e"], np.float64)
    last = first - 1000 * np.round(first / 1000)
    whole = [found[name] for name in "abcg"] + [found["d"][:64], found["d"][64:], last]
    for at, one in enumerate(whole):
        for other in whole[at + 1 :]:
            assert not np.isin(one, other).any()
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.6


def test_two_statements_draw_as_often_in_one_draft_as_in_two(tmp_path):
    """The next edit of a tensor draws other numbers, whether or not something stands between."""
    prefix = made(tmp_path, np.zeros(50, "float32"))
    once = edited(prefix, ["w = normal()"], f"{prefix}-1")[1]["w"]
    twice = edited(prefix, ["w = normal()", "w = normal()"], f"{prefix}-2")[1]["w"]
    between = edited(prefix, ["w = normal()", "w *= 2", "w = normal()"], f"{prefix}-3")[1]["w"]
    assert not np.isin(once, twice).any()
    assert twice.tobytes() == between.tobytes()


def test_moments_are_those_of_the_distribution(tmp_path):
    count = 100_000
    ckptkit.save(tmp_path / "m", {name: np.ones(count, "float32") for name in "abcd"})
    statements = (
        "a = normal(3, 0.5)",
        "b = uniform(-1, 3)",
        "noise c -> 0.25",
        "d = uniform() < 0.3",
    )
    ckptkit.save(tmp_path / "m2", {"d": np.zeros(count, bool)})
    _, found = edited(tmp_path / "m", statements[:3], tmp_path / "n")
    chosen = edited(tmp_path / "m2", statements[3:], tmp_path / "n2")[1]["d"]
    for name, mean, std in (("a", 3, 0.5), ("b", 1, 4 / 12**0.5), ("c", 1, 0.25)):
        values = found[name].astype(np.float64)
        assert abs(values.mean() - mean) < 5 * std / count**0.5
        assert abs(values.std() / std - 1) < 0.02
    assert found["b"].min() >= -1
    assert found["b"].max() < 3
    assert abs(chosen.mean() - 0.3) < 5 * (0.21 / count) ** 0.5


# --- rounding by chance --------------------------------------------------------------------------

NARROW = {
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float8_e4m3fn": "float8_e4m3fn",
    "float8_e5m2": "float8_e5m2",
}


@np.errstate(invalid="ignore")
def neighbours(values, dtype):
    """Return the greatest value of a dtype that is not above each value, and the least not below.

    They are found among all values that the dtype has.
    """
    kind = numpy_dtype(dtype)
    unsigned = np.dtype(f"u{kind.itemsize}")
    if kind.kind == "i":
        return np.floor(values), np.ceil(values)
    every = np.arange(1 << 8 * kind.itemsize, dtype=np.uint32).astype(unsigned).view(kind)
    line = np.unique(every[np.isfinite(every)].astype(np.float64))
    below = np.searchsorted(line, values, "right") - 1
    above = np.searchsorted(line, values, "left")
    return line[np.maximum(below, 0)], line[np.minimum(above, len(line) - 1)]


@settings(max_examples=60)
@given(
    source=st.sampled_from(["float32", "float64", "bfloat16"]),
    dtype=st.sampled_from(sorted(NARROW)),
    seed=st.integers(0, 2**32 - 1),
    near=st.booleans(),
)
@np.errstate(invalid="ignore")
def test_rounding_by_chance_gives_one_of_two_neighbours(fresh, source, dtype, seed, near):
    values = random_array(source, (70,), seed)
    if near:
        values = numbers(numpy_dtype(source), (70,), seed) * numpy_dtype(source).type(2.0**-8)
    prefix = made(fresh(), values)
    statement = f"cast w -> {dtype} rounding=stochastic seed={seed}"
    found = edited(prefix, [statement], f"{prefix}-new")[1]["w"]
    assert found.dtype == numpy_dtype(dtype)
    wide, given_values = found.astype(np.float64), values.astype(np.float64)
    # What a plain cast makes of NaN, infinities, and all that is too large, this makes of it too.
    plain = edited(prefix, [f"cast w -> {dtype}"], f"{prefix}-plain")[1]["w"].astype(np.float64)
    below, above = neighbours(given_values, dtype)
    inside = (given_values >= below) & (given_values <= above) & np.isfinite(given_values)
    assert np.array_equal(wide[~inside], plain[~inside], equal_nan=True)
    assert np.all((wide[inside] == below[inside]) | (wide[inside] == above[inside]))
    exact = inside & (below == above)
    assert np.array_equal(wide[exact], given_values[exact])


@settings(max_examples=60)
@given(
    dtype=st.sampled_from(["int8", "uint8", "int32", "int64", "int16"]),
    source=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1.0, 100.0, 1e6, 2.0**40, 2.0**50, 2.0**62, 1e30]),
)
def test_rounding_to_integers_by_chance(fresh, dtype, source, seed, size):
    values = numbers(source, (80,), seed) * np.dtype(source).type(size)
    values[:20] = np.floor(values[:20])
    values[:3] = np.nan, np.inf, -np.inf
    prefix = made(fresh(), values)
    statement = f"cast w -> {dtype} rounding=stochastic seed={seed}"
    found = edited(prefix, [statement], f"{prefix}-new")[1]["w"]
    limits = np.iinfo(dtype)
    for value, result in zip(values.tolist(), found.tolist(), strict=True):
        if np.isnan(value):
            allowed = {0}
        elif np.isinf(value):
            allowed = {limits.max if value > 0 else limits.min}
        else:
            down, up = int(np.floor(value)), int(np.ceil(value))
            allowed = {max(limits.min, min(limits.max, whole)) for whole in (down, up)}
        assert result in allowed, (value, result)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8", "float8_e4m3fn"])
@pytest.mark.parametrize("value", [0.3, -1.7, 5.000001, 1e-7, -0.62])
def test_rounding_by_chance_is_unbiased(tmp_path, dtype, value):
    count = 40_000
    prefix = made(tmp_path, np.full(count, value, np.float64))
    found = edited(prefix, [f"cast w -> {dtype} rounding=stochastic"], f"{prefix}-new")[1]["w"]
    wide = found.astype(np.float64)
    below, above = (float(end[0]) for end in neighbours(np.array([value]), dtype))
    assert set(wide.tolist()) <= {below, above}
    share = (value - below) / (above - below)
    error = (share * (1 - share) / count) ** 0.5
    assert abs((wide == above).mean() - share) < 5 * error + 5 / count
