"""Reading text: names, globs, quotes, regions, and errors that point at the character."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from ckptkit.errors import EditError
from ckptkit.lowering import is_number
from ckptkit.model import DTYPES
from ckptkit.region import Region

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import EllipsisType

MAX_LENGTH: Final = 10_000
"""Characters of a statement."""

_SHOWN: Final = 60
"""Characters that an error shows on either side of the place."""


@dataclass(slots=True)
class Scanner:
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
TARGET: Final = re.compile(r'[^\s\[\]"=]+')
_QUOTED: Final = {q: re.compile(rf"{q}(?:[^{q}\\]|\\.)*{q}", re.DOTALL) for q in "\"'"}


def read_region(scanner: Scanner) -> Region:
    """Read a region in brackets."""
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


_ITEM: Final = re.compile(
    r"\s*(?:(?P<dots>\.\.\.)"
    r"|(?P<start>-?[0-9]{1,18})?\s*:\s*(?P<stop>-?[0-9]{1,18})?\s*(?::\s*(?P<step>-?[0-9]{1,18})?)?"
    r"|(?P<index>-?[0-9]{1,18}))\s*"
)


def checked_dtype(scanner: Scanner, at: int, name: str) -> str:
    """Refuse what is no dtype of numbers."""
    if not is_number(name):
        numbers = [known for known in DTYPES if is_number(known)]
        scanner.fail(f"there is no dtype {name!r} to cast to{near(name, numbers)}", at)
    return name


def near(name: str, known: Iterable[str]) -> str:
    """Return a hint at what else could have been meant."""
    found = difflib.get_close_matches(name, list(known), n=3)
    return f"; did you mean {', '.join(found)}?" if found else ""
