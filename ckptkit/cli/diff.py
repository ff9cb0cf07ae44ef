"""``ckptkit diff``: what two checkpoints do not have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from ckptkit.cli.session import Session, json_option
from ckptkit.cli.text import Column, counted, write_table

if TYPE_CHECKING:
    from ckptkit.engine.check import Difference

COLUMNS: Final = (Column("name"), Column("difference"), Column("in A"), Column("in B"))
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
@json_option
@click.pass_obj
def command(session: Session, /, a: str, b: str, *, values: bool) -> int:
    """Compare the checkpoints A and B: names, dtypes, shapes and values.

    Values are compared by checksum where that can tell. Exits 1 when they differ.
    """
    import ckptkit

    with session.bar("comparing") as bar:
        differences = ckptkit.diff(a, b, values=values, progress=bar)
    if session.json:
        found = [difference.to_dict() for difference in differences]
        session.emit({"equal": not found, "differences": found})
    elif differences:
        columns = (*COLUMNS, *MEASURES) if values else COLUMNS
        write_table(columns, (_cells(difference, values=values) for difference in differences))
        session.say(counted(len(differences), "difference"))
    else:
        session.say("no differences")
    return 1 if differences else 0


def _cells(difference: Difference, *, values: bool) -> tuple[str, ...]:
    kind = _KINDS.get(difference.kind, difference.kind)
    cells = (difference.name, kind, difference.a or "", difference.b or "")
    if not values:
        return cells
    count = "" if difference.count is None else f"{difference.count:,}"
    return (*cells, count, _number(difference.max_abs), _number(difference.max_rel))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
