"""Checking a checkpoint: its structure, its checksums, and what a manifest says of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ckptkit.engine.compare import Difference, compare
from ckptkit.engine.findings import Problem
from ckptkit.engine.preflight import check_readable
from ckptkit.engine.sums import compare_sums
from ckptkit.errors import (
    CkptError,
    ConflictError,
    FormatError,
    UnknownFormatError,
)
from ckptkit.formats import find
from ckptkit.storage.disk import Sources, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.formats import Format, Member
    from ckptkit.model import Source

    Progress = Callable[[int, int], object]

__all__ = ["Difference", "Problem", "Verdict", "compare", "verify", "verify_path"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verifying found.

    Attributes:
        ok: There are no errors; there may be warnings.
        checked_bytes: Bytes that were compared with their checksums.
        problems: Errors first, by path and offset.
        notes: What is worth knowing about how it was verified.
    """

    ok: bool
    checked_bytes: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {
            "ok": self.ok,
            "checked_bytes": self.checked_bytes,
            "problems": [problem.to_dict() for problem in self.problems],
            "notes": list(self.notes),
        }


def verify_path(path: str | os.PathLike[str], progress: Progress | None = None) -> Verdict:
    """Open a checkpoint and verify it; one that does not open is a problem, not an error.

    Args:
        path: Anything that :func:`ckptkit.open` takes.
        progress: Called with bytes done and bytes in all.

    Raises:
        FileNotFoundError: There is nothing there.
        UnknownFormatError: No format claims the path.
        NeedsRecoveryError: An edit in place was cut short.
    """
    try:
        form, source = find(os.fspath(path))
        check_readable(os.path.abspath(source.path), str(source))
        catalog = form.scan(source)
    except UnknownFormatError:
        raise
    except FormatError as error:
        return _verdict([_problem(error, os.fspath(path))], 0)
    return verify(form, source, catalog, progress=progress)


def verify(
    form: Format, source: Source, catalog: Catalog, *, progress: Progress | None = None
) -> Verdict:
    """Check the structure of a checkpoint, then the checksum of every tensor.

    A manifest beside the checkpoint has checksums, too.

    Args:
        form: The format of the checkpoint.
        source: Where it is.
        catalog: What a scan of it found.
        progress: Called with bytes done and bytes in all.

    Raises:
        ConflictError: The checkpoint was edited in place meanwhile.
        OSError: A file cannot be read.
    """
    problems: list[Problem] = []
    files = form.files(source, catalog)
    known = [stamp(path) for path in (files[:1] if form.index_tells else files)]

    def warn(
        path: str,
        offset: int | None,
        message: str,
        *,
        tensor: str | None = None,
        severity: Literal["warning", "error"] = "warning",
    ) -> None:
        problems.append(Problem(path, tensor, offset, message, severity))

    members: Sequence[Member] = ()
    try:
        members = form.members(source)
        form.audit(source, catalog, warn)
    except FormatError as error:
        problems.append(_problem(error, str(source)))
    sources = Sources()
    try:
        found, checked = compare_sums(catalog, members, sources, progress)
        manifest = _manifest(source, catalog, members, sources, progress)
    finally:
        sources.close()
    check_readable(os.path.abspath(source.path), str(source))
    if any(stamp(one.path) != one for one in known):
        msg = "the checkpoint was edited while it was verified; verify it again"
        raise ConflictError(msg, path=str(source))
    # With checksums of its own, what a manifest adds is read a second time.
    checked += 0 if catalog.columns.summed else manifest.checked
    return _verdict([*problems, *found, *manifest.problems], checked, manifest.notes)


class _Compared(NamedTuple):
    """What comparing with a manifest found, if there is one."""

    problems: list[Problem]
    checked: int
    notes: tuple[str, ...]


def _manifest(
    source: Source,
    catalog: Catalog,
    members: Sequence[Member],
    sources: Sources,
    progress: Progress | None,
) -> _Compared:
    from ckptkit.engine.manifest import differences, manifest_path, read_manifest

    path, summed = manifest_path(source), catalog.columns.summed
    if not os.path.lexists(path):
        # The member of an archive that holds all tensors has a checksum as a whole.
        if summed or members or not len(catalog):
            return _Compared([], 0, ())
        note = f"its tensors have no checksums; this makes some: ckptkit manifest {source}"
        return _Compared([], 0, (note,))
    try:
        manifest = read_manifest(path)
    except FormatError as error:
        return _Compared([_problem(error, path)], 0, ())
    wanted = None if summed else progress
    problems, checked = differences(catalog, manifest, sources, wanted, trusted=summed)
    return _Compared(problems, checked, (f"its tensors were compared with {path}",))


def _verdict(problems: list[Problem], checked: int, notes: tuple[str, ...] = ()) -> Verdict:
    def place(problem: Problem) -> tuple[bool, str, int]:
        offset = -1 if problem.offset is None else problem.offset
        return problem.severity != "error", problem.path, offset

    ok = all(problem.severity != "error" for problem in problems)
    return Verdict(ok, checked, tuple(sorted(problems, key=place)), notes)


def _problem(error: CkptError, path: str) -> Problem:
    return Problem(error.path or path, error.tensor, error.offset, error.message)
