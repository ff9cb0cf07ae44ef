"""What every command shares: how to speak (JSON or text), and the options that say so."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ckptkit.cli.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from ckptkit.cli.progress import Bar

Function = TypeVar("Function", bound="Callable[..., Any]")


@dataclass(slots=True)
class Session:
    """How one run of the program speaks.

    Attributes:
        json: One JSON object on standard output, and nothing else there.
        traceback: Show where an error comes from.
        quiet: No plan, no report, no progress.
    """

    json: bool = False
    traceback: bool = False
    quiet: bool = False

    def say(self, text: str) -> None:
        """Print lines for people, unless they asked for silence or for JSON."""
        if not (self.json or self.quiet):
            click.echo(printable(text, keep="\n"))

    def emit(self, result: object) -> None:
        """Print the one JSON object."""
        from ckptkit.cli.jsontext import dumps

        click.echo(dumps(result))

    def bar(self, what: str) -> Bar:
        """Return a progress bar, which shows itself only on a terminal and for long work."""
        from ckptkit.cli.progress import Bar

        return Bar(what, enabled=not (self.json or self.quiet) and sys.stderr.isatty())


def _flag(name: str) -> Callable[[click.Context, click.Parameter, bool], bool]:
    def note(ctx: click.Context, _: click.Parameter, value: bool) -> bool:  # noqa: FBT001  click's
        if value:
            setattr(ctx.ensure_object(Session), name, True)
        return value

    return note


def traceback_option(function: Function) -> Function:
    """Add ``--traceback``, which stands before or after the command."""
    return click.option(
        "--traceback",
        is_flag=True,
        expose_value=False,
        callback=_flag("traceback"),
        help="Show where in the program an error comes from.",
    )(function)


def json_option(function: Function) -> Function:
    """Add ``--json``, and ``--traceback`` with it: every command that reads files has both."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_flag("json"),
        help="Print one JSON object.",
    )(traceback_option(function))


def quiet_option(function: Function) -> Function:
    """Add ``--quiet``."""
    return click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_flag("quiet"),
        help="Print nothing but errors.",
    )(function)


def reader_option(function: Function) -> Function:
    """Add ``--reader``, which says who reads a checkpoint."""
    return click.option(
        "--reader",
        type=click.Choice(["tensorflow"]),
        help="Have TensorFlow's own reader read it, from any file system that it knows.",
    )(function)
