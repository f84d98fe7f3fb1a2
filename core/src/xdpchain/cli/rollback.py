# SPDX-License-Identifier: Apache-2.0
"""`xdpchain rollback`."""

from __future__ import annotations

from pathlib import Path

import click

from xdpchain.cli.options import json_option, socket_option


@click.command()
@socket_option
@json_option
def rollback(socket: Path, *, as_json: bool) -> None:
    """
    Return to the configuration before the current one.

    It runs, over restarts too, until the next `apply` or reload; the node's file is not touched. A second rollback goes forth again.
    """
    from xdpchain.cli.client import call
    from xdpchain.cli.render import print_json, show_plan

    plan = call("rollback", socket=socket)
    if as_json:
        print_json(plan)
        return
    show_plan(plan, done=True)
    click.echo("correct the node's file before the next apply: it was not changed")
