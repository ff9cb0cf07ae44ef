"""What stands behind the verb of a statement: ``-> items``, between commas, then ``key=value``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from ckptkit.language.scanner import checked_dtype, near

if TYPE_CHECKING:
    from ckptkit.language.scanner import Scanner


@dataclass(slots=True)
class Words:
    """What stands behind the verb and its target.

    Attributes:
        scanner: What is read.
        start: The column of errors that are about all of it.
        items: The items, each with its column.
        options: Values by key, likewise.
    """

    scanner: Scanner
    start: int
    items: list[tuple[str, int]]
    options: dict[str, tuple[str, int]]

    def fail(self, message: str, at: int | None = None) -> NoReturn:
        """Raise an error that points at a column."""
        self.scanner.fail(message, self.start if at is None else at)

    def one(self, what: str) -> tuple[str, int]:
        """Return the single item."""
        if len(self.items) != 1:
            self.fail(f"expected {what}", self.items[1][1] if self.items else None)
        return self.items[0]

    def dtype(self) -> str:
        """Return the single item as the name of a dtype."""
        text, at = self.one("a dtype")
        return checked_dtype(self.scanner, at, text)

    def names(self) -> tuple[str, ...]:
        """Return all items."""
        return tuple(text for text, _ in self.items)

    def integers(self) -> tuple[int, ...]:
        """Return all items as integers."""
        return tuple(self._integer(*item) for item in self.items)

    def numbers(self) -> tuple[float, ...]:
        """Return all items as numbers."""
        return tuple(self._number(*item) for item in self.items)

    def text(self, key: str, default: str | None = None) -> str | None:
        """Return an option as text."""
        return self.options[key][0] if key in self.options else default

    def integer(self, key: str, default: int) -> int:
        """Return an option as an integer."""
        return self._integer(*self.options[key]) if key in self.options else default

    def number(self, key: str, default: float) -> float:
        """Return an option as a number."""
        return float(self._number(*self.options[key])) if key in self.options else default

    def flag(self, key: str) -> bool:
        """Return an option that is true or false."""
        text, at = self.options.get(key, ("false", 0))
        if text not in {"true", "false"}:
            self.fail(f"expected {key}=true or {key}=false", at)
        return text == "true"

    def listed(self, key: str) -> tuple[int, ...] | None:
        """Return an option as integers between commas."""
        if key not in self.options:
            return None
        text, at = self.options[key]
        return tuple(self._integer(part, at) for part in text.split(","))

    def _integer(self, text: str, at: int) -> int:
        if not re.fullmatch(r"[-+]?[0-9]{1,18}", text.strip()):
            self.fail(f"expected an integer, not {text!r}", at)
        return int(text)

    def _number(self, text: str, at: int) -> float:
        if re.fullmatch(r"[-+]?[0-9]{1,18}", text):
            return int(text)
        if not re.fullmatch(
            r"[-+]?(inf|([0-9]{1,50}\.?[0-9]{0,50}|\.[0-9]{1,50})([eE][-+]?[0-9]{1,4})?)", text
        ):
            self.fail(f"expected a number, not {text!r}", at)
        return float(text)


_ITEM: Final = re.compile(r'[^\s,"]+')
_OPTION: Final = re.compile(r"([a-z]+)=")
_LOOSE: Final = re.compile(r"([a-z]+)(?:=|\s+)")
_VALUE: Final = re.compile(r'[^\s"]+')


def read_words(
    scanner: Scanner, what: str, options: str, *, arrow: bool = True, loose: bool = False
) -> Words:
    """Read ``-> items``, and options.

    Args:
        scanner: What is read.
        what: What the items are, for messages.
        options: The names of the options.
        arrow: There have to be items.
        loose: A space may stand for the ``=`` of an option.
    """
    scanner.space()
    items: list[tuple[str, int]] = []
    if arrow or scanner.text.startswith("->", scanner.at):
        scanner.arrow(what)
        items = read_items(scanner, what)
    words = Words(scanner, scanner.at, items, {})
    known = options.split()
    scanner.space()
    while scanner.at < len(scanner.text):
        at = scanner.at
        key = (_LOOSE if loose else _OPTION).match(scanner.text, at)
        if key is None:
            scanner.fail("expected the end, or key=value" if known else "the statement ends here")
        if key[1] in words.options:
            scanner.fail(f"{key[1]} is given twice", at)
        if key[1] not in known:
            hint = f"; there are {', '.join(known)}" if known else ""
            scanner.fail(f"there is no option {key[1]!r} here{hint}{near(key[1], known)}", at)
        scanner.at = key.end()
        place = scanner.at
        quote = scanner.text.startswith('"', place)
        value = scanner.quoted() if quote else scanner.take(_VALUE)
        if not value:
            scanner.fail(f"expected a value for {key[1]}", place)
        words.options[key[1]] = value, place
        scanner.space()
    return words


def read_items(scanner: Scanner, what: str) -> list[tuple[str, int]]:
    """Read items between commas, at least one; return each with its column."""
    items: list[tuple[str, int]] = []
    while True:
        scanner.space()
        at = scanner.at
        quote = scanner.text.startswith('"', at)
        item = scanner.quoted() if quote else scanner.take(_ITEM)
        if not item or (not quote and _OPTION.match(item)):
            scanner.fail(f"expected {what}", at)
        items.append((item, at))
        scanner.space()
        if not scanner.text.startswith(",", scanner.at):
            return items
        scanner.at += 1
