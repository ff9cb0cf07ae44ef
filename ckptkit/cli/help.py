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
          Without an edit it protects who reads DST: SRC is verified first, and refused where it
          is damaged; DST has nothing of what verifying warns about.
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

A folder's state file (`checkpoint`) stays as it is, unless --register enters DST in it as the
latest, which `ckptkit register` does for any checkpoint. A SavedModel keeps its program, so that
only values may change; its fingerprint follows.

Keras files (.keras, .weights.h5, .weights.json, .h5) are written by copy and patch. A patch changes
values and names, and leaves tensors out; for another dtype or shape, and for chunks, `auto` writes
the file anew, and the plan says why. The CRC-32 of a .keras follows a patch. What kind of file a
copy is, its name tells, as it does to Keras: X.weights.h5, X.keras, or X.weights.json with
--max-shard-size. --contiguous makes chunked or compressed tensors plain, and --sync-config has
config.json follow shapes and dtypes. Weights outside a .keras have no checksums: `ckptkit manifest`
writes some beside them, and `ckptkit verify` compares.

The first format of TensorFlow (V1), and what --reader tensorflow reads, is only copied from.

Safety. An edit in place goes by a journal beside the checkpoint. Whatever cuts it short, `ckptkit
recover SRC` brings the checkpoint to the state before it or after it; until then nothing opens it.
With --keep-undo the edit can be taken back: `ckptkit undo SRC`, the latest one first.
A copy or link appears whole or not at all. With --resume, a run goes on where an interrupted one
stopped: it compares checksums of what is there, and does only the rest. `ckptkit recover DST`
removes what an interrupted run left.
"""


TENSORFLOW: Final = """\
What TensorFlow checkpoints have besides names and values.

Objects. tf.train.Checkpoint and Keras restore by a graph of objects, which lies beside the tensors;
`ckptkit ls --graph SRC` shows it. A target that begins with graph: is a path in it, or a glob of
paths; all paths of a shared object count. Names of tensors, graph and slots change together:

  graph:model/**/kernel *= 0.5                  values, by the paths of their objects
  rename ^model/dense/ -> model/fc/             names; their objects go along
  rename graph:model/dense -> graph:model/fc    an object; all that is named after it goes along
  new graph:model/scale = ones(shape=[8])       one more variable, and objects that lead to it
  copy graph:emb -> graph:head/emb              one more, with the values of another one
  drop graph:model/head/**                      leave variables out
  drop optimizer state                          leave out what no object but an optimizer has

In checkpoints of Keras 3 the weights themselves are named optimizer/_trainable_variables/N. A glob
that would drop them for their name is refused.

Slices. A partitioned tensor is shown, read and edited as one, whatever its dtype. On the way out:

  repartition emb -> 4 axis=0                   store it in slices of about equal length
  repartition ** -> whole                       join all; also those that TensorFlow cannot read

SavedModels. Open the folder. Its program says names, dtypes and shapes as well, so that only values
are edited; the fingerprint follows. What Keras 3 exports has every variable twice; an edit of one
of the two is refused, and told the name of the other.

The first format (V1) is read. `ckptkit convert OLD NEW` makes it the second, and so does any edit.

State files. `ckptkit ls DIR --all` lists a folder. --register, or `ckptkit register SRC`, makes a
checkpoint the latest in the file `checkpoint`; `ckptkit register --repair DIR` mends that file
after DIR was moved.

Damage. `ckptkit verify SRC` names tensor, file and bytes. `ckptkit salvage SRC DST` writes what can
be saved, and says what was lost; --donor OTHER, a checkpoint of the same model, fills that in, and
tells the layout where the index is lost, as --sizes TABLE does. A copy of a stranger's file, by
`ckptkit edit SRC DST` without an edit, is clean, or refused.

TensorFlow's own reader. --reader tensorflow reads from any file system that TensorFlow knows, such
as gs://; `ckptkit verify --against tensorflow` compares what it reads with what ckptkit reads.
The other way round, ckptkit.tf has TensorFlow's functions for checkpoints without TensorFlow.
"""

PAGES: Final = ("language", "writing", "tensorflow")
"""What there are pages on."""


@click.command("help", short_help="Show the page on language, writing or tensorflow.")
@click.argument("topic", required=False, type=click.Choice(PAGES))
@traceback_option
@click.pass_context
def command(ctx: click.Context, topic: str | None) -> None:
    """Show the page on a TOPIC; without one, what commands there are.

    The edit language; the ways of writing; or what TensorFlow checkpoints have besides tensors:
    objects, slices, SavedModels, state files, and what to do about damage.
    """
    if topic is None:
        parent = ctx.parent or ctx
        click.echo(parent.get_help())
    elif topic == "writing":
        click.echo(WRITING, nl=False)
    elif topic == "tensorflow":
        click.echo(TENSORFLOW, nl=False)
    else:
        from ckptkit.language import REFERENCE

        click.echo(REFERENCE, nl=False)
