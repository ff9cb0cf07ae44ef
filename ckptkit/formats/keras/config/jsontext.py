"""JSON text from a file: read within bounds, and changed in places without touching the rest."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from ckptkit.errors import CorruptError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

Path = tuple[str | int, ...]
"""The keys and indices that lead from the outermost value to one in it."""

MAX_DEPTH: Final = 200
"""Levels of lists and objects; a deeply nested model takes some thirty."""

MAX_VALUES: Final = 1 << 21
"""Values in a text; a model of a thousand layers takes some fifty thousand."""

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
_STRINGS: Final = re.compile(_STRING, re.DOTALL)
_TOKENS: Final = re.compile(rb'%s|[{}\[\],:]|[^\s{}\[\],:"]+' % _STRING, re.DOTALL)
_BRACKETS: Final = re.compile(rb"[{}\[\]]")
_STEP: Final = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}


def parse(content: bytes, what: str, *, path: str | None = None) -> dict[str, Any]:
    """Parse the text of a JSON object, of which nothing is known yet.

    Args:
        content: The text, in UTF-8; the caller bounds its length.
        what: What it is, for messages.
        path: The file that it is from, for messages.

    Raises:
        CorruptError: It is no JSON object, or has a key twice.
        UnsupportedError: It is nested deeper, or has more values, than any such text.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        msg = f"{what} is no UTF-8 text"
        raise CorruptError(msg, path=path, offset=error.start) from None
    _check_bounds(content, what, path)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            msg = f"{what} has an object with the key {twice!r} more than once"
            raise CorruptError(msg, path=path)
        return made

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        msg = f"{what} is no JSON: {error.msg}"
        at = len(text[: error.pos].encode())
        raise CorruptError(msg, path=path, offset=at) from None
    except CorruptError:
        raise
    except ValueError as error:
        msg = f"{what} has a number that is none: {error}"
        raise CorruptError(msg, path=path) from None
    if not isinstance(value, dict):
        msg = f"{what} is a JSON {_kind(value)}, and should be an object"
        raise CorruptError(msg, path=path, offset=0)
    return value


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {list: "list", str: "string", bool: "boolean"}
    return kinds.get(type(value), "number")


def _check_bounds(content: bytes, what: str, path: str | None) -> None:
    bare = _STRINGS.sub(b"", content)
    if sum(map(bare.count, (b",", b"[", b"{"))) > MAX_VALUES:
        msg = f"{what} has more than {MAX_VALUES} values, which are not read"
        raise UnsupportedError(msg, path=path)
    steps = map(_STEP.__getitem__, _BRACKETS.findall(bare))
    if max(accumulate(steps), default=0) <= MAX_DEPTH:
        return
    depth = 0
    for token in _TOKENS.finditer(content):
        depth += _STEP.get(token[0], 0)
        if depth > MAX_DEPTH:
            msg = f"{what} is nested deeper than {MAX_DEPTH} levels, which is not read"
            raise UnsupportedError(msg, path=path, offset=token.start())


def replaced(content: bytes, values: Mapping[Path, object]) -> bytes:
    """Return the text with other values at some places, and every other byte as it was.

    Args:
        content: Text that :func:`parse` took.
        values: The new values, by the paths of those that they replace; none is in another.
    """
    if not values:
        return content
    spans = sorted((span, path) for path, span in _spans(content, values).items())
    parts, at = [], 0
    for (start, end), path in spans:
        parts += [content[at:start], json.dumps(values[path]).encode()]
        at = end
    return b"".join([*parts, content[at:]])


def _spans(content: bytes, wanted: Mapping[Path, object]) -> dict[Path, tuple[int, int]]:
    found: dict[Path, tuple[int, int]] = {}
    path: list[str | int | None] = []
    starts: list[int] = []

    def note(start: int, end: int) -> None:
        here: Any = tuple(path)
        if here in wanted:
            found[here] = start, end

    for token in _TOKENS.finditer(content):
        text = token[0]
        step = _STEP.get(text)
        if step == 1:
            starts.append(token.start())
            # None: a key is next.
            path.append(0 if text == b"[" else None)
        elif step == -1:
            path.pop()
            note(starts.pop(), token.end())
        elif text == b",":
            last = path[-1]
            path[-1] = last + 1 if isinstance(last, int) else None
        elif text != b":":
            if path and path[-1] is None:
                path[-1] = json.loads(text)
            else:
                note(token.start(), token.end())
    return found
