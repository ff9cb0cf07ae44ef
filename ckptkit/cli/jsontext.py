"""Results as JSON that every parser takes: no NaN, no infinity, no bytes."""

from __future__ import annotations

import json
import math


def dumps(value: object) -> str:
    """Return a value as JSON on one line, in ASCII.

    Names that are not UTF-8 hold lone surrogates, one for each odd byte; JSON escapes those.
    """
    return json.dumps(plain(value), ensure_ascii=True, allow_nan=False)


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
