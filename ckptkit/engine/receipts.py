"""Receipts: what steps of a long run did, so that another run can go on from there.

They lie in the staging folder, as lines of JSON behind the CRC-32C of each. A receipt is never
believed: the step that it is about looks at the bytes that it left, and runs again if they are
others. What matches no step of the present plan counts for nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Self

import msgspec

from ckptkit import __version__, _native
from ckptkit.engine.steps import Done, Receipt, Resumed
from ckptkit.errors import ConflictError
from ckptkit.formats import absolute
from ckptkit.storage.frames import packed
from ckptkit.storage.publish import RECEIPTS
from ckptkit.storage.sidecar import staging_folders

if TYPE_CHECKING:
    from ckptkit.engine.plan import Plan
    from ckptkit.engine.steps import Step
    from ckptkit.storage.disk import Disk, File, Stamp

MAX_LINE: Final = 64 << 20
"""Bytes of a line at most."""

_DIGITS: Final = 8


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a run was asked for. The first line.

    Attributes:
        version: Of ckptkit.
        request: The edits, the way of writing and the layout of the result, in a number.
        device: Where kernels run.
        inputs: Path, length and time of change of every source file.
        chunk: Bytes that a step took at a time.
    """

    version: str
    request: int
    device: str
    inputs: tuple[tuple[str, int, int], ...]
    chunk: int


def request_of(plan: Plan) -> int:
    """Return a number that two plans share if they ask for the same, of whatever inputs."""
    source = None if plan.source is None else absolute(plan.source)
    asked = repr((source, plan.target, plan.edits))
    return _native.crc32c(asked.encode("utf-8", "surrogateescape"))


def find_order(plan: Plan) -> tuple[str, Order] | None:
    """Return the staging folder, and what is known of it, of an earlier run of a plan.

    Raises:
        ConflictError: An input changed since that run.
    """
    request, inputs = request_of(plan), _inputs(plan.stamps)
    for folder in staging_folders(plan.destination):
        lines = _lines(os.path.join(folder, RECEIPTS))
        try:
            order = msgspec.json.decode(lines[0], type=Order) if lines else None
        except msgspec.DecodeError:
            continue
        if order is None or (order.version, order.request) != (__version__, request):
            continue
        if order.inputs != inputs:
            msg = (
                "an input changed since the run that was to be resumed; take back what it left"
                f" with: ckptkit recover {plan.destination}"
            )
            raise ConflictError(msg, path=folder)
        return folder, order
    return None


def _inputs(stamps: tuple[Stamp, ...]) -> tuple[tuple[str, int, int], ...]:
    return tuple((packed(os.path.abspath(path)), size, changed) for path, size, changed in stamps)


def _lines(path: str) -> list[bytes]:
    """Return the lines that are whole; what follows a torn one was written by nobody."""
    found: list[bytes] = []
    try:
        file = open(path, "rb")  # noqa: SIM115  closed below
    except FileNotFoundError:
        return found
    with file:
        while line := file.readline(MAX_LINE):
            head, text = line[:_DIGITS], line[_DIGITS + 1 : -1]
            if not line.endswith(b"\n") or head != b"%08x" % _native.crc32c(text):
                break
            found.append(text)
    return found


class Receipts:
    """The receipts of a run: those that an earlier one left, and those that this one writes."""

    def __init__(self, file: File, known: dict[tuple[str, int, int], Receipt]) -> None:
        """Hold them; use :meth:`start` or :meth:`go_on`."""
        self._file = file
        self._known = known
        self._end = file.size
        self.resumed_bytes = 0

    @classmethod
    def start(cls, disk: Disk, folder: str, plan: Plan, device: str, chunk: int) -> Self:
        """Begin receipts in a fresh staging folder."""
        path = os.path.join(folder, RECEIPTS)
        if os.path.lexists(path):
            disk.remove(path)
        self = cls(disk.create(path), {})
        order = Order(__version__, request_of(plan), device, _inputs(plan.stamps), chunk)
        self._add(msgspec.json.encode(order))
        return self

    @classmethod
    def go_on(cls, disk: Disk, folder: str) -> Self:
        """Read the receipts of an earlier run, and add to them."""
        path = os.path.join(folder, RECEIPTS)
        lines = _lines(path)
        known: dict[tuple[str, int, int], Receipt] = {}
        for line in lines[1:]:
            try:
                receipt = msgspec.json.decode(line, type=Receipt)
            except msgspec.DecodeError:
                continue
            known[receipt.file, receipt.offset, receipt.length] = receipt
        self = cls(disk.open_to_change(path), known)
        self._end = sum(len(line) + _DIGITS + 2 for line in lines)
        self._file.resize(self._end)
        return self

    def resumed(self, step: Step) -> Step:
        """Return the step, or one that first looks whether it was done already."""
        place = step.place
        known = None if place is None else self._known.pop(_key(*place), None)
        return step if known is None else Resumed(step, known)

    def note(self, step: Step, done: Done) -> None:
        """Write a receipt."""
        place = step.place
        if place is None:
            return
        if done.resumed:
            self.resumed_bytes += step.weight
            return
        name, offset, length = _key(*place)
        sums, *input_sums = (tuple(map(int, part)) for part in (done.sums, *done.input_sums))
        receipt = Receipt(name, offset, length, sums, tuple(input_sums))
        self._add(msgspec.json.encode(receipt))

    def _add(self, text: bytes) -> None:
        line = b"%08x %s\n" % (_native.crc32c(text), text)
        self._file.write(line, self._end)
        self._end += len(line)

    def close(self) -> None:
        """Close the file, which stays."""
        self._file.close()


def _key(path: str, offset: int, length: int) -> tuple[str, int, int]:
    # The data files of a staging folder have names of their own.
    return packed(os.path.basename(path)), offset, length
