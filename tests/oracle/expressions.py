"""The edit language over whole arrays: what a statement means, with nothing but NumPy.

It follows the documented rules by itself: floats narrower than 32 bits compute in float32 and are
rounded once at the end, by way of float32; integers compute in their common dtype and wrap;
numbers take the dtype of the tensors that they meet; sums are those of exact arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ckptkit.expressions import (
    Apply,
    Call,
    Convert,
    Current,
    Expr,
    Index,
    Number,
    Other,
    Reduce,
    Size,
)
from tests.golden.handmade import numpy_dtype

if TYPE_CHECKING:
    from ckptkit.region import Region

Array = Any

SUMMED = frozenset({"sum", "mean", "var", "std", "norm"})
"""Reductions that round, unless they sum integers."""

_TAKES = {
    **dict.fromkeys(("logical_or", "logical_and", "logical_not"), "b"),
    **dict.fromkeys(("equal", "not_equal", "where"), "bif"),
    **dict.fromkeys(("divide", "sqrt", "isnan", "isinf", "isfinite"), "f"),
}
"""Kinds that operations compute in; integers and floats where nothing is said."""


class RefusedError(Exception):
    """The statement is none for these tensors."""


def refuse(why: str) -> NoReturn:
    """Say that a statement is none for these tensors."""
    raise RefusedError(why)


@dataclass(frozen=True)
class Value:
    """An array, which may be a number that still takes another dtype."""

    array: Array
    weak: bool = False


def kind_of(dtype: Any) -> str:
    """Return ``b``, ``i`` or ``f``."""
    return {"b": "b", "i": "i", "u": "i", "f": "f"}.get(np.dtype(dtype).kind, "f")


def working(dtype: Any) -> np.dtype[Any]:
    """Return the dtype that values are computed in."""
    narrow = kind_of(dtype) == "f" and np.dtype(dtype).itemsize < 4
    return np.dtype(np.float32 if narrow else dtype)


def number(value: Any, dtype: np.dtype[Any]) -> Array:
    """Return a number in a dtype that it meets."""
    if kind_of(dtype) == "i":
        limits = np.iinfo(dtype)
        if not limits.min <= value <= limits.max:
            refuse(f"{value} does not fit {dtype}")
    return np.asarray(value).astype(working(dtype)).astype(dtype)


def converted(value: Value, dtype: np.dtype[Any]) -> Array:
    """Return values in another dtype, by way of the one that those are computed in."""
    array = value.array
    if value.weak:
        return number(array.item(), dtype)
    if array.dtype == dtype:
        return array
    wide = array.astype(working(array.dtype))
    if kind_of(dtype) == "b":
        return wide != 0
    if kind_of(wide.dtype) == "f" and kind_of(dtype) == "i":
        return _truncated(wide, dtype)
    return wide.astype(working(dtype)).astype(dtype)


def _truncated(values: Array, dtype: np.dtype[Any]) -> Array:
    limits = np.iinfo(dtype)
    flat = [
        0 if math.isnan(v) else limits.max if v > limits.max else max(limits.min, math.trunc(v))
        if math.isfinite(v) else limits.min
        for v in values.astype(np.float64).ravel().tolist()
    ]  # fmt: skip
    return np.array(flat, dtype).reshape(values.shape)


def common(values: list[Value]) -> np.dtype[Any]:
    """Return the dtype that values meet in, as NumPy's promotion of arrays and numbers has it."""
    if all(value.weak for value in values):
        return np.result_type(*(value.array.dtype for value in values))
    parts = [v.array.item() if v.weak else working(v.array.dtype) for v in values]
    return np.dtype(np.result_type(*parts))


def _bigger(a: Array, b: Array) -> Array:
    return np.where((a < b) | (b != b), b, a)  # noqa: PLR0124 - NaN


def _smaller(a: Array, b: Array) -> Array:
    return np.where((a > b) | (b != b), b, a)  # noqa: PLR0124 - NaN


_FUNCTIONS: dict[str, Any] = {
    "minimum": _smaller,
    "maximum": _bigger,
    "clip": lambda x, low, high: _smaller(_bigger(x, low), high),
    "relu": lambda x: _bigger(x, np.zeros_like(x)),
    "round": np.rint,
    "power": lambda x, _: x * x,
    "square": lambda x: x * x,
}


def called(op: str, args: list[Value]) -> Value:
    """Apply an operation."""
    if op in {"zeros", "ones"}:
        return Value(np.asarray(int(op == "ones")), weak=True)
    weak = all(arg.weak for arg in args)
    chooser = args[:1] if op == "where" else []
    rest = args[len(chooser) :]
    if chooser and chooser[0].array.dtype != bool:
        refuse("where() chooses by bool")
    dtype = common(rest)
    takes = _TAKES.get(op, "if")
    if kind_of(dtype) == "i" and "i" not in takes and "f" in takes:
        dtype = np.dtype(np.float64)
    if kind_of(dtype) not in takes:
        refuse(f"{op} is not defined for {dtype}")
    arrays = [converted(value, dtype) for value in rest]
    with np.errstate(all="ignore"):
        if op == "where":
            made = np.where(chooser[0].array, *arrays)
        elif op in {"round", "floor", "ceil"} and kind_of(dtype) == "i":
            made = arrays[0]
        else:
            made = np.asarray(_FUNCTIONS.get(op, getattr(np, op, None))(*arrays))
    return Value(made, weak)


# --- reductions --------------------------------------------------------------------------------


def reduced(op: str, values: Array, axes: tuple[int, ...] | None, fraction: float | None) -> Array:
    """Return a reduction; those that sum as arrays of :class:`fractions.Fraction` or floats."""
    rank = values.ndim
    if axes is not None:
        if any(not -rank <= axis < rank for axis in axes):
            refuse("no such axis")
        axes = tuple(axis % rank for axis in axes)
        if len(set(axes)) < len(axes):
            refuse("an axis is named twice")
    kind = kind_of(values.dtype)
    if (op in {"any", "all"} and kind != "b") or (op in {"median", "quantile"} and kind == "b"):
        refuse(f"{op} is not defined for {values.dtype}")
    taken = tuple(range(rank)) if axes is None else axes
    kept = [axis for axis in range(rank) if axis not in taken]
    count = math.prod(values.shape[axis] for axis in taken)
    if op in {"min", "max", "median", "quantile"} and not count:
        refuse(f"{op} of no elements")
    outer = tuple(values.shape[axis] for axis in kept)
    rows = values.transpose(*kept, *taken).reshape(math.prod(outer), count)
    found = [_one(op, row, fraction) for row in rows]
    held = np.empty(len(found), object if op in SUMMED else result_dtype(op, values.dtype))
    for at, one in enumerate(found):
        held[at] = one
    if axes is None:
        return held.reshape(())
    return held.reshape(tuple(1 if a in taken else n for a, n in enumerate(values.shape)))


def result_dtype(op: str, dtype: Any) -> np.dtype[Any]:
    """Return the dtype of a reduction."""
    wide, kind = working(dtype), kind_of(dtype)
    if op in {"any", "all"}:
        return np.dtype(bool)
    if op in {"min", "max", "quantile"} or kind == "f":
        return wide
    if op == "sum":
        return np.dtype(np.uint64 if wide.kind == "u" else np.int64)
    return np.dtype(np.float64)


def _one(op: str, row: Array, fraction: float | None) -> Any:
    if op in {"any", "all"}:
        return {"any": any, "all": all}[op](row.tolist())
    if op in {"min", "max"}:
        nan = [value for value in row if value != value]  # noqa: PLR0124 - NaN
        chosen = nan[0] if nan else {"min": min, "max": max}[op](row.tolist())
        return 0.0 if chosen == 0 and kind_of(row.dtype) == "f" else chosen
    if op in {"median", "quantile"}:
        return _in_order(op, row, fraction or 0.0)
    return row


def _in_order(op: str, row: Array, fraction: float) -> Any:
    """NaN comes after all others, and -0.0 before 0.0."""
    ordered = sorted(
        row.tolist(),
        key=lambda v: (v != v, 0 if v != v else v, v == 0 and math.copysign(1, v)),  # noqa: PLR0124
    )
    count = len(ordered)
    if op == "quantile":
        return ordered[int(fraction * (count - 1))]
    low, high = float(ordered[(count - 1) // 2]), float(ordered[count // 2])
    return low if low == high else low / 2 + high / 2


def bounds(op: str, row: Array) -> tuple[Any, Any] | None:  # noqa: PLR0911 - many cases
    """Return what a sum in float64 lies between, None where it may be anything.

    The order of the additions is left open: every one of them may round. Sums of integers are
    exact, and wrap.
    """
    count = len(row)
    if kind_of(row.dtype) != "f" and op == "sum":
        dtype = result_dtype("sum", row.dtype)
        total, signed = sum(int(v) for v in row.tolist()), dtype.kind == "i"
        exact = (total + 2**63) % 2**64 - 2**63 if signed else total % 2**64
        return exact, exact
    floats = row.astype(np.float64).tolist()
    if not count:
        return (0.0, 0.0) if op in {"sum", "norm"} else (math.nan, math.nan)
    if not all(map(math.isfinite, floats)):
        if op in {"var", "std"}:
            return math.nan, math.nan
        special = sum(abs(v) if op == "norm" else v for v in floats if not math.isfinite(v))
        return special, special
    if max(map(abs, floats)) > 1e140:
        return None
    exact = [Fraction(v) for v in row.tolist()]
    part = Fraction(2 * count + 16, 2**52)
    if op in {"sum", "mean"}:
        total, room = sum(exact), part * sum(map(abs, exact))
        share = 1 if op == "sum" else count
        return float((total - room) / share), float((total + room) / share)
    squares, room = sum(v * v for v in exact), Fraction(0)
    if op != "norm":
        mean = sum(exact) / count
        largest = max(map(abs, exact))
        squares = sum((v - mean) ** 2 for v in exact) / count
        # What is off the mean is off by its rounding too, which is that of the largest value.
        away = part * largest
        room = 4 * away * (_root(squares) + away)
    low, high = (max(float(squares * (1 + sign * 4 * part) + sign * room), 0.0) for sign in (-1, 1))
    if op == "var":
        return low, high
    return math.sqrt(low) * (1 - 1e-15), math.sqrt(high) * (1 + 1e-15)


def _root(value: Fraction) -> Fraction:
    return Fraction(math.sqrt(float(value)) * (1 + 1e-15))


# --- evaluation --------------------------------------------------------------------------------


@dataclass
class Twin:
    """What expressions mean for one target.

    Attributes:
        others: Other tensors by name.
        target: The values of the target; None if there is none.
        region: What of it is computed.
        measured: What an engine found for the sums in an expression; each is required to be one
            that float64 may give, and taken from here on, so that all else is exact.
    """

    others: dict[str, Array]
    target: Array | None = None
    region: Region | None = None
    measured: dict[Expr, Array] = field(default_factory=dict)

    @np.errstate(all="ignore")
    def assigned(self, expr: Expr) -> Array:
        """Return the values of the target after ``TARGET[REGION] = EXPR``."""
        if self.target is None:
            refuse("there is no target")
        held = self._current()
        for leaf in _leaves(expr):
            shape = self.leaf(leaf).array.shape if not isinstance(leaf, Number) else ()
            grows = self.region is None and any(isinstance(x, Apply) for x in _leaves(expr))
            if not grows and not _fits(shape, held.shape):
                refuse(f"{shape} does not broadcast to {held.shape}")
        found = self.value(expr)
        if "bif".index(kind_of(found.array.dtype)) > "bif".index(kind_of(self.target.dtype)):
            refuse(f"{found.array.dtype} does not go into {self.target.dtype}")
        values = converted(found, self.target.dtype)
        if self.region is None:
            shape = values.shape
            if not any(isinstance(leaf, Apply) for leaf in _leaves(expr)):
                shape = held.shape
            return np.broadcast_to(values, shape)
        result = self.target.copy()
        result[(*_expanded(self.region, result.ndim), ...)] = values
        return result

    @np.errstate(all="ignore")
    def alone(self, expr: Expr) -> Array:
        """Return an expression as a tensor of its own."""
        found = self.value(expr)
        numbers = all(isinstance(leaf, Number | Size) for leaf in _leaves(expr))
        if numbers and found.array.dtype == np.float64:
            return found.array.astype(np.float32)
        return found.array

    @np.errstate(all="ignore")
    def value(self, expr: Expr) -> Value:
        """Evaluate."""
        match expr:
            case Number(value):
                return Value(np.asarray(value), weak=True)
            case Call(op, args):
                values = [self.value(arg) for arg in args]
                _together([value.array.shape for value in values])
                return called(op, values)
            case Convert(argument, dtype):
                return Value(converted(self.value(argument), numpy_dtype(dtype)))
            case _:
                return self.leaf(expr)

    def leaf(self, expr: Expr) -> Value:  # noqa: PLR0911 - one for each kind
        """Evaluate what is not elementwise."""
        match expr:
            case Current():
                return Value(self._current())
            case Other(name):
                return Value(self.others[name])
            case Size(axis):
                shape = self.target.shape
                if axis is None:
                    return Value(np.asarray(math.prod(shape)), weak=True)
                return Value(np.asarray(shape[_axis(axis, len(shape))]), weak=True)
            case Index(axis):
                return Value(self.indices(axis))
            case Reduce():
                return Value(self._reduced(expr))
            case Apply():
                return Value(self._applied(expr))
        raise AssertionError(expr)

    def _current(self) -> Array:
        if self.target is None:
            refuse("there is no target")
        return self.target if self.region is None else _at(self.target, self.region)

    def indices(self, axis: int) -> Array:
        """Return the index of every element along an axis, 1 long along the others."""
        shape = self.target.shape
        axis = _axis(axis, len(shape))
        along = [-1 if at == axis else 1 for at in range(len(shape))]
        items = _expanded(self.region, len(shape))
        along = np.arange(shape[axis])[items[axis]]
        kept = [at for at, item in enumerate(items) if isinstance(item, slice)]
        return along.reshape([along.size if at == axis else 1 for at in kept])

    def _reduced(self, expr: Reduce) -> Array:
        values = self.alone(expr.argument)
        if expr.op in {"median", "quantile"} and expr.axes is not None:
            refuse("takes the whole tensor")
        exact = values.astype(working(values.dtype))
        found = reduced(expr.op, exact, expr.axes, expr.fraction)
        if expr.op not in SUMMED:
            return found
        dtype = result_dtype(expr.op, values.dtype)
        if expr not in self.measured:
            return np.zeros(found.shape, dtype)
        given = self.measured[expr]
        assert (given.dtype, given.shape) == (dtype, found.shape), expr
        for place in np.ndindex(found.shape):
            _require(expr, bounds(expr.op, found[place]), given[place])
        return given

    def _applied(self, expr: Apply) -> Array:  # noqa: C901, PLR0911 - one for each function
        arrays = [self.alone(argument) for argument in expr.args]
        first, rank = arrays[0], arrays[0].ndim
        match expr.function:
            case "transpose":
                axes = expr.option("axes") or tuple(reversed(range(rank)))
                return first.transpose([_axis(axis, rank) for axis in axes])
            case "reshape":
                return first.reshape(expr.option("shape"))
            case "expand":
                return np.broadcast_to(first, expr.option("shape"))
            case "concat" | "stack":
                axis = _axis(expr.option("axis") or 0, rank + (expr.function == "stack"))
                alike = [converted(Value(array), first.dtype) for array in arrays]
                join = np.concatenate if expr.function == "concat" else np.stack
                return join(alike, axis)
            case "take":
                indices = np.array(expr.option("indices"), np.int64)
                return np.take(first, indices, _axis(expr.option("axis") or 0, rank))
            case "pad":
                widths = [(0, 0)] * rank
                widths[_axis(expr.option("axis") or 0, rank)] = expr.option("widths")
                value = np.asarray(expr.option("value") or 0).astype(first.dtype)
                return np.pad(first, widths, constant_values=value)
            case "slice":
                return _at(first, expr.region)
            case "resize":
                return _resized(expr, first, _axis(expr.option("axis") or 0, rank))
            case "sparsify":
                axis = expr.option("axis")
                return _sparse(expr, first, _axis(-1 if axis is None else axis, rank))
            case "matmul":
                dtype = np.result_type(*(working(array.dtype) for array in arrays))
                return arrays[0].astype(dtype) @ arrays[1].astype(dtype)
        raise AssertionError(expr)


def _require(expr: Expr, allowed: tuple[Any, Any] | None, found: Any) -> None:
    """Require that what was found is one of the numbers that a sum may come to."""
    if allowed is None:
        return
    low, high = allowed
    if isinstance(low, int):
        assert int(found) == low, (str(expr), low, found)
        return
    with np.errstate(all="ignore"):
        low, high = (np.float64(end).astype(found.dtype) for end in (low, high))
    inside = np.isnan(found) if np.isnan(low) else low <= found <= high
    assert inside, (str(expr), low, found, high)


def _leaves(expr: Expr) -> list[Expr]:
    if isinstance(expr, Call):
        return [leaf for arg in expr.args for leaf in _leaves(arg)]
    return _leaves(expr.argument) if isinstance(expr, Convert) else [expr]


def _expanded(region: Region | None, rank: int) -> list[int | slice]:
    items = list(region.items) if region is not None else [...]
    at = items.index(...) if ... in items else len(items)
    before, after = items[:at], items[at + 1 :]
    return [*before, *[slice(None)] * (rank - len(before) - len(after)), *after]


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        refuse("no such axis")
    return axis % rank


def _at(values: Array, region: Region) -> Array:
    try:
        return values[(*_expanded(region, values.ndim), ...)]
    except IndexError as error:
        refuse(str(error))


def _fits(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def _together(shapes: list[tuple[int, ...]]) -> None:
    try:
        np.broadcast_shapes(*shapes)
    except ValueError as error:
        refuse(str(error))


def _resized(expr: Apply, values: Array, axis: int) -> Array:
    size, fill = expr.option("size"), expr.option("fill")
    fill = "zeros" if fill is None else fill
    more = size - values.shape[axis]
    if more <= 0:
        return np.take(values, np.arange(size), axis)
    shape = [*values.shape[:axis], 1, *values.shape[axis + 1 :]]
    row = np.zeros(shape, values.dtype)
    if fill != "zeros":
        row = np.take(values, [_axis(fill, values.shape[axis])], axis)
    return np.concatenate([values, np.repeat(row, more, axis)], axis)


def _sparse(expr: Apply, values: Array, axis: int) -> Array:
    keep, group = expr.option("keep"), expr.option("group")
    if values.dtype == bool:
        refuse("magnitudes are not defined for bool")
    if values.shape[axis] % group:
        refuse("the axis is not made of whole groups")
    result = np.moveaxis(values.copy(), axis, -1)
    shape, flat = result.shape, result.reshape(-1, group).copy()
    for row in flat:
        sizes = [math.inf if v != v else abs(v) for v in row.tolist()]  # noqa: PLR0124 - NaN
        chosen = sorted(range(group), key=lambda at: -sizes[at])[:keep]
        for at in set(range(group)) - set(chosen):
            row[at] = 0
    return np.moveaxis(flat.reshape(shape), -1, axis)
