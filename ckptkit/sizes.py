"""Numbers of bytes and of things, as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_STEP: Final = 1024
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def human_size(nbytes: int) -> str:
    """Return a number of bytes in the unit that suits it, such as ``1.5 MiB``."""
    size, unit = float(nbytes), 0
    while size >= _STEP and unit < len(_UNITS) - 1:
        size, unit = size / _STEP, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{nbytes} B"


def counted(number: int, noun: str) -> str:
    """Return ``1 tensor`` or ``1,234 tensors``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def listed(shown: Iterable[str], count: int) -> str:
    """Return ``a, b and 3 more``.

    Args:
        shown: The first ones.
        count: How many there are.
    """
    names = list(shown)
    more = f" and {count - len(names):,} more" if count > len(names) else ""
    return ", ".join(names) + more
