"""Plans: an edit that was checked and laid out, and says to the byte what it will do."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from ckptkit.engine import preflight
from ckptkit.engine.amend import amend
from ckptkit.engine.create import create
from ckptkit.engine.exact import check_exact
from ckptkit.engine.overwrite import KEPT, piece_bytes
from ckptkit.engine.rehearsal import rehearsed
from ckptkit.engine.run import MEMORY, Means, run_work
from ckptkit.engine.stages import Stage, stages_of
from ckptkit.errors import ConflictError, CorruptError, EditError
from ckptkit.model import Derived
from ckptkit.sizes import counted
from ckptkit.storage.disk import Disk, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from concurrent.futures import Executor

    from ckptkit.catalog import Catalog
    from ckptkit.engine.device import DeviceName
    from ckptkit.engine.receipts import Receipts
    from ckptkit.engine.run import Outcome
    from ckptkit.engine.work import Work
    from ckptkit.formats import Format
    from ckptkit.model import Algorithm, Source
    from ckptkit.placement import Placement, Target, Way
    from ckptkit.storage.disk import Stamp

    Progress = Callable[[int, int], None]

STAGES: Final = 12
"""Stages that a plan lists before it counts the rest."""

_WHERE: Final = {True: "in place", False: "to"}


@dataclass(frozen=True, slots=True)
class Report:
    """What running a plan did.

    Attributes:
        destination: Where the result is.
        how: The way of writing.
        device: Where kernels ran; None where there was nothing to compute.
        bytes_read: Tensor bytes read into memory.
        bytes_written: Bytes of files that are new, or other than before.
        bytes_reused: Bytes carried over as they were; part of ``bytes_written``.
        bytes_journal: Bytes that were written to a journal besides.
        bytes_resumed: Bytes that an earlier run had written; part of ``bytes_written``.
        seconds: How long it took, until the result was durable and visible.
    """

    destination: str
    how: Way
    device: str | None
    bytes_read: int
    bytes_written: int
    bytes_reused: int
    bytes_journal: int
    bytes_resumed: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the report, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Plan:
    """An edit, ready to run: what will be read, computed, carried over and written, in bytes.

    Attributes:
        target: Where the result will be, and the way of writing.
        source: Where the checkpoint is that is edited; None for one made from scratch.
        destination: What its user calls the place of the result.
        before, after: The catalogs.
        placement: Where every tensor goes.
        work: The byte movements.
        edits: The statements.
        notes: What the reader of a plan should know.
        bytes_read: Tensor bytes read into memory.
        bytes_computed: Tensor bytes that kernels give, or that are given.
        bytes_reused: Tensor bytes, and files beside them, carried over as they are.
        bytes_kept: Tensor bytes that stay where they are, or in a file that gets a second name.
        bytes_written: All bytes of new files, index included; where bytes change in place, those
            of tensors.
        bytes_journal: Bytes that go through a journal besides, about; no more of them.
        stamps: Size and time of change of every source file, when it was opened.
        format: What writes the index.
        repeatable: The statements alone say what the edit is.
        entangled: A tensor is computed from another one that changes as well.
        keep_undo: Leave beside the checkpoint what undoes the edit.
        break_links: Give the checkpoint files of its own where it shares some.
    """

    target: Target
    source: Source | None
    destination: str
    before: Catalog
    after: Catalog
    placement: Placement
    work: Work
    edits: tuple[str, ...]
    notes: tuple[str, ...]
    bytes_read: int
    bytes_computed: int
    bytes_reused: int
    bytes_kept: int
    bytes_written: int
    bytes_journal: int
    stamps: tuple[Stamp, ...]
    format: Format
    repeatable: bool
    entangled: bool = False
    keep_undo: bool = False
    break_links: bool = False

    @property
    def how(self) -> Way:
        """The way of writing."""
        return self.target.how

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """What is done to values, edits of one tensor as the one chain that they run as."""
        return stages_of(self.work)

    @property
    def tensors_changed(self) -> int:
        """How many tensors get values that they did not have."""
        after = self.after
        single = sum(isinstance(tensor.source, Derived) for tensor in after.single.values())
        return single + (after.bulk.count if after.bulk is not None else 0)

    @property
    def largest_file(self) -> int:
        """Bytes of the longest data file afterwards."""
        return max(self.placement.file_sizes, default=0)

    def space_needed(self, memory: int = MEMORY) -> int:
        """Return how many bytes the file system has to have free.

        Args:
            memory: Bytes of staging memory, by which a journal is bounded.
        """
        room = preflight.ROOM_FOR_NAMES
        if not self.target.in_place:
            return self.bytes_written + room
        if self.how != "patch":
            return self.bytes_written + self.bytes_journal + room
        bounded = self.repeatable and not self.keep_undo
        # It goes round in its file: some pieces before those that count, some behind them.
        most = 2 * (KEPT + 1) * piece_bytes(memory)
        journal = min(self.bytes_journal, most) if bounded else self.bytes_journal
        return journal + room

    def to_dict(self) -> dict[str, Any]:
        """Return the plan in short, ready for JSON."""
        return {
            "how": self.how,
            "in_place": self.target.in_place,
            "source": None if self.source is None else str(self.source),
            "destination": self.destination,
            "format": self.format.name,
            "edits": list(self.edits),
            "tensors": len(self.after),
            "tensors_changed": self.tensors_changed,
            "shards": len(self.placement.files),
            "bytes_read": self.bytes_read,
            "bytes_computed": self.bytes_computed,
            "bytes_reused": self.bytes_reused,
            "bytes_kept": self.bytes_kept,
            "bytes_written": self.bytes_written,
            "bytes_journal": self.bytes_journal,
            "bytes_needed_free": self.space_needed(),
            "steps": {
                "copy": len(self.work.moves),
                "compute": len(self.work.flats) + len(self.work.boxes) + len(self.work.regions),
                "check": len(self.work.checks),
            },
            "passes": self.work.passes,
            "bytes_whole": self.work.peak,
            "stages": [stage.to_dict() for stage in self.stages],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """Return the plan for people."""
        given = self.to_dict()
        figures = [
            ("read", "bytes_read"),
            ("computed", "bytes_computed"),
            ("reused", "bytes_reused"),
            ("kept", "bytes_kept"),
            ("written", "bytes_written"),
            ("journal", "bytes_journal"),
        ]
        optional = {"bytes_kept", "bytes_journal"}
        if self.how == "patch":
            optional.add("bytes_reused")
        rows = [
            f"{self.how} {_WHERE[self.target.in_place]} {self.destination}",
            *(f"  {edit}" for edit in self.edits),
            (
                f"  {counted(given['tensors'], 'tensor')}, {self.tensors_changed:,} with new"
                f" values, in {counted(given['shards'], 'shard')}"
            ),
            *(
                f"  {label:<9}{given[key]:>20,} bytes"
                for label, key in figures
                if given[key] or key not in optional
            ),
            *(f"  {stage}" for stage in self.stages[:STAGES]),
            *_more(len(self.stages) - STAGES),
            *_whole(self.work.peak),
            *(f"  note: {note}" for note in self.notes),
        ]
        return "\n".join(rows)

    def check_exact(self) -> None:
        """Refuse the plan if its result depends on the device in the last bits.

        Raises:
            EditError: It does, by operations that the error names, or by functions of the user.
        """
        check_exact(self.work)

    def run(
        self,
        device: DeviceName = "auto",
        executor: Executor | None = None,
        progress: Progress | None = None,
        memory: int = MEMORY,
        disk: Disk | None = None,
        *,
        resume: bool = False,
        allow_whole: bool = False,
        strict: bool = False,
    ) -> Report:
        """Make the result. It is there when it is whole and durable, or not at all.

        Args:
            device: Where kernels run: ``auto``, ``numpy``, ``cpu``, ``gpu``, ``gpu:1``.
            executor: Runs the steps; threads of our own by default.
            progress: Called with bytes done and bytes in all.
            memory: Bytes of staging memory, at least 32 MiB.
            disk: The file system; tests put another one here.
            resume: Go on where an interrupted run of this plan stopped, and keep what this one
                did if it is interrupted. Only for a new destination.
            allow_whole: What has to see a whole tensor, or much of it, may take more memory than
                that.
            strict: Refuse what does not give the same bits on every device; see
                :meth:`check_exact`.

        Raises:
            ConflictError: A source changed since it was planned, the destination appeared, or
                somebody else edits the checkpoint.
            NeedsRecoveryError: An earlier edit in place was cut short.
            CorruptError: A tensor that is read does not match its checksum.
            EditError: The device is not there, or a kernel does not do what it said.
            OSError: The file system refuses, for want of space for one thing.
        """
        began = time.perf_counter()
        if strict:
            self.check_exact()
        means = Means(device, executor, progress, memory, disk or Disk(), whole=allow_whole)
        in_place = self.source if self.target.in_place else None
        if in_place is not None and resume:
            msg = "an edit in place is not resumed but recovered: ckptkit recover"
            raise EditError(msg)
        means = rehearsed(self.work, means)
        if in_place is not None:
            done = amend(self, in_place, means)
            outcome, written, journal = done.outcome, done.written, done.journalled
            reused, resumed = outcome.traffic.copied, 0
        else:
            made = create(self, means, resume=resume)
            outcome, written, journal = made.outcome, made.written, 0
            reused, resumed = made.reused, made.resumed
        return Report(
            self.destination,
            self.how,
            outcome.device,
            outcome.traffic.read,
            written,
            reused,
            journal,
            resumed,
            time.perf_counter() - began,
        )

    def fill(
        self, targets: tuple[str, ...], means: Means, receipts: Receipts | None = None
    ) -> Outcome:
        """Fill data files, by shard; say which tensor is damaged if one that is read is.

        Raises:
            CorruptError: A tensor that is read does not match its checksum.
        """
        with self.naming():
            return run_work(
                self.work,
                self.placement,
                targets,
                self.after.columns.byteorder,
                algorithms=dict(self._algorithms()),
                means=means,
                receipts=receipts,
            )

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Have errors say which tensor is damaged: steps know what they compute, not from what."""
        try:
            yield
        except CorruptError as error:
            error.tensor = self._owner(error.path or "", error.offset or 0) or error.tensor
            raise

    def _owner(self, path: str, offset: int) -> str | None:
        """Return the name by which an edit knows the tensor that has a byte."""
        found = self.before.owner(path, offset)
        for bound, other in self.after.others.items():
            name = None if found else other.owner(path, offset)
            found = f"{bound}:{name}" if name else found
        return found

    def _algorithms(self) -> Iterator[tuple[int, tuple[Algorithm, int]]]:
        for item in self.placement.payloads:
            tensor = self.after.changed[self.after.names[self.placement.tensor[item]]]
            box = tensor.boxes[self.placement.part[item]]
            yield item, (tensor.spec.algorithm, box.count)

    def check_sources(self, but: Collection[str] = ()) -> None:
        """Refuse to go on if a file is another one than when it was opened.

        Args:
            but: Absolute paths of files that the plan changes itself.

        Raises:
            ConflictError: One is.
        """
        for known in self.stamps:
            if os.path.abspath(known.path) in but:
                continue
            try:
                found = stamp(known.path)
            except FileNotFoundError:
                found = None
            if found != known:
                msg = "the file changed since the checkpoint was opened; open it again"
                raise ConflictError(msg, path=known.path)


def _more(count: int) -> Iterator[str]:
    if count > 0:
        yield f"  and {counted(count, 'stage')} more"


def _whole(nbytes: int) -> Iterator[str]:
    if nbytes:
        yield f"  {'memory':<9}{nbytes:>20,} bytes for what has to be seen whole"
