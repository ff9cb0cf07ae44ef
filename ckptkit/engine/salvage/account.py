"""The account of a salvage: what is as it was, what came from elsewhere, and what is lost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from ckptkit.sizes import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ckptkit.engine.plan import Plan, Report
    from ckptkit.storage.disk import Disk

    Progress = Callable[[int, int], None]

How = Literal["found", "filled", "kept", "lost"]
"""Found in the data without its record; filled from a donor; kept damaged; lost."""

SHOWN: Final = 100
"""Tensors of one kind that are listed for people."""

_TITLES: Final[dict[How, str]] = {
    "found": "found without its record",
    "filled": "filled from a donor",
    "kept": "kept damaged",
    "lost": "lost",
}


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a tensor that is not simply as it was.

    Attributes:
        tensor: Its name.
        how: What became of it.
        reason: Why: what is wrong with it.
        path: The shard that it was in, where that is known.
        start, end: Its bytes there.
        donor: Where its values are from, if from elsewhere.
        same: A checksum says that these are the values that were saved: of what is filled, that of
            the record; of what is found, that of the record or of the donor.
    """

    tensor: str
    how: How
    reason: str
    path: str | None = None
    start: int | None = None
    end: int | None = None
    donor: str | None = None
    same: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __str__(self) -> str:
        """Return a line for people."""
        place = [] if self.path is None else [self.path]
        if self.start is not None:
            place.append(f"bytes {self.start} to {self.end}")
        text = f"{_TITLES[self.how]}: tensor {self.tensor!r}"
        if place:
            text += f" ({', '.join(place)})"
        if self.donor is not None:
            same = ", which has the same values" if self.same else ""
            text += f" from {self.donor}{same}"
        elif self.how == "found" and not self.same:
            text += ", and no checksum confirms its values"
        return f"{text}: {self.reason}" if self.reason else text


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What a salvage saved, or would save, and what it could not.

    Attributes:
        source: The damaged checkpoint.
        destination: Where the result is, or would be.
        tensors: How many tensors the result has.
        intact: How many of them are as they were, by their own record and checksum.
        fates: What became of the others, and of those that are lost.
        index: What is wrong with the index.
        shards: What is wrong with whole shards.
        dropped: Attributes that were taken out of the object graph.
        incomplete: Tensors may be lost of which not even the name is known.
        notes: What else is worth knowing.
        plan: How the result is, or would be, written.
        report: What writing it did; None if it was not written.
    """

    source: str
    destination: str
    tensors: int
    intact: int
    fates: tuple[Fate, ...]
    index: tuple[str, ...]
    shards: tuple[str, ...]
    dropped: tuple[str, ...]
    incomplete: bool
    notes: tuple[str, ...]
    plan: Plan = field(repr=False)
    report: Report | None = None

    def of(self, how: How) -> list[Fate]:
        """Return the tensors that had a fate."""
        return [fate for fate in self.fates if fate.how == how]

    @property
    def ok(self) -> bool:
        """Whether nothing was lost: every value is the one that was saved."""
        changed = any(
            fate.how in {"kept", "lost"} or (fate.how == "filled" and not fate.same)
            for fate in self.fates
        )
        return not (changed or self.incomplete or self.dropped)

    def to_dict(self) -> dict[str, Any]:
        """Return the account, ready for JSON."""
        return {
            "ok": self.ok,
            "source": self.source,
            "destination": self.destination,
            "tensors": self.tensors,
            "intact": self.intact,
            **{how: [fate.to_dict() for fate in self.of(how)] for how in _TITLES},
            "index": list(self.index),
            "shards": list(self.shards),
            "dropped_attributes": list(self.dropped),
            "incomplete": self.incomplete,
            "notes": list(self.notes),
            "report": None if self.report is None else self.report.to_dict(),
        }

    def write(
        self, progress: Progress | None = None, memory: int | None = None, disk: Disk | None = None
    ) -> Salvaged:
        """Write the result; return the account with what that did.

        Args:
            progress: Called with bytes done and bytes in all.
            memory: Bytes of staging memory.
            disk: The file system; tests put another one here.

        Raises:
            ConflictError: Something that is read changed meanwhile.
        """
        from ckptkit.engine.run import MEMORY

        report = self.plan.run(progress=progress, memory=memory or MEMORY, disk=disk)
        return replace(self, report=report)

    def lines(self) -> Iterator[str]:
        """Yield the account for people."""
        yield from (f"index: {text}" for text in self.index)
        yield from self.shards
        for how in _TITLES:
            fates = self.of(how)
            yield from map(str, fates[:SHOWN])
            if len(fates) > SHOWN:
                more = counted(len(fates) - SHOWN, "tensor")
                yield f"{_TITLES[how]}: {more} more (--json lists all)"
        if self.dropped:
            yield (
                f"taken out of the object graph: {counted(len(self.dropped), 'attribute')},"
                " so that TensorFlow restores the rest"
            )
        yield from (f"note: {note}" for note in self.notes)
        counts = [f"{self.intact:,} as they were"]
        counts += [f"{len(found):,} {_TITLES[how]}" for how in _TITLES if (found := self.of(how))]
        done = "would save" if self.report is None else "saved"
        yield f"{self.source}: {done} {counted(self.tensors, 'tensor')} ({', '.join(counts)})"
        unsure = sum(not fate.same for fate in self.of("found"))
        if self.ok and unsure:
            yield f"nothing is known to be lost; no checksum confirms {unsure:,} of the tensors"
        elif self.ok:
            yield "nothing is lost"
        elif self.incomplete:
            yield "more may be lost, of which nothing is left to tell"
