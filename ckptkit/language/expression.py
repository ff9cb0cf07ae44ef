"""Expressions: precedence climbing over a closed table of operations. Nothing is evaluated.

Length and depth are capped, so that no text exhausts the stack.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from ckptkit.expressions import (
    DRAWS,
    FILLS,
    OPS,
    REDUCTIONS,
    SHORTHANDS,
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
    children,
)
from ckptkit.language.scanner import checked_dtype, near, read_region
from ckptkit.sizes import counted

if TYPE_CHECKING:
    from ckptkit.expressions import Expr, Option
    from ckptkit.language.scanner import Scanner

MAX_DEPTH: Final = 100
"""Levels of an expression, which is walked by recursion."""

MAX_DIGITS: Final = 400
"""Digits of an integer: float64 ends at 309, and Python's own conversion at 4300."""


_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<imaginary>(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?[jJ](?!\w))
      | (?P<float>(?:[0-9][0-9_]*\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![\w.])
                | [0-9][0-9_]*[eE][-+]?[0-9]+(?![\w.]))
      | (?P<int>[0-9][0-9_]*(?![\w.]))
      | (?P<name>[^\W\d]\w*)
      | (?P<text>["'])
      | (?P<symbol>\*\*|//|==|!=|<=|>=|[-+*/%<>(),@=\[\]])
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_BINARY: Final = {op.symbol: name for name, op in OPS.items() if op.symbol and op.arity == 2}
_UNARY: Final = {op.symbol: name for name, op in OPS.items() if op.symbol and op.arity == 1}
_COMPARISON: Final = OPS["equal"].level
_PRODUCT: Final = OPS["multiply"].level
_POWER: Final = OPS["power"].level
_CONSTANTS: Final = {
    "inf": float("inf"),
    "nan": float("nan"),
    "True": True,
    "False": False,
}
_FOREIGN: Final = {
    ".": "attributes and methods are not part of the language",
    "=": "one statement assigns once; to compare, write ==",
    "&": "write `and`",
    "|": "write `or`",
    "~": "write `not`",
    "^": "a power is written **",
    "if": "there is no if: write where(condition, a, b)",
    "else": "there is no if: write where(condition, a, b)",
    "is": "to compare, write ==",
    "lambda": "there are no functions of your own here; in Python, use ckptkit.Map",
}


class Parser:
    """Precedence climbing over the tokens of an expression."""

    def __init__(self, scanner: Scanner) -> None:
        """Stand before the first token of what is left."""
        self.scanner = scanner
        self.depth = 0
        self.draws = 0
        self.advance()

    def advance(self) -> None:
        """Read the next token."""
        found = _TOKEN.match(self.scanner.text, self.scanner.at)
        if found is None:
            self.scanner.space()
            self.kind, self.word, self.at = "foreign", "", self.scanner.at
            self.word = self.scanner.text[self.at]
            return
        self.kind = found.lastgroup or ""
        self.word, self.at = found[self.kind], found.start(self.kind)
        self.scanner.at = found.end()
        if self.kind == "text":
            self.scanner.at = self.at
            self.word = self.scanner.quoted()

    def fail(self, message: str, at: int | None = None) -> NoReturn:
        """Raise an error that points at the token."""
        self.scanner.fail(message, self.at if at is None else at)

    def whole(self) -> Expr:
        """Read an expression that is all that is left."""
        start = self.at
        expr = self.climb(0)
        if self.kind != "end":
            self.unexpected("an operator or the end")
        if _too_deep(expr):
            self.fail(f"an expression goes {MAX_DEPTH} levels deep at most", start)
        return expr

    def unexpected(self, expected: str) -> NoReturn:
        """Complain about the token."""
        hint = _FOREIGN.get(self.word) if self.kind != "text" else None
        if self.kind == "foreign" and self.word.isdigit():
            hint = "this is not a number"
        self.fail(hint or f"expected {expected}")

    def climb(self, least: int) -> Expr:
        """Read operands and the operators that bind at ``least`` or tighter."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"an expression goes {MAX_DEPTH} levels deep at most")
        left = self.operand()
        compared = False
        while self.kind in {"symbol", "name"} and (self.word in _BINARY or self.word == "@"):
            op = _BINARY.get(self.word, "matmul")
            level = OPS[op].level if op in OPS else _PRODUCT
            if level < least:
                break
            if level == _COMPARISON and compared:
                self.fail("comparisons do not chain: write a < b and b < c")
            compared = level == _COMPARISON
            self.advance()
            # The exponent may carry a sign, which binds less tightly than the power.
            right = self.climb(_POWER if level == _POWER else level + 1)
            left = Call(op, (left, right)) if op in OPS else Apply(op, (left, right))
        self.depth -= 1
        return left

    def operand(self) -> Expr:
        """Read a value with its signs, or one in parentheses, and the regions behind it."""
        if self.kind in {"symbol", "name"} and self.word in _UNARY:
            op = _UNARY[self.word]
            self.advance()
            return Call(op, (self.climb(OPS[op].level),))
        if self.kind == "symbol" and self.word == "+":
            self.advance()
            return self.climb(OPS["negative"].level)
        if self.kind in {"int", "float", "imaginary"}:
            return self.number()
        if self.kind == "symbol" and self.word == "(":
            self.advance()
            found = self.climb(0)
            self.expect(")")
        elif self.kind == "text":
            self.fail('text stands only in t("name") and cast(x, "dtype")')
        elif self.kind == "name":
            found = self.named()
        else:
            self.unexpected("a value")
        regions = 0
        while self.kind == "symbol" and self.word == "[":
            regions += 1
            if regions > MAX_DEPTH:
                self.fail(f"an expression goes {MAX_DEPTH} levels deep at most")
            self.scanner.at = self.at
            found = Apply("slice", (found,), region=read_region(self.scanner))
            self.advance()
        return found

    def expect(self, symbol: str) -> None:
        """Read a symbol that has to be there."""
        if self.kind != "symbol" or self.word != symbol:
            self.unexpected(repr(symbol))
        self.advance()

    def number(self) -> Number:
        """Read a literal."""
        text = self.word.replace("_", "")
        if self.kind == "int":
            if len(text) > MAX_DIGITS:
                self.fail(f"an integer has {MAX_DIGITS} digits at most")
            value: complex = int(text)
        elif self.kind == "float":
            value = float(text)
        else:
            value = complex(0, float(text[:-1]))
            if value.imag == float("inf"):
                self.fail("this number is too large")
        self.advance()
        return Number(value)

    def named(self) -> Expr:
        """Read ``x``, a constant, or a call."""
        name, at = self.word, self.at
        self.advance()
        if self.kind == "symbol" and self.word == "(":
            self.advance()
            return self.call(name, at)
        if name == "x":
            return Current()
        if name not in _CONSTANTS:
            self.no_value(name, at)
        return Number(_CONSTANTS[name])

    def no_value(self, name: str, at: int) -> NoReturn:
        """Say what is wrong with a name that stands for no value."""
        if self.word == "=":
            self.fail("arguments are given by place, not by name")
        if name in _FOREIGN:
            self.fail(_FOREIGN[name], at)
        if name in OPS or name in _CALLS or name in {"t", "cast"}:
            self.fail(f"{name} is a function: write {name}(...)", at)
        self.fail(f'no value {name!r}: only x and t("name") stand for tensors', at)

    def call(self, name: str, at: int) -> Expr:
        """Read the arguments of a function."""
        if name == "t":
            if self.kind != "text" or not self.word:
                self.fail('expected the name of a tensor in quotes: t("name")')
            other = Other(self.word)
            self.advance()
            self.expect(")")
            return other
        if name == "cast":
            return self.cast()
        if name in _CALLS:
            return self.signed(name, at)
        if name not in OPS:
            known = near(name, [*OPS, *_CALLS, "cast", "t"])
            self.fail(f"there is no function {name!r}{known}", at)
        args: list[Expr] = []
        while not self.closes():
            if args:
                self.expect(",")
            args.append(self.climb(0))
        self.advance()
        self.count(name, len(args), OPS[name].arity, at)
        return Call(name, tuple(args))

    def closes(self) -> bool:
        """Tell whether the arguments end here."""
        return self.kind == "symbol" and self.word == ")"

    def count(self, name: str, given: int, arity: int, at: int) -> None:
        """Insist on a number of arguments."""
        if given != arity:
            takes = counted(arity, "argument")
            self.fail(f"{name}() takes {takes}, not {given}{_paired(name)}", at)

    def cast(self) -> Expr:
        """Read the arguments of a cast."""
        argument = self.climb(0)
        self.expect(",")
        dtype = self.dtype()
        self.expect(")")
        return Convert(argument, dtype)

    def dtype(self) -> str:
        """Read the name of a dtype."""
        if self.kind not in {"name", "text"}:
            self.unexpected("a dtype")
        dtype = checked_dtype(self.scanner, self.at, self.word)
        self.advance()
        return dtype

    def signed(self, name: str, at: int) -> Expr:
        """Read the arguments of a function that takes more than tensors."""
        signature = _CALLS[name]
        tensors: list[Expr] = []
        options: dict[str, Option] = {}
        places = 0
        while not self.closes():
            if places:
                self.expect(",")
            places += 1
            word = self.word if self.kind == "name" else ""
            if word and _NAMED.match(self.scanner.text, self.scanner.at):
                if word not in signature.options or word in options:
                    self.named_wrong(name, word, options)
                self.advance()
                self.advance()
                options[word] = self.option(signature.options[word])
            elif signature.most is None or len(tensors) < signature.most:
                tensors.append(self.climb(0))
            else:
                self.by_place(name, options)
        self.advance()
        if len(tensors) < signature.least:
            self.count(name, len(tensors), signature.least, at)
        for option in signature.needed:
            if option not in options:
                self.fail(f"{name}() needs {option}", at)
        return self.made(name, tuple(tensors), options)

    def by_place(self, name: str, options: dict[str, Option]) -> None:
        """Read an option that is given by its place."""
        if name in _PAIRED:
            self.fail(f"{name}() takes its axis by name, as in axis=0{_paired(name)}")
        known = _CALLS[name].options
        free = [option for option in known if option not in options]
        if not free:
            self.fail(f"{name}() takes no further argument")
        options[free[0]] = self.option(known[free[0]])

    def named_wrong(self, name: str, word: str, options: dict[str, Option]) -> NoReturn:
        """Say what is wrong with the name of an argument."""
        if word in options:
            self.fail(f"{word} is given twice")
        known = ", ".join(_CALLS[name].options) or "no arguments by name"
        self.fail(f"{name}() has no argument {word!r}; it takes {known}")

    def option(self, kind: str) -> Option:
        """Read what is no tensor: a number, numbers, a dtype, or text."""
        if kind == "dtype":
            return self.dtype()
        if kind == "fill" and self.kind in {"name", "text"}:
            word = self.word
            if word not in FILLS:
                self.fail(f"expected {', '.join(FILLS)} or a row's number")
            self.advance()
            return word
        if kind == "ints":
            return self.integers()
        at = self.at
        value = self.literal()
        if kind == "number":
            return value
        if not isinstance(value, int) or abs(value) >= 2**63:
            self.fail("expected an integer", at)
        return int(value)

    def literal(self) -> int | float:
        """Read a number with its sign."""
        at, expr = self.at, self.climb(0)
        sign = 1
        while isinstance(expr, Call) and expr.op == "negative":
            expr, sign = expr.args[0], -sign
        value = expr.value if isinstance(expr, Number) else 1j
        if not isinstance(value, int | float):
            self.fail("expected a number", at)
        return sign * value

    def integers(self) -> tuple[int, ...]:
        """Read integers in brackets, or a single one."""
        if not (self.kind == "symbol" and self.word == "["):
            return (int(self.option("int")),)  # type: ignore[arg-type]
        self.advance()
        found: list[int] = []
        while not (self.kind == "symbol" and self.word == "]"):
            if found:
                self.expect(",")
            found.append(int(self.option("int")))  # type: ignore[arg-type]
        self.advance()
        return tuple(found)

    def made(self, name: str, args: tuple[Expr, ...], options: dict[str, Option]) -> Expr:
        """Return what a call stands for."""
        if name in REDUCTIONS:
            return self.reduced(name, args[0], options)
        if name in DRAWS:
            return self.drawn(name, args, options)
        if name in SHORTHANDS:
            return SHORTHANDS[name](args, options)
        if name == "index":
            return Index(_whole(options["axis"]))
        if name in {"shape", "size"}:
            return Size(_whole(options["axis"]) if options else None)
        return self.applied(name, args, options)

    def reduced(self, name: str, argument: Expr, options: dict[str, Option]) -> Expr:
        """Return a reduction."""
        axes, fraction = options.get("axis"), options.get("fraction")
        chosen = float(fraction) if isinstance(fraction, int | float) else None
        if chosen is not None and not 0 <= chosen <= 1:
            self.fail("the fraction of a quantile lies between 0 and 1")
        return Reduce(name, argument, axes if isinstance(axes, tuple) else None, chosen)

    def applied(self, name: str, args: tuple[Expr, ...], options: dict[str, Option]) -> Expr:
        """Return a function of tensors."""
        if name in _FILLED:
            return self.filled(name, options)
        if name == "pad" and len(_ints(options["widths"])) != 2:
            self.fail("pad() takes two widths, before and after: [1, 2]")
        if name == "stochastic":
            self.draws += 1
            options["number"] = self.draws
        order = [*_CALLS[name].options, "number"]
        given = tuple((option, options[option]) for option in order if option in options)
        return Apply(name, args, given)

    def filled(self, name: str, options: dict[str, Option]) -> Expr:
        """Return one number everywhere: as many as there are, or of a shape."""
        if "shape" not in options:
            return Call(name, ())
        return Apply("expand", (Number(_FILLED[name]),), (("shape", options["shape"]),))

    def drawn(self, name: str, args: tuple[Expr, ...], options: dict[str, Option]) -> Expr:
        """Return a draw, moved and scaled as its arguments say."""
        self.draws += 1
        shape = options.get("shape")
        seed = _whole(options.get("seed", 0))
        draw: Expr = Draw(name, seed, self.draws, _ints(shape) if shape is not None else None)
        if len(args) == 2:
            first, second = args
            scale = second if name == "normal" else Call("subtract", (second, first))
            draw = Call("multiply", (scale, draw))
        if args:
            draw = Call("add", (args[0], draw))
        return draw


_NAMED: Final = re.compile(r"\s*=(?!=)")
_PAIRED: Final = frozenset({"min", "max"})
"""Functions that elsewhere take several values, and choose one of them."""


def _paired(name: str) -> str:
    return f"; for two values write {name}imum(a, b)" if name in _PAIRED else ""


def _whole(value: Option) -> int:
    return value if isinstance(value, int) else 0


def _ints(value: Option) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else ()


@dataclass(frozen=True, slots=True)
class _Signature:
    """What a function takes: from least to most tensors, then options by place or by name."""

    least: int
    most: int | None
    options: dict[str, str]
    needed: tuple[str, ...] = ()


_AXIS: Final = {"axis": "int"}
_FILLED: Final = {"zeros": 0.0, "ones": 1.0}
"""Functions that give one number everywhere."""

_CALLS: Final[dict[str, _Signature]] = {
    **{
        name: _Signature(1, 1, {"axis": "ints"})
        for name in REDUCTIONS
        if name not in {"median", "quantile"}
    },
    "median": _Signature(1, 1, {}),
    "quantile": _Signature(1, 1, {"fraction": "number"}, ("fraction",)),
    **{name: _Signature(0, 2, {"seed": "int", "shape": "ints"}) for name in DRAWS},
    **{name: _Signature(0, 0, {"shape": "ints"}) for name in _FILLED},
    "index": _Signature(0, 0, _AXIS, ("axis",)),
    "shape": _Signature(0, 0, _AXIS, ("axis",)),
    "size": _Signature(0, 0, {}),
    "matmul": _Signature(2, 2, {}),
    "transpose": _Signature(1, 1, {"axes": "ints"}),
    "reshape": _Signature(1, 1, {"shape": "ints"}, ("shape",)),
    "expand": _Signature(1, 1, {"shape": "ints"}, ("shape",)),
    "concat": _Signature(1, None, _AXIS),
    "stack": _Signature(1, None, _AXIS),
    "take": _Signature(1, 1, {"indices": "ints", **_AXIS}, ("indices",)),
    "pad": _Signature(1, 1, {"widths": "ints", **_AXIS, "value": "number"}, ("widths",)),
    "resize": _Signature(1, 1, {"size": "int", **_AXIS, "fill": "fill", "seed": "int"}, ("size",)),
    "sparsify": _Signature(1, 1, {"keep": "int", "group": "int", **_AXIS}, ("keep", "group")),
    "stochastic": _Signature(1, 1, {"dtype": "dtype", "seed": "int"}, ("dtype",)),
    "repair": _Signature(1, 1, {"value": "number"}),
    "quantize": _Signature(2, 2, {}),
    "dequantize": _Signature(2, 2, {"dtype": "dtype"}),
}


def _too_deep(expr: Expr) -> bool:
    level: list[Expr] = [expr]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in children(node)]
        if not level:
            return False
    return True
