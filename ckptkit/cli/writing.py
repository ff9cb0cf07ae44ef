"""Writing a checkpoint from the command line: its options, and a plan that is shown and run."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from ckptkit.cli.session import json_option, quiet_option, reader_option
from ckptkit.sizes import human_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Executor
    from typing import TextIO

    from ckptkit.cli.session import Session
    from ckptkit.engine.plan import Plan, Report
    from ckptkit.placement import Layout
    from ckptkit.registry import Registration

Function = TypeVar("Function", bound="Callable[..., Any]")

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


_OPTIONS: Final = (
    click.option(
        "-e", "--edit", "edits", multiple=True, metavar="EDIT", help="An edit; repeatable."
    ),
    click.option(
        "-f",
        "--edits",
        "files",
        multiple=True,
        type=click.File(encoding="utf-8", errors="surrogateescape"),
        help="Edits from a file, one per line, before those of -e; - is standard input.",
    ),
    click.option("--dry-run", is_flag=True, help="Show the plan, to the byte, and write nothing."),
    click.option(
        "--resume",
        is_flag=True,
        help="Go on where an interrupted run stopped, and be resumable if interrupted.",
    ),
    click.option(
        "--shards", type=click.IntRange(1), help="Write this many shards of similar size."
    ),
    click.option(
        "--max-shard-size", type=size, metavar="SIZE", help="Write shards of at most this size."
    ),
    click.option(
        "--shard-rule",
        "rules",
        multiple=True,
        metavar="GLOB",
        help="One shard per rule; repeatable.",
    ),
    click.option(
        "--contiguous",
        is_flag=True,
        help="Keras: tensors that are stored in chunks or compressed become single runs of bytes.",
    ),
    click.option(
        "--repair-names",
        is_flag=True,
        help="Keras: layers get the names that shards or config.json have and their groups lack.",
    ),
    click.option(
        "--sync-config",
        is_flag=True,
        help="Keras: where shapes or dtypes of plain layers change, change config.json, too.",
    ),
    click.option(
        "--device",
        type=device_name,
        metavar="NAME",
        default="auto",
        help="auto, gpu, gpu:1, cpu or numpy.",
    ),
    click.option(
        "--with",
        "bound",
        multiple=True,
        metavar="NAME=PATH",
        help='Another checkpoint, which edits read as t("NAME:tensor"); repeatable.',
    ),
    click.option(
        "--allow-whole",
        is_flag=True,
        help="What has to see a whole tensor may take more than --memory.",
    ),
    click.option(
        "--strict",
        is_flag=True,
        help=(
            "Refuse what may differ in the last bits between devices; see `ckptkit help language`."
        ),
    ),
    click.option("--memory", type=size, metavar="SIZE", help="Staging memory; 256M by default."),
    click.option("--jobs", type=click.IntRange(1), help="Threads that do the work."),
    click.option(
        "--register",
        is_flag=True,
        help="TensorFlow: name DST as the latest in the state file (`checkpoint`) beside it.",
    ),
    reader_option,
    json_option,
    quiet_option,
)


def writing_options(function: Function) -> Function:
    """Add the options of every command that writes a checkpoint."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def perform(session: Session, plan: Plan, given: Mapping[str, Any]) -> dict[str, Any]:
    """Show a plan, and run it unless it is only to be shown; return what JSON says of that.

    Args:
        session: How to speak.
        plan: The plan.
        given: The options, by name.
    """
    if given["strict"]:
        plan.check_exact()
    if given["register"]:
        _check_registrable(plan)
    session.say(str(plan))
    report = None if given["dry_run"] else _run(session, plan, given)
    done = None
    if given["register"] and report is not None:
        done = _register(session, report.destination)
    if not session.json:
        return {}
    registration = {"registration": done.to_dict() if done else None} if given["register"] else {}
    return {"plan": plan.to_dict(), "report": report and report.to_dict(), **registration}


def _run(session: Session, plan: Plan, given: Mapping[str, Any]) -> Report:
    with session.bar("writing") as bar, _executor(given["jobs"]) as executor:
        limits = {} if given["memory"] is None else {"memory": given["memory"]}
        report = plan.run(
            given["device"],
            executor,
            bar,
            **limits,
            resume=given["resume"],
            allow_whole=given["allow_whole"],
        )
    session.say(_told(report))
    return report


def _check_registrable(plan: Plan) -> None:
    """Refuse to write what cannot be registered afterwards.

    Raises:
        click.UsageError: It is not what a state file names.
        CkptError: The state file is damaged, or cannot hold the name.
    """
    from ckptkit.registry import check_place, other_than_named

    if plan.target.in_place:
        msg = "--register is for a new destination; in place, the state file stays as it is"
        raise click.UsageError(msg)
    other = other_than_named(plan.format.name, plan.placement.folder)
    if other is not None:
        msg = f"--register: a state file names TensorFlow checkpoints, and DST becomes {other}"
        raise click.UsageError(msg)
    check_place(plan.placement.index.removesuffix(".index"))


def _register(session: Session, destination: str) -> Registration:
    from ckptkit.cli.register import lines
    from ckptkit.registry import register

    try:
        done = register(destination)
    except BaseException as error:
        error.add_note(f"it is written; to register it: ckptkit register {destination}")
        raise
    session.say("\n  ".join(lines(done)))
    return done


def statements(files: tuple[TextIO, ...], edits: tuple[str, ...]) -> Iterator[str]:
    """Yield edits, those from files first."""
    for file in files:
        for line in file:
            statement = line.strip()
            if statement and not statement.startswith("#"):
                yield statement
    yield from edits


def bound_to(given: tuple[str, ...]) -> dict[str, str]:
    """Read ``NAME=PATH``.

    Raises:
        click.UsageError: It is not that, or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or not name or not path or ":" in name:
            msg = f"--with {text!r}: expected NAME=PATH, such as donor=run2/model-1000"
            raise click.UsageError(msg)
        if name in found:
            msg = f"--with {name} is given twice"
            raise click.UsageError(msg)
        found[name] = path
    return found


def layout_of(given: Mapping[str, Any]) -> Layout:
    """Return how files are to be cut.

    Raises:
        click.UsageError: More than one way.
    """
    from ckptkit.placement import Layout

    shards, max_shard_size, rules = (given[key] for key in ("shards", "max_shard_size", "rules"))
    if (shards is not None) + (max_shard_size is not None) + bool(rules) > 1:
        msg = "choose one of --shards, --max-shard-size and --shard-rule"
        raise click.UsageError(msg)
    if max_shard_size is not None and max_shard_size < 1:
        msg = "--max-shard-size is above 0"
        raise click.UsageError(msg)
    return Layout(
        shards, max_shard_size, rules, contiguous=given["contiguous"], names=given["repair_names"]
    )


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
    parts = []
    if report.bytes_reused or report.how != "patch":
        parts.append(f"{human_size(report.bytes_reused)} carried over as they were")
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
