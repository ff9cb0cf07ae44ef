"""``ckptkit verify``: read everything once and compare it with its checksums."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckptkit.cli.session import Session, json_option, quiet_option
from ckptkit.cli.text import counted
from ckptkit.sizes import human_size

if TYPE_CHECKING:
    from ckptkit.engine.check import Verdict


@click.command("verify", short_help="Check structure and checksums.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@json_option
@quiet_option
@click.pass_obj
def command(session: Session, /, paths: tuple[str, ...]) -> int:
    """Check the structure and every checksum of the checkpoint at each PATH.

    Where a manifest lies beside it, as ckptkit manifest makes one, that is compared as well.

    Exits 1 when something is wrong; warnings alone are no failure.
    """
    from ckptkit.engine.check import verify_path

    verdicts = []
    for path in paths:
        with session.bar("verifying") as bar:
            verdict = verify_path(path, progress=bar)
        verdicts.append(verdict)
        _say(session, path, verdict)
    passed = all(verdict.ok for verdict in verdicts)
    if session.json:
        problems = [problem.to_dict() for verdict in verdicts for problem in verdict.problems]
        checked = sum(verdict.checked_bytes for verdict in verdicts)
        notes = [
            {"path": path, "message": note}
            for path, verdict in zip(paths, verdicts, strict=True)
            for note in verdict.notes
        ]
        session.emit({"ok": passed, "checked_bytes": checked, "problems": problems, "notes": notes})
    return 0 if passed else 1


def _say(session: Session, path: str, verdict: Verdict) -> None:
    for problem in verdict.problems:
        place = [problem.path]
        if problem.tensor is not None:
            place.append(f"tensor {problem.tensor!r}")
        if problem.offset is not None:
            place.append(f"at byte {problem.offset}")
        session.say(": ".join([problem.severity, *place, problem.message]))
    for note in verdict.notes:
        session.say(f"{path}: {note}")
    noun = "warning" if verdict.ok else "problem"
    found = counted(len(verdict.problems), noun) if verdict.problems else "no problems"
    state = "ok" if verdict.ok else "FAILED"
    nbytes = verdict.checked_bytes
    checked = f"{human_size(nbytes)} checked" if nbytes else "structure checked"
    session.say(f"{path}: {state}, {checked}, {found}")
