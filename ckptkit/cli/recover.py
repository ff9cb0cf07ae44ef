"""``ckptkit recover``: after an interruption, to the state before an edit or after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from ckptkit.cli.session import Session, json_option, quiet_option
from ckptkit.cli.writing import size
from ckptkit.sizes import counted

if TYPE_CHECKING:
    from ckptkit.engine.recover import Recovery

_STATES: Final = {
    "nothing": "nothing to recover",
    "back": "is as it was before the edit that was cut short",
    "forward": "is as it is after the edit that was cut short",
}


@click.command("recover", short_help="Finish or take back an edit that was cut short.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@click.option("--memory", type=size, metavar="SIZE", help="Staging memory; 256M by default.")
@json_option
@quiet_option
@click.pass_obj
def command(session: Session, /, paths: tuple[str, ...], *, memory: int | None) -> None:
    """Bring the checkpoint at each PATH to the state before or after an edit that was cut short.

    It may be interrupted, and started again. What interrupted copies to PATH left is removed.
    """
    import ckptkit

    done = []
    for path in paths:
        with session.bar("recovering") as bar:
            done.append(ckptkit.recover(path, memory=memory, progress=bar))
        session.say(_told(done[-1]))
    if session.json:
        session.emit({"recovered": [recovery.to_dict() for recovery in done]})


def _told(recovery: Recovery) -> str:
    lines = [f"{recovery.path}: {_STATES[recovery.state]}", *recovery.edits]
    if recovery.removed:
        lines.append(f"removed {counted(len(recovery.removed), 'folder')} of interrupted copies")
    return "\n  ".join(lines)
