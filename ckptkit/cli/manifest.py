"""``ckptkit manifest``: checksums beside a checkpoint whose format has none."""

from __future__ import annotations

import click

from ckptkit.cli.session import Session, json_option, quiet_option
from ckptkit.sizes import counted, human_size


@click.command("manifest", short_help="Write checksums beside a checkpoint.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@json_option
@quiet_option
@click.pass_obj
def command(session: Session, /, paths: tuple[str, ...]) -> None:
    """Write a checksum for every tensor of the checkpoint at each PATH, to PATH.manifest.json.

    For formats that have no checksums of their own, such as Keras weights. From then on ckptkit
    verify compares the tensors with it. After an edit, make it anew.
    """
    import ckptkit
    from ckptkit.engine.manifest import write_manifest

    made = []
    for path in paths:
        with session.bar("summing") as bar, ckptkit.open(path) as checkpoint:
            manifest = write_manifest(checkpoint, progress=bar)
        count, nbytes = len(manifest.tensors), manifest.nbytes
        session.say(f"{manifest.path}: {counted(count, 'tensor')}, {human_size(nbytes)} summed")
        made.append({"path": path, "manifest": manifest.path, "tensors": count, "bytes": nbytes})
    if session.json:
        session.emit({"manifests": made})
