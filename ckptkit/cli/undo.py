"""``ckptkit undo``: take back the latest edit in place that kept an undo."""

from __future__ import annotations

import click

from ckptkit.cli.session import Session, json_option, quiet_option


@click.command("undo", short_help="Take back an edit in place.")
@click.argument("path", type=click.Path())
@click.option("--discard", is_flag=True, help="Remove what is kept to undo edits, and undo none.")
@json_option
@quiet_option
@click.pass_obj
def command(session: Session, /, path: str, *, discard: bool) -> None:
    """Give every file of the checkpoint at PATH the bytes that it had before its latest edit.

    The edit was made in place, with --keep-undo, and is the latest one. Several are undone one by
    one.
    """
    import ckptkit

    if discard:
        removed = ckptkit.discard_undo(path)
        session.say("\n".join(f"removed {one}" for one in removed) or f"{path}: no undo is kept")
        if session.json:
            session.emit({"path": path, "removed": list(removed)})
        return
    undone = ckptkit.undo(path)
    session.say("\n  ".join([f"{undone.path}: undone", *undone.edits]))
    if session.json:
        session.emit(undone.to_dict())
