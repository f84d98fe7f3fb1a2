# SPDX-License-Identifier: Apache-2.0
"""`xdpchain check`."""

from __future__ import annotations

from pathlib import Path

import click

from xdpchain.cli.options import config_option, json_option


@click.command()
@config_option
@json_option
def check(config: Path, *, as_json: bool) -> None:
    """
    Read the node's file and report everything that is wrong in it.

    Needs no daemon and changes nothing.
    """
    from xdpchain.cli.node import read_node
    from xdpchain.cli.render import print_json, problem_text
    from xdpchain.daemon.wire import problem_data

    node, _ = read_node(config)
    if as_json:
        data = {
            "file": str(config),
            "interfaces": {one.pattern: list(one.chain) for one in node.interfaces},
            "instances": {name: one.function.name for name, one in node.instances.items()},
            "warnings": [problem_data(warning) for warning in node.warnings],
        }
        print_json(data)
        return
    for warning in node.warnings:
        click.echo(f"{click.style('warning:', fg='yellow')} {problem_text(warning)}", err=True)
    for one in node.interfaces:
        click.echo(f"{one.pattern}: {' → '.join(one.chain)}")
    click.echo(click.style(f"{config} is good", fg="green"))
