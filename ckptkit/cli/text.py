"""Text for people: sizes, tables, and names that cannot do anything to a terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PRETTY_ROWS: Final = 2000
"""A longer table streams as plain text: its first rows say how wide the columns are."""

_LAST_BYTE: Final = 0xFF
_LAST_BMP: Final = 0xFFFF
_ODD_BYTES: Final = range(0xDC80, 0xDD00)


def printable(text: str, keep: str = "") -> str:
    r"""Return text with control characters, odd bytes and invisible signs written out.

    A tensor may be called anything, and a terminal obeys escape sequences: ``\x1b`` is shown, not
    sent. Characters in ``keep`` stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if code in _ODD_BYTES:
        code -= 0xDC00
    if code <= _LAST_BYTE:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _LAST_BMP else f"\\U{code:08x}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: What its head says.
        right: Numbers stand to the right.
    """

    title: str
    right: bool = False


def write_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: with colour and lines on a terminal, as aligned columns elsewhere."""
    rest = iter(rows)
    head = [tuple(map(printable, row)) for row in islice(rest, PRETTY_ROWS + 1)]
    if sys.stdout.isatty() and len(head) <= PRETTY_ROWS:
        _write_pretty(columns, head)
        return
    titles = tuple(column.title for column in columns)
    widths = [max(map(len, cells)) for cells in zip(titles, *head, strict=True)]
    widths[-1] = widths[-1] if columns[-1].right else 0
    form = "  ".join(
        f"{{:{'>' if column.right else '<'}{width}}}" if width else "{}"
        for column, width in zip(columns, widths, strict=True)
    ).format
    write = sys.stdout.write
    for row in chain([titles], head, (tuple(map(printable, row)) for row in rest)):
        write(form(*row).rstrip() + "\n")


def _write_pretty(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for at, column in enumerate(columns):
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=at > 0 and column.right,
            style="cyan" if at == 0 else None,
        )
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
