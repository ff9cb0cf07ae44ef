"""``ckptkit help``: the pages that do not belong to one command."""

from __future__ import annotations

from typing import Final

import click

from ckptkit.cli.session import traceback_option

WRITING: Final = """\
Ways of writing (--how); `auto` chooses by what each would write, and the plan says why.

To a new place, SRC DST:
  copy    All files anew. What stays is cloned where the file system can, else copied by the
          kernel.
  link    The shards of SRC get a second name; what changes goes into one shard more. Costs what
          changes. Both checkpoints share files from then on, so neither is edited by patch or
          append (--break-links gives one of them files of its own first). Not across file
          systems.

In place, SRC --in-place:
  patch   The bytes that change, where they are: same dtype, same shape. Costs what changes. While
          it runs, other programs may see some of it; ckptkit itself refuses to read meanwhile.
  append  What changes goes to the end of a shard, then a new index takes the place of the old one,
          at once: who reads meanwhile sees the old state or the new one. What is replaced, renamed
          or dropped may leave dead bytes; `ckptkit ls` and `verify` count them.
  copy    All files anew, in the place of the old ones (--compact). Leaves no dead bytes.

Keras files (.keras, .weights.h5, .weights.json, .h5) are written by copy and patch. A patch changes
values and names, and leaves tensors out; for another dtype or shape, and for chunks, `auto` writes
the file anew, and the plan says why. The CRC-32 of a .keras follows a patch. What kind of file a
copy is, its name tells, as it does to Keras: X.weights.h5, X.keras, or X.weights.json with
--max-shard-size. --contiguous makes chunked or compressed tensors plain, and --sync-config has
config.json follow shapes and dtypes. Weights outside a .keras have no checksums: `ckptkit manifest`
writes some beside them, and `ckptkit verify` compares.

Safety. An edit in place goes by a journal beside the checkpoint. Whatever cuts it short, `ckptkit
recover SRC` brings the checkpoint to the state before it or after it; until then nothing opens it.
With --keep-undo the edit can be taken back: `ckptkit undo SRC`, the latest one first.
A copy or link appears whole or not at all. With --resume, a run goes on where an interrupted one
stopped: it compares checksums of what is there, and does only the rest. `ckptkit recover DST`
removes what an interrupted run left.
"""


@click.command("help", short_help="Show the edit language, or the ways of writing.")
@click.argument("topic", required=False, type=click.Choice(["language", "writing"]))
@traceback_option
@click.pass_context
def command(ctx: click.Context, topic: str | None) -> None:
    """Show the page on a TOPIC; without one, what commands there are."""
    if topic is None:
        parent = ctx.parent or ctx
        click.echo(parent.get_help())
        return
    if topic == "writing":
        click.echo(WRITING, nl=False)
        return
    from ckptkit.language import REFERENCE

    click.echo(REFERENCE, nl=False)
