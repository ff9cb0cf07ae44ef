"""Results as JSON that every parser takes: no NaN, no infinity, no bytes."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def dumps(value: object) -> str:
    """Return a value as JSON on one line, in ASCII.

    Names that are not UTF-8 hold lone surrogates, one for each odd byte; JSON escapes those.
    """
    return json.dumps(plain(value), ensure_ascii=True, allow_nan=False)


def write_listing(head: Mapping[str, object], key: str, rows: Iterable[object]) -> None:
    """Print one object, row by row: a million of them need not fit in memory twice.

    Args:
        head: What comes before the rows.
        key: What they are called in the object.
        rows: The rows, of what JSON has.
    """
    listing = iter(rows)
    # What fails does so before the first byte is printed: an error is one object, too.
    first = next(listing, None)
    encode = json.JSONEncoder(ensure_ascii=True).encode
    write = sys.stdout.write
    write(f"{encode(head)[:-1]}, {encode(key)}: [")
    if first is not None:
        write("\n" + encode(first))
    for row in listing:
        write(",\n" + encode(row))
    write("]}\n")


def plain(value: object) -> object:
    """Replace what JSON lacks: ``"nan"``, ``"inf"``, bytes as text, complex as two numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, complex):
        return [plain(value.real), plain(value.imag)]
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
