"""``ckptkit help``: the pages that do not belong to one command."""

from __future__ import annotations

import click

from ckptkit.cli.session import traceback_option


@click.command("help", short_help="Show the edit language.")
@click.argument("topic", required=False, type=click.Choice(["language"]))
@traceback_option
@click.pass_context
def command(ctx: click.Context, topic: str | None) -> None:
    """Show the page on a TOPIC: the edit language; without one, what commands there are."""
    if topic is None:
        parent = ctx.parent or ctx
        click.echo(parent.get_help())
        return
    from ckptkit.language import REFERENCE

    click.echo(REFERENCE, nl=False)
