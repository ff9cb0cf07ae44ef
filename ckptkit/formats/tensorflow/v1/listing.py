"""A checkpoint of the first format as TensorFlow's reader lists it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ckptkit.formats.tensorflow.listing import Listed, hashed
from ckptkit.formats.tensorflow.v1.scan import scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptkit.model import Source, Tensor


class FirstListing(Listed):
    """What the files of a checkpoint say."""

    missing = "{} not found in checkpoint file"

    def __init__(self, source: Source) -> None:
        """Read what there is, but no large values.

        Raises:
            CorruptError: It is damaged.
            UnsupportedError: It asks for what we do not know.
        """
        catalog = scan(source)
        names, rows = list(catalog.names), list(catalog.rows)
        super().__init__(catalog.columns, dict(zip(names, rows, strict=True)), names, rows)

    @cached_property
    def order(self) -> list[int]:
        """The positions of the names as TensorFlow lists them: it goes through two maps."""
        first = self._first
        return [first[at] for at in hashed([self.names[at] for at in first])]

    @cached_property
    def _first(self) -> list[int]:
        return hashed(self.names)

    def lines(self) -> Iterator[tuple[str, int, str]]:
        """Yield all tensors, and how many slices they are in."""
        parts = self.columns.parts
        for at in self._first:
            row = self.rows[at]
            slices = len(parts.get(row, ()))
            yield self.names[at], row, f", {slices} slices" if slices > 1 else ""

    def tensor(self, row: int) -> Tensor:
        """Return a row as a tensor, its slices joined."""
        return self.columns.tensor(row)
