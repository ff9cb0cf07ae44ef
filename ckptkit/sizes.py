"""Numbers of bytes as people read them."""

from __future__ import annotations

from typing import Final

_STEP: Final = 1024
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def human_size(nbytes: int) -> str:
    """Return a number of bytes in the unit that suits it, such as ``1.5 MiB``."""
    size, unit = float(nbytes), 0
    while size >= _STEP and unit < len(_UNITS) - 1:
        size, unit = size / _STEP, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{nbytes} B"
