"""The formats that the suite is run for; a new one is one more line in ``CASES``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ckptkit
from ckptkit.formats import Format, by_name
from tests.golden.handmade import NUMBERS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PUT = frozenset(name for name in NUMBERS if not name.startswith("q")) | {"string"}


@dataclass(frozen=True)
class Case:
    """What the suite has to know of a format.

    Attributes:
        name: The name of the format.
        suffix: What a path of such a checkpoint ends in.
        dtypes: What it can hold.
        shards: Whether it can be cut into several files.
        renames: Whether tensors can be renamed and dropped.
        checksums: Whether tensors have checksums.
    """

    name: str
    suffix: str = ""
    dtypes: frozenset[str] = _PUT
    shards: bool = True
    renames: bool = True
    checksums: bool = True

    @property
    def format(self) -> Format:
        """The format object."""
        return by_name(self.name)

    def path(self, folder: Path, stem: str = "model") -> str:
        """Return the path of a checkpoint in a folder."""
        return str(folder / f"{stem}{self.suffix}")

    def save(self, folder: Path, tensors: Mapping[str, Any], stem: str = "model") -> str:
        """Write a checkpoint and return its path."""
        path = self.path(folder, stem)
        ckptkit.save(path, tensors, format=self.name)
        return path


_KERAS = frozenset(
    name
    for name in _PUT
    if name not in {"string", "int2", "int4", "uint2", "uint4"}
    and "float8" not in name
    and "float4" not in name
)

CASES = (
    Case("tensorflow"),
    Case("keras", ".h5", _KERAS, shards=False, checksums=False),
)
