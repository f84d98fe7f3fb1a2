# SPDX-License-Identifier: Apache-2.0
"""`xdpchain put`."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import click

from xdpchain.cli.options import json_option, socket_option


@click.command()
@click.argument("instance")
@click.argument("key")
@click.argument("file", type=click.File("rb"), default="-", metavar="[FILE]")
@click.option("--blocked-ok", is_flag=True, help="Go on without the interfaces on which something else is attached.")
@socket_option
@json_option
def put(instance: str, key: str, file: BinaryIO, socket: Path, *, blocked_ok: bool, as_json: bool) -> None:
    """
    Put a text into the file that KEY of a running INSTANCE names, and apply it.

    For what a program writes, such as a list of services. The text comes from FILE, or from standard input (-). All or nothing: where the text has
    errors or cannot be applied, the file and what runs stay as they are. Owner and mode of the file are kept.

    Example: xdpchain put elb vips new.vips
    """
    from xdpchain.cli.client import call
    from xdpchain.cli.render import print_json, show_plan
    from xdpchain.daemon.wire import MAX_DATA
    from xdpchain.errors import ConfigError, Problem

    data = file.read(MAX_DATA + 1)
    if len(data) > MAX_DATA:
        raise ConfigError((Problem(("function", instance, key), "the text is too large", f"it may have {MAX_DATA} bytes"),))
    plan = call("put", socket=socket, data=data, instance=instance, key=key, blocked_ok=blocked_ok)
    print_json(plan) if as_json else show_plan(plan, done=True)
