"""``ckptkit show``: the values of one tensor, or of a region, or figures about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from ckptkit.cli.session import Session, json_option, reader_option
from ckptkit.errors import EditError
from ckptkit.sizes import counted, human_size

if TYPE_CHECKING:
    from ckptkit.checkpoint import Checkpoint
    from ckptkit.region import Region

SHOWN: Final = 1000
"""Elements that are printed in full; of more, the corners are."""


@click.command("show", short_help="Show values, or figures about them.")
@click.argument("path", type=click.Path())
@click.argument("name", metavar="NAME[REGION]")
@click.option("--stats", is_flag=True, help="Show count, range, mean and so on, not values.")
@reader_option
@json_option
@click.pass_obj
def command(session: Session, /, path: str, name: str, *, stats: bool, reader: Any) -> None:
    """Show the tensor NAME of the checkpoint at PATH, or a part of it: "dense/kernel[:, 1]".

    With layer: in front, NAME is what a Keras layer calls its weight: "layer:head/kernel[:, 1]".
    Only the bytes that are shown are read. The figures of --stats are about the finite values,
    read block by block, so that memory does not grow with the tensor.
    """
    import ckptkit

    with ckptkit.open(path, reader) as checkpoint:
        named, region = _split(checkpoint, name)
        found = _one(checkpoint, named)
        from ckptkit.cli.values import Chosen

        chosen = Chosen.of(checkpoint[found], region)
        figures = chosen.stats() if stats else None
        if session.json:
            values = None if stats else chosen.everything()
            session.emit({**_head(chosen), "values": values, "stats": figures})
            return
        tensor = chosen.tensor
        size = f"{counted(chosen.count, 'element')} of {human_size(tensor.nbytes)} stored"
        called = "" if found == named else f" ({named})"
        session.say(f"{found}{region or ''}{called}: {tensor.spec}, {size}")
        if figures is None:
            session.say(chosen.preview(SHOWN))
        else:
            for label, figure in figures.items():
                session.say(f"  {label:<7}{figure!s:>24}")


def _head(chosen: Any) -> dict[str, Any]:
    tensor = chosen.tensor
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "region": None if chosen.region is None else str(chosen.region),
    }


def _one(checkpoint: Checkpoint, name: str) -> str:
    """Return the tensor that a name, or what a layer calls it, stands for.

    Raises:
        EditError: It stands for none, or for several.
    """
    from ckptkit.globs import is_indirect, select

    if not is_indirect(checkpoint.catalog, name):
        return name
    found, *more = select(checkpoint.catalog, name)
    if more:
        msg = f"{name!r} stands for {len(more) + 1} tensors, and one is shown at a time"
        raise EditError(msg, tensor=name)
    return found


def _split(checkpoint: Checkpoint, text: str) -> tuple[str, Region | None]:
    """Tell the name from the region; a name may have brackets of its own."""
    name, bracket, _ = text.rpartition("[")
    if text in checkpoint or not (bracket and text.endswith("]")):
        return text, None
    from ckptkit.globs import quoted
    from ckptkit.language import parse

    # A region is written as in an edit, so the language reads it, and complains about it.
    edit: Any = parse(f"{quoted(name)}{text[len(name) :]} = 0")
    return name, edit.region
