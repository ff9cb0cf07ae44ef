"""``ckptkit convert``: a checkpoint as another kind of file, or in the form of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ckptkit.cli.writing import bound_to, layout_of, perform, statements, writing_options

if TYPE_CHECKING:
    from ckptkit.cli.session import Session


@click.command("convert", short_help="Write a checkpoint as another kind, or as another one is.")
@click.argument("src", type=click.Path())
@click.argument("dst", type=click.Path())
@click.option(
    "--match",
    "template",
    type=click.Path(),
    metavar="TEMPLATE",
    help="Another checkpoint: DST is as it is, with the values of SRC where they belong.",
)
@click.option(
    "--by",
    type=click.Choice(["name", "shape", "order"]),
    default="name",
    help="What --match goes by: names of layers and weights, their shapes, or their order.",
)
@writing_options
@click.pass_obj
def command(
    session: Session, /, src: str, dst: str, *, template: str | None, by: Any, **given: Any
) -> None:
    """Write the checkpoint SRC to DST, which must not exist yet.

    What DST is, is told by its name: X.weights.h5, or X.weights.json with shards of at most
    --max-shard-size. With --match, names, shapes and all else are those of TEMPLATE, and every
    tensor of it that has a partner in SRC gets its values: by name, so that a layer that was added
    or moved does not shift the others. What has none stays as it is in TEMPLATE, and is listed.
    Edits are applied to the result.
    """
    import ckptkit

    edits = [*statements(given["files"], given["edits"])]
    others = bound_to(given["bound"])
    with ckptkit.open(src, given["reader"]) as checkpoint:
        found = None
        if template is None:
            draft = checkpoint.edit(*edits, others=others)
        else:
            draft, found = ckptkit.matched(checkpoint, template, by=by, others=others)
            draft = draft.edit(*edits)
            session.say("\n".join(found.lines()))
        plan = draft.plan(dst, "copy", layout_of(given), sync_config=given["sync_config"])
        result = perform(session, plan, given)
    if session.json:
        session.emit(result | ({"matching": found.to_dict()} if found is not None else {}))
