# SPDX-License-Identifier: Apache-2.0
"""`xdpchain completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """
    Print a shell's completion script.

    bash: xdpchain completion bash > /etc/bash_completion.d/xdpchain
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    root = ctx.find_root()
    click.echo(kind(root.command, {}, "xdpchain", "_XDPCHAIN_COMPLETE").source())
