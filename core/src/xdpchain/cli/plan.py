# SPDX-License-Identifier: Apache-2.0
"""`xdpchain plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xdpchain.cli.options import config_option, json_option, root_option, socket_option


@click.command()
@config_option
@root_option
@socket_option
@json_option
@click.pass_context
def plan(ctx: click.Context, config: Path, root: Path, socket: Path, *, as_json: bool) -> None:
    """
    Print what an apply would do.

    Without a daemon: what its start would do.
    """
    from xdpchain.cli.client import NotRunningError, call
    from xdpchain.cli.render import print_json, show_plan

    given = ctx.get_parameter_source("config") is not click.core.ParameterSource.DEFAULT
    try:
        found = call("plan", socket=socket, config=str(config) if given else None)
    except NotRunningError:
        found = _without_daemon(config, root)
        if not as_json:
            click.echo("xdpchaind is not running; its start would do this:", err=True)
    print_json(found) if as_json else show_plan(found, done=False)


def _without_daemon(config: Path, root: Path) -> dict[str, Any]:
    from xdpchain.bpf.compiler.compile import Compiler
    from xdpchain.chain.engine import Engine
    from xdpchain.cli.node import read_node
    from xdpchain.netlink import list_interfaces

    engine = Engine(root, Compiler(None))
    try:
        return engine.plan(read_node(config)[0], list_interfaces()).as_data()
    finally:
        engine.close()
