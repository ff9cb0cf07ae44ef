"""Expressions: small trees over one closed table of operations, as values and as text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ckptkit.region import Region


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of the expression language.

    Attributes:
        arity: Number of arguments.
        takes: Kinds that it computes in: ``b`` bool, ``i`` integers, ``f`` float, ``c`` complex.
            Where it takes floats but no integers, integers become float64.
        gives: The dtype that it computes in, its real part, or bool.
        exact: Every backend gives the same bits (subnormals and the payload of NaN aside).
        doc: One line for people.
        symbol: The operator that stands for it, if one does.
        level: How tightly the operator binds.
    """

    arity: int
    takes: str
    gives: Literal["same", "real", "bool"]
    exact: bool
    doc: str
    symbol: str = ""
    level: int = 9


OPS: Final[Mapping[str, Op]] = {
    "logical_or": Op(2, "b", "bool", True, "either holds", "or", 1),
    "logical_and": Op(2, "b", "bool", True, "both hold", "and", 2),
    "logical_not": Op(1, "b", "bool", True, "does not hold", "not", 3),
    "equal": Op(2, "bifc", "bool", True, "equal", "==", 4),
    "not_equal": Op(2, "bifc", "bool", True, "not equal", "!=", 4),
    "less": Op(2, "if", "bool", True, "less than", "<", 4),
    "less_equal": Op(2, "if", "bool", True, "less than or equal", "<=", 4),
    "greater": Op(2, "if", "bool", True, "greater than", ">", 4),
    "greater_equal": Op(2, "if", "bool", True, "greater than or equal", ">=", 4),
    "add": Op(2, "ifc", "same", True, "sum", "+", 5),
    "subtract": Op(2, "ifc", "same", True, "difference", "-", 5),
    "multiply": Op(2, "ifc", "same", True, "product", "*", 6),
    "divide": Op(2, "fc", "same", True, "quotient; of integers in float64", "/", 6),
    "floor_divide": Op(2, "if", "same", False, "quotient, rounded down", "//", 6),
    "mod": Op(2, "if", "same", False, "remainder, with the sign of the divisor", "%", 6),
    "negative": Op(1, "ifc", "same", True, "opposite sign", "-", 7),
    "power": Op(2, "ifc", "same", False, "power; exact for the literal exponent 2", "**", 8),
    "where": Op(3, "bifc", "same", True, "second where the first holds, else third"),
    "clip": Op(3, "if", "same", True, "first, kept between second and third"),
    "minimum": Op(2, "if", "same", True, "the smaller one, NaN if either is; of equals the first"),
    "maximum": Op(2, "if", "same", True, "the larger one, NaN if either is; of equals the first"),
    "abs": Op(1, "ifc", "real", True, "magnitude"),
    "sign": Op(1, "if", "same", True, "-1, 0 or 1"),
    "square": Op(1, "ifc", "same", True, "times itself"),
    "sqrt": Op(1, "fc", "same", True, "square root"),
    "exp": Op(1, "fc", "same", False, "e to that power"),
    "log": Op(1, "fc", "same", False, "natural logarithm"),
    "tanh": Op(1, "fc", "same", False, "hyperbolic tangent"),
    "sigmoid": Op(1, "f", "same", False, "1 / (1 + exp(-x))"),
    "relu": Op(1, "if", "same", True, "maximum(x, 0)"),
    "round": Op(1, "if", "same", True, "nearest integer, halves to even"),
    "floor": Op(1, "if", "same", True, "rounded down"),
    "ceil": Op(1, "if", "same", True, "rounded up"),
    "isnan": Op(1, "f", "bool", True, "is NaN"),
    "isinf": Op(1, "f", "bool", True, "is infinite"),
    "isfinite": Op(1, "f", "bool", True, "is neither infinite nor NaN"),
    "zeros": Op(0, "i", "same", True, "0 everywhere; shape=[2, 3] is for new tensors"),
    "ones": Op(0, "i", "same", True, "1 everywhere, likewise"),
}
"""Every operation; the language, its reference and the backends follow from this table."""

_UNARY: Final = OPS["negative"].level
_PRODUCT: Final = OPS["multiply"].level
_ATOM: Final = 9
"""How tightly what needs no parentheses binds."""


@dataclass(frozen=True, slots=True)
class Reduction:
    """One way to make few numbers of many: of a whole tensor, or along axes.

    Attributes:
        takes: Kinds that it reduces, as in :class:`Op`.
        gives: ``same`` dtype as it computes in, its ``real`` part, ``float`` (integers give
            float64), ``sum`` (integers give 64 bits) or ``bool``.
        exact: The result is an element, or a count: no rounding takes part.
        doc: One line for people.
    """

    takes: str
    gives: Literal["same", "float", "real", "sum", "bool"]
    exact: bool
    doc: str


REDUCTIONS: Final[Mapping[str, Reduction]] = {
    "sum": Reduction("bifc", "sum", False, "sum, in float64"),
    "mean": Reduction("bifc", "float", False, "mean, in float64"),
    "var": Reduction("bif", "real", False, "variance, divided by the number of elements"),
    "std": Reduction("bif", "real", False, "standard deviation, the root of var"),
    "norm": Reduction("bifc", "real", False, "root of the sum of squares"),
    "min": Reduction("bif", "same", True, "least element; NaN if there is one"),
    "max": Reduction("bif", "same", True, "greatest element; NaN if there is one"),
    "any": Reduction("b", "bool", True, "whether one holds"),
    "all": Reduction("b", "bool", True, "whether all hold"),
    "median": Reduction("if", "float", True, "middle element, or the mean of the middle two"),
    "quantile": Reduction("if", "same", True, "element with that fraction of the others below it"),
}
"""Every reduction."""

DRAWS: Final[Mapping[str, str]] = {
    "normal": "normally distributed, of mean a and standard deviation b (0 and 1)",
    "uniform": "evenly distributed, from a to below b (0 and 1)",
}
"""Every distribution of random numbers."""

FILLS: Final = ("zeros", "mean", "normal")
"""What a longer axis is filled up with, besides one of its rows."""

FUNCTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "matmul": ("a @ b", "product of two matrices *"),
    "slice": ("a[REGION]", "a part: integers, slices, ..."),
    "transpose": ("transpose(a, axes)", "axes in another order; reversed if none is given"),
    "reshape": ("reshape(a, [2, -1])", "another shape, the elements in their order"),
    "concat": ("concat(a, b, axis=0)", "tensors joined along an axis"),
    "stack": ("stack(a, b, axis=0)", "tensors joined along a new axis"),
    "take": ("take(a, [2, 0], axis=0)", "chosen rows, in the order given"),
    "pad": ("pad(a, [1, 2], axis=0, value=0)", "values before and after an axis"),
    "resize": (
        'resize(a, 32000, axis=0, fill="mean")',
        "an axis cut, or filled up: zeros, mean, normal, or a row's number",
    ),
    "expand": ("expand(a, [4, 3])", "broadcast to a shape"),
    "sparsify": ("sparsify(a, 2, 4, axis=-1)", "of every 4 the 2 largest magnitudes, else 0"),
    "stochastic": (
        "stochastic(a, bfloat16, seed=0)",
        "conversion that rounds up or down by chance, in proportion",
    ),
}
"""Every function that sees more of a tensor than one element at a time: form and meaning."""


@dataclass(frozen=True, slots=True, eq=False)
class Number:
    """A number, which takes the dtype of the tensors that it meets."""

    value: complex

    def _key(self) -> tuple[type, str]:
        # 1, 1.0 and True are equal to Python, and NaN is not; in an expression it is the reverse.
        return type(self.value), repr(self.value)

    def __eq__(self, other: object) -> bool:
        """Compare type and digits."""
        return isinstance(other, Number) and self._key() == other._key()

    def __hash__(self) -> int:
        """Hash type and digits."""
        return hash(self._key())

    def __str__(self) -> str:
        """Return the literal."""
        return repr(self.value)


@dataclass(frozen=True, slots=True)
class Current:
    """The tensor that is edited, as it is: ``x``."""

    def __str__(self) -> str:
        """Return ``x``."""
        return "x"


@dataclass(frozen=True, slots=True)
class Other:
    """Another tensor: ``t("name")``."""

    name: str

    def __str__(self) -> str:
        """Return ``t("name")``."""
        text = self.name.replace("\\", "\\\\").replace('"', '\\"')
        return f't("{text}")'


@dataclass(frozen=True, slots=True)
class Convert:
    """A conversion on purpose: ``cast(x, int32)``."""

    argument: Expr
    dtype: str

    def __str__(self) -> str:
        """Return ``cast(..., dtype)``."""
        return f"cast({self.argument}, {self.dtype})"


@dataclass(frozen=True, slots=True)
class Call:
    """An operation of ``OPS`` and its arguments."""

    op: str
    args: tuple[Expr, ...]

    def __str__(self) -> str:
        """Return the expression as it is written, with no parentheses to spare."""
        op = OPS[self.op]
        if not op.symbol:
            return f"{self.op}({', '.join(map(str, self.args))})"
        if len(self.args) == 1:
            gap = " " if op.symbol.isalpha() else ""
            return f"{op.symbol}{gap}{_operand(self.args[0], op.level)}"
        # A power binds from the right, and its exponent may carry a sign; the comparisons do
        # not chain; all others bind from the left.
        left, right = op.level, op.level + 1
        if op.symbol == "**":
            left, right = op.level + 1, _UNARY
        elif op.gives == "bool" and op.takes != "b":
            left += 1
        return f"{_operand(self.args[0], left)} {op.symbol} {_operand(self.args[1], right)}"


@dataclass(frozen=True, slots=True)
class Reduce:
    """A reduction of ``REDUCTIONS``, whose result broadcasts to what was reduced.

    Attributes:
        axes: The axes that are reduced; all if None.
        fraction: Of a quantile.
    """

    op: str
    argument: Expr
    axes: tuple[int, ...] | None = None
    fraction: float | None = None

    def __str__(self) -> str:
        """Return ``mean(x, axis=0)``."""
        words = [str(self.argument)]
        if self.fraction is not None:
            words.append(repr(self.fraction))
        if self.axes is not None:
            words.append(f"axis={self.axes[0] if len(self.axes) == 1 else list(self.axes)}")
        return f"{self.op}({', '.join(words)})"


@dataclass(frozen=True, slots=True)
class Index:
    """The place of an element along an axis of its tensor."""

    axis: int

    def __str__(self) -> str:
        """Return ``index(0)``."""
        return f"index({self.axis})"


@dataclass(frozen=True, slots=True)
class Size:
    """The length of the target along an axis, or how many elements it has."""

    axis: int | None

    def __str__(self) -> str:
        """Return ``shape(0)`` or ``size()``."""
        return "size()" if self.axis is None else f"shape({self.axis})"


@dataclass(frozen=True, slots=True)
class Draw:
    """Random numbers of a distribution of ``DRAWS``, one for every element.

    Attributes:
        number: Tells it from other draws of the statement.
        shape: How many, where it is not one for every element of the target.
    """

    kind: str
    seed: int = 0
    number: int = 0
    shape: tuple[int, ...] | None = None

    def __str__(self) -> str:
        """Return ``normal()``."""
        words = [f"seed={self.seed}"] if self.seed else []
        words += [f"shape={list(self.shape)}"] if self.shape is not None else []
        return f"{self.kind}({', '.join(words)})"


Option = int | float | str | None | tuple[int, ...]
"""What a function takes besides tensors."""


@dataclass(frozen=True, slots=True)
class Apply:
    """A function of ``FUNCTIONS`` on tensors, with what it is told besides."""

    function: str
    args: tuple[Expr, ...]
    options: tuple[tuple[str, Option], ...] = ()
    region: Region | None = None

    def option(self, name: str) -> Any:
        """Return an option, None if it was not given."""
        return dict(self.options).get(name)

    def __str__(self) -> str:
        """Return the call as it is written."""
        if self.function == "matmul":
            first = _operand(self.args[0], _PRODUCT)
            return f"{first} @ {_operand(self.args[1], _PRODUCT + 1)}"
        if self.function == "slice":
            bare = _operand(self.args[0], _ATOM)
            return f"{f'({bare})' if isinstance(self.args[0], Number) else bare}{self.region}"
        told = (pair for pair in self.options if pair[0] != "number")
        words = [*map(str, self.args), *(_option(*pair) for pair in told)]
        return f"{self.function}({', '.join(words)})"


def _option(name: str, value: Option) -> str:
    if isinstance(value, tuple):
        return f"{name}={list(value)}"
    return (
        f"{name}={value}" if name == "dtype" or not isinstance(value, str) else f'{name}="{value}"'
    )


Leaf = Current | Other | Reduce | Index | Size | Draw | Apply
"""What an elementwise expression takes from elsewhere."""

Expr = Number | Leaf | Convert | Call


def _operand(expr: Expr, least: int) -> str:
    level = _ATOM
    if isinstance(expr, Call):
        level = OPS[expr.op].level
    elif isinstance(expr, Apply) and expr.function == "matmul":
        level = _PRODUCT
    elif isinstance(expr, Number) and str(expr).startswith("-"):
        level = _UNARY
    return str(expr) if level >= least else f"({expr})"


def leaves(expr: Expr) -> Iterator[Number | Leaf]:
    """Iterate over the leaves of an elementwise expression, from left to right."""
    if isinstance(expr, Call):
        for argument in expr.args:
            yield from leaves(argument)
    elif isinstance(expr, Convert):
        yield from leaves(expr.argument)
    else:
        yield expr


def inputs(expr: Expr) -> tuple[Leaf, ...]:
    """Return the leaves that need tensors besides ``x``, in the order of first appearance."""
    found = (leaf for leaf in leaves(expr) if not isinstance(leaf, Number | Current))
    return tuple(dict.fromkeys(found))


def children(expr: Expr) -> tuple[Expr, ...]:
    """Return the expressions that one is made of."""
    if isinstance(expr, Call | Apply):
        return expr.args
    return (expr.argument,) if isinstance(expr, Convert | Reduce) else ()


def walk(expr: Expr) -> Iterator[Expr]:
    """Iterate over all expressions in one, itself included, from the outside in."""
    yield expr
    for child in children(expr):
        yield from walk(child)


def rebuilt(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """Return an expression with every part replaced by what ``change`` makes of it."""
    if isinstance(expr, Call | Apply):
        expr = replace(expr, args=tuple(rebuilt(part, change) for part in expr.args))
    elif isinstance(expr, Convert | Reduce):
        expr = replace(expr, argument=rebuilt(expr.argument, change))
    return change(expr)


def operations(expr: Expr) -> int:
    """Return how many operations an expression takes: each is a pass over the values."""
    if isinstance(expr, Call):
        return 1 + sum(map(operations, expr.args))
    return 1 + operations(expr.argument) if isinstance(expr, Convert) else 0


def repaired(value: Expr, number: float) -> Expr:
    """Return an expression with a number in the place of what is not finite."""
    return Call("where", (Call("isfinite", (value,)), value, Number(number)))


def _repaired(args: tuple[Expr, ...], options: Mapping[str, Option]) -> Expr:
    number = options.get("value", 0)
    return repaired(args[0], number if isinstance(number, int | float) else 0)


def quantized(value: Expr, scale: Expr) -> Expr:
    """Return an expression of int8 whose product with a scale is near a value."""
    steps = Call("round", (Call("divide", (value, scale)),))
    return Convert(Call("clip", (steps, Number(-LEVELS), Number(LEVELS))), "int8")


def dequantized(value: Expr, scale: Expr, dtype: str) -> Expr:
    """Return the expression of what int8 stands for."""
    return Call("multiply", (Convert(value, dtype), scale))


def _dequantized(args: tuple[Expr, ...], options: Mapping[str, Option]) -> Expr:
    return dequantized(args[0], args[1], str(options.get("dtype", "float32")))


LEVELS: Final = 127
"""The largest magnitude of int8 that both signs have."""

SHORTHANDS: Final[Mapping[str, Callable[[tuple[Expr, ...], Mapping[str, Option]], Expr]]] = {
    "repair": _repaired,
    "quantize": lambda args, _: quantized(*args),
    "dequantize": _dequantized,
}
"""Functions that stand for expressions of others."""

SHORTHAND_FORMS: Final[Mapping[str, tuple[str, str]]] = {
    "repair": ("repair(a, value=0)", "where(isfinite(a), a, value)"),
    "quantize": ("quantize(a, scale)", "int8: a / scale, rounded, kept between -127 and 127"),
    "dequantize": ("dequantize(a, scale, float32)", "what int8 and its scale stand for"),
}
"""How they are written, and what they stand for."""
