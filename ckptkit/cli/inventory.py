"""``ckptkit ls --all``: the checkpoints of a folder, rather than the tensors of one."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from ckptkit.cli.text import Column, printable, write_table
from ckptkit.sizes import counted, human_size

if TYPE_CHECKING:
    from ckptkit.cli.session import Session
    from ckptkit.folder import Found

COLUMNS: Final = (
    Column("checkpoint"),
    Column("format"),
    Column("tensors", right=True),
    Column("size", right=True),
    Column("registered"),
    Column("remarks"),
)


def list_folder(session: Session, folder: str) -> None:
    """Print the checkpoints of a folder.

    Raises:
        click.UsageError: It is none.
    """
    from ckptkit.folder import checkpoints

    if not os.path.isdir(folder):
        msg = f"--all is for a folder of checkpoints, and {folder!r} is none"
        raise click.UsageError(msg)
    found = checkpoints(folder)
    latest = next((one.path for one in found if one.latest), None)
    if session.json:
        listed = [one.to_dict() for one in found]
        session.emit({"folder": folder, "latest": latest, "checkpoints": listed})
        return
    write_table(COLUMNS, (_cells(folder, one) for one in found))
    damaged = sum(one.error is not None for one in found)
    told = counted(len(found) - damaged, "checkpoint")
    if damaged:
        told += f", {damaged:,} {'does' if damaged == 1 else 'do'} not open"
    state = f"the latest is {latest}" if latest else "no state file says which is the latest"
    click.echo(printable(f"{told}; {state}"))


def _cells(folder: str, one: Found) -> tuple[str, ...]:
    head = os.path.join(folder, "")
    name = one.path.removeprefix(head)
    remarks = [*(["latest"] if one.latest else []), *([one.error] if one.error else [])]
    return (
        name,
        one.format or "",
        "" if one.tensors is None else f"{one.tensors:,}",
        "" if one.nbytes is None else human_size(one.nbytes),
        _registered(one),
        "; ".join(remarks),
    )


def _registered(one: Found) -> str:
    if one.timestamp is None:
        return "yes" if one.registered else ""
    try:
        moment = datetime.fromtimestamp(one.timestamp, UTC)
    except (ValueError, OverflowError, OSError):
        return repr(one.timestamp)
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")
