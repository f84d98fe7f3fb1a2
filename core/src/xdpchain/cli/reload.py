# SPDX-License-Identifier: Apache-2.0
"""`xdpchain reload`."""

from __future__ import annotations

from pathlib import Path

import click

from xdpchain.cli.options import json_option, socket_option


@click.command()
@socket_option
@json_option
def reload(socket: Path, *, as_json: bool) -> None:
    """
    Do what SIGHUP does, and tell how it went.

    Like `apply --blocked-ok`; systemd's unit uses it.
    """
    from xdpchain.cli.client import call
    from xdpchain.cli.render import print_json, show_plan

    plan = call("reload", socket=socket)
    print_json(plan) if as_json else show_plan(plan, done=True)
