"""Shards of two saves under one name: told apart by how many checksums fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ckptkit.columns import Columns

CERTAIN: Final = 3
"""So many tensors of a shard fail, and all of them do: it is another save's."""

LIKELY: Final = 10
"""So many tensors are enough to say it where nine in ten fail: some do not change."""


class Stranger(NamedTuple):
    """A shard that seems to be of another save than the index.

    Attributes:
        shard: Its number.
        shards: How many there are.
        failing: How many of its tensors fail.
        tensors: How many it has.
    """

    shard: int
    shards: int
    failing: int
    tensors: int

    def __str__(self) -> str:
        """Return the sentence about it."""
        return (
            f"shard {self.shard} of {self.shards} is not of this save:"
            f" {self.failing:,} of {self.tensors:,} tensors fail"
        )


def strangers(
    columns: Columns, failing: Collection[int], among: Collection[int] | None = None
) -> Iterator[Stranger]:
    """Yield the shards most of whose tensors fail.

    Args:
        columns: The rows of a checkpoint.
        failing: Rows whose bytes are there, and have another checksum.
        among: The rows that count; all by default.
    """
    size, flags = np.asarray(columns.size), np.asarray(columns.flags)
    counts = (size > 0) & ((flags & columns.SLICED) == 0)
    if among is not None:
        chosen = np.zeros(len(columns), bool)
        chosen[list(among)] = True
        counts &= chosen
    fails = np.zeros(len(columns), bool)
    fails[list(failing)] = True
    numbers, place = np.unique(np.asarray(columns.shard)[counts], return_inverse=True)
    tensors, wrong = np.bincount(place), np.bincount(place[fails[counts]], minlength=len(numbers))
    all_fail = (wrong >= CERTAIN) & (wrong == tensors)
    for at in np.flatnonzero(all_fail | ((tensors >= LIKELY) & (10 * wrong >= 9 * tensors))):
        number = int(numbers[at])
        if number in columns.files:
            yield Stranger(number, columns.shards, int(wrong[at]), int(tensors[at]))
