"""Statements: assignments, and edits by name: ``VERB WHAT -> TO key=value``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptkit.edits import Assign, Cast
from ckptkit.errors import EditError
from ckptkit.expressions import FILLS, Call, Current
from ckptkit.globs import OBJECT
from ckptkit.language.expression import Parser
from ckptkit.language.scanner import MAX_LENGTH, TARGET, Scanner, read_region
from ckptkit.language.words import read_items, read_words
from ckptkit.naming import Copy, Drop, DropOptimizerState, Keep, Rename, RenameObject
from ckptkit.surgery import (
    Clip,
    Dequantize,
    FoldBatchNorm,
    Join,
    LowRank,
    New,
    Noise,
    Pad,
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ckptkit.edits import Edit

_OPERATORS: Final = {"+=": "add", "-=": "subtract", "*=": "multiply", "/=": "divide"}
_ASSIGNS: Final = re.compile(r"[-+*/]?=(?!=)|\[[^\]]*\]\s*[-+*/]?=(?!=)")
_ASSIGN: Final = re.compile(r"[-+*/]?=(?!=)")


def parse(text: str) -> Edit:
    """Read one statement.

    Raises:
        EditError: It is no statement; the message points at the place, ``offset`` is its column.
    """
    if len(text) > MAX_LENGTH:
        msg = f"a statement of {len(text)} characters is over the limit of {MAX_LENGTH}"
        raise EditError(msg)
    scanner = Scanner(text)
    scanner.space()
    keyword = _KEYWORD.match(text, scanner.at)
    if keyword is not None:
        rest = text[keyword.end() :]
        verb = VERBS[keyword[1]]
        if not _ASSIGNS.match(rest) or (verb.arrow and " -> " in rest):
            scanner.at = keyword.end()
            return verb.read(scanner)
    return _assignment(scanner)


def parse_all(statements: Iterable[str | Edit]) -> tuple[Edit, ...]:
    """Read statements; edits among them are taken as they are."""
    return tuple(parse(item) if isinstance(item, str) else item for item in statements)


# --- assignments -------------------------------------------------------------------------------


def _assignment(scanner: Scanner) -> Edit:
    start = scanner.at
    quote = scanner.text.startswith('"', start)
    target = scanner.quoted() if quote else scanner.take(TARGET)
    if not target:
        scanner.fail("expected a statement: TARGET = EXPR, rename, drop, keep, cast, and so on")
    # An operator needs a space before it only where it could be the end of a name.
    if scanner.text.startswith("=", scanner.at) and scanner.text[scanner.at - 1] in "+-*/":
        symbol = scanner.text[scanner.at - 1]
        if target == symbol:
            scanner.fail(f"expected a target before {symbol}=", start)
        scanner.fail(
            f"put a space before the operator: {target[:-1]} {symbol}= ...", scanner.at - 1
        )
    scanner.space()
    region = read_region(scanner) if scanner.text.startswith("[", scanner.at) else None
    scanner.space()
    operator = scanner.take(_ASSIGN)
    if operator is None:
        scanner.fail("expected =, +=, -=, *= or /=")
    expr = Parser(scanner).whole()
    if operator != "=":
        expr = Call(_OPERATORS[operator], (Current(), expr))
    return Assign(target, expr, region, scanner.text.strip())


# --- edits by name -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verb:
    """An edit by name.

    Attributes:
        read: Reads what follows the name.
        form: How it is written.
        doc: One line for people.
        arrow: It has a ``->``, or a ``=`` of its own.
    """

    read: Callable[[Scanner], Edit]
    form: str
    doc: str
    arrow: bool = True


def _restriction(make: type[Drop | Keep]) -> Callable[[Scanner], Edit]:
    def read(scanner: Scanner) -> Edit:
        glob = scanner.name("a name or a glob")
        scanner.end("the statement")
        return make(glob)

    return read


def _drop(scanner: Scanner) -> Edit:
    scanner.space()
    if scanner.take(_STATE) is not None:
        return DropOptimizerState()
    return _restriction(Drop)(scanner)


_STATE: Final = re.compile(r"optimizer\s+state\s*\Z")


def _cast(scanner: Scanner) -> Edit:
    glob = scanner.name("a name or a glob")
    words = read_words(scanner, "a dtype", "rounding seed")
    dtype = words.dtype()
    rounding = words.text("rounding", "nearest")
    if rounding not in {"nearest", "stochastic"}:
        words.fail("rounding is nearest or stochastic", words.options["rounding"][1])
    if rounding == "stochastic":
        return StochasticCast(glob, dtype, words.integer("seed", 0))
    if "seed" in words.options:
        words.fail("a seed is for rounding=stochastic", words.options["seed"][1])
    return Cast(glob, dtype)


def _copy(scanner: Scanner) -> Edit:
    source = scanner.name("a name")
    scanner.arrow("a name")
    target = scanner.name("a name")
    scanner.end("a copy")
    return Copy(source, target)


def _rename(scanner: Scanner) -> Edit:
    start = scanner.at
    pattern = _side(scanner, "a regular expression", _ARROW)
    scanner.arrow("a template")
    scanner.space()
    template = _side(scanner, 'a template ("" for nothing)', _END)
    scanner.end("a rename")
    objects = [side.startswith(OBJECT) for side in (pattern, template)]
    if all(objects):
        return RenameObject(pattern[len(OBJECT) :], template[len(OBJECT) :])
    if any(objects):
        scanner.fail(f"objects are renamed to objects: put {OBJECT} before both sides", start)
    try:
        edit = Rename(pattern, template)
    except EditError as error:
        scanner.fail(error.message, start)
    return edit


_ARROW: Final = re.compile(r"\s+->(?!\S)")
_END: Final = re.compile(r"\s*\Z")


def _side(scanner: Scanner, what: str, until: re.Pattern[str]) -> str:
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


def _new(scanner: Scanner) -> Edit:
    scanner.space()
    at = scanner.at
    name = scanner.quoted() if scanner.text.startswith('"', at) else scanner.take(TARGET)
    if not name:
        scanner.fail("expected the name of a new tensor", at)
    scanner.space()
    if scanner.take(_EQUALS) is None:
        scanner.fail("expected =")
    return New(name, Parser(scanner).whole(), scanner.text.strip())


_EQUALS: Final = re.compile(r"=(?!=)")


def _clip(scanner: Scanner) -> Edit:
    glob = scanner.name("a name or a glob")
    words = read_words(scanner, "two numbers", "")
    if len(words.items) != 2:
        words.fail("expected two numbers: LOW, HIGH")
    low, high = words.numbers()
    return Clip(glob, low, high)


def _repair(scanner: Scanner) -> Edit:
    glob = scanner.name("a name or a glob")
    words = read_words(scanner, "a number", "", arrow=False)
    if not words.items:
        return Repair(glob)
    words.one("a number")
    return Repair(glob, words.numbers()[0])


def _noise(scanner: Scanner) -> Edit:
    glob = scanner.name("a name or a glob")
    words = read_words(scanner, "a standard deviation", "seed")
    words.one("a standard deviation")
    return Noise(glob, words.numbers()[0], words.integer("seed", 0))


def _prune(scanner: Scanner) -> Edit:
    glob = scanner.name("a name or a glob")
    words = read_words(scanner, "a part, such as 50%, or 2:4", "scope axis")
    text, at = words.one("a part, such as 50%, or 2:4")
    groups = re.fullmatch(r"([0-9]{1,4}):([0-9]{1,4})", text)
    if groups:
        if "scope" in words.options:
            words.fail("a scope is for a part of all", words.options["scope"][1])
        return Sparsify(glob, int(groups[1]), int(groups[2]), words.integer("axis", -1))
    if "axis" in words.options:
        words.fail("an axis is for groups, such as 2:4", words.options["axis"][1])
    part = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,25})?(?:e-[0-9]{1,3})?)(%?)", text)
    if part is None:
        words.fail("expected a part, such as 50% or 0.5, or groups, such as 2:4", at)
    fraction = float(part[1]) / (100 if part[2] else 1)
    try:
        return Prune(glob, fraction, words.text("scope") or "global")
    except EditError as error:
        words.fail(error.message, at)


def _quantize(scanner: Scanner) -> Edit:
    glob = scanner.name("a name or a glob")
    words = read_words(scanner, "int8", "axis scale")
    text, at = words.one("int8")
    if text != "int8":
        words.fail("tensors are quantized to int8", at)
    axis = words.integer("axis", 0) if "axis" in words.options else None
    return Quantize(glob, axis, words.text("scale") or "{0}_scale")


def _dequantize(scanner: Scanner) -> Edit:
    glob = scanner.name("a name or a glob")
    words = read_words(scanner, "a dtype", "scale", arrow=False)
    dtype = "float32"
    if words.items:
        dtype = words.dtype()
    return Dequantize(glob, dtype, words.text("scale") or "{0}_scale")


def _transpose(scanner: Scanner) -> Edit:
    glob = scanner.name("a name or a glob")
    words = read_words(scanner, "axes", "", arrow=False)
    return Transpose(glob, words.integers() if words.items else None)


def _repartition(scanner: Scanner) -> Edit:
    glob = scanner.name("a name or a glob")
    words = read_words(scanner, "a number of parts, or whole", "axis", loose=True)
    text, at = words.one("a number of parts, or whole")
    if text == "whole":
        if "axis" in words.options:
            words.fail("a tensor in one piece is cut along no axis", words.options["axis"][1])
        return Repartition(glob)
    if not re.fullmatch(r"[0-9]{1,18}", text):
        words.fail(f"expected a number of parts, or whole, not {text!r}", at)
    axis = words.integer("axis", 0)
    try:
        return Repartition(glob, int(text), axis)
    except EditError as error:
        words.fail(error.message, at)


def _reshape(scanner: Scanner) -> Edit:
    glob = scanner.name("a name or a glob")
    return Reshape(glob, read_words(scanner, "a shape", "").integers())


def _take(scanner: Scanner) -> Edit:
    glob = scanner.name("a name or a glob")
    words = read_words(scanner, "rows", "axis")
    return Take(glob, words.integers(), words.integer("axis", 0))


def _pad(scanner: Scanner) -> Edit:
    glob = scanner.name("a name or a glob")
    words = read_words(scanner, "two lengths", "axis value")
    if len(words.items) != 2:
        words.fail("expected two lengths: BEFORE, AFTER")
    before, after = words.integers()
    return Pad(glob, before, after, words.integer("axis", 0), words.number("value", 0))


def _resize(scanner: Scanner) -> Edit:
    glob = scanner.name("a name or a glob")
    words = read_words(scanner, "a length", "axis fill seed")
    words.one("a length")
    size = words.integers()[0]
    if size < 0:
        words.fail("a length is not below 0", words.items[0][1])
    fill: str | int = words.text("fill") or "zeros"
    if isinstance(fill, str) and re.fullmatch(r"-?[0-9]{1,18}", fill):
        fill = int(fill)
    elif fill not in FILLS:
        words.fail(f"expected {', '.join(FILLS)} or a row's number", words.options["fill"][1])
    return Resize(glob, size, words.integer("axis", 0), fill, words.integer("seed", 0))


def _split(scanner: Scanner) -> Edit:
    name = scanner.name("a name")
    words = read_words(scanner, "names", "axis sizes")
    return Split(name, words.names(), words.integer("axis", 0), words.listed("sizes"))


def _joined(make: type[Join | Stack]) -> Callable[[Scanner], Edit]:
    def read(scanner: Scanner) -> Edit:
        parts = tuple(text for text, _ in read_items(scanner, "names or globs"))
        words = read_words(scanner, "a name", "axis")
        return make(parts, words.one("a name")[0], words.integer("axis", 0))

    return read


def _unstack(scanner: Scanner) -> Edit:
    name = scanner.name("a name")
    words = read_words(scanner, "a name with {} in it", "axis")
    return Unstack(name, words.one("a name")[0], words.integer("axis", 0))


def _lora(scanner: Scanner) -> Edit:
    glob = scanner.name("a name or a glob")
    words = read_words(scanner, "two names", "scale")
    if len(words.items) != 2:
        words.fail("expected the names of two matrices: A, B")
    first, second = words.names()
    return LowRank(glob, first, second, words.number("scale", 1.0))


def _foldbn(scanner: Scanner) -> Edit:
    kernel = scanner.name("a name")
    words = read_words(scanner, "a prefix", "bias epsilon axis depthwise drop")
    return FoldBatchNorm(
        kernel,
        words.one("a prefix")[0],
        words.text("bias"),
        words.number("epsilon", 1e-3),
        words.integer("axis", -1),
        words.flag("depthwise"),
        words.flag("drop"),
    )


VERBS: Final[dict[str, Verb]] = {
    "rename": Verb(
        _rename,
        "rename REGEX -> TEMPLATE",
        'as re.sub does; "" for nothing; or an object: rename graph:PATH -> graph:PATH',
    ),
    "drop": Verb(
        _drop, "drop GLOB", "leave tensors out; drop optimizer state: all of it", arrow=False
    ),
    "keep": Verb(_restriction(Keep), "keep GLOB", "leave all others out", arrow=False),
    "copy": Verb(_copy, "copy NAME -> NAME", "the same tensor under one more name, or graph:PATH"),
    "new": Verb(
        _new, "new NAME = EXPR", "one more tensor, computed from others; or graph:PATH", arrow=False
    ),
    "cast": Verb(
        _cast, "cast GLOB -> DTYPE", "change the dtype; rounding=stochastic, seed=0 if wanted"
    ),
    "clip": Verb(_clip, "clip GLOB -> LOW, HIGH", "keep values between two numbers"),
    "repair": Verb(_repair, "repair GLOB -> VALUE", "a number (0) for NaN and infinities"),
    "noise": Verb(_noise, "noise GLOB -> STD", "add normal random numbers; seed=0"),
    "prune": Verb(
        _prune,
        "prune GLOB -> 50%",
        "the smallest magnitudes of all become 0, exactly; scope=tensor; or 2:4 axis=-1",
    ),
    "quantize": Verb(
        _quantize, "quantize GLOB -> int8", "with scales beside it; axis=N for one per channel"
    ),
    "dequantize": Verb(_dequantize, "dequantize GLOB -> DTYPE", "the reverse; the scales go"),
    "transpose": Verb(_transpose, "transpose GLOB -> 1, 0", "axes in another order, or reversed"),
    "reshape": Verb(_reshape, "reshape GLOB -> 2, -1", "another shape, the elements in order"),
    "repartition": Verb(
        _repartition,
        "repartition GLOB -> 4",
        "TensorFlow: store in about equal slices, or -> whole; axis=0",
    ),
    "take": Verb(_take, "take GLOB -> 2, 0, 1", "chosen rows, in the order given; axis=0"),
    "pad": Verb(_pad, "pad GLOB -> 0, 64", "longer before and after an axis; axis=0, value=0"),
    "resize": Verb(
        _resize,
        "resize GLOB -> SIZE",
        "cut an axis or fill it up; axis=0, fill=zeros, mean, normal or a row's number",
    ),
    "split": Verb(_split, "split NAME -> A, B", "parts take its place; axis=0, sizes=3,5"),
    "concat": Verb(_joined(Join), "concat A, B -> NAME", "join along an axis; axis=0"),
    "stack": Verb(_joined(Stack), "stack GLOB -> NAME", "join along a new axis; axis=0"),
    "unstack": Verb(_unstack, "unstack NAME -> PART{}", "a tensor for each index; axis=0"),
    "lora": Verb(_lora, "lora GLOB -> A, B", "add A @ B; scale=1.0; {1} is a group of the glob"),
    "foldbn": Verb(
        _foldbn,
        "foldbn KERNEL -> PREFIX",
        "fold a batch normalisation in; bias=NAME, epsilon=0.001, axis, depthwise, drop=true",
    ),
}
"""The edits by name."""

_KEYWORD: Final = re.compile(rf"({'|'.join(VERBS)})(?:\s+|$)")
