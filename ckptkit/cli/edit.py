"""``ckptkit edit``: statements of the edit language, from one checkpoint to another."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from ckptkit.cli.session import Session, json_option, quiet_option
from ckptkit.cli.text import human_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor
    from typing import TextIO

    from ckptkit.engine.plan import Report
    from ckptkit.placement import Layout

DEVICE: Final = re.compile(r"auto|numpy|(cpu|gpu)(:\d{1,4})?")
_SIZE: Final = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*(?:([kmgtp])(?:i?b)?|b)?", re.IGNORECASE)


def size(text: str) -> int:
    """Read a number of bytes, such as ``1048576``, ``256M`` or ``1GiB``; K is always 1024.

    Raises:
        click.BadParameter: It is none.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        msg = f"{text!r} is no size; write bytes, 256M or 1GiB"
        raise click.BadParameter(msg)
    power = "kmgtp".index(found[2].lower()) + 1 if found[2] else 0
    return int(float(found[1]) * 1024**power) if "." in found[1] else int(found[1]) * 1024**power


def device_name(text: str) -> str:
    """Check the name of a device.

    Raises:
        click.BadParameter: There is none of that name.
    """
    if DEVICE.fullmatch(text) is None:
        msg = f"{text!r} is none of auto, numpy, cpu, gpu, gpu:1 and so on"
        raise click.BadParameter(msg)
    return text


@click.command("edit", short_help="Edit a checkpoint into a new one.")
@click.argument("src", type=click.Path())
@click.argument("dst", type=click.Path(), required=False)
@click.option("-e", "--edit", "edits", multiple=True, metavar="EDIT", help="An edit; repeatable.")
@click.option(
    "-f",
    "--edits",
    "files",
    multiple=True,
    type=click.File(encoding="utf-8", errors="surrogateescape"),
    help="Edits from a file, one per line, before those of -e; - is standard input.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan, to the byte, and write nothing.")
@click.option(
    "--how", type=click.Choice(["auto", "copy"]), default="auto", help="The way of writing."
)
@click.option("--shards", type=click.IntRange(1), help="Write this many shards of similar size.")
@click.option(
    "--max-shard-size", type=size, metavar="SIZE", help="Write shards of at most this size."
)
@click.option(
    "--shard-rule", "rules", multiple=True, metavar="GLOB", help="One shard per rule; repeatable."
)
@click.option(
    "--device",
    type=device_name,
    metavar="NAME",
    default="auto",
    help="auto, gpu, gpu:1, cpu or numpy.",
)
@click.option("--memory", type=size, metavar="SIZE", help="Staging memory; 256M by default.")
@click.option("--jobs", type=click.IntRange(1), help="Threads that do the work.")
@json_option
@quiet_option
@click.pass_obj
def command(
    session: Session,
    /,
    src: str,
    dst: str | None,
    *,
    edits: tuple[str, ...],
    files: tuple[TextIO, ...],
    dry_run: bool,
    how: str,
    shards: int | None,
    max_shard_size: int | None,
    rules: tuple[str, ...],
    **running: Any,
) -> None:
    """Edit the checkpoint SRC and write the result to DST, which must not exist yet.

    An EDIT is one statement, such as "dense/kernel[:, 1] *= 1.5", "rename ^old/ -> new/" or
    "drop **/Adam*"; see `ckptkit help language`. They are applied in order. Nothing appears at DST
    until all of it is written.
    """
    import ckptkit

    destination = _new(dst)
    statements = [*_lines(files), *edits]
    layout = _layout(shards, max_shard_size, rules)
    if not statements and layout == ckptkit.Layout():
        msg = "nothing to do: give an edit with -e, or a way to cut shards"
        raise click.UsageError(msg)
    with ckptkit.open(src) as checkpoint:
        plan = checkpoint.edit(*statements).plan(destination, how, layout)
        session.say(str(plan))
        report = None
        if not dry_run:
            with session.bar("writing") as bar, _executor(running["jobs"]) as executor:
                limits = {} if running["memory"] is None else {"memory": running["memory"]}
                report = plan.run(running["device"], executor, bar, **limits)
            session.say(_told(report))
    if session.json:
        session.emit({"plan": plan.to_dict(), "report": report.to_dict() if report else None})


def _new(dst: str | None) -> str:
    if dst is None:
        msg = "editing in place is not available yet: give a destination, as in SRC DST"
        raise click.UsageError(msg)
    if not dst or os.path.isdir(dst):
        # A path that ends in a slash would name files beside the folder, not in it.
        name = os.path.join(dst, "model")
        msg = f"{dst!r} is a folder: the destination is a path that is not there yet, as {name!r}"
        raise click.UsageError(msg)
    return dst


def _lines(files: tuple[TextIO, ...]) -> Iterator[str]:
    for file in files:
        for line in file:
            statement = line.strip()
            if statement and not statement.startswith("#"):
                yield statement


def _layout(shards: int | None, max_shard_size: int | None, rules: tuple[str, ...]) -> Layout:
    from ckptkit.placement import Layout

    if (shards is not None) + (max_shard_size is not None) + bool(rules) > 1:
        msg = "choose one of --shards, --max-shard-size and --shard-rule"
        raise click.UsageError(msg)
    if max_shard_size is not None and max_shard_size < 1:
        msg = "--max-shard-size is above 0"
        raise click.UsageError(msg)
    return Layout(shards, max_shard_size, rules)


@contextmanager
def _executor(jobs: int | None) -> Iterator[Executor | None]:
    """Offer as many threads as were asked for; None leaves the choice to the engine."""
    if jobs is None:
        yield None
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(jobs, thread_name_prefix="ckptkit-job") as pool:
        yield pool


def _told(report: Report) -> str:
    device = f", computed on {report.device}" if report.device else ""
    return (
        f"wrote {human_size(report.bytes_written)} to {report.destination}"
        f" in {report.seconds:.2f} s ({human_size(report.bytes_reused)} carried over as they were,"
        f" {human_size(report.bytes_read)} read{device})"
    )
