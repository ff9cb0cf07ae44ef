"""``ckptkit verify``: read everything once and compare it with its checksums."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ckptkit.cli.session import Session, json_option, quiet_option
from ckptkit.sizes import counted, human_size

if TYPE_CHECKING:
    from ckptkit.engine.check import Verdict


@click.command("verify", short_help="Check structure and checksums.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--against",
    type=click.Choice(["tensorflow"]),
    help="Read it with TensorFlow's own reader as well, and compare every bit.",
)
@json_option
@quiet_option
@click.pass_obj
def command(session: Session, /, paths: tuple[str, ...], *, against: str | None) -> int:
    """Check the structure and every checksum of the checkpoint at each PATH.

    Where a manifest lies beside it, as ckptkit manifest makes one, that is compared as well. With
    --against tensorflow so is what TensorFlow reads: names, dtypes, shapes, and every bit. It runs
    in a process of its own, which a hostile file may crash.

    Exits 1 when something is wrong; warnings alone are no failure.
    """
    from ckptkit.engine.check import verify_path

    verdicts = []
    compared: list[dict[str, Any]] = []
    for path in paths:
        with session.bar("verifying") as bar:
            verdict = verify_path(path, progress=bar)
        if against is not None:
            verdict = _against(session, path, verdict, compared)
        verdicts.append(verdict)
        tell(session, path, verdict)
    passed = all(verdict.ok for verdict in verdicts)
    if session.json:
        problems = [problem.to_dict() for verdict in verdicts for problem in verdict.problems]
        checked = sum(verdict.checked_bytes for verdict in verdicts)
        notes = [
            {"path": path, "message": note}
            for path, verdict in zip(paths, verdicts, strict=True)
            for note in verdict.notes
        ]
        result = {"ok": passed, "checked_bytes": checked, "problems": problems, "notes": notes}
        session.emit(result | ({} if against is None else {"against": compared}))
    return 0 if passed else 1


def _against(
    session: Session, path: str, verdict: Verdict, compared: list[dict[str, Any]]
) -> Verdict:
    """Return a verdict with what TensorFlow's reader says."""
    from ckptkit.engine.against import compare_readers

    with session.bar("comparing with TensorFlow") as bar:
        found = compare_readers(path, bar)
    compared.append({"path": path, **found.to_dict()})
    notes = [*verdict.notes, *found.notes]
    if found.tensors:
        notes.append(f"{counted(found.tensors, 'tensor')} read by TensorFlow as well")
    return replace(
        verdict,
        ok=verdict.ok and found.ok,
        problems=(*verdict.problems, *found.problems),
        notes=tuple(notes),
    )


def tell(session: Session, path: str, verdict: Verdict) -> None:
    """Print what verifying a checkpoint found."""
    for problem in verdict.problems:
        session.say(f"{problem.severity}: {problem}")
    for note in verdict.notes:
        session.say(f"{path}: {note}")
    noun = "warning" if verdict.ok else "problem"
    found = counted(len(verdict.problems), noun) if verdict.problems else "no problems"
    state = "ok" if verdict.ok else "FAILED"
    nbytes = verdict.checked_bytes
    checked = f"{human_size(nbytes)} checked" if nbytes else "structure checked"
    session.say(f"{path}: {state}, {checked}, {found}")
