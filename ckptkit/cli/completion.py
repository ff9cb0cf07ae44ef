"""``ckptkit completion``: teach a shell to complete our command lines."""

from __future__ import annotations

import click

from ckptkit.cli.session import traceback_option


@click.command("completion", short_help="Print a completion script for a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@traceback_option
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands and options in a SHELL.

    For bash, put this in ~/.bashrc: eval "$(ckptkit completion bash)"
    """
    from click.shell_completion import get_completion_class

    from ckptkit.cli import COMPLETE

    kind = get_completion_class(shell)
    if kind is not None:
        program = ctx.find_root().command
        click.echo(kind(program, {}, "ckptkit", COMPLETE).source())
