"""``ckptkit salvage``: a sound checkpoint of what can be saved of a damaged one."""

from __future__ import annotations

import click

from ckptkit.cli.session import Session, json_option, quiet_option
from ckptkit.cli.writing import size


@click.command("salvage", short_help="Save what can be saved of a damaged checkpoint.")
@click.argument("src", type=click.Path())
@click.argument("dst", type=click.Path())
@click.option(
    "--donor",
    "donors",
    multiple=True,
    type=click.Path(),
    metavar="OTHER",
    help="A checkpoint of the same model, which fills what is lost; repeatable.",
)
@click.option(
    "--sizes",
    type=click.Path(exists=True, dir_okay=False),
    metavar="TABLE",
    help="What is in the data files, for a lost index: lines, or ls --json.",
)
@click.option(
    "--keep-damaged",
    is_flag=True,
    help="Keep tensors whose bytes are all there, but have another checksum.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be saved, and write nothing.")
@click.option("--memory", type=size, metavar="SIZE", help="Staging memory; 256M by default.")
@json_option
@quiet_option
@click.pass_obj
def command(
    session: Session,
    /,
    src: str,
    dst: str,
    *,
    donors: tuple[str, ...],
    sizes: str | None,
    keep_damaged: bool,
    dry_run: bool,
    memory: int | None,
) -> int:
    """Write to DST what can be saved of the TensorFlow checkpoint SRC, which stays as it is.

    Bad blocks of the index and bad tensors are read around, and listed. A lost index is made anew
    by the layout of a donor, or of a table of sizes: lines `name dtype [shape]` in the order of
    the bytes, or what `ckptkit ls --json` prints of a checkpoint of the same model. Shards of
    another save are told by their checksums, and the right ones are looked for among the donors
    and in the folder.

    Exits 0 when nothing is lost, 1 when something is, 3 when nothing can be saved.
    """
    import ckptkit

    with session.bar("reading") as bar:
        found = ckptkit.salvage(
            src, dst, donors, sizes, keep_damaged=keep_damaged, dry_run=True, progress=bar
        )
    if not dry_run:
        with session.bar("writing") as bar:
            found = found.write(bar, memory)
    session.say("\n".join(found.lines()))
    if session.json:
        session.emit(found.to_dict())
    return 0 if found.ok else 1
