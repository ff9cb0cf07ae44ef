"""Laws of the language: text and tree are two forms of one thing, and text never breaks out."""

import itertools
import math
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptkit.edits import Assign, Cast
from ckptkit.errors import EditError
from ckptkit.expressions import (
    OPS,
    REDUCTIONS,
    Apply,
    Call,
    Convert,
    Current,
    Draw,
    Index,
    Number,
    Other,
    Reduce,
    Size,
    rebuilt,
)
from ckptkit.kernels import Expression
from ckptkit.language import parse
from ckptkit.language.scanner import MAX_LENGTH
from ckptkit.language.statements import VERBS
from ckptkit.lowering import NumpyOps, is_number
from ckptkit.model import DTYPES
from ckptkit.naming import Copy, Drop, Keep, Rename
from ckptkit.region import Region
from ckptkit.surgery import (
    Clip,
    Dequantize,
    FoldBatchNorm,
    Join,
    LowRank,
    New,
    Noise,
    Prune,
    Quantize,
    Repair,
    Repartition,
    Reshape,
    Resize,
    Sparsify,
    Split,
    Stack,
    StochasticCast,
    Take,
    Transpose,
    Unstack,
)

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
DTYPE_NAMES = st.sampled_from([name for name in DTYPES if is_number(name)])
NUMBERS = st.one_of(
    st.booleans(),
    st.integers(0, 2**70),
    st.floats().map(abs),
    st.floats(0, allow_infinity=False).map(lambda value: complex(0, value)),
)
INTS = st.integers(-(10**17), 10**17)
SEEDS = st.none() | INTS
AXES = st.none() | INTS
TUPLES = st.lists(INTS, min_size=1, max_size=4).map(tuple)
BOUND = st.none() | st.integers(-(10**17), 10**17)
ITEMS = st.one_of(st.integers(-(10**17), 10**17), st.builds(slice, BOUND, BOUND, BOUND))
REGIONS = st.builds(
    lambda before, dots, after: Region((*before, *dots, *after)),
    st.lists(ITEMS, min_size=1, max_size=3),
    st.sampled_from([(), (...,)]),
    st.lists(ITEMS, max_size=2),
)
LEAVES = st.one_of(
    st.just(Current()),
    NUMBERS.map(Number),
    NAMES.map(Other),
    st.builds(Index, INTS),
    st.builds(Size, AXES),
    st.builds(
        lambda kind, seed, shape: Draw(kind, seed, 0, shape),
        st.sampled_from(["normal", "uniform"]),
        INTS,
        st.none() | TUPLES,
    ),
)


def _told(**options):
    """Draw what a function is told besides tensors; what is None is not said."""
    return st.fixed_dictionaries(options).map(
        lambda found: tuple((name, found[name]) for name in options if found[name] is not None)
    )


FILLS = st.none() | st.sampled_from(["zeros", "mean", "normal"]) | INTS
FRACTIONS = st.floats(0, 1)
PLAIN = st.floats(allow_nan=False) | INTS
APPLIED = {
    "matmul": (2, st.just(())),
    "transpose": (1, _told(axes=st.none() | TUPLES)),
    "reshape": (1, _told(shape=TUPLES)),
    "expand": (1, _told(shape=TUPLES)),
    "concat": (3, _told(axis=AXES)),
    "stack": (1, _told(axis=AXES)),
    "take": (1, _told(indices=TUPLES, axis=AXES)),
    "pad": (1, _told(widths=st.tuples(INTS, INTS), axis=AXES, value=st.none() | PLAIN)),
    "resize": (1, _told(size=INTS, axis=AXES, fill=FILLS, seed=SEEDS)),
    "sparsify": (1, _told(keep=INTS, group=INTS, axis=AXES)),
    "stochastic": (1, _told(dtype=DTYPE_NAMES, seed=SEEDS, number=st.just(0))),
}


def _calls(inner):
    def call(name):
        return st.tuples(*[inner] * OPS[name].arity).map(lambda args: Call(name, args))

    def apply(name):
        count, told = APPLIED[name]
        return st.builds(Apply, st.just(name), st.tuples(*[inner] * count), told)

    def reduction(name):
        axes = st.none() if name in {"median", "quantile"} else st.none() | TUPLES
        fraction = FRACTIONS if name == "quantile" else st.none()
        return st.builds(Reduce, st.just(name), inner, axes, fraction)

    return st.one_of(
        st.sampled_from(sorted(OPS)).flatmap(call),
        st.builds(Convert, inner, DTYPE_NAMES),
        st.sampled_from(sorted(REDUCTIONS)).flatmap(reduction),
        st.sampled_from(sorted(APPLIED)).flatmap(apply),
        st.builds(lambda part, region: Apply("slice", (part,), region=region), inner, REGIONS),
    )


def numbered(tree):
    """Number the draws of a tree in the order in which they are written."""
    count = itertools.count(1)

    def number(part):
        if isinstance(part, Draw):
            return replace(part, number=next(count))
        if isinstance(part, Apply) and part.function == "stochastic":
            rest = tuple(pair for pair in part.options if pair[0] != "number")
            return replace(part, options=(*rest, ("number", next(count))))
        return part

    return rebuilt(tree, number)


TREES = st.recursive(LEAVES, _calls, max_leaves=25).map(numbered)
SEVERAL = st.lists(NAMES, min_size=1, max_size=4).map(tuple)
REAL = st.floats(allow_nan=False, allow_infinity=False)
EDITS = st.one_of(
    st.builds(Assign, NAMES | st.sampled_from(sorted(VERBS)), TREES, st.none() | REGIONS),
    st.builds(New, NAMES | st.sampled_from(sorted(VERBS)), TREES),
    st.builds(Drop, NAMES),
    st.builds(Keep, NAMES),
    st.builds(Cast, NAMES, DTYPE_NAMES),
    st.builds(StochasticCast, NAMES, DTYPE_NAMES, INTS),
    st.builds(Copy, NAMES, NAMES),
    st.builds(
        Rename,
        st.sampled_from(["a", " a", "a -> b", '"', "[=]", "(x)|y", "= 1", r"\\", r"\d\"", "-> "]),
        st.sampled_from(["", " ", "a", "a -> b", '"', "->", r"\\", r"\g<0>"]),
    ),
    st.builds(Clip, NAMES, PLAIN, PLAIN),
    st.builds(Repair, NAMES, PLAIN),
    st.builds(Noise, NAMES, PLAIN, INTS),
    st.builds(Prune, NAMES, FRACTIONS, st.sampled_from(["global", "tensor"])),
    st.builds(Sparsify, NAMES, st.integers(0, 9999), st.integers(0, 9999), INTS),
    st.builds(Quantize, NAMES, AXES, NAMES),
    st.builds(Dequantize, NAMES, DTYPE_NAMES, NAMES),
    st.builds(Transpose, NAMES, st.none() | TUPLES),
    st.builds(Reshape, NAMES, TUPLES),
    st.builds(Take, NAMES, TUPLES, INTS),
    st.builds(Repartition, NAMES, st.integers(1, 1 << 16), INTS),
    st.builds(Repartition, NAMES),
    st.builds(Resize, NAMES, st.integers(0, 10**17), INTS, FILLS.filter(bool), INTS),
    st.builds(Split, NAMES, SEVERAL, INTS, st.none() | TUPLES),
    st.builds(Join, SEVERAL, NAMES, INTS),
    st.builds(Stack, SEVERAL, NAMES, INTS),
    st.builds(Unstack, NAMES, NAMES, INTS),
    st.builds(LowRank, NAMES, NAMES, NAMES, REAL),
    st.builds(
        FoldBatchNorm,
        NAMES,
        NAMES,
        st.none() | NAMES,
        REAL,
        INTS,
        st.booleans(),
        st.booleans(),
    ),
)


@given(TREES)
def test_a_tree_that_is_printed_parses_to_itself(tree):
    assert parse(f"w = {tree}").expr == tree


@settings(max_examples=400)
@given(EDITS)
def test_an_edit_that_is_printed_parses_to_itself(edit):
    assert parse(str(edit)) == edit


WORDS = st.sampled_from(
    [
        *"x0179.,:[]()\"'\\=+-*/%<>!&|~^@#$ \n\t\0é٣",
        *OPS,
        *("->", "**", "//", "==", "...", " -> ", "(?P<", "a{9999999999}"),
        *("w = ", "new w = ", "t(", "cast(", "x[", "axis=", "seed=", "shape=[", ", ", "@"),
        *(f"{verb} " for verb in VERBS),
        *APPLIED,
        *REDUCTIONS,
        *("index(", "shape(", "size()", "normal(", "uniform(", "repair(", "quantize(x, x)"),
        *("if", "not ", "1e9", "int8", "inf", "nan", "j", "50%", "2:4", "{1}", "{}", "(*)"),
    ]
)


@st.composite
def mutated(draw):
    """Draw a statement with some of its characters changed, gone, or said twice."""
    text = str(draw(EDITS))
    for _ in range(draw(st.integers(1, 4))):
        low, high = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        high = min(high, low + draw(st.sampled_from([0, 1, 1, 5, 50])))
        middle = draw(WORDS | st.just("") | st.just(text[low:high] * 2))
        text = text[:low] + middle + text[high:]
    return text[:MAX_LENGTH]


@settings(max_examples=1500)
@given(st.lists(WORDS, max_size=30).map("".join) | st.text(max_size=40) | mutated())
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
