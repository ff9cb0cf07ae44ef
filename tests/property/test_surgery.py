"""Named edits give what plain NumPy gives, for any dtype, shape, block, slicing and way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptkit
from tests.golden.handmade import Bundle, numpy_dtype
from tests.property import twins
from tests.property.edited import check_values, contents, same
from tests.property.strategies import SEEDS, slicings

pytestmark = pytest.mark.usefixtures("unsynced")

FLOATS = ("float32", "float64", "float16", "bfloat16")
SIZES = st.sampled_from([1, 1, 2, 3, 4, 5, 7, 8, 40])
SHAPES = st.lists(SIZES, max_size=4).map(tuple).filter(lambda shape: np.prod(shape) <= 700)
EMPTY = st.lists(st.sampled_from([0, 1, 3]), min_size=1, max_size=3).map(tuple)
ANY = st.one_of(SHAPES, EMPTY)
WAYS = ("copy", "link", "append")


def drawn(dtype, shape, seed, kind="normal"):
    """Return values with ties, zeros of either sign, infinities and NaN where they are wanted."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) * 2
    if kind in {"ties", "odd"}:
        values = np.round(values * 2) / 2
    if kind == "odd" and values.size:
        chosen = rng.random(shape) < 0.15
        odd = rng.choice([np.nan, np.inf, -np.inf, -0.0], shape)
        values = np.where(chosen, odd, values)
    return np.asarray(values, numpy_dtype(dtype))


KINDS = st.sampled_from(["normal", "ties", "odd"])


@st.composite
def floats(draw, dtypes=FLOATS, shapes=ANY, kinds=KINDS):
    return drawn(draw(st.sampled_from(dtypes)), draw(shapes), draw(SEEDS), draw(kinds))


@pytest.fixture
def edited(fresh, tiny):
    """Write tensors, edit them in a way that is drawn, and compare with what is expected."""

    def check(data, values, statements, expected, *, ways=WAYS):
        block = data.draw(st.sampled_from([16, 40, 64, 200, 4096]), "block")
        tiny(data.draw(st.sampled_from([16, 100, 4096]), "chunk"), block)
        bundle, folder = Bundle(2, big_endian=data.draw(st.booleans(), "big")), fresh()
        for name, array in values.items():
            slices = data.draw(slicings(array.shape)) if array.size and array.shape else [[]]
            if len(slices) > 1 and data.draw(st.booleans()):
                bundle.add_slices(name.encode(), array, slices, shards=(0, 1))
            else:
                bundle.add(name.encode(), array, shard=data.draw(st.integers(0, 1)))
        source = bundle.write(folder / "m")
        how = data.draw(st.sampled_from(ways), "how")
        target = str(folder / "n") if how in {"copy", "link"} else None
        before = contents(source)
        with ckptkit.open(source) as found:
            found.edit(*statements).plan(target, how).run(device="numpy")
        if target:
            assert contents(source) == before
        compare(target or source, expected)
        return target or source

    return check


def compare(path, expected):
    with ckptkit.open(path) as found:
        assert found.verify().ok
    check_values(path, expected)


# --- values ------------------------------------------------------------------------------------


@given(data=st.data(), low=st.integers(-3, 1), width=st.integers(0, 3))
def test_clip(edited, data, low, width):
    values = {"a": data.draw(floats()), "b/c": data.draw(floats()), "n": np.arange(4)}
    high = low + width
    expected = {n: twins.clipped(v, low, high) for n, v in values.items() if n != "n"}
    expected["n"] = np.clip(values["n"], low, high)
    edited(data, values, [f"clip ** -> {low}, {high}"], expected, ways=(*WAYS, "patch"))


@given(data=st.data(), number=st.sampled_from([None, 0, 2.5, -1]))
def test_repair(edited, data, number):
    values = {"a": data.draw(floats()), "b/c": data.draw(floats()), "n": np.arange(4)}
    statement = "repair **" if number is None else f"repair ** -> {number}"
    expected = {n: twins.repaired(v, number or 0) for n, v in values.items() if n != "n"}
    edited(data, values, [statement], {**values, **expected}, ways=(*WAYS, "patch"))


@given(data=st.data(), dtype=st.sampled_from((*FLOATS, "float8_e4m3fn", "float8_e5m2")))
def test_cast_to_the_nearest(edited, data, dtype):
    values = {"a": data.draw(floats()), "b/c": data.draw(floats()), "n": np.arange(4)}
    expected = {n: twins.back(v, dtype) for n, v in values.items() if n != "n"}
    edited(data, values, [f"cast ** -> {dtype}"], {**values, **expected})


@given(
    data=st.data(),
    dtype=st.sampled_from(["bfloat16", "float16", "float32"]),
    seed=st.sampled_from([0, 3]),
)
def test_cast_by_chance(edited, data, dtype, seed):
    shapes = SHAPES.filter(lambda shape: np.prod(shape) <= 60)
    values = {"a": data.draw(floats(("float32", "float64"), shapes))}
    values["b/c"] = data.draw(floats(("float32", "float64"), shapes))
    words = f" seed={seed}" if seed else ""
    expected = {
        name: twins.rounded_by_chance(array, dtype, twins.draws(name, array.size, seed))
        for name, array in values.items()
    }
    edited(data, values, [f"cast ** -> {dtype} rounding=stochastic{words}"], expected)


def test_chance_is_in_proportion(fresh):
    """A value a quarter of the way up goes up a quarter of the times."""
    folder, count = fresh(), 200_000
    step = 2.0**-7
    ckptkit.save(folder / "m", {"w": np.full(count, 1 + step / 4, np.float32)})
    with ckptkit.open(folder / "m") as found:
        edit = "cast w -> bfloat16 rounding=stochastic"
        found.edit(edit).plan(folder / "n").run(device="numpy")
    with ckptkit.open(folder / "n") as found:
        rounded = found["w"].read().astype(np.float64)
    assert set(rounded) == {1.0, 1 + step}
    up = np.count_nonzero(rounded > 1) / count
    assert abs(up - 0.25) < 5 * np.sqrt(0.25 * 0.75 / count)


@settings(max_examples=20)
@given(data=st.data(), std=st.sampled_from([0.5, 2]), seed=st.sampled_from([0, 9]))
def test_noise_follows_from_seed_name_and_index(edited, data, std, seed):
    shape = data.draw(SHAPES)
    values = {name: np.zeros(shape, np.float32) for name in ("a", "b")}
    words = f" seed={seed}" if seed else ""
    key = twins._native.fingerprint64(str(seed).encode())
    expected = {}
    for name, array in values.items():
        stream = twins._native.fingerprint64(f"0 0 {name}".encode())
        start = np.zeros(1, np.int64)
        raw = twins._native.philox("normal", "float32", key, stream, start, array.size, 1)
        normal = np.frombuffer(raw, np.float32).reshape(shape)
        expected[name] = array + np.float32(std) * normal
    edited(data, values, [f"noise ** -> {std}{words}"], expected, ways=(*WAYS, "patch"))


# --- pruning -----------------------------------------------------------------------------------


@settings(max_examples=80)
@given(
    data=st.data(),
    percent=st.sampled_from([0, 1, 25, 50, 90, 99.5, 100]),
    scope=st.sampled_from(["", " scope=global", " scope=tensor"]),
)
def test_prune_sets_exactly_the_smallest_to_zero(edited, data, percent, scope):
    names = ("a", "b/c", "d")
    values = {name: data.draw(floats(), name) for name in names[: data.draw(st.integers(1, 3))]}
    arrays = list(values.values())
    if scope.endswith("tensor"):
        made = [twins.pruned([array], percent / 100)[0] for array in arrays]
    else:
        made = twins.pruned(arrays, percent / 100)
    expected = dict(zip(values, made, strict=True))
    integers = {"n": np.arange(5)}
    edited(
        data,
        {**values, **integers},
        [f"prune ** -> {percent}%{scope}"],
        {**expected, **integers},
        ways=(*WAYS, "patch"),
    )


@given(data=st.data(), groups=st.sampled_from([(2, 4), (1, 2), (0, 3), (3, 3), (1, 8)]), kind=KINDS)
def test_prune_keeps_the_largest_of_every_group(edited, data, groups, kind):
    keep, group = groups
    shape = list(data.draw(st.lists(st.sampled_from([1, 2, 3, 5]), min_size=1, max_size=3)))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    shape[axis] *= group
    values = {
        "a": drawn(data.draw(st.sampled_from(FLOATS)), tuple(shape), data.draw(SEEDS), kind),
        "b": np.random.default_rng(1).integers(-128, 128, shape).astype(np.int8),
    }
    words = "" if axis == -1 else f" axis={axis}"
    expected = {name: twins.sparse(array, keep, group, axis) for name, array in values.items()}
    edited(data, values, [f"prune ** -> {keep}:{group}{words}"], expected, ways=(*WAYS, "patch"))


# --- int8 --------------------------------------------------------------------------------------


@st.composite
def quantizable(draw):
    shape = draw(st.lists(SIZES, min_size=1, max_size=3).map(tuple))
    values = drawn(draw(st.sampled_from(FLOATS)), shape, draw(SEEDS), "ties")
    if draw(st.booleans()):
        values = np.zeros_like(values)
    return values


@given(data=st.data(), template=st.sampled_from(["", "scale/{0}"]))
def test_quantize_and_back(edited, data, template):
    values = {"a": data.draw(quantizable()), "b/c": data.draw(quantizable())}
    rank = min(array.ndim for array in values.values())
    axis = data.draw(st.one_of(st.none(), st.integers(-rank, rank - 1)))
    words = ("" if axis is None else f" axis={axis}") + (f" scale={template}" if template else "")
    expected = {}
    for name, array in values.items():
        steps, scale = twins.quantized(array, axis)
        expected[name] = steps
        expected[(template or "{0}_scale").replace("{0}", name)] = scale
    statement = f"quantize (**) -> int8{words}" if template else f"quantize ** -> int8{words}"
    values["text"] = np.array([b"kept", b""], object)
    expected["text"] = values["text"]
    path = edited(data, values, [statement], expected)
    dtype = data.draw(st.sampled_from(FLOATS))
    words = f" scale={template}" if template else ""
    with ckptkit.open(path) as found:
        edits = [f"dequantize {name} -> {dtype}{words}" for name in ("a", "b/c")]
        found.edit(*edits).plan(f"{path}-back").run(device="numpy")
    again = {"text": values["text"]}
    for name in ("a", "b/c"):
        scale = expected[(template or "{0}_scale").replace("{0}", name)]
        again[name] = twins.dequantized(expected[name], scale, dtype)
    compare(f"{path}-back", again)


def test_quantize_without_elements_and_without_floats(fresh):
    folder = fresh()
    ckptkit.save(folder / "m", {"w": np.ones(3, np.float32), "n": np.arange(3)})
    with ckptkit.open(folder / "m") as found:
        draft = found.edit("quantize ** -> int8")
        assert "passed over 1 tensor" in draft.notes[0]
        with pytest.raises(ckptkit.EditError, match="not quantized"):
            found.edit("quantize n -> int8")
        with pytest.raises(ckptkit.EditError, match="no scale"):
            found.edit("dequantize w")
        with pytest.raises(ckptkit.EditError, match="already"):
            found.edit("copy n -> w_scale", "quantize w -> int8")


# --- places ------------------------------------------------------------------------------------

PLACED = ("float32", "float64", "bfloat16", "int64", "int8", "bool", "complex64")


@st.composite
def placed(draw, shapes=ANY):
    dtype, shape = draw(st.sampled_from(PLACED)), draw(shapes)
    numbers = np.random.default_rng(draw(SEEDS)).integers(-100, 100, shape)
    return np.asarray(numbers > 0 if dtype == "bool" else numbers, numpy_dtype(dtype))


@settings(max_examples=100)
@given(data=st.data())
def test_transpose(edited, data):
    values = {"a": data.draw(placed()), "b": data.draw(placed())}
    axes = data.draw(st.permutations(range(values["a"].ndim)))
    statement = f"transpose a -> {', '.join(map(str, axes))}" if axes else "transpose a"
    expected = {"a": values["a"].transpose(axes), "b": values["b"].transpose()}
    edited(data, values, [statement, "transpose b"], expected)


@given(data=st.data())
def test_reshape(edited, data):
    array = data.draw(placed())
    shape = list(data.draw(st.permutations(array.shape)))
    if data.draw(st.booleans()):
        shape = [int(np.prod(shape)), 1]
    if array.size and shape and data.draw(st.booleans()):
        shape[data.draw(st.integers(0, len(shape) - 1))] = -1
    if not shape:
        shape = [1, 1]
    statement = f"reshape a -> {', '.join(map(str, shape))}"
    edited(data, {"a": array}, [statement], {"a": array.reshape(shape)})


RANKED = ANY.filter(bool)


@given(data=st.data())
def test_split_and_concat(edited, data):
    array = data.draw(placed(RANKED))
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    cuts = sorted(data.draw(st.lists(st.integers(0, array.shape[axis]), max_size=3)))
    parts = np.split(array, cuts, axis)
    names = [f"part/{n}" for n in range(len(parts))]
    sizes = ",".join(str(part.shape[axis]) for part in parts)
    split = f"split w -> {', '.join(names)} axis={axis} sizes={sizes}"
    values = {"w": array, "z": array}
    expected = {**dict(zip(names, parts, strict=True)), "z": array}
    path = edited(data, values, [split], expected)
    with ckptkit.open(path) as found:
        edits = [f"concat {', '.join(names)} -> w axis={axis}"]
        found.edit(*edits).plan(f"{path}-back").run(device="numpy")
    compare(f"{path}-back", values)


@given(data=st.data())
def test_unstack_and_stack(edited, data):
    array = data.draw(placed(RANKED))
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    count = array.shape[axis]
    expected = {f"layer{n}/w": np.take(array, n, axis) for n in range(count)}
    path = edited(
        data, {"w": array, "z": array}, [f"unstack w -> layer{{}}/w axis={axis}"],
        {**expected, "z": array},
    )  # fmt: skip
    if count:
        with ckptkit.open(path) as found:
            edit = f"stack layer*/w -> w axis={axis}"
            found.edit(edit).plan(f"{path}-back").run(device="numpy")
        compare(f"{path}-back", {"w": array, "z": array})


@given(data=st.data(), count=st.integers(2, 3))
def test_equal_parts(edited, data, count):
    array = data.draw(placed(RANKED))
    array = np.concatenate([array] * count)
    names = [f"p{n}" for n in range(count)]
    expected = dict(zip(names, np.split(array, count), strict=True))
    edited(data, {"w": array}, [f"split w -> {', '.join(names)}"], expected)


@given(data=st.data())
def test_take(edited, data):
    array = data.draw(placed(SHAPES.filter(bool)))
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    size = array.shape[axis]
    rows = data.draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=6))
    if data.draw(st.booleans()):
        rows = data.draw(st.permutations(range(size)))
    statement = f"take w -> {', '.join(map(str, rows))} axis={axis}"
    edited(data, {"w": array}, [statement], {"w": np.take(array, rows, axis)})


@given(data=st.data(), fill=st.sampled_from(["", "zeros", "mean", "row"]))
def test_resize(edited, data, fill):
    array = data.draw(floats(shapes=SHAPES.filter(bool), kinds=st.just("ties")))
    axis = data.draw(st.integers(0, array.ndim - 1))
    size = data.draw(st.integers(0, 2 * array.shape[axis] + 1))
    row = data.draw(st.integers(-array.shape[axis], array.shape[axis] - 1))
    words = {"": "", "row": f" fill={row}"}.get(fill, f" fill={fill}")
    expected = twins.resized(array, size, axis, row if fill == "row" else fill or "zeros")
    edited(data, {"w": array}, [f"resize w -> {size} axis={axis}{words}"], {"w": expected})


def test_resize_by_chance_has_mean_and_deviation_of_the_axis(fresh, tiny):
    folder = fresh()
    rng = np.random.default_rng(1)
    table = (rng.standard_normal((50, 3)) * [1, 5, 0.1] + [0, 100, -2]).astype(np.float32)
    ckptkit.save(folder / "m", {"w": table})
    for name, block in (("n", 100), ("o", 5000)):
        tiny(block, block)
        with ckptkit.open(folder / "m") as found:
            edit = "resize w -> 20050 fill=normal seed=4"
            found.edit(edit).plan(folder / name).run(device="numpy")
    assert contents(f"{folder}/n") == contents(f"{folder}/o")
    with ckptkit.open(folder / "n") as found:
        made = found["w"].read()
    assert same(made[:50], table)
    np.testing.assert_allclose(made[50:].mean(0), table.mean(0), rtol=0.02, atol=0.04)
    np.testing.assert_allclose(made[50:].std(0), table.std(0), rtol=0.03)


# --- several tensors together ------------------------------------------------------------------


@given(data=st.data(), scale=st.sampled_from([None, 0.5, -2]))
def test_low_rank_update(edited, data, scale):
    rows, inner, columns = data.draw(st.tuples(SIZES, st.integers(0, 5), SIZES))
    dtype, seed = data.draw(st.sampled_from(FLOATS)), data.draw(SEEDS)
    values = {
        "l/w": drawn(dtype, (rows, columns), seed, "ties"),
        "l/A": drawn(dtype, (rows, inner), seed + 1, "ties"),
        "l/B": drawn(dtype, (inner, columns), seed + 2, "ties"),
    }
    words = "" if scale is None else f" scale={scale}"
    wide = {name: twins.computed(array) for name, array in values.items()}
    # Halves: their products and sums are exact, in whatever order.
    product = wide["l/A"] @ wide["l/B"] * wide["l/w"].dtype.type(scale or 1)
    expected = {**values, "l/w": twins.back(wide["l/w"] + product, dtype)}
    edited(
        data,
        values,
        [f"lora (*)/w -> {{1}}/A, {{1}}/B{words}"],
        expected,
        ways=(*WAYS, "patch"),
    )


@st.composite
def normalised(draw):
    """Draw a kernel and what comes after it; the axis of its channels, or None by depth."""
    rank = draw(st.integers(2, 4))
    shape = tuple(draw(st.sampled_from([1, 2, 3, 5])) for _ in range(rank))
    axis = draw(st.sampled_from([-1, -2, None]))
    channels = shape[-1] * shape[-2] if axis is None else shape[axis]
    rng = np.random.default_rng(draw(SEEDS))
    values = {"kernel": rng.standard_normal(shape).astype(np.float32)}
    for role in ("gamma", "beta", "moving_mean", "moving_variance", "bias"):
        if role.startswith("moving") or draw(st.booleans()):
            values[role] = rng.random(channels).astype(np.float32) + np.float32(0.1)
    return values, axis


@settings(max_examples=80)
@given(
    data=st.data(),
    case=normalised(),
    drop=st.booleans(),
    suffix=st.sampled_from(["", "/.ATTRIBUTES/VARIABLE_VALUE"]),
    epsilon=st.sampled_from([None, 0.01]),
)
def test_fold_batch_norm(edited, data, case, drop, suffix, epsilon):
    values, axis = case
    roles = ("gamma", "beta", "moving_mean", "moving_variance")
    kernel, bias = twins.folded(
        values["kernel"],
        [values.get(role) for role in roles],
        epsilon or 0.001,
        axis=axis or -1,
        depthwise=axis is None,
        bias=values.get("bias"),
    )
    stored = {
        f"{'bn' if role in roles else 'conv'}/{role}{suffix}": array
        for role, array in values.items()
    }
    words = {-1: "", -2: " axis=-2", None: " depthwise=true"}[axis]
    words += "" if epsilon is None else f" epsilon={epsilon}"
    has_bias = "bias" in values
    words += f" bias=conv/bias{suffix}" if has_bias else ""
    words += " drop=true" if drop else ""
    statement = f"foldbn conv/kernel{suffix} -> bn{words}"
    if not has_bias and (drop or "beta" not in values):
        with pytest.raises(ckptkit.EditError, match="bias"):
            edited(data, stored, [statement], {})
        return
    expected = {f"conv/kernel{suffix}": kernel}
    if has_bias:
        expected[f"conv/bias{suffix}"] = bias
    if not drop:
        one = np.float32(1)
        rest = {
            "gamma": one, "beta": one * 0, "moving_mean": one * 0,
            "moving_variance": np.float32(1 - (epsilon or 0.001)),
        }  # fmt: skip
        expected |= {
            f"bn/{role}{suffix}": np.full_like(values[role], number)
            for role, number in rest.items()
            if role in values
        }
        if not has_bias:
            expected[f"bn/beta{suffix}"] = bias
    edited(data, stored, [statement], expected)


@given(data=st.data())
def test_new(edited, data):
    array = data.draw(floats(("float32", "float64"), SHAPES))
    values = {"w": array}
    expected = {
        "w": array,
        "double": array + array,
        "ones": np.ones((2, 3), np.float32),
    }
    statements = ['new double = t("w") + t("w")', "new ones = expand(1.0, [2, 3])"]
    edited(data, values, statements, expected)


# --- one after another -------------------------------------------------------------------------

CHAINED = {
    "clip w -> -1, 1": lambda w: twins.clipped(w, -1, 1),
    "w *= 2": lambda w: w * 2,
    "w = x + 1": lambda w: w + 1,
    "repair w -> 3": lambda w: twins.repaired(w, 3),
    "prune w -> 30%": lambda w: twins.pruned([w], 0.3)[0],
    "prune w -> 50% scope=tensor": lambda w: twins.pruned([w], 0.5)[0],
    "transpose w": lambda w: w.transpose(),
    "reshape w -> -1": lambda w: w.reshape(-1),
    "take w -> -1, 0": lambda w: np.take(w, [-1, 0], 0),
    "resize w -> 5 fill=-1": lambda w: twins.resized(w, 5, 0, -1),
    "resize w -> 3": lambda w: twins.resized(w, 3, 0, "zeros"),
    "split w -> w, rest sizes=1,{rest}": lambda w: w[:1],
    "concat w, w2 -> w": lambda w: np.concatenate([w, w]),
    "w[0] = 7": lambda w: np.concatenate([np.full_like(w[:1], 7), w[1:]]),
    "prune w -> 1:1": lambda w: w,
}
"""Statements over the tensor ``w``, whose first axis always has a row, and what they make of it."""


def _statements(text, array):
    """Return what has to be said for an array of that shape."""
    if text.startswith("concat"):
        return ["copy w -> w2", text]
    if text.startswith("split"):
        return [text.format(rest=len(array) - 1), "drop rest"]
    return [text]


@settings(max_examples=120)
@given(data=st.data(), texts=st.lists(st.sampled_from(sorted(CHAINED)), min_size=2, max_size=6))
def test_edits_follow_one_another(edited, data, texts):
    array = data.draw(floats(("float32", "float64"), SHAPES.filter(bool), st.just("ties")))
    values, statements, current = {"w": array, "z": array}, [], array
    for text in texts:
        statements += _statements(text, current)
        current = CHAINED[text](current)
    edited(data, values, statements, {"w": current, "z": array})


@given(data=st.data(), dtype=st.sampled_from(["float32", "float16"]))
def test_what_stays_in_place_is_patched(edited, data, dtype):
    texts = ["clip w -> -1, 1", "prune w -> 30%", "w *= 2", "repair w -> 3", "take w -> ROWS"]
    texts = data.draw(st.lists(st.sampled_from(texts), min_size=1, max_size=4))
    array = drawn(dtype, data.draw(SHAPES.filter(bool)), data.draw(SEEDS), "ties")
    rows = list(reversed(range(len(array))))
    functions = {**CHAINED, "take w -> ROWS": lambda w: w[::-1]}
    current = array
    for text in texts:
        current = functions[text](current)
    statements = [text.replace("ROWS", ", ".join(map(str, rows))) for text in texts]
    edited(data, {"w": array, "z": array}, statements, {"w": current, "z": array}, ways=("patch",))
