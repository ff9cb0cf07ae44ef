"""Plans: an edit that was checked and laid out, and says to the byte what it will do."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ckptkit.engine.run import MEMORY, run_work
from ckptkit.engine.work import compile_work
from ckptkit.errors import ConflictError, CorruptError, EditError
from ckptkit.model import Derived, Source
from ckptkit.storage.disk import Disk, Sources, stamp
from ckptkit.storage.publish import Staging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Executor

    from ckptkit.catalog import Catalog
    from ckptkit.engine.device import DeviceName
    from ckptkit.engine.work import Work
    from ckptkit.formats import Format
    from ckptkit.model import Algorithm
    from ckptkit.placement import Layout, Placement
    from ckptkit.storage.disk import Stamp

    Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What running a plan did.

    Attributes:
        destination: Where the result is.
        device: Where kernels ran; None where there was nothing to compute.
        bytes_read: Tensor bytes read into memory.
        bytes_written: All bytes of the new files.
        bytes_reused: Bytes carried over as they were; part of ``bytes_written``.
        seconds: How long it took, until the result was durable and visible.
    """

    destination: str
    device: str | None
    bytes_read: int
    bytes_written: int
    bytes_reused: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the report, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """An edit, ready to run: what will be read, computed, carried over and written, in bytes.

    Attributes:
        how: The way of writing.
        source: Where the checkpoint is that is edited; None for one made from scratch.
        destination: Where the new one will appear.
        before, after: The catalogs.
        placement: Where every tensor goes.
        work: The byte movements.
        edits: The statements.
        notes: What the reader of a plan should know.
        bytes_read: Tensor bytes read into memory.
        bytes_computed: Tensor bytes that kernels give, or that are given.
        bytes_reused: Tensor bytes, and files beside them, carried over as they are.
        bytes_written: All bytes of the new files, index included.
        stamps: Size and time of change of every source file, when it was opened.
        format: What writes the index.
        sealed: The index files, where no checksum is still to be found out.
    """

    how: str
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
    bytes_written: int
    stamps: tuple[Stamp, ...]
    format: Format
    sealed: Mapping[str, bytes] | None = None

    @property
    def tensors_changed(self) -> int:
        """How many tensors get values that they did not have."""
        return sum(isinstance(tensor.source, Derived) for tensor in self.after.changed.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the plan in short, ready for JSON."""
        return {
            "how": self.how,
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
            "bytes_written": self.bytes_written,
            "steps": {
                "copy": len(self.work.moves),
                "compute": len(self.work.flats) + len(self.work.boxes),
                "check": len(self.work.checks),
            },
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """Return the plan for people."""
        given = self.to_dict()
        rows = [
            f"{self.how} to {self.destination}",
            *(f"  {edit}" for edit in self.edits),
            (
                f"  {_many(given['tensors'], 'tensor')}, {self.tensors_changed:,} with new values,"
                f" in {_many(given['shards'], 'shard')}"
            ),
            *(
                f"  {label:<9}{given[key]:>20,} bytes"
                for label, key in (
                    ("read", "bytes_read"),
                    ("computed", "bytes_computed"),
                    ("reused", "bytes_reused"),
                    ("written", "bytes_written"),
                )
            ),
            *(f"  note: {note}" for note in self.notes),
        ]
        return "\n".join(rows)

    def run(
        self,
        device: DeviceName = "auto",
        executor: Executor | None = None,
        progress: Progress | None = None,
        memory: int = MEMORY,
        disk: Disk | None = None,
    ) -> Report:
        """Make the new checkpoint. It appears when it is whole and durable, or not at all.

        Args:
            device: Where kernels run: ``auto``, ``numpy``, ``cpu``, ``gpu``, ``gpu:1``.
            executor: Runs the steps; threads of our own by default.
            progress: Called with bytes done and bytes in all.
            memory: Bytes of staging memory, at least 32 MiB.
            disk: The file system; tests put another one here.

        Raises:
            ConflictError: A source changed since it was planned, or the destination appeared.
            CorruptError: A tensor that is read does not match its checksum.
            EditError: The device is not there, or a kernel does not do what it said.
            OSError: The file system refuses, for want of space for one thing.
        """
        began = time.perf_counter()
        disk = disk or Disk()
        self._check_sources()
        placement = self.placement
        whole = placement.folder is not None
        staging = Staging(self.destination, whole_folder=whole, disk=disk)
        with staging:
            self._check_space(staging.parent)
            for path, size in zip(placement.files, placement.file_sizes, strict=True):
                staging.create(path, size)
            try:
                outcome = run_work(
                    self.work,
                    placement,
                    tuple(staging.staged(path) for path in placement.files),
                    self.after.columns.byteorder,
                    algorithms=dict(self._algorithms()),
                    device=device,
                    executor=executor,
                    progress=progress,
                    memory=memory,
                    disk=disk,
                )
            except CorruptError as error:
                # Steps know what they compute; what is damaged may be another tensor they read.
                owner = self.before.owner(error.path or "", error.offset or 0)
                error.tensor = owner or error.tensor
                raise
            sealed = self.sealed or self.format.seal(self.after, placement, outcome.checksums)
            copied = self._copy_companions(staging, disk, sealed)
            for path, content in sealed.items():
                staging.write(path, content)
            self._check_sources()
            staging.publish()
        written = outcome.traffic.written + sum(map(len, sealed.values()))
        reused = outcome.traffic.copied + copied
        return Report(
            self.destination,
            outcome.device,
            outcome.traffic.read,
            written + reused,
            reused,
            time.perf_counter() - began,
        )

    def _algorithms(self) -> Iterator[tuple[int, tuple[Algorithm, int]]]:
        for item in self.placement.payloads:
            tensor = self.after.changed[self.after.names[self.placement.tensor[item]]]
            box = tensor.boxes[self.placement.part[item]]
            yield item, (tensor.spec.algorithm, box.count)

    def _copy_companions(self, staging: Staging, disk: Disk, sealed: Mapping[str, bytes]) -> int:
        sources = Sources(disk)
        total = 0
        for old, new in self.placement.companions:
            if new not in sealed:
                source = sources.file(old)
                target = staging.create(new)
                target.copy_from(source, 0, 0, source.size)
                total += source.size
        return total

    def _check_sources(self) -> None:
        for known in self.stamps:
            if stamp(known.path) != known:
                msg = "the file changed since the checkpoint was opened; open it again"
                raise ConflictError(msg, path=known.path)

    def _check_space(self, folder: str) -> None:
        """Refuse at once what would fail in the end."""
        found = os.statvfs(folder)
        free = found.f_bavail * found.f_frsize
        if free < self.bytes_written:
            msg = f"the result takes {self.bytes_written:,} bytes, {free:,} are free"
            raise OSError(errno.ENOSPC, msg, folder)


def build_plan(
    writer: Format,
    source: Source | None,
    before: Catalog,
    after: Catalog,
    destination: str,
    layout: Layout,
    edits: tuple[str, ...],
    notes: tuple[str, ...],
    stamps: tuple[Stamp, ...],
) -> Plan:
    """Lay an edited catalog out at a new place and say what filling it takes.

    Raises:
        EditError: There is something at the destination, or the format refuses the edit.
    """
    where = _destination(destination)
    placement = writer.reserve(before, after, source, where, layout)
    taken = [placement.folder] if placement.folder else [*placement.files, placement.index]
    for path in taken:
        if os.path.lexists(path):
            msg = "the destination exists; choose another one, or remove it first"
            raise EditError(msg, path=path)
    work = compile_work(after, placement)
    new = placement.source_file < 0
    # What is not known yet is no 0: TensorFlow leaves out a masked 0, and the size would differ.
    sums = np.where(new, np.uint32(1), placement.checksum)
    sums[new & (placement.size == 0)] = 0
    sealed = writer.seal(after, placement, sums)
    final = not np.any(new & (placement.size > 0))
    carried = {old: os.stat(old).st_size for old, new in placement.companions if new not in sealed}
    given = sum(map(len, placement.payloads.values()))
    reused = int(work.moves.size.sum()) + sum(carried.values())
    computed = work.bytes_computed + given
    return Plan(
        "copy",
        source,
        where,
        before,
        after,
        placement,
        work,
        edits,
        notes,
        work.bytes_read,
        computed,
        reused,
        computed + reused + sum(map(len, sealed.values())),
        (*stamps, *map(stamp, carried)),
        writer,
        sealed if final else None,
    )


def _destination(path: str) -> str:
    """Return a destination as an absolute path.

    Raises:
        EditError: It has no name of its own, or is a folder.
    """
    if not os.path.basename(path) or os.path.basename(path) in {".", ".."} or os.path.isdir(path):
        example = os.path.join(path, "model")
        msg = f"the destination is a folder; give the result a name in it, such as {example!r}"
        raise EditError(msg, path=path)
    return os.path.abspath(path)


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def check_how(how: str) -> None:
    """Refuse a way of writing that there is not.

    Raises:
        EditError: It is none of ``auto`` and ``copy``.
    """
    if how not in {"auto", "copy"}:
        msg = f"unknown way of writing {how!r}; there are auto and copy"
        raise EditError(msg)
