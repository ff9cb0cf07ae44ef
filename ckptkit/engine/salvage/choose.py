"""Where each tensor of a damaged checkpoint is taken from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ckptkit.engine.salvage.account import Fate
from ckptkit.formats.tensorflow.salvage.bundle import shard_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ckptkit.engine.salvage.account import How
    from ckptkit.engine.salvage.judge import Judged, Progress
    from ckptkit.formats.tensorflow.salvage.bundle import Bundle
    from ckptkit.formats.tensorflow.salvage.outline import Outline
    from ckptkit.region import Box
    from ckptkit.storage.disk import Sources

RANK = {"intact": 0, "found": 1, "filled": 2, "kept": 3}


class Piece(NamedTuple):
    """Where bytes are taken from.

    Attributes:
        member: The number of the bundle: 0 for the damaged one.
        row: Its row.
        key: The key of the row.
        how: What that means for the tensor.
    """

    member: int
    row: int
    key: str
    how: str


@dataclass(frozen=True, slots=True)
class Taken:
    """Where a tensor is taken from.

    Attributes:
        member, row: Whose record stands for the whole.
        pieces: One for a whole tensor; for one in slices one for each, with its box.
        boxes: The boxes of slices; none for a whole tensor.
    """

    member: int
    row: int
    pieces: tuple[Piece, ...]
    boxes: tuple[Box, ...] = ()

    @property
    def how(self) -> str:
        """The worst of its pieces."""
        return max((piece.how for piece in self.pieces), key=RANK.__getitem__, default="intact")


@dataclass(slots=True)
class Choice:
    """The members that tensors are taken from, the damaged bundle first, and what was chosen.

    Attributes:
        members: Bundles, with what is known of their rows.
        donors: Which members are donors.
        keep: Take what is damaged, where nothing else is there.
        taken: Where each tensor is taken from.
    """

    members: list[Judged]
    donors: list[int] = field(default_factory=list)
    keep: bool = False
    taken: dict[str, Taken] = field(default_factory=dict)
    confirmed: set[int] = field(default_factory=set)

    @property
    def ours(self) -> Judged:
        """The damaged bundle."""
        return self.members[0]

    def confirm(self, outlines: Iterable[Outline]) -> None:
        """Believe records of damaged blocks whose bytes agree, and which an outline has as well.

        It has to have the same dtype and shape under the name, and the same place: a name may have
        become that of another tensor.
        """
        ours = self.ours
        bundle = ours.bundle
        others = [outline.bundle for outline in outlines if outline.placed]
        for key, row in bundle.rows.items():
            if row in bundle.trusted or not ours.sound(row):
                continue
            spec, place = bundle.columns.spec(row), _place(bundle, row)
            for other in others:
                at = other.rows.get(key)
                same = at is not None and _place(other, at) == place
                if same and other.columns.spec(at or 0) == spec:
                    self.confirmed.add(row)

    def believed(self, row: int) -> bool:
        """Tell whether a record of the damaged bundle says what it said when it was written."""
        return row in self.ours.bundle.trusted or row in self.confirmed

    def good(self, key: str) -> int | None:
        """Return the row of the damaged bundle that has a key, if it is sound."""
        row = self.ours.bundle.rows.get(key)
        if row is None or not self.ours.sound(row) or not self.believed(row):
            return None
        return row

    def take(
        self,
        names: Iterable[str],
        sources: Sources,
        progress: Progress | None = None,
        *,
        donors: Sequence[int] | None = None,
        keep: bool | None = None,
    ) -> None:
        """Choose where to take tensors from; donors are read as far as they are needed.

        Args:
            names: The tensors.
            sources: Opens files.
            progress: Called with bytes done and bytes in all, of each donor.
            donors: Which of them to take from, in this order; all by default.
            keep: Take what is damaged as a last resort; as for all by default.
        """
        allowed = self.donors if donors is None else donors
        waiting = [name for name in names if not self._from(name, self._own())]
        for number, donor in enumerate(allowed, start=1):
            if not waiting:
                return
            self._read(donor, waiting, sources, progress)
            usable = [*self._own(), *allowed[:number]]
            waiting = [name for name in waiting if not self._from(name, usable)]
        if self.keep if keep is None else keep:
            for name in waiting:
                self._from(name, [*self._own(), *allowed], keep=True)

    def _own(self) -> list[int]:
        return [at for at in range(len(self.members)) if at not in self.donors]

    def _read(
        self, donor: int, names: Sequence[str], sources: Sources, progress: Progress | None
    ) -> None:
        """Compare the tensors of a donor with their checksums."""
        judged = self.members[donor]
        rows = [row for name in names for row in rows_of(judged.bundle, name)]
        known = judged.found.keys() | judged.wrong.keys()
        judged.add(
            [row for row in dict.fromkeys(rows) if row not in known],
            sources,
            progress,
        )

    def _from(self, name: str, members: Sequence[int], *, keep: bool = False) -> bool:
        wanted = self._spec(name)
        for whole in members:
            bundle = self.members[whole].bundle
            row = bundle.rows.get(name)
            if row is None or (wanted is not None and bundle.columns.spec(row) != wanted):
                continue
            if whole == 0 and not (self.believed(row) or keep):
                continue
            parts = bundle.parts.get(row)
            if parts is None:
                pieces = [self._piece(whole, row, name, keep=keep)]
            else:
                pieces = [self._slice(key, whole, members, keep=keep) for _, key in parts]
            found = tuple(piece for piece in pieces if piece is not None)
            if len(found) == len(pieces):
                self.taken[name] = Taken(whole, row, found, tuple(box for box, _ in parts or ()))
                return True
        return False

    def _spec(self, name: str) -> object:
        """Return dtype and shape that a tensor has for certain, None if they are not known."""
        bundle = self.ours.bundle
        row = bundle.rows.get(name)
        return bundle.columns.spec(row) if row is not None and self.believed(row) else None

    def _slice(self, key: str, whole: int, members: Sequence[int], *, keep: bool) -> Piece | None:
        """Choose where to take a slice from: not from the donor where it need not be."""
        ranked = sorted(members, key=lambda at: (at in self.donors, at != whole, at))
        last = None
        wanted = self._spec(key)
        for member in ranked:
            bundle = self.members[member].bundle
            row = bundle.rows.get(key)
            if row is None or (wanted is not None and bundle.columns.spec(row) != wanted):
                continue
            piece = self._piece(member, row, key, keep=keep)
            if piece is not None and piece.how != "kept":
                return piece
            last = last or piece
        return last

    def _piece(self, member: int, row: int, key: str, *, keep: bool) -> Piece | None:
        judged = self.members[member]
        if judged.sound(row) and (member or self.believed(row)):
            how = "filled" if member in self.donors else "found" if member else "intact"
            if member == 0 and row in self.confirmed:
                how = "found"
            return Piece(member, row, key, how)
        if keep and member == 0 and row in judged.found:
            return Piece(member, row, key, "kept")
        return None

    # --- what became of them -------------------------------------------------------------------

    def fate(self, name: str, donors: Sequence[str], reasons: dict[str, str]) -> Fate | None:
        """Say what became of a tensor, None if it is as it was."""
        taken = self.taken.get(name)
        how = "lost" if taken is None else taken.how
        if how == "intact":
            return None
        row = self._broken(name)
        bundle = self.ours.bundle
        path = start = end = None
        reason = reasons.get(name, "")
        if row is not None:
            columns = bundle.columns
            path = shard_name(bundle, columns.shard[row])
            start, end = columns.offset[row], columns.offset[row] + columns.size[row]
            reason = self.ours.wrong.get(row) or "its record is in a damaged block of the index"
        elif taken is not None and how == "found":
            piece = taken.pieces[0]
            columns = self.members[piece.member].bundle.columns
            path = columns.files.get(columns.shard[piece.row])
            start = columns.offset[piece.row]
            end = start + columns.size[piece.row]
        donor = None
        same = False
        if taken is not None and how == "filled":
            filled = [piece for piece in taken.pieces if piece.how == "filled"]
            donor = donors[filled[0].member]
            same = all(self._same(piece) for piece in filled)
        if taken is not None and how == "found":
            same = all(self._confirmed(piece) for piece in taken.pieces)
        kind: How = how  # type: ignore[assignment]
        return Fate(name, kind, reason or "its record is lost", path, start, end, donor, same)

    def _broken(self, name: str) -> int | None:
        """Return the row of the damaged bundle that makes a tensor what it is."""
        bundle = self.ours.bundle
        for row in rows_of(bundle, name):
            if row in self.ours.wrong or not self.believed(row):
                return row
        return None

    def _confirmed(self, piece: Piece) -> bool:
        """Tell whether a checksum that was saved with the values says that they are right."""
        member = self.members[piece.member]
        if piece.member == 0:
            return True
        columns = member.bundle.columns
        return not columns.size[piece.row] or piece.row in member.confirmed

    def _same(self, piece: Piece) -> bool:
        """Tell whether a donor has just the values that were lost."""
        bundle, other = self.ours.bundle, self.members[piece.member].bundle
        row = bundle.rows.get(piece.key)
        return (
            row is not None
            and self.believed(row)
            and bundle.summed
            and other.columns.checksum[piece.row] == bundle.columns.checksum[row]
            and other.columns.size[piece.row] == bundle.columns.size[row]
        )


def _place(bundle: Bundle, row: int) -> tuple[int, int, int]:
    columns = bundle.columns
    return columns.shard[row], columns.offset[row], columns.size[row]


def rows_of(bundle: Bundle, name: str) -> list[int]:
    """Return the rows that have the bytes of a tensor: its own, or those of its slices."""
    row = bundle.rows.get(name)
    if row is None:
        return [*bundle.orphans.get(name, ())]
    parts = bundle.parts.get(row)
    if parts is None:
        return [row]
    return [bundle.rows[key] for _, key in parts if key in bundle.rows]


def found_bundle(
    outline: Outline, ours: Bundle, places: Sequence[tuple[int, int, int, int]]
) -> Bundle:
    """Return the rows of an outline that lie in the files of the damaged bundle, with these places.

    Args:
        outline: Whose records they are.
        ours: The damaged bundle.
        places: Row, shard, offset and size.
    """
    columns = outline.bundle.columns
    shard = np.array(columns.shard, np.int32)
    offset = np.array(columns.offset, np.int64)
    size = np.array(columns.size, np.int64)
    rows = [row for row, *_ in places]
    for column, at in ((shard, 1), (offset, 2), (size, 3)):
        column[rows] = [place[at] for place in places]
    kept = set(rows)
    bundle = outline.bundle
    names = {
        key: row
        for key, row in bundle.rows.items()
        if row in kept or any(bundle.rows.get(at) in kept for _, at in bundle.parts.get(row, ()))
    }
    moved = replace(
        columns,
        files=ours.columns.files,
        shard=memoryview(shard.tobytes()).cast("i"),
        offset=memoryview(offset.tobytes()).cast("q"),
        size=memoryview(size.tobytes()).cast("q"),
        byteorder=ours.columns.byteorder,
        shards=ours.columns.shards,
    )
    return replace(
        bundle,
        prefix=ours.prefix,
        columns=moved,
        rows=names,
        lengths=ours.lengths,
        orphans={},
        summed=False,
        header=None,
    )
