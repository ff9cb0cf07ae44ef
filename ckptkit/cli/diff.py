"""``ckptkit diff``: what two checkpoints do not have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from ckptkit.cli.session import Session, json_option, reader_option
from ckptkit.cli.text import Column, write_table
from ckptkit.sizes import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ckptkit.catalog import Catalog
    from ckptkit.engine.check import Difference

COLUMNS: Final = (Column("name"), Column("difference"), Column("in A"), Column("in B"))
LAYER: Final = Column("layer")
MEASURES: Final = (
    Column("elements", right=True),
    Column("max abs", right=True),
    Column("max rel", right=True),
)
_KINDS: Final = {"only_in_a": "only in A", "only_in_b": "only in B"}


@click.command("diff", short_help="Compare two checkpoints.")
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option("--values", is_flag=True, help="Read tensors that differ, and say by how much.")
@reader_option
@json_option
@click.pass_obj
def command(session: Session, /, a: str, b: str, *, values: bool, reader: Any) -> int:
    """Compare the checkpoints A and B: names, dtypes, shapes and values.

    Values are compared by checksum where that can tell. Exits 1 when they differ.
    """
    import ckptkit

    with (
        session.bar("comparing") as bar,
        ckptkit.open(a, reader) as one,
        ckptkit.open(b, reader) as other,
    ):
        differences = ckptkit.diff(one, other, values=values, progress=bar)
        labels = _labels(other.catalog) | _labels(one.catalog) if differences else {}
    if session.json:
        found = [difference.to_dict() for difference in differences]
        for entry in found if labels else ():
            entry["layer"] = labels.get(entry["name"])
        session.emit({"equal": not found, "differences": found})
    elif differences:
        first, *more = (*COLUMNS, *MEASURES) if values else COLUMNS
        columns = (first, LAYER, *more) if labels else (first, *more)
        rows = (_cells(difference, labels, values=values) for difference in differences)
        write_table(columns, rows)
        session.say(counted(len(differences), "difference"))
    else:
        session.say("no differences")
    return 1 if differences else 0


def _labels(catalog: Catalog) -> dict[str, str]:
    """Return what layers call their weights, where a checkpoint says."""
    labels = catalog.labels
    return {name: label for name, label in zip(catalog.names, labels, strict=True) if label}


def _cells(difference: Difference, labels: Mapping[str, str], *, values: bool) -> tuple[str, ...]:
    name = difference.name
    kind = _KINDS.get(difference.kind, difference.kind)
    names = (name, labels.get(name, "")) if labels else (name,)
    cells = (*names, kind, difference.a or "", difference.b or "")
    if not values:
        return cells
    count = "" if difference.count is None else f"{difference.count:,}"
    return (*cells, count, _number(difference.max_abs), _number(difference.max_rel))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
