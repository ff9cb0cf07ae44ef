"""Kernels: what they compute, in which dtype, what they refuse, and the bits of TensorFlow."""

import itertools
import pickle

import numpy as np
import pytest

from ckptkit.errors import EditError
from ckptkit.expressions import OPS
from ckptkit.kernels import Constant, Expression, MapFunction
from ckptkit.language import parse
from ckptkit.lowering import (
    KindError,
    NumpyOps,
    integer_range,
    lower,
    numpy_dtype,
    promote,
)
from ckptkit.model import DTYPES, TensorSpec

WORKING = [
    "bool",
    *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)),
    "float32",
    "float64",
    "complex64",
    "complex128",
]


def expr(text):
    return parse(f"w = {text}").expr


def run(text, *values, to=None):
    """Compute an expression of x and t("a"), t("b") with NumPy."""
    arrays = [np.asarray(value) for value in values]
    kernel = Expression(expr(text), to or arrays[0].dtype.name)
    kernel.output([TensorSpec(a.dtype.name, a.shape) for a in arrays])
    return kernel.block(NumpyOps(), arrays)


def f32(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("x * 1.5", f32(2, -4), f32(3, -6)),
        ("1 / x", f32(0, 4), f32(np.inf, 0.25)),
        ("-x ** 2", f32(3), f32(-9)),
        ("x // 2", f32(5, -5), f32(2, -3)),
        ("x % 3", f32(5, -5), f32(2, 1)),
        ("where(x > 0, x, 0.01 * x)", f32(1, -1), f32(1, -0.01)),
        ("where(0 < x and not x > 2, 1, 0)", f32(-1, 1, 3), f32(0, 1, 0)),
        ("clip(x, -1, 1)", f32(-3, 0.5, np.nan), f32(-1, 0.5, np.nan)),
        ("round(x)", f32(0.5, 1.5, -2.5), f32(0, 2, -2)),
        ("relu(x)", f32(-1, 2), f32(0, 2)),
        ("sigmoid(x)", f32(0, -1000), f32(0.5, 0)),
        ("isnan(x)", f32(np.nan, 1), f32(1, 0)),
        ("zeros()", f32(1, 2), f32(0)),
        ("ones() / 3", f32(1), f32(1 / 3)),
        ("2 ** 10 + 1 / 4", f32(1), f32(1024.25)),
    ],
)
def test_expressions_compute_as_numpy_does(text, given, expected):
    result = run(text, given)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(np.broadcast_to(result, expected.shape or (1,)), expected)


@pytest.mark.parametrize(
    "dtype", [d for d in DTYPES if DTYPES[d].kind == "float" and DTYPES[d].bits < 32]
)
def test_narrow_floats_compute_in_float32_and_round_once(dtype):
    values = np.linspace(0.1, 2, 64, dtype=np.float32).astype(numpy_dtype(dtype))
    result = run("(x * 0.3 + 1) / 3", values)
    wide = values.astype(np.float32)
    expected = ((wide * np.float32(0.3) + np.float32(1)) / np.float32(3)).astype(values.dtype)
    np.testing.assert_array_equal(result.view(np.uint8), expected.view(np.uint8))


def test_integers_wrap_in_their_own_dtype():
    assert run("x + 100", np.int8([100])).tolist() == [-56]
    assert run("-x", np.uint16([1])).tolist() == [65535]
    assert run("x ** 3", np.uint8([10])).tolist() == [1000 % 256]
    assert run("abs(x) + sign(x) + round(x)", np.uint8([0, 9])).tolist() == [0, 19]


def test_integers_below_a_byte_wrap_to_their_bits():
    assert run("x * 3", np.array([7, -8], numpy_dtype("int4"))).astype(int).tolist() == [5, -8]
    assert run("x + 1", np.array([3], numpy_dtype("uint2"))).astype(int).tolist() == [0]


def test_inputs_promote_and_the_result_returns_to_the_dtype_of_the_tensor():
    step = lower(expr('x * t("a")'), "float32", ("float32", "int32"))
    assert (step.dtype, step.args[0].dtype) == ("float32", "float64")
    assert run('x + t("a")', f32(1, 2), np.int8([1])).tolist() == [2, 3]


@pytest.mark.parametrize(("a", "b"), list(itertools.product(WORKING, WORKING)))
def test_promotion_is_that_of_numpy(a, b):
    assert promote(a, b) == np.result_type(numpy_dtype(a), numpy_dtype(b)).name


def test_a_float_becomes_an_integer_by_truncation_and_saturation():
    values = f32(np.nan, 1.9, -1.9, 1e30, -np.inf, 127.9, -128.9)
    assert run("cast(x, int8)", values, to="int8").tolist() == [0, 1, -1, 127, -128, 127, -128]
    for dtype in (d for d in DTYPES if DTYPES[d].kind in {"int", "uint"} and d[0] != "q"):
        low, high = integer_range(dtype)
        result = run(f"cast(x, {dtype})", f32(np.inf, -np.inf, 1e38, -1e38), to=dtype)
        assert result.astype(object).tolist() == [high, low, high, low]


def test_float64_goes_to_narrow_floats_by_way_of_float32_and_anything_to_bool_by_not_zero():
    halfway = np.float64([1 + 2**-11 + 2**-40])
    assert run("cast(x, float16)", halfway, to="float16") == np.float16(np.float32(halfway[0]))
    assert run("cast(x, bool)", f32(0, -0.0, 0.1, np.nan), to="bool").tolist() == [0, 0, 1, 1]


def test_extremes_keep_nan_and_take_the_first_of_equals():
    x, other = f32(np.nan, 1, -0.0, 0.0, 2), f32(1, np.nan, 0.0, -0.0, 3)
    for op in ("minimum", "maximum"):
        result = run(f'{op}(x, t("a"))', x, other)
        assert np.isnan(result[:2]).all()
        assert np.signbit(result[2:4]).tolist() == [True, False]
    for text in ("maximum(x, nan)", "minimum(nan, x)", "clip(x, -nan, 1)", "clip(x, 0, nan)"):
        assert np.isnan(run(text, x)).all()
    assert run('maximum(x, t("a"))', x, other)[4] == 3
    assert run('minimum(x, t("a"))', x, other)[4] == 2


def test_deep_expressions_take_no_stack_and_compute_what_is_used_twice_once():
    text = "x"
    for _ in range(98):
        text = f"clip({text}, 0, 1)"
    assert run(text, f32(-1, 2)).tolist() == [0, 1]


def test_complex_numbers():
    z = np.complex64([3 + 4j])
    assert run("abs(x)", z).tolist() == [5]
    assert run("abs(x)", z).dtype == np.complex64
    assert run("x * 2j", z).tolist() == [-8 + 6j]


@pytest.mark.parametrize(
    ("text", "dtype", "message"),
    [
        (
            "x * 0.5",
            "int32",
            "x * 0.5 gives float64, which does not go into int32: write cast(round(x * 0.5), int32",
        ),
        ("x > 0", "qint8", "qint8 has no scale, so that its values are not known:"),
        ("x", "string", "string is no number: it can be copied, renamed and dropped"),
        ("x < 1", "complex64", "< is not defined for complex64"),
        ("x * 2j", "float32", "x * 2j gives complex64, which does not go into float32: write abs("),
        ("1", "bool", "1 gives int64, which does not go into bool: write cast(1, bool)"),
        ("not x", "float32", "not is not defined for float32; compare first, as in x != 0"),
        ("where(x, 1, 0)", "int8", "where() chooses by bool, not int8; compare first"),
        ("cast(x, float32)", "complex64", "complex64 does not become float32: write abs(...)"),
    ],
)
def test_kinds_that_do_not_go_together_are_refused(text, dtype, message):
    with pytest.raises(KindError) as caught:
        Expression(expr(text), dtype).output([TensorSpec(dtype, (2,))])
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("text", "dtype", "message"),
    [
        ("x + 300", "int8", "300 does not fit int8, which holds -128 to 127"),
        ("8", "int4", "8 does not fit int4, which holds -8 to 7"),
        ("x + -1", "uint8", "-1 does not fit uint8, which holds 0 to 255"),
        ("2 ** 64", "float32", "numbers alone give an integer above 64 bits"),
        ("1" + "0" * 350, "float64", "so large an integer does not fit float64"),
        ("cast(inf, int8)", "int8", "inf does not fit int8"),
        ("cast(nan, int8)", "int8", "nan does not fit int8"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(text, dtype, message):
    with pytest.raises(EditError) as caught:
        Expression(expr(text), dtype).output([TensorSpec(dtype, (2,))])
    assert not isinstance(caught.value, KindError)
    assert caught.value.message.startswith(message)


def test_others_broadcast_to_the_target_and_never_widen_it():
    kernel = Expression(expr('x * t("a")'), "float32")
    wide = TensorSpec("float32", (2, 3))
    for shape in [(), (1,), (3,), (2, 1), (2, 3)]:
        assert kernel.output([wide, TensorSpec("float32", shape)]) == wide
    with pytest.raises(EditError, match=r'shape \[2\] of t\("a"\) does not broadcast to \[2, 3\]'):
        kernel.output([wide, TensorSpec("float32", (2,))])


def test_an_expression_knows_whether_it_reads_the_current_values():
    assert Expression(expr("x * 2"), "float32").uses_current
    constant = Expression(expr('t("a") + 1'), "float32")
    assert not constant.uses_current
    assert constant.block(NumpyOps(), [None, f32(1)]).tolist() == [2]


def test_kernels_pickle_and_say_what_they_do():
    kernels = [
        (Expression(expr("cast(x, bfloat16)"), "bfloat16"), "cast bfloat16"),
        (Expression(expr("x * 0.5"), "float32"), "x * 0.5"),
        (MapFunction(np.negative), "map negative"),
        (Constant(TensorSpec("int8", (2,)), b"\1\2"), "constant int8[2]"),
    ]
    for kernel, label in kernels:
        assert pickle.loads(pickle.dumps(kernel)) == kernel  # noqa: S301 - our own bytes
        assert kernel.label == label


def test_a_mapped_function_keeps_to_its_spec():
    x = f32(1, 2)
    assert MapFunction(np.negative).block(NumpyOps(), [x]).tolist() == [-1, -2]
    assert MapFunction(np.isnan, "bool").output([TensorSpec("float32", (2,))]).dtype == "bool"
    for fn, found in [(np.float64, r"float64\[2\]"), (lambda v: v[:1], r"float32\[1\]")]:
        with pytest.raises(EditError, match=rf"expected float32\[2\], .* returned {found}"):
            MapFunction(fn).block(NumpyOps(), [x])
    with pytest.raises(EditError, match="the function returned list"):
        MapFunction(lambda v: v.tolist()).block(NumpyOps(), [x])


def test_numpy_dtypes_have_the_size_of_the_stored_elements():
    for name, dtype in DTYPES.items():
        if dtype.itemsize is not None:
            assert numpy_dtype(name).itemsize == dtype.itemsize
    assert numpy_dtype("string").kind == "O"
    with pytest.raises(EditError, match="NumPy has no dtype resource"):
        numpy_dtype("resource")


def _interesting(dtype):
    rng = np.random.default_rng(5)
    native = numpy_dtype(dtype)
    if DTYPES[dtype].kind == "float":
        special = [np.inf, -np.inf, np.nan, 0.0, -0.0, 0.5, 1.5, -2.5, 1e30, -1e30]
        with np.errstate(over="ignore"):
            return np.concatenate([rng.standard_normal(500) * 100, special]).astype(native)
    low, high = integer_range(dtype)
    values = rng.integers(low, high, 500, dtype=native, endpoint=True)
    return np.concatenate([values, np.array([low, high, 0, 1, 2], native)])


EXACT = [
    *(f"x {symbol} t('a')" for symbol in ("+", "-", "*")),
    *(f"cast(x {op} t('a'), int8)" for op in ("==", "!=", "<", "<=", ">", ">=")),
    *(f"{f}(x, t('a'))" for f in ("minimum", "maximum")),
    *(f"{f}(x)" for f in ("abs", "sign", "square", "relu", "round", "floor", "ceil")),
    *("-x", "x ** 2", "where(x > t('a'), x, t('a'))", "clip(x, 1, 5)", "where(x > 1, 0, x)"),
]
EXACT_FLOAT = [
    *("x / t('a')", "x / 3", "x * 0.1 + 0.3", "sqrt(x)", "cast(cast(x, int32), float32)"),
    *(f"cast(cast(x, {d}), float32)" for d in ("uint8", "int64", "uint64", "bool", "bfloat16")),
    "isnan(x) or isinf(x) and not isfinite(x)",
]


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "dtype",
    ["float16", "bfloat16", "float32", "float64", *(d for d in WORKING if "int" in d)],
)
def test_tensorflow_gives_the_same_bits_for_exact_operations(dtype):
    tf = pytest.importorskip("tensorflow")
    from ckptkit.engine.operations import TensorFlowOps

    x = _interesting(dtype)
    other = np.roll(x, 7)
    for text in EXACT + (EXACT_FLOAT if DTYPES[dtype].kind == "float" else []):
        kernel = Expression(expr(text), dtype)
        inputs = [x, other] if "t('a')" in text else [x]
        expected = np.asarray(kernel.block(NumpyOps(), inputs))
        found = kernel.block(TensorFlowOps(tf), [tf.constant(part) for part in inputs]).numpy()
        assert found.dtype == expected.dtype, text
        same = found.tobytes() == expected.tobytes()
        if not same:  # the payload of a NaN is nobody's
            both = np.isnan(found.astype(float)) & np.isnan(expected.astype(float))
            same = np.array_equal(found[~both], expected[~both])
            same = same and np.array_equal(np.signbit(found[~both]), np.signbit(expected[~both]))
        assert same, text


@pytest.mark.tensorflow
def test_tensorflow_has_every_operation_that_lowering_leaves():
    tf = pytest.importorskip("tensorflow")
    from ckptkit.engine.operations import TensorFlowOps

    for name, op in OPS.items():
        x = tf.constant([True, False]) if op.takes == "b" else tf.constant([0.5, 2.0])
        args = ", ".join(["x"] * op.arity) if name != "where" else "x > 1, x, x"
        kernel = Expression(expr(f"{name}({args})"), x.dtype.name if op.takes == "b" else "float32")
        expected = kernel.block(NumpyOps(), [x.numpy()])
        np.testing.assert_allclose(kernel.block(TensorFlowOps(tf), [x]), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", WORKING)
@pytest.mark.parametrize(
    "shapes",
    [((7,), (7,), (7,)), ((5, 3), (), (5, 3)), ((4,), (), ()), ((), (3,), (3,)), ((), (), ()),
     ((2, 1), (3,), (1,)), ((1, 3), (2, 1), ()), ((0,), (), (0,))],
)  # fmt: skip
def test_what_is_chosen_is_chosen_bit_by_bit(dtype, shapes):
    random = np.random.default_rng(3)
    of, on, off = shapes
    size = numpy_dtype(dtype).itemsize

    def values(shape):
        raw = random.integers(0, 2 if dtype == "bool" else 256, (*shape, size), np.uint8)
        return raw.view(numpy_dtype(dtype)).reshape(shape)

    chooser, first, second = np.asarray(random.random(of) < 0.5), values(on), values(off)
    found = NumpyOps().call("where", (chooser, first, second))
    expected = np.where(chooser, first, second)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()
