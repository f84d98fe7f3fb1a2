# SPDX-License-Identifier: Apache-2.0
"""`xdpchain plugins`."""

from __future__ import annotations

import sys

import click

from xdpchain.cli.options import json_option
from xdpchain.errors import ExitCode


@click.command()
@json_option
def plugins(*, as_json: bool) -> None:
    """
    List the plugins that are installed, and what is wrong with broken ones.

    Ends with 4 where one is broken.
    """
    from xdpchain.cli.render import columns, print_json
    from xdpchain.daemon.view import plugins_data
    from xdpchain.plugins import load_plugins

    data = plugins_data(load_plugins())
    if as_json:
        print_json(data)
    else:
        rows = [
            (one["name"], f"{one['dist']} {one['version']}", function["name"], ", ".join(function["hooks"]), function["summary"])
            for one in data["loaded"]
            for function in one["functions"] or [{"name": "-", "hooks": [], "summary": "brings no function"}]
        ]
        click.echo(columns(("PLUGIN", "DISTRIBUTION", "FUNCTION", "HOOKS", "SUMMARY"), rows) if rows else "no plugin is installed")
        for one in data["broken"]:
            click.echo(f"{click.style('broken', fg='red')}  {one['error']['message']}")
            click.echo(f"    hint: {one['error']['hint']}")
    if data["broken"]:
        sys.exit(int(ExitCode.PLUGIN))
