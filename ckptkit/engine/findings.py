"""What is wrong with rows of a checkpoint, and the problems that people are told of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from ckptkit.engine.mixture import strangers
from ckptkit.errors import CkptError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.region import Box

    Severity = Literal["error", "warning"]

LISTED: Final = 100
"""Tensors of a shard of another save that are listed one by one: the others fail like them."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        path: The file.
        tensor: The tensor, if it is about one.
        offset: Byte offset in the file, if it is about one place.
        message: What was expected and what was found.
        severity: A warning is about something that readers accept, an error about what they do
            not, or should not.
    """

    path: str
    tensor: str | None
    offset: int | None
    message: str
    severity: Severity = "error"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the line that an error about it would print."""
        return str(CkptError(self.message, path=self.path, tensor=self.tensor, offset=self.offset))


class Finding(NamedTuple):
    """What is wrong with a row of the columns, before it is known whose row that is."""

    row: int
    offset: int
    message: str
    severity: Severity = "error"
    missing: bool = False


def problems_of(catalog: Catalog, found: Sequence[tuple[str, Finding]]) -> list[Problem]:
    """Return what findings, each with its file, come to: shards of another save come first.

    Args:
        catalog: The tensors.
        found: What is wrong with rows; of shards of another save only some are listed.
    """
    columns = catalog.columns
    failing = [one.row for _, one in found if one.severity == "error" and not one.missing]
    shards = [
        Problem(columns.files[one.shard], None, None, str(one))
        for one in strangers(columns, failing)
    ]
    return [*shards, *_named(catalog, _listed({one.path for one in shards}, found))]


def _listed(
    strange: Collection[str], found: Sequence[tuple[str, Finding]]
) -> Iterator[tuple[str, Finding]]:
    """Yield the findings that are listed one by one: not all of a shard of another save."""
    left = dict.fromkeys(strange, LISTED)
    for path, one in found:
        if path in left:
            left[path] -= 1
        if left.get(path, 0) >= 0:
            yield path, one


def mismatch(start: int, end: int, wanted: int, found: int) -> str:
    """Say that bytes have another checksum than they should."""
    return f"checksum of bytes {start} to {end}: expected {wanted:08x}, found {found:08x}"


def _named(catalog: Catalog, listed: Iterable[tuple[str, Finding]]) -> list[Problem]:
    """Say which tensor, and which slice of it, each finding is about."""
    found = list(listed)
    if not found:
        return []
    wanted = {finding.row for _, finding in found}
    owners: dict[int, tuple[str, Box | None]] = {}
    parts = catalog.columns.parts
    for name, row in zip(catalog.names, catalog.rows, strict=True):
        if row in wanted:
            owners[row] = name, None
        for box, at in parts.get(row, ()):
            if at in wanted:
                owners[at] = name, box
    problems = []
    for path, finding in found:
        name, slice_ = owners[finding.row]
        where = "" if slice_ is None else f"slice {slice_}: "
        text = where + finding.message
        problems.append(Problem(path, name, finding.offset, text, finding.severity))
    return problems
