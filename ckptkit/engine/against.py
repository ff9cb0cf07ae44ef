"""Comparing our reader with TensorFlow's: what they list, and every bit that they read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from ckptkit.engine.findings import Problem
from ckptkit.engine.preflight import check_readable
from ckptkit.engine.witness import lines
from ckptkit.errors import FormatError, UnknownFormatError, UnsupportedError
from ckptkit.formats import find
from ckptkit.sizes import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ckptkit.catalog import Catalog
    from ckptkit.model import TensorSpec

    Progress = Callable[[int, int], object]

CRASHES: Final = 8
"""Crashes of TensorFlow after which it is asked no more; each costs a start of TensorFlow."""

_SLICED: Final = "Sliced checkpoints"
_LIMITS: Final = ("not supported", "not convertible", _SLICED)
"""What is in a message of TensorFlow about what it does not do, whatever the file is like."""


@dataclass(slots=True)
class Agreement:
    """What comparing two readers found.

    Attributes:
        tensors: How many tensors both read.
        nbytes: Their stored bytes.
        problems: Where they do not agree, and what only one reads.
        notes: What is worth knowing besides.
    """

    tensors: int = 0
    nbytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """There are no errors; there may be warnings."""
        return all(problem.severity != "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures; problems and notes are told with others."""
        return {"reader": "tensorflow", "tensors": self.tensors, "bytes": self.nbytes}


def compare_readers(path: str | os.PathLike[str], progress: Progress | None = None) -> Agreement:
    """Read a checkpoint with TensorFlow's reader and with ours, and compare them bit by bit.

    TensorFlow runs in a process of its own, which a hostile file may crash.

    Args:
        path: Anything that :func:`ckptkit.open` takes and TensorFlow reads.
        progress: Called with stored bytes done and bytes in all.

    Raises:
        FileNotFoundError: There is nothing there.
        UnsupportedError: TensorFlow's reader is for other files, or TensorFlow is not installed.
        UnknownFormatError: It is nothing that anybody reads.
    """
    text = os.fspath(path)
    try:
        form, source = find(text)
    except UnknownFormatError:
        raise
    except FormatError:
        # There is the beginning of a checkpoint, or what is left of one.
        return _TheirsAlone(os.path.abspath(text)).run()
    if not form.name.startswith("tensorflow"):
        msg = f"TensorFlow's reader reads no {form.name} checkpoints"
        raise UnsupportedError(msg, path=text)
    check_readable(os.path.abspath(source.path), str(source))
    prefix = os.path.abspath(source.path)
    try:
        catalog = form.scan(source)
    except UnknownFormatError:
        raise
    except FormatError:
        return _TheirsAlone(prefix).run()
    return _Both(text, prefix, catalog, progress).run()


class _Listener:
    """Hears a witness out."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.found = Agreement()

    def _note(
        self,
        message: str,
        tensor: str | None = None,
        severity: Literal["error", "warning"] = "error",
    ) -> None:
        self.found.problems.append(Problem(self._prefix, tensor, None, message, severity))

    def _crash(self, line: Mapping[str, Any], where: str, tensor: str | None = None) -> None:
        number = line["died"]
        how = f"status {line['status']}" if number is None else f"signal {number}"
        self._note(f"TensorFlow crashed ({how}) when it {where}", tensor)


class _TheirsAlone(_Listener):
    """What TensorFlow makes of a checkpoint that we refuse."""

    def run(self) -> Agreement:
        """Have TensorFlow read what it lists."""
        about: Any = "open"
        names: list[str] = []
        for line in lines(self._prefix, "", 0):
            about = line.get("about", about)
            if "listed" in line:
                names = sorted(line["listed"])
                listed = counted(len(names), "tensor")
                self.found.notes.append(
                    f"TensorFlow opens what ckptkit refuses, and lists {listed}"
                )
            elif "refused" in line:
                self.found.notes.append(f"TensorFlow refuses it as well: {line['refused']}")
            elif "died" in line and about == "open":
                self._crash(line, "opened the checkpoint")
            elif "died" in line:
                self._crash(line, "read this tensor", names[about] if names else None)
        return self.found


class _Both(_Listener):
    """What two readers make of a checkpoint."""

    def __init__(self, path: str, prefix: str, catalog: Catalog, progress: Progress | None) -> None:
        super().__init__(prefix)
        self._path = path
        self._catalog = catalog
        self._progress = progress
        self._sizes = [*map(catalog.stored_bytes_at, range(len(catalog)))]
        self._total = sum(self._sizes)
        self._done = 0
        self._listed = False

    def run(self) -> Agreement:
        """Have a witness read all tensors; where it dies, have another one go on."""
        first: int | None = 0
        crashes = 0
        while first is not None and crashes < CRASHES:
            first = self._hear(first)
            crashes += 1
        if first is not None:
            left = counted(len(self._catalog) - first, "tensor")
            self.found.notes.append(f"TensorFlow crashed {CRASHES} times; not compared: {left}")
        return self.found

    def _hear(self, first: int) -> int | None:
        """Listen to a witness; return with which tensor the next one begins, if it died."""
        at = -1
        for line in lines(self._prefix, self._path, first):
            if "died" in line:
                return self._died(at, line)
            if line.get("about", "open") != "open":
                self._advance(at)
                at = line["about"]
            self._take(at, line)
        self._advance(at)
        return None

    def _died(self, at: int, line: Mapping[str, Any]) -> int | None:
        if at < 0:
            self._crash(line, "opened the checkpoint")
            return None
        self._crash(line, "read this tensor", self._catalog.names[at])
        self._advance(at)
        return at + 1 if at + 1 < len(self._catalog) else None

    def _take(self, at: int, line: Mapping[str, Any]) -> None:
        """Note what a witness tells of the tensor at a position, or of all of them."""
        if "listed" in line:
            self._compare_lists(line["listed"])
        elif "unlisted" in line:
            self._unlisted()
        elif "refused" in line:
            self._note(f"TensorFlow does not open it: {line['refused']}")
        elif "same" in line:
            self._compared(at, same=line["same"])
        elif "theirs" in line:
            self._not_theirs(self._catalog.names[at], line["theirs"])
        elif "ours" in line:
            self._note(f"ckptkit does not read it: {line['ours']}", self._catalog.names[at])

    def _advance(self, at: int) -> None:
        if at < 0:
            return
        self._done += self._sizes[at]
        if self._progress is not None:
            self._progress(self._done, self._total)

    def _compared(self, at: int, *, same: bool) -> None:
        self.found.tensors += 1
        self.found.nbytes += self._sizes[at]
        if not same:
            self._note("TensorFlow reads other values", self._catalog.names[at])

    def _not_theirs(self, name: str, message: str) -> None:
        if any(limit in message for limit in _LIMITS):
            sliced = len(self._catalog[name].boxes) > 1
            what = "in slices of this dtype" if sliced else "of this dtype"
            if _SLICED in message:
                what = "in slices of the first format"
            self._note(f"TensorFlow reads no tensors {what}: {message}", name, "warning")
        else:
            self._note(f"TensorFlow does not read it: {message}", name)

    def _unlisted(self) -> None:
        if not self._listed:
            self._note("TensorFlow lists no names that are not UTF-8", severity="warning")
        self._listed = True

    def _compare_lists(self, listed: Mapping[str, tuple[str, list[int]]]) -> None:
        if self._listed:
            return
        self._listed = True
        for name, spec in self._catalog.specs():
            self._compare_specs(name, spec, listed.get(name))
        for name in listed:
            if name not in self._catalog:
                self._note("TensorFlow alone lists it", name)

    def _compare_specs(
        self, name: str, spec: TensorSpec, theirs: tuple[str, list[int]] | None
    ) -> None:
        if theirs is None:
            self._note("TensorFlow does not list it", name)
        elif (theirs[0], tuple(theirs[1])) != (spec.dtype, spec.shape):
            self._note(f"it is {spec}, and TensorFlow says {theirs[0]}{theirs[1]}", name)
