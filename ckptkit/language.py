"""The edit language: a statement of text to an edit, and nothing is ever evaluated as code.

The expression grammar is that of Python over the operations of ``kernels.OPS``, read by
precedence climbing. Length and depth are capped, so that no text exhausts the stack.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from ckptkit.edits import Assign, Cast, Copy, Drop, Edit, Keep, Rename
from ckptkit.errors import EditError
from ckptkit.expressions import OPS, Call, Convert, Current, Number, Other
from ckptkit.kernels import is_number
from ckptkit.model import DTYPES
from ckptkit.region import Region

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import EllipsisType

    from ckptkit.expressions import Expr

MAX_LENGTH: Final = 10_000
"""Characters of a statement."""

MAX_DEPTH: Final = 100
"""Levels of an expression, which is walked by recursion."""

MAX_DIGITS: Final = 400
"""Digits of an integer: float64 ends at 309, and Python's own conversion at 4300."""

_SHOWN: Final = 60
"""Characters that an error shows on either side of the place."""


def parse(text: str) -> Edit:
    """Read one statement.

    Raises:
        EditError: It is no statement; the message points at the place, ``offset`` is its column.
    """
    if len(text) > MAX_LENGTH:
        msg = f"a statement of {len(text)} characters is over the limit of {MAX_LENGTH}"
        raise EditError(msg)
    scanner = _Scanner(text)
    scanner.space()
    keyword = _KEYWORD.match(text, scanner.at)
    if keyword is not None:
        rest = text[keyword.end() :]
        if not _ASSIGNS.match(rest) or (keyword[1] in _ARROWED and " -> " in rest):
            scanner.at = keyword.end()
            return _STATEMENTS[keyword[1]](scanner)
    return _assignment(scanner)


def parse_all(statements: Iterable[str | Edit]) -> tuple[Edit, ...]:
    """Read statements; edits among them are taken as they are."""
    return tuple(parse(item) if isinstance(item, str) else item for item in statements)


_KEYWORD: Final = re.compile(r"(rename|drop|keep|cast|copy)(?:\s+|$)")
_ASSIGNS: Final = re.compile(r"[-+*/]?=(?!=)|\[[^\]]*\]\s*[-+*/]?=(?!=)")
_ARROWED: Final = frozenset({"rename", "cast", "copy"})
_OPERATORS: Final = {"+=": "add", "-=": "subtract", "*=": "multiply", "/=": "divide"}


@dataclass(slots=True)
class _Scanner:
    """A statement and how far it has been read."""

    text: str
    at: int = 0

    def fail(self, message: str, at: int | None = None) -> NoReturn:
        """Raise an error that points at a column."""
        place = self.at if at is None else at
        start = max(0, place - _SHOWN)
        shown = re.sub(r"\s|[^\x20-\U0010ffff]", " ", self.text[start : place + _SHOWN])
        msg = f"{message}\n  {shown}\n  {' ' * (place - start)}^"
        raise EditError(msg, offset=place)

    def take(self, pattern: re.Pattern[str]) -> str | None:
        """Read what matches here, if anything does."""
        found = pattern.match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return found[0]

    def space(self) -> None:
        """Skip white space."""
        self.take(_SPACE)

    def end(self, what: str) -> None:
        """Insist that nothing follows."""
        self.space()
        if self.at < len(self.text):
            self.fail(f"{what} ends here")

    def quoted(self) -> str:
        r"""Read text in quotes, in which only ``\\`` and an escaped quote are special."""
        start, quote = self.at, self.text[self.at]
        body = self.take(_QUOTED[quote])
        if body is None:
            self.fail("this quote is never closed", start)
        return re.sub(rf"\\([\\{quote}])", r"\1", body[1:-1])

    def name(self, what: str) -> str:
        """Read a name or a glob, in double quotes where it holds spaces, brackets or quotes."""
        self.space()
        start = self.at
        in_quotes = self.text.startswith('"', start)
        found = self.quoted() if in_quotes else self.take(_BARE)
        if not found:
            self.fail(f"expected {what}", start)
        if self.text[self.at : self.at + 1] in {'"', "[", "]"}:
            self.fail(f'to use quotes or brackets in {what}, put it in "..."')
        return found

    def arrow(self, what: str) -> None:
        """Read ``->``."""
        self.space()
        if not self.text.startswith("->", self.at):
            self.fail(f"expected ' -> ' and {what}")
        self.at += 2


_SPACE: Final = re.compile(r"\s*")
_BARE: Final = re.compile(r'[^\s\[\]"]+')
_TARGET: Final = re.compile(r'[^\s\[\]"=]+')
_QUOTED: Final = {q: re.compile(rf"{q}(?:[^{q}\\]|\\.)*{q}", re.DOTALL) for q in "\"'"}


def _restriction(make: type[Drop | Keep]) -> Callable[[_Scanner], Edit]:
    def read(scanner: _Scanner) -> Edit:
        glob = scanner.name("a name or a glob")
        scanner.end("the statement")
        return make(glob)

    return read


def _cast(scanner: _Scanner) -> Edit:
    glob = scanner.name("a name or a glob")
    scanner.arrow("a dtype")
    scanner.space()
    dtype = _dtype(scanner, scanner.at, scanner.name("a dtype"))
    scanner.end("a cast")
    return Cast(glob, dtype)


def _copy(scanner: _Scanner) -> Edit:
    source = scanner.name("a name")
    scanner.arrow("a name")
    target = scanner.name("a name")
    scanner.end("a copy")
    return Copy(source, target)


def _rename(scanner: _Scanner) -> Edit:
    start = scanner.at
    pattern = _side(scanner, "a regular expression", _ARROW)
    scanner.arrow("a template")
    scanner.space()
    template = _side(scanner, 'a template ("" for nothing)', _END)
    scanner.end("a rename")
    try:
        edit = Rename(pattern, template)
    except EditError as error:
        scanner.fail(error.message, start)
    return edit


_ARROW: Final = re.compile(r"\s+->(?!\S)")
_END: Final = re.compile(r"\s*\Z")


def _side(scanner: _Scanner, what: str, until: re.Pattern[str]) -> str:
    """Read one side of a rename: in double quotes, or up to where ``until`` is found."""
    if scanner.text.startswith('"', scanner.at):
        return scanner.quoted()
    # The space before an arrow may be the one that has been skipped.
    stop = until.search(scanner.text, scanner.at - 1)
    if stop is None or stop.start() <= scanner.at:
        if stop is None:
            what = "rename REGEX -> TEMPLATE"
        scanner.fail(f"expected {what}")
    found = scanner.text[scanner.at : stop.start()]
    extra = _ARROW.search(found)
    if extra is not None:
        at = scanner.at + extra.start() + 1
        scanner.fail('a second "->": put the side that holds it in "..."', at)
    scanner.at = stop.start()
    return found


def _dtype(scanner: _Scanner, at: int, name: str) -> str:
    if not is_number(name):
        numbers = [known for known in DTYPES if is_number(known)]
        scanner.fail(f"there is no dtype {name!r} to cast to{_near(name, numbers)}", at)
    return name


_STATEMENTS: Final[dict[str, Callable[[_Scanner], Edit]]] = {
    "rename": _rename,
    "drop": _restriction(Drop),
    "keep": _restriction(Keep),
    "cast": _cast,
    "copy": _copy,
}


def _assignment(scanner: _Scanner) -> Edit:
    start = scanner.at
    if scanner.text.startswith('"', start):
        target = scanner.quoted()
    else:
        target = scanner.take(_TARGET) or ""
    if not target:
        scanner.fail("expected a statement: TARGET = EXPR, rename, drop, keep, cast or copy")
    # An operator needs a space before it only where it could be the end of a name.
    if scanner.text.startswith("=", scanner.at) and scanner.text[scanner.at - 1] in "+-*/":
        symbol = scanner.text[scanner.at - 1]
        if target == symbol:
            scanner.fail(f"expected a target before {symbol}=", start)
        scanner.fail(
            f"put a space before the operator: {target[:-1]} {symbol}= ...", scanner.at - 1
        )
    scanner.space()
    region = _region(scanner) if scanner.text.startswith("[", scanner.at) else None
    scanner.space()
    operator = scanner.take(_ASSIGN)
    if operator is None:
        scanner.fail("expected =, +=, -=, *= or /=")
    expr = _Parser(scanner).whole()
    if operator != "=":
        expr = Call(_OPERATORS[operator], (Current(), expr))
    return Assign(target, expr, region, scanner.text.strip())


_ASSIGN: Final = re.compile(r"[-+*/]?=(?!=)")
_ITEM: Final = re.compile(
    r"\s*(?:(?P<dots>\.\.\.)"
    r"|(?P<start>-?[0-9]{1,18})?\s*:\s*(?P<stop>-?[0-9]{1,18})?\s*(?::\s*(?P<step>-?[0-9]{1,18})?)?"
    r"|(?P<index>-?[0-9]{1,18}))\s*"
)


def _region(scanner: _Scanner) -> Region:
    text, start = scanner.text, scanner.at
    items: list[int | slice | EllipsisType] = []
    scanner.at += 1
    while not (items and text.startswith("]", scanner.at)):
        found = _ITEM.match(text, scanner.at)
        after = found.end() if found else len(text)
        if found is None or text[after : after + 1] not in {",", "]"}:
            closed = text.find("]", start) >= 0
            expected = "an integer, a slice or ..." if closed else "a closing bracket"
            scanner.fail(f"expected {expected}", scanner.at)
        if found["index"]:
            items.append(int(found["index"]))
        else:
            parts = (found[part] for part in ("start", "stop", "step"))
            bounds = slice(*(int(part) if part else None for part in parts))
            items.append(... if found["dots"] else bounds)
        scanner.at = after + (text[after] == ",")
        if text[after] == ",":
            scanner.space()
    scanner.at += 1
    if items.count(...) > 1:
        scanner.fail("a region has one '...' at most", start)
    return Region(tuple(items))


_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<imaginary>(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?[jJ](?!\w))
      | (?P<float>(?:[0-9][0-9_]*\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![\w.])
                | [0-9][0-9_]*[eE][-+]?[0-9]+(?![\w.]))
      | (?P<int>[0-9][0-9_]*(?![\w.]))
      | (?P<name>[^\W\d]\w*)
      | (?P<text>["'])
      | (?P<symbol>\*\*|//|==|!=|<=|>=|[-+*/%<>(),])
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_BINARY: Final = {op.symbol: name for name, op in OPS.items() if op.symbol and op.arity == 2}
_UNARY: Final = {op.symbol: name for name, op in OPS.items() if op.symbol and op.arity == 1}
_COMPARISON: Final = OPS["equal"].level
_POWER: Final = OPS["power"].level
_CONSTANTS: Final = {
    "inf": float("inf"),
    "nan": float("nan"),
    "True": True,
    "False": False,
}
_REDUCTIONS: Final = frozenset(
    {"mean", "std", "var", "sum", "prod", "min", "max", "norm", "median", "any", "all"}
)
_RANDOM: Final = frozenset({"normal", "uniform", "random", "truncated_normal"})
_FOREIGN: Final = {
    "[": "a region belongs to the target, before the operator",
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


class _Parser:
    """Precedence climbing over the tokens of an expression."""

    def __init__(self, scanner: _Scanner) -> None:
        self.scanner = scanner
        self.depth = 0
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
        while self.kind in {"symbol", "name"} and self.word in _BINARY:
            op = _BINARY[self.word]
            level = OPS[op].level
            if level < least:
                break
            if level == _COMPARISON and compared:
                self.fail("comparisons do not chain: write a < b and b < c")
            compared = level == _COMPARISON
            self.advance()
            # The exponent may carry a sign, which binds less tightly than the power.
            left = Call(op, (left, self.climb(_POWER if level == _POWER else level + 1)))
        self.depth -= 1
        return left

    def operand(self) -> Expr:
        """Read a value with its signs, or one in parentheses."""
        if self.kind in {"symbol", "name"} and self.word in _UNARY:
            op = _UNARY[self.word]
            self.advance()
            return Call(op, (self.climb(OPS[op].level),))
        if self.kind == "symbol" and self.word == "+":
            self.advance()
            return self.climb(OPS["negative"].level)
        if self.kind == "symbol" and self.word == "(":
            self.advance()
            inner = self.climb(0)
            self.expect(")")
            return inner
        if self.kind in {"int", "float", "imaginary"}:
            return self.number()
        if self.kind == "text":
            self.fail('text stands only in t("name") and cast(x, "dtype")')
        if self.kind != "name":
            self.unexpected("a value")
        return self.named()

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
        if name in OPS or name in {"t", "cast"} or name in _REDUCTIONS | _RANDOM:
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
        if name not in OPS:
            self.unknown(name, at)
        args: list[Expr] = []
        while not (self.kind == "symbol" and self.word == ")"):
            if args:
                self.expect(",")
            args.append(self.climb(0))
        self.advance()
        arity = OPS[name].arity
        if len(args) != arity:
            noun = "argument" if arity == 1 else "arguments"
            self.fail(f"{name}() takes {arity} {noun}, not {len(args)}", at)
        return Call(name, tuple(args))

    def cast(self) -> Expr:
        """Read the arguments of a cast."""
        argument = self.climb(0)
        self.expect(",")
        if self.kind not in {"name", "text"}:
            self.unexpected("a dtype")
        dtype = _dtype(self.scanner, self.at, self.word)
        self.advance()
        self.expect(")")
        return Convert(argument, dtype)

    def unknown(self, name: str, at: int) -> NoReturn:
        """Say what is wrong with a function that is not in the table."""
        if name in _REDUCTIONS:
            pair = {"min": "; for two values write minimum(a, b)"}
            pair["max"] = pair["min"].replace("minimum", "maximum")
            self.fail(
                f"{name}() reduces the whole tensor, which this version cannot do yet"
                f"{pair.get(name, '')}",
                at,
            )
        if name in _RANDOM:
            self.fail(f"{name}() draws random numbers, which this version cannot do yet", at)
        self.fail(f"there is no function {name!r}{_near(name, [*OPS, 'cast', 't'])}", at)


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3)
    return f"; did you mean {', '.join(near)}?" if near else ""


def _too_deep(expr: Expr) -> bool:
    level: list[Expr] = [expr]
    for _ in range(MAX_DEPTH):
        inner: list[Expr] = []
        for node in level:
            if isinstance(node, Call):
                inner += node.args
            elif isinstance(node, Convert):
                inner.append(node.argument)
        if not inner:
            return False
        level = inner
    return True


def _reference() -> str:
    rows = [
        ("x", "the current values of the target, or of its region"),
        ('t("name")', "another tensor, which broadcasts to the target"),
        ("1  2.5  1e-3  2j  inf  nan  True", "numbers; they take the dtype of the tensors"),
        ("cast(a, dtype)", "conversion; floats to integers truncate and saturate"),
    ]
    for name, op in OPS.items():
        args = list("abc"[: op.arity])
        if op.symbol:
            form = f" {op.symbol} ".join(args) if op.arity == 2 else f"{op.symbol} {args[0]}"
        else:
            form = f"{name}({', '.join(args)})"
        rows.append((form, op.doc + ("" if op.exact else " *")))
    return _REFERENCE_HEAD + "\n".join(f"  {form:<34}{doc}" for form, doc in rows) + "\n"


_REFERENCE_HEAD: Final = """\
One statement is one edit:

  TARGET = EXPR                     give values; also +=  -=  *=  /=
  TARGET[REGION] = EXPR             give values to a part: integers, slices, ...
  rename REGEX -> TEMPLATE          as re.sub does; "" for nothing
  drop GLOB                         leave tensors out
  keep GLOB                         leave all others out
  cast GLOB -> DTYPE                change the dtype
  copy NAME -> NAME                 the same tensor under one more name

A TARGET is a name or a glob: * and ? stay within a segment, ** goes across. Put it in "..." where
it holds spaces, brackets, quotes or =. A glob passes over tensors of a kind that does not fit.

An EXPR is made of (operators bind as in Python; * marks what devices may round differently):

"""

REFERENCE: Final = _reference()
"""The language on one page, from the table of operations."""
