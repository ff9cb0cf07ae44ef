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


@click.command("edit", short_help="Edit a checkpoint, into a new one or in place.")
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
@click.option("--in-place", is_flag=True, help="Edit SRC where it is; there is no DST.")
@click.option(
    "--how",
    type=click.Choice(["auto", "copy", "link", "append", "patch"]),
    default="auto",
    help="The way of writing; see `ckptkit help writing`.",
)
@click.option("--compact", is_flag=True, help="In place, all files anew: dead bytes are left out.")
@click.option(
    "--keep-undo", is_flag=True, help="In place: keep what `ckptkit undo` needs to take it back."
)
@click.option(
    "--break-links",
    is_flag=True,
    help="In place: give SRC files of its own where it shares some with another checkpoint.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on where an interrupted run stopped, and be resumable if interrupted.",
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
@click.option(
    "--with",
    "bound",
    multiple=True,
    metavar="NAME=PATH",
    help='Another checkpoint, which edits read as t("NAME:tensor"); repeatable.',
)
@click.option(
    "--allow-whole",
    is_flag=True,
    help="What has to see a whole tensor may take more than --memory.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Refuse what may differ in the last bits between devices; see `ckptkit help language`.",
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
    in_place: bool,
    how: str,
    compact: bool,
    keep_undo: bool,
    break_links: bool,
    resume: bool,
    shards: int | None,
    max_shard_size: int | None,
    rules: tuple[str, ...],
    bound: tuple[str, ...],
    **running: Any,
) -> None:
    """Edit the checkpoint SRC: into DST, which must not exist yet, or --in-place.

    An EDIT is one statement, such as "dense/kernel[:, 1] *= 1.5", "rename ^old/ -> new/" or
    "drop **/Adam*"; see `ckptkit help language`. They are applied in order. Nothing appears at DST
    until all of it is written; in place, a crash at any moment leaves what `ckptkit recover`
    brings to the state before the edit or after it.
    """
    import ckptkit

    destination = _destination(dst, in_place=in_place or compact)
    statements = [*_lines(files), *edits]
    layout = _layout(shards, max_shard_size, rules)
    if not statements and layout == ckptkit.Layout() and not compact:
        msg = "nothing to do: give an edit with -e, or a way to cut shards"
        raise click.UsageError(msg)
    _check_flags(destination, how, compact=compact, keep_undo=keep_undo, resume=resume)
    with ckptkit.open(src) as checkpoint:
        plan = checkpoint.edit(*statements, others=_bound(bound)).plan(
            destination,
            "copy" if compact else how,
            layout,
            keep_undo=keep_undo,
            break_links=break_links,
        )
        if running["strict"]:
            plan.check_exact()
        session.say(str(plan))
        report = None
        if not dry_run:
            with session.bar("writing") as bar, _executor(running["jobs"]) as executor:
                limits = {} if running["memory"] is None else {"memory": running["memory"]}
                report = plan.run(
                    running["device"],
                    executor,
                    bar,
                    **limits,
                    resume=resume,
                    allow_whole=running["allow_whole"],
                )
            session.say(_told(report))
    if session.json:
        session.emit({"plan": plan.to_dict(), "report": report.to_dict() if report else None})


def _bound(given: tuple[str, ...]) -> dict[str, str]:
    """Read ``NAME=PATH``.

    Raises:
        click.UsageError: It is not that, or a name is given twice.
    """
    bound: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or not name or not path or ":" in name:
            msg = f"--with {text!r}: expected NAME=PATH, such as donor=run2/model-1000"
            raise click.UsageError(msg)
        if name in bound:
            msg = f"--with {name} is given twice"
            raise click.UsageError(msg)
        bound[name] = path
    return bound


def _destination(dst: str | None, *, in_place: bool) -> str | None:
    if in_place:
        if dst is not None:
            msg = "an edit in place has no destination: give SRC alone, or leave the flag out"
            raise click.UsageError(msg)
        return None
    if dst is None:
        msg = "give a destination, as in SRC DST, or edit SRC where it is with --in-place"
        raise click.UsageError(msg)
    if not dst or os.path.isdir(dst):
        # A path that ends in a slash would name files beside the folder, not in it.
        name = os.path.join(dst, "model")
        msg = f"{dst!r} is a folder: the destination is a path that is not there yet, as {name!r}"
        raise click.UsageError(msg)
    return dst


def _check_flags(
    destination: str | None, how: str, *, compact: bool, keep_undo: bool, resume: bool
) -> None:
    """Refuse flags that contradict one another."""
    if compact and how not in {"auto", "copy"}:
        msg = f"--compact writes all files anew; it does not go with --how {how}"
        raise click.UsageError(msg)
    if compact and keep_undo:
        msg = "--compact cannot be undone: it does not go with --keep-undo"
        raise click.UsageError(msg)
    if resume and destination is None:
        msg = "--resume is for a new destination; in place it is `ckptkit recover`"
        raise click.UsageError(msg)
    if destination is not None and how in {"append", "patch"}:
        msg = f"--how {how} is for an edit in place: --in-place instead of a destination"
        raise click.UsageError(msg)
    if destination is None and how == "link":
        msg = "--how link is for a new place: give a destination"
        raise click.UsageError(msg)


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
    parts = [f"{human_size(report.bytes_reused)} carried over as they were"]
    if report.bytes_resumed:
        parts.append(f"{human_size(report.bytes_resumed)} were there from before")
    if report.bytes_journal:
        parts.append(f"{human_size(report.bytes_journal)} journalled")
    parts.append(f"{human_size(report.bytes_read)} read")
    if report.device:
        parts.append(f"computed on {report.device}")
    return (
        f"{report.how}: wrote {human_size(report.bytes_written)} to {report.destination}"
        f" in {report.seconds:.2f} s ({', '.join(parts)})"
    )
