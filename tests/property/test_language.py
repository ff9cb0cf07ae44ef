"""Laws of the language: text and tree are two forms of one thing, and text never breaks out."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptkit.edits import Assign, Cast, Copy, Drop, Keep, Rename
from ckptkit.errors import EditError
from ckptkit.expressions import OPS, Call, Convert, Current, Number, Other
from ckptkit.kernels import Expression, NumpyOps, is_number
from ckptkit.language import parse
from ckptkit.model import DTYPES
from ckptkit.region import Region

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
DTYPE_NAMES = st.sampled_from([name for name in DTYPES if is_number(name)])
NUMBERS = st.one_of(
    st.booleans(),
    st.integers(0, 2**70),
    st.floats().map(abs),
    st.floats(0, allow_infinity=False).map(lambda value: complex(0, value)),
)
LEAVES = st.one_of(st.just(Current()), NUMBERS.map(Number), NAMES.map(Other))


def _calls(inner):
    def call(name):
        return st.tuples(*[inner] * OPS[name].arity).map(lambda args: Call(name, args))

    return st.one_of(
        st.sampled_from(sorted(OPS)).flatmap(call), st.builds(Convert, inner, DTYPE_NAMES)
    )


TREES = st.recursive(LEAVES, _calls, max_leaves=25)
BOUND = st.none() | st.integers(-(10**17), 10**17)
ITEMS = st.one_of(st.integers(-(10**17), 10**17), st.builds(slice, BOUND, BOUND, BOUND))
REGIONS = st.builds(
    lambda before, dots, after: Region((*before, *dots, *after)),
    st.lists(ITEMS, min_size=1, max_size=3),
    st.sampled_from([(), (...,)]),
    st.lists(ITEMS, max_size=2),
)
EDITS = st.one_of(
    st.builds(Assign, NAMES, TREES, st.none() | REGIONS),
    st.builds(Drop, NAMES),
    st.builds(Keep, NAMES),
    st.builds(Cast, NAMES, DTYPE_NAMES),
    st.builds(Copy, NAMES, NAMES),
    st.builds(
        Rename,
        st.sampled_from(["a", " a", "a -> b", '"', "[=]", "(x)|y", "= 1", r"\\", r"\d\"", "-> "]),
        st.sampled_from(["", " ", "a", "a -> b", '"', "->", r"\\", r"\g<0>"]),
    ),
)


@given(TREES)
def test_a_tree_that_is_printed_parses_to_itself(tree):
    assert parse(f"w = {tree}").expr == tree


@given(EDITS)
def test_an_edit_that_is_printed_parses_to_itself(edit):
    assert parse(str(edit)) == edit


WORDS = st.sampled_from(
    [
        *"x0179.,:[]()\"'\\=+-*/%<>!&|~^@#$ \n\t\0é٣",
        *OPS,
        *("->", "**", "//", "==", "...", " -> ", "(?P<", "a{9999999999}"),
        *("rename ", "drop ", "keep ", "cast ", "copy ", "w = ", "t(", "cast("),
        *("if", "not ", "1e9", "int8", "inf", "nan", "j"),
    ]
)


@settings(max_examples=1000)
@given(st.lists(WORDS, max_size=30).map("".join) | st.text(max_size=40))
def test_text_becomes_an_edit_or_an_edit_error(text):
    error, edit = None, None
    try:
        edit = parse(text)
    except EditError as caught:
        error = caught
    if error is None:
        assert parse(str(edit)) == edit
    else:
        assert 0 <= error.offset <= len(text)


FLOAT_OPS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}
FORMULAS = st.recursive(
    st.sampled_from(["x", 't("y")']) | st.floats(0.125, 8, width=16).map(repr),
    lambda inner: st.tuples(inner, st.sampled_from(sorted(FLOAT_OPS)), inner).map(
        lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
    ),
    max_leaves=12,
)


@given(FORMULAS, st.sampled_from(["float32", "float64"]))
def test_numpy_evaluation_is_the_formula(formula, dtype):
    x = np.linspace(-2, 2, 7, dtype=dtype)
    y = np.linspace(1, 3, 7, dtype=dtype)
    kernel = Expression(parse(f"w = {formula}").expr, dtype)
    found = np.broadcast_to(kernel.block(NumpyOps(), [x, y][: 1 + len(_others(formula))]), x.shape)
    with np.errstate(all="ignore"):
        try:
            python = formula.replace('t("y")', "y")
            expected = eval(python, {"x": x, "y": y})  # noqa: S307 - a formula from above
        except ZeroDivisionError:
            return
    expected = np.broadcast_to(np.asarray(expected, dtype), x.shape)
    np.testing.assert_array_equal(found, expected)
    assert math.prod(found.shape) == 7


def _others(formula):
    return [name for name in ('t("y")',) if name in formula]
