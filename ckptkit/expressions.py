"""Expressions: small trees over one closed table of operations, as values and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


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
    "zeros": Op(0, "i", "same", True, "0 everywhere"),
    "ones": Op(0, "i", "same", True, "1 everywhere"),
}
"""Every operation; the language, its reference and the backends follow from this table."""

_UNARY: Final = OPS["negative"].level


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


Expr = Number | Current | Other | Convert | Call


def _operand(expr: Expr, least: int) -> str:
    level = 9
    if isinstance(expr, Call):
        level = OPS[expr.op].level
    elif isinstance(expr, Number) and str(expr).startswith("-"):
        level = _UNARY
    return str(expr) if level >= least else f"({expr})"


def leaves(expr: Expr) -> Iterator[Number | Current | Other]:
    """Iterate over the leaves of an expression, from left to right."""
    if isinstance(expr, Call):
        for argument in expr.args:
            yield from leaves(argument)
    elif isinstance(expr, Convert):
        yield from leaves(expr.argument)
    else:
        yield expr


def others(expr: Expr) -> tuple[str, ...]:
    """Return the names in ``t("name")``, in the order of their first appearance."""
    return tuple(dict.fromkeys(leaf.name for leaf in leaves(expr) if isinstance(leaf, Other)))


def operations(expr: Expr) -> int:
    """Return how many operations an expression takes: each is a pass over the values."""
    if isinstance(expr, Call):
        return 1 + sum(map(operations, expr.args))
    return 1 + operations(expr.argument) if isinstance(expr, Convert) else 0
