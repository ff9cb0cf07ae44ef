"""From an expression to steps that leave a backend nothing to decide.

An expression is a small tree over one closed table of operations. Before it runs it is lowered
to steps in which every conversion between dtypes is explicit, so that a backend has nothing to
decide and two backends agree bit for bit wherever their arithmetic does.

The rules: floats narrower than 32 bits compute in float32 and are rounded once, to nearest-even,
at the end; integers compute in their own promoted dtype and wrap; Python numbers take the dtype
of the tensors that they meet; a float becomes an integer only by ``cast``, which truncates,
saturates, and turns NaN into 0.
"""

from __future__ import annotations

import cmath
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial, reduce
from typing import TYPE_CHECKING, Any, Final, Protocol

from ckptkit.errors import EditError
from ckptkit.expressions import OPS, Call, Convert, Current, Expr, Leaf, Number, inputs
from ckptkit.model import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np


class KindError(EditError):
    """An edit does not go with the kind of values that a tensor holds."""


class Ops(Protocol):
    """What a backend offers; arrays are its own, and have ``dtype.name`` and ``shape``."""

    def call(self, op: str, args: Sequence[Any]) -> Any:
        """Apply an operation of ``OPS`` to arrays of one dtype (``where``: and a bool first)."""

    def cast(self, value: Any, dtype: str) -> Any:
        """Convert; the value is in range, integers wrap, floats round to nearest-even."""

    def constant(self, value: complex, dtype: str) -> Any:
        """Make an array of rank 0."""


@dataclass(frozen=True, slots=True)
class Step:
    """A lowered expression: an operation on arguments whose dtypes already agree.

    Attributes:
        op: A name in ``OPS``, or ``number``, ``input``, ``cast``.
        value: The number, or the index of the input.
        weak: The number may still take another dtype.
        shared: Its value is used at more than one place, and kept until the end.
    """

    op: str
    dtype: str
    args: tuple[Step, ...] = ()
    value: complex = 0
    weak: bool = False
    shared: bool = False


_RANKS: Final = {"bool": 0, "uint": 1, "int": 1, "float": 2, "complex": 3}
_DEFAULTS: Final = {bool: "bool", int: "int64", float: "float64", complex: "complex128"}


def is_number(dtype: str) -> bool:
    """Tell whether values of a dtype can be computed with: not text, handles or quantised ones."""
    found = DTYPES.get(dtype)
    return found is not None and found.kind in _RANKS and not dtype.startswith("q")


def working_dtype(dtype: str) -> str:
    """Return the dtype that values of ``dtype`` are computed in.

    Raises:
        KindError: Nothing is computed with such values.
    """
    if not is_number(dtype):
        quantised = dtype.startswith("q")
        why = "has no scale, so that its values are not known" if quantised else "is no number"
        msg = f"{dtype} {why}: it can be copied, renamed and dropped"
        raise KindError(msg)
    found = DTYPES[dtype]
    narrow = {"float": (32, "float32"), "int": (8, "int8"), "uint": (8, "uint8")}
    bits, name = narrow.get(found.kind, (0, dtype))
    return name if found.bits < bits else dtype


def promote(first: str, second: str) -> str:
    """Return the dtype that NumPy computes in when it meets two working dtypes."""
    order = ("bool", "uint", "int", "float", "complex")
    low, high = sorted((DTYPES[first], DTYPES[second]), key=lambda d: (order.index(d.kind), d.bits))
    if low.kind in {"bool", high.kind}:
        return high.name
    if high.kind == "int":
        bits = max(high.bits, 2 * low.bits)
        return f"int{bits}" if bits <= 64 else "float64"
    small = 32 if low.bits <= 16 else 64
    part = max(
        low.bits if low.kind == "float" else small,
        high.bits if high.kind == "float" else high.bits // 2,
    )
    return f"float{part}" if high.kind == "float" else f"complex{2 * part}"


def _common(steps: Sequence[Step]) -> str:
    strong = [step.dtype for step in steps if not step.weak]
    weak = [step.dtype for step in steps if step.weak]
    dtype = reduce(promote, strong or weak)
    for other in sorted(weak, key=lambda name: _RANKS[DTYPES[name].kind]):
        if _RANKS[DTYPES[other].kind] > _RANKS[DTYPES[dtype].kind]:
            dtype = "complex64" if (dtype, other) == ("float32", "complex128") else other
    return dtype


def integer_range(dtype: str) -> tuple[int, int]:
    """Return the least and the greatest value of an integer dtype."""
    bits, kind = DTYPES[dtype].bits, DTYPES[dtype].kind
    return (0, 2**bits - 1) if kind == "uint" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _literal(value: complex, dtype: str) -> Step:
    kind = DTYPES[dtype].kind
    if kind in {"int", "uint"}:
        low, high = integer_range(dtype)
        if not low <= value.real <= high:
            msg = f"{value} does not fit {dtype}, which holds {low} to {high}"
            raise EditError(msg)
        value = int(value.real)
    elif kind == "float":
        try:
            value = float(value.real)
        except OverflowError:
            msg = f"so large an integer does not fit {dtype}"
            raise EditError(msg) from None
    working = working_dtype(dtype)
    step = Step("number", working, value=bool(value) if kind == "bool" else value)
    return step if working == dtype else Step("cast", dtype, (step,))


def _widen(step: Step) -> Step:
    working = working_dtype(step.dtype)
    return step if step.dtype == working else Step("cast", working, (step,))


def _convert(step: Step, dtype: str) -> Step:
    """Add the conversions that lead to ``dtype``, by way of the working dtypes."""
    if step.op == "number":
        return _literal(step.value, dtype)
    if step.dtype == dtype:
        return step
    step, kind = _widen(step), DTYPES[dtype].kind
    if kind == "bool":
        return Step("not_equal", "bool", (step, _literal(0, step.dtype)))
    working = working_dtype(dtype)
    saturates = DTYPES[step.dtype].kind == "float" and kind in {"int", "uint"}
    if step.dtype != working and not saturates:
        step = Step("cast", working, (step,))
    return step if step.dtype == dtype else Step("cast", dtype, (step,))


def _computes_in(op: str, steps: Sequence[Step]) -> str:
    dtype, takes = _common(steps), OPS[op].takes
    letter = DTYPES[dtype].kind.replace("uint", "int")[0]
    if letter == "i":
        # An integer power is an integer only where the exponent is known to be none below 0.
        whole = op != "power" or (steps[1].weak and steps[1].value.real >= 0)
        if not whole or ("i" not in takes and "f" in takes):
            return "float64"
    if letter not in takes:
        hint = "; compare first, as in x != 0" if takes == "b" else ""
        msg = f"{OPS[op].symbol or op + '()'} is not defined for {dtype}{hint}"
        raise KindError(msg)
    return dtype


def _lower_call(op: str, given: Sequence[Step]) -> Step:
    if not given:
        return Step("number", "int64", value=int(op == "ones"), weak=True)
    steps = [_widen(step) for step in given]
    chooser, steps = (steps[:1], steps[1:]) if op == "where" else ([], steps)
    if chooser and chooser[0].dtype != "bool":
        msg = f"where() chooses by bool, not {chooser[0].dtype}; compare first, as in x != 0"
        raise KindError(msg)
    dtype = _computes_in(op, steps)
    args = (*chooser, *(_convert(step, dtype) for step in steps))
    step = _expand(op, args, dtype)
    return _fold(step) if all(part.weak for part in given) else step


def _sigmoid(dtype: str, x: Step) -> Step:
    one = _literal(1, dtype)
    power = Step("exp", dtype, (Step("negative", dtype, (x,)),))
    return Step("divide", dtype, (one, Step("add", dtype, (one, power))))


def _extreme(op: str, dtype: str, first: Step, second: Step) -> Step:
    """Choose one of two: of what is equal the first, and NaN if either is.

    The maximum of -0.0 and 0.0 is either, by device and by the width of its registers.
    """
    if DTYPES[dtype].kind != "float":
        return Step(op, dtype, (first, second))
    first, second = (
        part if part.op in _LEAVES else replace(part, shared=True) for part in (first, second)
    )
    beyond = Step("less" if op == "maximum" else "greater", "bool", (first, second))
    if second.op != "number" or cmath.isnan(second.value):
        beyond = Step("logical_or", "bool", (beyond, Step("not_equal", "bool", (second, second))))
    return Step("where", dtype, (beyond, second, first))


def _clip(dtype: str, x: Step, low: Step, high: Step) -> Step:
    return _extreme("minimum", dtype, _extreme("maximum", dtype, x, low), high)


def _unsigned_power(dtype: str, *args: Step) -> Step:
    wide = Step("power", "int64", tuple(_convert(part, "int64") for part in args))
    return _convert(wide, dtype)


_LEAVES: Final = frozenset({"number", "input"})
_IDENTITY: Final = (
    *(("int", op) for op in ("round", "floor", "ceil")),
    *(("uint", op) for op in ("round", "floor", "ceil", "abs")),
)
_REWRITES: Final[Mapping[tuple[str, str], Callable[..., Step]]] = {
    ("", "minimum"): partial(_extreme, "minimum"),
    ("", "maximum"): partial(_extreme, "maximum"),
    ("", "relu"): lambda dtype, x: _extreme("maximum", dtype, x, _literal(0, dtype)),
    ("", "clip"): _clip,
    ("", "sigmoid"): _sigmoid,
    ("float", "floor_divide"): lambda dtype, *args: Step(
        "floor", dtype, (Step("divide", dtype, args),)
    ),
    ("uint", "negative"): lambda dtype, x: Step("subtract", dtype, (_literal(0, dtype), x)),
    ("uint", "sign"): lambda dtype, x: Step("minimum", dtype, (x, _literal(1, dtype))),
    ("uint", "power"): _unsigned_power,
    **dict.fromkeys(_IDENTITY, lambda _, x: x),
}
"""Operations, by kind and name, in terms of those that every backend has and agrees on."""


def _expand(op: str, args: tuple[Step, ...], dtype: str) -> Step:
    kind = DTYPES[dtype].kind
    if op == "power" and (args[1].op, args[1].value) == ("number", 2):
        return Step("square", dtype, args[:1])
    rewrite = _REWRITES.get((kind, op)) or _REWRITES.get(("", op))
    if rewrite is not None:
        return rewrite(dtype, *args)
    gives = OPS[op].gives
    if gives == "real" and kind == "complex":
        return Step(op, f"float{DTYPES[dtype].bits // 2}", args)
    return Step(op, "bool" if gives == "bool" else dtype, args)


def _fold(step: Step) -> Step:
    """Compute a step of numbers alone, once and for every backend, as a number."""
    ops = NumpyOps()
    value = evaluate(step, ops, ()).item()
    if step.op in {"add", "subtract", "multiply", "square", "power"} and step.dtype == "int64":
        args = tuple(_literal(part.value, "float64") for part in step.args)
        if abs(evaluate(Step(step.op, "float64", args), ops, ()).item()) >= 2**63:
            msg = "numbers alone give an integer above 64 bits; write one of them as a float"
            raise EditError(msg)
    return Step("number", _DEFAULTS[type(value)], value=value, weak=True)


def _lower(expr: Expr, leaves: Sequence[Leaf], takes: Sequence[str]) -> Step:
    match expr:
        case Number(value):
            return Step("number", _DEFAULTS[type(value)], value=value, weak=True)
        case Current():
            return Step("input", takes[0], value=0)
        case Call(op, args):
            return _lower_call(op, [_lower(argument, leaves, takes) for argument in args])
        case Convert(argument, dtype):
            working_dtype(dtype)
            step = _lower(argument, leaves, takes)
            if DTYPES[step.dtype].kind == "complex" and DTYPES[dtype].kind in {
                "float",
                "int",
                "uint",
            }:
                msg = f"{step.dtype} does not become {dtype}: write abs(...)"
                raise KindError(msg)
            return replace(_convert(step, dtype), weak=False)
        case _:
            at = leaves.index(expr) + 1
            return Step("input", takes[at], value=at)


@lru_cache(maxsize=1024)
def lower(expr: Expr, dtype: str, takes: tuple[str, ...]) -> Step:
    """Return the steps of an expression over inputs of dtypes ``takes``, ending in ``dtype``.

    Raises:
        KindError: The values are of a kind that the expression, or the result, does not take.
        EditError: A number does not fit the dtype that it meets.
    """
    working_dtype(dtype)
    step = _lower(expr, inputs(expr), takes)
    if _RANKS[DTYPES[step.dtype].kind] > _RANKS[DTYPES[dtype].kind]:
        inner = f"abs({expr})" if DTYPES[step.dtype].kind == "complex" else str(expr)
        if DTYPES[dtype].kind in {"int", "uint"}:
            inner = f"round({inner})"
        hint = inner if DTYPES[dtype].kind == "float" else f"cast({inner}, {dtype})"
        msg = f"{expr} gives {step.dtype}, which does not go into {dtype}: write {hint}"
        raise KindError(msg)
    return _convert(step, dtype)


@lru_cache(maxsize=1024)
def natural_dtype(expr: Expr, takes: tuple[str, ...]) -> str:
    """Return the dtype that an expression has by itself, over inputs of dtypes ``takes``.

    Raises:
        KindError: The values are of a kind that the expression does not take.
        EditError: A number does not fit the dtype that it meets.
    """
    return _lower(expr, inputs(expr), takes).dtype


def evaluate(step: Step, ops: Ops, inputs: Sequence[Any]) -> Any:
    """Run lowered steps on the arrays of a backend; what is not needed any more is let go."""
    known: dict[int, Any] = {}
    pending = [step]
    while pending:
        top = pending[-1]
        missing = [argument for argument in top.args if id(argument) not in known]
        if missing and id(top) not in known:
            pending += reversed(missing)
            continue
        pending.pop()
        if id(top) not in known:
            known[id(top)] = _compute(top, ops, [known[id(arg)] for arg in top.args], inputs)
            for argument in top.args:
                if not argument.shared:
                    known.pop(id(argument), None)
    return known[id(step)]


def _compute(step: Step, ops: Ops, args: Sequence[Any], inputs: Sequence[Any]) -> Any:
    if step.op == "number":
        return ops.constant(step.value, step.dtype)
    if step.op == "input":
        return inputs[int(step.value.real)]
    if step.op != "cast":
        return ops.call(step.op, args)
    source = step.args[0].dtype
    if DTYPES[source].kind == "float" and DTYPES[step.dtype].kind in {"int", "uint"}:
        return _saturate(ops, args[0], source, step.dtype)
    return ops.cast(args[0], step.dtype)


def _saturate(ops: Ops, value: Any, source: str, dtype: str) -> Any:
    """Truncate floats to integers; what is out of range becomes the nearest limit, NaN 0.

    Left to themselves, CPUs and GPUs differ there.
    """
    low, high = integer_range(dtype)
    working = working_dtype(dtype)
    bottom, top, zero = (ops.constant(float(n), source) for n in (low, high + 1, 0))
    under, over = ops.call("less", (value, bottom)), ops.call("greater_equal", (value, top))
    inside = ops.call(
        "logical_and",
        (ops.call("greater_equal", (value, bottom)), ops.call("less", (value, top))),
    )
    whole = ops.cast(ops.call("where", (inside, value, zero)), working)
    whole = ops.call("where", (over, ops.constant(high, working), whole))
    whole = ops.call("where", (under, ops.constant(low, working), whole))
    return whole if working == dtype else ops.cast(whole, dtype)


@cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype of stored elements; quantised ones are plain integers.

    Raises:
        EditError: NumPy has no such dtype.
    """
    import ml_dtypes
    import numpy as np

    if name in {"string", "variant"}:
        return np.dtype(object)
    plain = name.removeprefix("q")
    if name not in DTYPES or DTYPES[name].itemsize is None:
        msg = f"NumPy has no dtype {name}"
        raise EditError(msg)
    return np.dtype(getattr(ml_dtypes, plain, None) or plain)


@dataclass(frozen=True, slots=True)
class NumpyOps:
    """The reference backend."""

    def call(self, op: str, args: Sequence[Any]) -> Any:
        """Apply the NumPy function of that name."""
        import numpy as np

        with np.errstate(all="ignore"):
            if op == "where":
                return _choose(*map(np.asarray, args))
            return np.asarray(getattr(np, op)(*args))

    def cast(self, value: Any, dtype: str) -> Any:
        """Convert as ``astype`` does."""
        import numpy as np

        with np.errstate(all="ignore"):
            return np.asarray(value).astype(numpy_dtype(dtype), copy=False)

    def constant(self, value: complex, dtype: str) -> Any:
        """Make an array of rank 0."""
        import numpy as np

        with np.errstate(all="ignore"):
            return np.asarray(value, numpy_dtype(dtype))


def _choose(
    chooser: np.ndarray[Any, Any], first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Return ``numpy.where`` of arrays, the last two of one dtype, in a time that does not vary.

    That function branches at each element, which takes seven times as long where nothing predicts
    the branch. As integers of the same bits, what is chosen is ``second + chooser * (first -
    second)``, whatever wraps around.
    """
    import numpy as np

    shape = np.broadcast_shapes(chooser.shape, first.shape, second.shape)
    if not shape or first.itemsize > 8:
        return np.where(chooser, first, second)
    bits = np.dtype(f"u{first.itemsize}")
    apart = np.subtract(first.view(bits), second.view(bits))
    chosen = np.multiply(apart, chooser, out=apart if apart.shape == shape else None)
    found: np.ndarray[Any, Any] = np.add(chosen, second.view(bits), out=chosen).view(first.dtype)
    return found
