"""Damage to checkpoints: where a tensor is stored, and bytes that are others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import ckptkit

if TYPE_CHECKING:
    import os

    from ckptkit.model import Extent


def flip(path: str | os.PathLike[str], at: int, length: int = 1, bits: int = 0x5A) -> None:
    """Change some bits of each byte of a range of a file; ``at`` counts from the end below 0."""
    content = bytearray(Path(path).read_bytes())
    start = at % len(content)
    for place in range(start, start + length):
        content[place] ^= bits
    Path(path).write_bytes(content)


def place(prefix: str | os.PathLike[str], name: str, piece: int = 0) -> Extent:
    """Return where a tensor, or a slice of it, is stored."""
    with ckptkit.open(prefix) as checkpoint:
        return checkpoint[name].tensor.source.pieces[piece].extent  # type: ignore[union-attr]


def damage(prefix: str | os.PathLike[str], name: str, piece: int = 0) -> Extent:
    """Flip the byte in the middle of a tensor, or of a slice; return where that is stored."""
    found = place(prefix, name, piece)
    flip(found.path, found.offset + found.length // 2)
    return found
