"""How a command ends that could not do what it was asked: one line, and an exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from ckptkit.cli.interrupt import Interrupted
from ckptkit.cli.text import printable
from ckptkit.errors import CkptError

if TYPE_CHECKING:
    from ckptkit.cli.session import Session

USAGE: Final = 2
OPERATING_SYSTEM: Final = 6
BUG: Final = 70
PIPE_CLOSED: Final = 141
"""What a shell reports for a program that a closed pipe ended."""


def report(error: BaseException, session: Session) -> int:
    """Say what went wrong, on standard error and, where asked for, as JSON.

    Returns:
        The exit code.
    """
    message, code = _explain(error)
    notes: list[str] = getattr(error, "__notes__", [])
    if session.traceback:
        import traceback

        _complain("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        _complain(error.ctx.get_usage())
    # No line of a message, which may quote a name, can pass for one of ours.
    _complain("ckptkit: error: " + "\n".join([message, *notes]).replace("\n", "\n  "))
    if session.json:
        session.emit({"error": _as_dict(error, message)})
    sys.stdout.flush()
    return code


def _complain(text: str) -> None:
    click.echo(printable(text, keep="\n"), err=True)


def _explain(error: BaseException) -> tuple[str, int]:
    if isinstance(error, CkptError):
        return str(error), error.exit_code
    if isinstance(error, Interrupted):
        return str(error), error.exit_code
    if isinstance(error, click.ClickException):
        return error.format_message(), USAGE
    if isinstance(error, OSError):
        return _explain_os(error), OPERATING_SYSTEM
    if isinstance(error, MemoryError):
        return f"out of memory{_detail(error)}", OPERATING_SYSTEM
    what = f"{type(error).__name__}{_detail(error)}"
    return f"this is a bug in ckptkit: {what} (--traceback shows where)", BUG


def _explain_os(error: OSError) -> str:
    if error.strerror is None:
        return str(error) or type(error).__name__
    paths = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return ": ".join([" -> ".join(paths), error.strerror] if paths else [error.strerror])


def _detail(error: BaseException) -> str:
    return f": {error}" if str(error) else ""


def _as_dict(error: BaseException, message: str) -> dict[str, object]:
    path = getattr(error, "path", None) or getattr(error, "filename", None)
    return {
        "kind": type(error).__name__,
        "message": getattr(error, "message", None) or message,
        "path": None if path is None else str(path),
        "tensor": getattr(error, "tensor", None),
        "offset": getattr(error, "offset", None),
    }
