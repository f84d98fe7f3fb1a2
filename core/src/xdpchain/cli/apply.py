# SPDX-License-Identifier: Apache-2.0
"""`xdpchain apply`."""

from __future__ import annotations

from pathlib import Path

import click

from xdpchain.cli.options import json_option, other_file_option, socket_option


@click.command()
@other_file_option
@click.option("--blocked-ok", is_flag=True, help="Go on without the interfaces on which something else is attached.")
@socket_option
@json_option
def apply(config: Path | None, socket: Path, *, blocked_ok: bool, as_json: bool) -> None:
    """
    Let the daemon read its file and make it run.

    All or nothing: where anything fails, what runs stays as it is.
    """
    from xdpchain.cli.client import call
    from xdpchain.cli.render import print_json, show_plan

    plan = call("apply", socket=socket, config=str(config) if config else None, blocked_ok=blocked_ok)
    print_json(plan) if as_json else show_plan(plan, done=True)
