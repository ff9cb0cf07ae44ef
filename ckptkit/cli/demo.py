"""``ckptkit demo``: the three jobs, shown."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import TYPE_CHECKING

import click

from ckptkit.cli.session import Session, json_option
from ckptkit.errors import EditError
from ckptkit.sizes import human_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptkit.demo import Outcome


@click.command("demo", short_help="Edit a TensorFlow model three times.")
@click.option("--keep", metavar="DIR", type=click.Path(), help="Leave the files in this folder.")
@json_option
@click.pass_obj
def command(session: Session, /, keep: str | None) -> int:
    """Edit a small TensorFlow model three times, and check what it predicts.

    A convolutional network is saved with TensorFlow, edited here without it, restored with it, and
    compared with a network that was changed in memory. Exits 1 if a prediction differs.
    """
    from ckptkit import demo

    with _folder(keep) as folder:
        session.say("TensorFlow saves a small convolutional network ...")
        prefix = demo.make(folder)
        _list(session, prefix)
        outcomes = []
        for outcome in demo.run(prefix, folder):
            outcomes.append(outcome)
            _say(session, outcome)
    passed = all(outcome.equal for outcome in outcomes)
    if session.json:
        results = [outcome.to_dict() for outcome in outcomes]
        session.emit({"ok": passed, "checkpoint": prefix, "kept": bool(keep), "jobs": results})
    session.say("\nall predictions agree, bit for bit" if passed else "\nPREDICTIONS DIFFER")
    if keep:
        session.say(f"the files are in {folder}")
    return 0 if passed else 1


@contextlib.contextmanager
def _folder(keep: str | None) -> Iterator[str]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="ckptkit-demo-") as folder:
            yield folder
        return
    if os.path.isdir(keep) and os.listdir(keep):
        msg = "this folder is not empty; choose another one"
        raise EditError(msg, path=keep)
    os.makedirs(keep, exist_ok=True)
    yield os.path.abspath(keep)


def _list(session: Session, prefix: str) -> None:
    import ckptkit

    session.say(f"$ ckptkit ls {prefix}")
    with ckptkit.open(prefix) as checkpoint:
        for name, spec in checkpoint.specs():
            session.say(f"  {name}  {spec}")
    session.say("  The names are long; a glob such as **/dense/** saves writing them.")


def _say(session: Session, outcome: Outcome) -> None:
    report = outcome.report
    verdict = "equal bits" if outcome.equal else f"max abs difference {outcome.difference:.3g}"
    session.say(f"\n{outcome.job.title}")
    session.say(f"$ {outcome.command}")
    session.say(
        f"  read {human_size(report.bytes_read)},"
        f" wrote {human_size(report.bytes_written)},"
        f" of which {human_size(report.bytes_reused)} as they were, in {report.seconds:.3f} s"
    )
    session.say(
        f"  TensorFlow restores it; predictions move by up to {outcome.moved:.3g};"
        f" next to a model edited in memory: {verdict}"
    )
