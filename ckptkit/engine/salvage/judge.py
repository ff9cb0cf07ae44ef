"""Which rows of a bundle are sound, and which other files or indexes fit those that are not."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from ckptkit.engine.findings import mismatch
from ckptkit.engine.mixture import strangers
from ckptkit.engine.sums import sum_rows
from ckptkit.errors import CkptError
from ckptkit.formats.tensorflow.salvage.bundle import read_bundle, shard_name
from ckptkit.formats.tensorflow.salvage.paths import prefixes, shards_on_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ckptkit.formats.tensorflow.salvage.bundle import Bundle
    from ckptkit.storage.disk import Sources

    Progress = Callable[[int, int], object]

NEIGHBOURS: Final = 64
"""Other checkpoints in the folder whose files are tried."""

SAMPLE: Final = 8
"""Small tensors that tell a file that fits from one that does not."""


@dataclass(slots=True)
class Judged:
    """What the rows of a bundle are worth.

    Attributes:
        bundle: The bundle, with the files that fit it best.
        found: By row, the checksum of its bytes.
        wrong: What is wrong, by row; rows that are sound are not here.
        sentences: What there is to say of whole shards.
        confirmed: Of rows that were found without a record: those whose bytes have the checksum
            that another save has of them.
    """

    bundle: Bundle
    found: dict[int, int] = field(default_factory=dict)
    wrong: dict[int, str] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)
    confirmed: set[int] = field(default_factory=set)

    def add(self, rows: Iterable[int], sources: Sources, progress: Progress | None = None) -> None:
        """Read rows, and compare them with their checksums."""
        bundle, columns = self.bundle, self.bundle.columns
        there: list[int] = []
        for row in rows:
            shard, end = columns.shard[row], columns.offset[row] + columns.size[row]
            length = bundle.lengths.get(shard)
            if not columns.size[row]:
                # No bytes are right wherever they are, and whether or not anything is there.
                self.found[row] = 0
                if bundle.summed and columns.checksum[row]:
                    self.wrong[row] = "it has no bytes, and a checksum of some"
            elif length is None:
                path = os.path.basename(shard_name(bundle, shard))
                self.wrong[row] = f"its shard is missing: {path}"
            elif end > length:
                text = f"bytes {columns.offset[row]} to {end} are beyond the end of the file"
                self.wrong[row] = f"{text}, which has {length}"
            else:
                there.append(row)
        summed = sum_rows(columns, np.array(there, np.int64), sources, progress)
        self.found.update(summed.found)
        self.wrong.update(summed.broken)
        for row, value in summed.found.items():
            if bundle.summed and value != columns.checksum[row]:
                start = columns.offset[row]
                wanted = columns.checksum[row]
                self.wrong[row] = mismatch(start, start + columns.size[row], wanted, value)

    def sound(self, row: int) -> bool:
        """Tell whether a row was read, and is as its checksum says."""
        return row in self.found and row not in self.wrong

    def failing(self) -> list[int]:
        """Return the rows whose bytes are all there, and are others than they were."""
        lengths, columns = self.bundle.lengths, self.bundle.columns
        return [
            row
            for row in self.wrong
            if columns.offset[row] + columns.size[row] <= lengths.get(columns.shard[row], -1)
        ]


def judge(
    bundle: Bundle,
    donors: Sequence[Bundle],
    sources: Sources,
    progress: Progress | None = None,
) -> Judged:
    """Read all of a bundle; where shards are of another save, look for those that are of this one.

    Args:
        bundle: The bundle.
        donors: Others whose files may be the right ones.
        sources: Opens files.
        progress: Called with bytes done and bytes in all.
    """
    rows = bundle.stored()
    judged = Judged(bundle)
    judged.add(rows, sources, progress)
    suspects = _suspects(judged, rows)
    if not suspects:
        return judged
    sentences = {one.shard: str(one) for one in strangers(bundle.columns, judged.failing(), rows)}
    if bundle.gaps:
        # With records lost, nothing tells whether all of another file is of this save.
        judged.sentences += sentences.values()
        return judged
    neighbours = _neighbours(bundle, donors)
    for shard in suspects:
        fitting = _fitting_file(judged, shard, rows, donors, neighbours, sources)
        if fitting is not None:
            said = sentences.pop(shard, f"shard {shard} of {bundle.columns.shards} is damaged")
            judged.sentences.append(f"{said}; {fitting} fits, and is used")
    if sentences:
        other = _fitting_index(judged, donors, neighbours, sources)
        if other is not None:
            return other
    judged.sentences += sentences.values()
    return judged


def _suspects(judged: Judged, rows: Sequence[int]) -> list[int]:
    """Return the shards at least half of whose tensors are not as they should be, or missing."""
    columns = judged.bundle.columns
    mine: dict[int, list[int]] = {}
    for row in rows:
        if columns.size[row]:
            mine.setdefault(columns.shard[row], []).append(row)
    return sorted(
        shard
        for shard, some in mine.items()
        if 2 * sum(row in judged.wrong for row in some) >= len(some)
    )


def _neighbours(bundle: Bundle, donors: Sequence[Bundle]) -> list[str]:
    folder = os.path.dirname(bundle.prefix)
    known = {os.path.abspath(one.prefix) for one in (bundle, *donors)}
    found = (os.path.join(folder, name) for name in sorted(prefixes(folder)))
    return [prefix for prefix in found if os.path.abspath(prefix) not in known][:NEIGHBOURS]


def _files(
    bundle: Bundle, shard: int, donors: Sequence[Bundle], neighbours: Sequence[str]
) -> Iterator[str]:
    """Yield the files of other saves that have the number of a shard; before, those of this one.

    Files of one save may have got one another's numbers, as they do when they are renamed by hand.
    """
    columns = bundle.columns
    mine = np.asarray(columns.shard) == shard
    ends = np.asarray(columns.offset)[mine] + np.asarray(columns.size)[mine]
    end = int(ends.max(initial=0))
    own = shards_on_disk(bundle.prefix).get(columns.shards, {})
    lengths = {path: os.path.getsize(path) for at, path in own.items() if at != shard}
    # A file ends where its last tensor does, mostly.
    enough = sorted((path for path in lengths if lengths[path] >= end), key=lengths.__getitem__)
    yield from enough[:NEIGHBOURS]
    for prefix in (*(donor.prefix for donor in donors), *neighbours):
        path = shards_on_disk(prefix).get(bundle.columns.shards, {}).get(shard)
        if path is not None:
            yield path


def _fitting_file(
    judged: Judged,
    shard: int,
    rows: Sequence[int],
    donors: Sequence[Bundle],
    neighbours: Sequence[str],
    sources: Sources,
) -> str | None:
    """Have a shard read from a file that fits the index, if there is one; return its path."""
    bundle, columns = judged.bundle, judged.bundle.columns
    mine = [row for row in rows if columns.shard[row] == shard]
    for path in _files(bundle, shard, donors, neighbours):
        lengths = {**bundle.lengths, shard: os.path.getsize(path)}
        files = dict(sorted({**columns.files, shard: path}.items()))
        other = replace(bundle, columns=replace(columns, files=files), lengths=lengths)
        tried = Judged(other)
        tried.add(_sample(other, mine), sources)
        if tried.wrong:
            continue
        tried.add(mine, sources)
        if sum(row in tried.wrong for row in mine) < sum(row in judged.wrong for row in mine):
            judged.bundle = other
            for row in mine:
                judged.wrong.pop(row, None)
            judged.found.update(tried.found)
            judged.wrong.update(tried.wrong)
            return path
    return None


def _sample(bundle: Bundle, rows: Sequence[int]) -> list[int]:
    size = bundle.columns.size
    return sorted((row for row in rows if size[row]), key=size.__getitem__)[:SAMPLE]


def _fitting_index(
    judged: Judged, donors: Sequence[Bundle], neighbours: Sequence[str], sources: Sources
) -> Judged | None:
    """Return what another index makes of the shards, if it fits all of them."""
    ours = judged.bundle
    for other in (*donors, *_readable(neighbours)):
        if other.columns.shards != ours.columns.shards or other.missing or other.gaps:
            continue
        columns = replace(other.columns, files=ours.columns.files)
        tried = Judged(replace(other, columns=columns, lengths=ours.lengths))
        rows = other.stored()
        tried.add(_sample(tried.bundle, rows), sources)
        if tried.wrong:
            continue
        tried.add(rows, sources)
        if 2 * len(tried.wrong) < len(rows) and len(tried.wrong) < len(judged.wrong):
            tried.sentences.append(
                f"the index is not of this save: {other.index} fits the shards, and is used"
            )
            return tried
    return None


def _readable(neighbours: Sequence[str]) -> Iterator[Bundle]:
    for prefix in neighbours:
        try:
            yield read_bundle(prefix)
        except (CkptError, OSError):
            continue
