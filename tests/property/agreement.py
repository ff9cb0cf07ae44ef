"""Exact operations on drawn values: what two devices have to give the same bits for."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ckptkit.engine.exact import COMPLEX_INEXACT
from ckptkit.errors import EditError
from ckptkit.expressions import OPS, Call, Convert, Current, Number, Other
from ckptkit.expressions import inputs as further
from ckptkit.kernels import Expression
from ckptkit.lowering import NumpyOps, integer_range, is_number, lower
from ckptkit.model import DTYPES
from tests.golden.handmade import numpy_dtype

NUMBER_DTYPES = tuple(name for name in DTYPES if is_number(name))
ARGUMENTS = (Current(), Other("y"), Other("z"))
LENGTHS = st.sampled_from([1, 3, 64, 1001])


def _kernel(tree, dtype):
    """Return the kernel of a tree on tensors of a dtype; it gives the first dtype that will do."""
    names = further(tree)
    for gives in (dtype, "float32", "float64"):
        try:
            lower(tree, gives, (dtype,) * (1 + len(names)))
        except EditError:
            continue
        return Expression(tree, gives)
    return None


def _operation(op, dtype):
    args = ARGUMENTS[: OPS[op].arity]
    if op == "where":
        args = (Call("not_equal", (Current(), Number(0))), *ARGUMENTS[1:])
        args = (Current(), *ARGUMENTS[1:]) if dtype == "bool" else args
    return _kernel(Call(op, args), dtype)


SINGLE = tuple(
    (op, dtype)
    for op in OPS
    for dtype in NUMBER_DTYPES
    if OPS[op].exact
    and not (DTYPES[dtype].kind == "complex" and op in COMPLEX_INEXACT)
    and _operation(op, dtype) is not None
)
"""Every exact operation with every dtype that it takes."""


def single(op, dtype):
    """Return a kernel of one operation."""
    return _operation(op, dtype)


_FLOAT_OPS = sorted(
    op
    for op, row in OPS.items()
    if row.exact and "f" in row.takes and row.gives != "bool" and op != "where"
)
LITERALS = st.sampled_from([0, 1, 2, 3, 7, 0.0, 1.0, 0.1, 0.3, 0.7, 3.0, 1e10]).map(Number)


def _calls(inner):
    def call(op):
        return st.tuples(*[inner] * OPS[op].arity).map(lambda args: Call(op, args))

    return st.one_of(
        st.sampled_from(_FLOAT_OPS).flatmap(call),
        st.builds(Convert, inner, st.sampled_from(["float16", "bfloat16", "float32", "int8"])),
    )


TREES = st.recursive(st.sampled_from(ARGUMENTS) | LITERALS, _calls, max_leaves=8)
"""Trees of exact operations: compilers like to simplify what stands together."""


@st.composite
def formulas(draw):
    """Draw a kernel of several operations on floats."""
    dtype = draw(st.sampled_from(["float16", "bfloat16", "float32", "float64"]))
    kernel = None
    while kernel is None:
        kernel = _kernel(draw(TREES), dtype)
    return kernel, dtype


def values(dtype, count, seed):
    """Return random bits with special values among them, and no subnormal ones."""
    rng, kind = np.random.default_rng(seed), DTYPES[dtype].kind
    if kind == "bool":
        return rng.integers(0, 2, count).astype(bool)
    if kind in {"int", "uint"}:
        low, high = integer_range(dtype)
        wide = numpy_dtype(dtype) if DTYPES[dtype].bits >= 8 else np.int8
        drawn = rng.integers(low, high, count, dtype=wide, endpoint=True)
        special = np.array([low, low + 1, 0, 1, 2, high - 1, high], wide)
        return np.where(rng.random(count) < 0.2, rng.choice(special, count), drawn).astype(
            numpy_dtype(dtype)
        )
    if kind == "complex":
        part = f"float{DTYPES[dtype].bits // 2}"
        return values(part, 2 * count, seed).view(dtype)
    native = numpy_dtype(dtype)
    with np.errstate(all="ignore"):
        special = np.array([0.0, -0.0, 1, -1, 0.5, 2.5, -1.5, np.inf, -np.inf, np.nan, 3e38, 1e-30])
        plain = (rng.standard_normal(count) * 10).astype(native)
        bits = np.frombuffer(rng.bytes(count * native.itemsize), native)
        if DTYPES[dtype].bits < 8:
            bits = plain
        picked = rng.choice(special, count).astype(native)
        # By their bits: NumPy has no such choice for the dtypes that it does not know itself.
        parts = [part.view(_bits(native)) for part in (plain, bits, picked)]
        drawn = np.choose(rng.integers(0, 3, count), parts).view(native)
        return np.where(_subnormal(drawn), native.type(1), drawn)


def _bits(dtype):
    return np.dtype(f"u{dtype.itemsize}")


def _subnormal(array):
    """Tell what is flushed to zero where it is computed, in 32 bits at least."""
    with np.errstate(all="ignore"):
        least = np.finfo(np.float64 if array.dtype == np.float64 else np.float32).tiny
        size = np.abs(array.astype(np.float64))
    return (size > 0) & (size < least)


class Watching:
    """NumPy, and which elements of an array of some length were subnormal on the way."""

    def __init__(self, count):
        self._ops = NumpyOps()
        self.touched = np.zeros(count, bool)

    def call(self, op, args):
        return self._seen(self._ops.call(op, args))

    def cast(self, value, dtype):
        return self._seen(self._ops.cast(value, dtype))

    def constant(self, value, dtype):
        return self._seen(self._ops.constant(value, dtype))

    def _seen(self, result):
        if DTYPES[result.dtype.name].kind == "float":
            self.touched |= np.broadcast_to(_subnormal(result), self.touched.shape)
        elif result.dtype.kind == "c":
            parts = _subnormal(result.real) | _subnormal(result.imag)
            self.touched |= np.broadcast_to(parts, self.touched.shape)
        return result


def check_agreement(kernel, dtype, count, seed, run):
    """Compare the bits that a device gives with those of NumPy."""
    inputs = [values(dtype, count, seed + at) for at in range(1 + len(further(kernel.expr)))]
    if not kernel.uses_current:
        inputs[0] = None
    watching = Watching(count)
    expected = np.broadcast_to(
        np.asarray(kernel.block(watching, inputs), numpy_dtype(kernel.dtype)), count
    )
    found = np.broadcast_to(run(kernel, inputs, kernel.dtype), count)
    assert found.dtype == expected.dtype
    differ = _differ(found, expected) & ~watching.touched
    assert not differ.any(), (kernel.expr, kernel.dtype, np.flatnonzero(differ))


def _differ(found, expected):
    """Tell where bits differ; NaN is NaN, whatever its payload."""
    if expected.dtype.kind == "c":
        return _differ(found.real, expected.real) | _differ(found.imag, expected.imag)
    found, expected = np.ascontiguousarray(found), np.ascontiguousarray(expected)
    differ = found.view(_bits(found.dtype)) != expected.view(_bits(expected.dtype))
    if DTYPES[expected.dtype.name].kind == "float":
        with np.errstate(all="ignore"):
            differ &= ~(np.isnan(found.astype(np.float64)) & np.isnan(expected.astype(np.float64)))
    return differ
