"""``ckptkit register``: the state file of a folder, which says what checkpoint is the latest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckptkit.cli.session import Session, json_option, quiet_option
from ckptkit.cli.text import printable

if TYPE_CHECKING:
    from ckptkit.registry import Change, Registration


@click.command("register", short_help="Enter checkpoints in the state file of their folder.")
@click.argument("paths", metavar="PREFIX...|DIR...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--repair",
    is_flag=True,
    help="Have the state file of each DIR, which was moved, name what lies in it.",
)
@click.option(
    "--prune", is_flag=True, help="With --repair: leave out entries whose checkpoint is gone."
)
@click.option("--dry-run", is_flag=True, help="Say what would change, and write nothing.")
@json_option
@quiet_option
@click.pass_obj
def command(
    session: Session, /, paths: tuple[str, ...], *, repair: bool, prune: bool, dry_run: bool
) -> None:
    """Enter the TensorFlow checkpoint at each PREFIX in the state file beside it.

    The last one becomes the latest of its folder, which is what tf.train.latest_checkpoint returns.
    They are of one folder. The state file is called "checkpoint", and is made if it is missing.
    """
    import ckptkit

    if prune and not repair:
        msg = "--prune goes with --repair"
        raise click.UsageError(msg)
    if repair:
        done = [ckptkit.repair_state(path, prune=prune, dry_run=dry_run) for path in paths]
    else:
        done = [ckptkit.register(*paths, dry_run=dry_run)]
    for registration in done:
        session.say("\n  ".join(lines(registration, dry_run=dry_run)))
    if session.json:
        session.emit({"dry_run": dry_run, "registrations": [one.to_dict() for one in done]})


def lines(done: Registration, *, dry_run: bool = False) -> list[str]:
    """Say what became of a state file."""
    state = "as it was" if not done.written else "would be written" if dry_run else "written"
    told = [
        f"{done.path}: {state}, the latest is {done.latest}",
        *(_told(change) for change in done.changes if change.what != "latest"),
    ]
    # A path from a file may hold what looks like a line of ours.
    return [printable(line) for line in told]


def _told(change: Change) -> str:
    return {
        "relative": f"{change.path} is {change.now}",
        "twice": f"{change.path} was there twice",
        "gone": f"{change.path} is not there, and stays in the list (--prune leaves it out)",
        "left out": f"{change.path} is not there, and is left out",
        "unknown": f"TensorFlow knows no field {change.path}, and ignores a state file with one",
    }[change.what]
