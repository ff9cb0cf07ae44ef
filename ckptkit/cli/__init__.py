"""The command line: parse, call the library, render; nothing else.

Every command is a module of its own that is imported when it is asked for, and no module here
imports NumPy, rich or TensorFlow before a command needs them: a listing has to feel immediate.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

import click

from ckptkit import __version__
from ckptkit.cli.failure import PIPE_CLOSED, report
from ckptkit.cli.interrupt import interruptible
from ckptkit.cli.session import Session, traceback_option

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS: Final = (
    "ls",
    "show",
    "verify",
    "manifest",
    "diff",
    "edit",
    "convert",
    "register",
    "recover",
    "salvage",
    "undo",
    "demo",
    "help",
    "completion",
)
"""The commands, each a module of that name that holds one called ``command``."""

COMPLETE: Final = "_CKPTKIT_COMPLETE"
"""Set by the shell that asks how a line could go on."""


class _Commands(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Return the names, in the order that a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = import_module(f"ckptkit.cli.{cmd_name}").command
        return found


@click.group(
    "ckptkit",
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "Exit codes: 0 done, 1 differs or fails verification, 2 usage, 3 corrupt or unknown format,"
        " 4 edit refused, 5 conflict or recovery needed, 6 operating system, 70 a bug in ckptkit,"
        " 130 interrupted, 143 terminated."
    ),
)
@click.version_option(__version__, prog_name="ckptkit")
@traceback_option
def program() -> None:
    """Open, verify, edit and rewrite TensorFlow and Keras checkpoints without the model."""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        args: The arguments after the name of the program; those of this process by default.
    """
    given = list(sys.argv[1:] if args is None else args)
    # Click has parsed nothing yet when it finds a command line wrong, so this looks for itself.
    session = Session(json="--json" in given, traceback="--traceback" in given)
    _never_fail_to_encode()
    try:
        with interruptible():
            code = _run(given, session)
            sys.stdout.flush()
    except BrokenPipeError:
        return _closed_pipe()
    except SystemExit:  # completion is done
        raise
    except BaseException as error:  # noqa: BLE001  the last resort
        try:
            return report(error, session)
        except BrokenPipeError:
            return _closed_pipe()
    return code


def _run(args: list[str], session: Session) -> int:
    """Run a command without :meth:`click.Command.main`, which ends in exit codes of its own."""
    if COMPLETE in os.environ:
        program.main(args, prog_name="ckptkit", complete_var=COMPLETE)
    try:
        with program.make_context("ckptkit", args or ["--help"], obj=session) as context:
            code = program.invoke(context)
    except click.exceptions.Exit as done:
        code = done.exit_code
    return code if isinstance(code, int) else 0


def _never_fail_to_encode() -> None:
    """Let output escape what the terminal's encoding lacks, rather than end in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _closed_pipe() -> int:
    """Let whoever stopped reading, as ``head`` does, go in peace."""
    # What is still in the buffer would fail once more when the interpreter flushes it.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return PIPE_CLOSED
