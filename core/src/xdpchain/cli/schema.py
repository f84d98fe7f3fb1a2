# SPDX-License-Identifier: Apache-2.0
"""`xdpchain schema`."""

from __future__ import annotations

import click


@click.command()
@click.option("--markdown", is_flag=True, help="Print the reference of all settings in Markdown instead.")
def schema(*, markdown: bool) -> None:
    """Print the JSON Schema of the node's file, the settings of installed functions included."""
    from xdpchain.cli.render import print_json
    from xdpchain.config import json_schema, reference
    from xdpchain.plugins import load_plugins

    functions = load_plugins().functions
    if markdown:
        click.echo(reference(functions), nl=False)
    else:
        print_json(json_schema(functions))
