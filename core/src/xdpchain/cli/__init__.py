# SPDX-License-Identifier: Apache-2.0
"""The command line: `xdpchain COMMAND`. One module for each command; they are hooked in like those of any plugin."""

from __future__ import annotations

import functools
import sys
from typing import Any

import click

from xdpchain.errors import PluginError, XdpchainError


class Commands(click.Group):
    """The group of all commands: the core's own and the plugins'. Plugins are loaded only when a command is not one of the core's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({**_installed(), **_core()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _core().get(cmd_name) or _installed().get(cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except XdpchainError as error:
            from xdpchain.cli.render import show_error

            show_error(error, as_json=wants_json(ctx))
            sys.exit(int(error.exit_code))


def wants_json(ctx: click.Context) -> bool:
    """Whether the command that runs was asked for JSON."""
    return bool(ctx.find_root().meta.get("xdpchain.json"))


@functools.cache
def _core() -> dict[str, click.Command]:
    from xdpchain.cli import builtin

    return {command.name or "": command for command in builtin.xdpchain_commands()}


@functools.cache
def _installed() -> dict[str, click.Command]:
    from xdpchain.plugins import load_plugins

    commands: dict[str, click.Command] = {}
    for name, answer in load_plugins().each("xdpchain_commands"):
        if isinstance(answer, PluginError):
            click.echo(f"warning: {answer.message}", err=True)
            continue
        for command in answer:
            if command.name in _core() or command.name in commands:
                click.echo(f"warning: plugin {name!r}: there is another command {command.name!r}, its own is left out", err=True)
            else:
                commands[command.name] = command
    return commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="xdpchain", message="%(version)s")
def main() -> None:
    """
    Chains of kernel functions on network interfaces.

    A node is set up by one file, /etc/xdpchain/node.toml; `xdpchaind` runs it. Exit codes: 0 fine, 1 internal error or a failed check,
    2 usage, 3 configuration, 4 plugin, 5 compiler, 6 verifier, 7 kernel, 8 interface, 9 daemon.
    """
