"""Payloads of a donor that lie, unchanged, where no sound record of the damaged bundle points."""

from __future__ import annotations

import sys
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from ckptkit.engine.salvage.choose import found_bundle
from ckptkit.engine.salvage.judge import Judged
from ckptkit.formats.tensorflow.salvage.outline import outline_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptkit.engine.salvage.choose import Choice
    from ckptkit.formats.tensorflow.salvage.bundle import Bundle
    from ckptkit.storage.disk import Sources

TRIED: Final = 4
"""Places that are tried for one payload."""

Gap = tuple[int, int, int]
"""Shard, first byte, and the byte behind the last one."""


def fitting_gaps(choice: Choice, donor: Bundle, sources: Sources) -> Judged | None:
    """Return the payloads of a donor that fill a gap, or lie in one where they lie in the donor.

    Only those whose checksum is that of the bytes there.
    """
    if not donor.summed:
        return None
    ours = choice.ours.bundle
    gaps = sorted(_gaps(choice))
    outline = outline_of(donor)
    places: dict[int, list[Gap]] = {}
    by_size: dict[int, list[Gap]] = {}
    for gap in gaps:
        by_size.setdefault(gap[2] - gap[1], []).append(gap)
    columns = donor.columns
    for row, key in zip(outline.rows, outline.keys, strict=True):
        size = columns.size[row]
        if not size or key in ours.rows or not ours.lost_within(key):
            continue
        shard, start = columns.shard[row], columns.offset[row]
        own = [(shard, start, start + size)] if _inside(gaps, shard, start, size) else []
        places[row] = [*own, *by_size.get(size, ())][:TRIED]
    found: dict[int, Gap] = {}
    for turn in range(TRIED):
        trying = {
            row: some[turn] for row, some in places.items() if row not in found and turn < len(some)
        }
        if not trying:
            break
        moved = found_bundle(
            outline, ours, [(row, at[0], at[1], at[2] - at[1]) for row, at in trying.items()]
        )
        judged = Judged(moved)
        judged.add(trying, sources)
        found.update(
            (row, at)
            for row, at in trying.items()
            if row not in judged.wrong and judged.found.get(row) == columns.checksum[row]
        )
    if not found:
        return None
    moved = found_bundle(
        outline, ours, [(row, at[0], at[1], at[2] - at[1]) for row, at in found.items()]
    )
    sums = {row: columns.checksum[row] for row in found}
    return Judged(moved, sums, confirmed=set(sums))


def _gaps(choice: Choice) -> Iterator[Gap]:
    """Yield what no sound record points to."""
    ours = choice.ours.bundle
    used: dict[int, list[tuple[int, int]]] = {}
    for member in choice.members:
        if member.bundle.prefix != ours.prefix:
            continue
        columns = member.bundle.columns
        for row in member.found:
            if member.sound(row) and columns.size[row]:
                start = columns.offset[row]
                used.setdefault(columns.shard[row], []).append((start, start + columns.size[row]))
    for shard, length in ours.lengths.items():
        end = 0
        for low, high in sorted(used.get(shard, ())):
            if low > end:
                yield shard, end, low
            end = max(end, high)
        if end < length:
            yield shard, end, length


def _inside(gaps: Sequence[Gap], shard: int, start: int, size: int) -> bool:
    at = bisect_right(gaps, (shard, start, sys.maxsize)) - 1
    if at < 0:
        return False
    number, low, high = gaps[at]
    return number == shard and low <= start and start + size <= high
