"""``ckptkit edit``: statements of the edit language, from one checkpoint to another."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from ckptkit.cli.verify import tell
from ckptkit.cli.writing import bound_to, layout_of, perform, statements, writing_options

if TYPE_CHECKING:
    from ckptkit.cli.session import Session


@click.command("edit", short_help="Edit a checkpoint, into a new one or in place.")
@click.argument("src", type=click.Path())
@click.argument("dst", type=click.Path(), required=False)
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
@writing_options
@click.pass_obj
def command(
    session: Session,
    /,
    src: str,
    dst: str | None,
    *,
    in_place: bool,
    how: str,
    compact: bool,
    keep_undo: bool,
    break_links: bool,
    **given: Any,
) -> None:
    """Edit the checkpoint SRC: into DST, which must not exist yet, or --in-place.

    An EDIT is one statement, such as "dense/kernel[:, 1] *= 1.5", "rename ^old/ -> new/" or
    "drop **/Adam*"; see `ckptkit help language`. They are applied in order. Nothing appears at DST
    until all of it is written; in place, a crash at any moment leaves what `ckptkit recover`
    brings to the state before the edit or after it.

    Without an EDIT, and without another way to cut shards, the copy protects who reads DST: SRC is
    verified first, and refused where it is damaged; of what verifying warns about, DST has nothing.
    """
    import ckptkit

    destination = _destination(dst, in_place=in_place or compact)
    edits = [*statements(given["files"], given["edits"])]
    layout = layout_of(given)
    plain = not edits and layout == ckptkit.Layout() and not compact
    if plain and how == "link":
        msg = "--how link shares the files of SRC: give an edit with -e, or make a copy without it"
        raise click.UsageError(msg)
    if plain and destination is None:
        msg = (
            "nothing to do: give an edit with -e, or a way to cut shards (to write the checkpoint"
            " as another kind of file: ckptkit convert)"
        )
        raise click.UsageError(msg)
    _check_flags(destination, how, compact=compact, keep_undo=keep_undo, resume=given["resume"])
    others = bound_to(given["bound"])
    verdict = None
    with ckptkit.open(src, given["reader"]) as checkpoint:
        if plain:
            with session.bar("verifying") as bar:
                draft, verdict = checkpoint.cleaned(bar)
            tell(session, src, verdict)
        else:
            draft = checkpoint.edit(*edits, others=others)
        plan = draft.plan(
            destination,
            "copy" if compact or plain else how,
            layout,
            keep_undo=keep_undo,
            break_links=break_links,
            sync_config=given["sync_config"],
        )
        result = perform(session, plan, given)
    if session.json:
        session.emit(result if verdict is None else {**result, "verified": verdict.to_dict()})


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
