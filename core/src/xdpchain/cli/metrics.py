# SPDX-License-Identifier: Apache-2.0
"""`xdpchain metrics`."""

from __future__ import annotations

from pathlib import Path

import click

from xdpchain.cli.options import socket_option


@click.command()
@socket_option
def metrics(socket: Path) -> None:
    """Print all metrics, as they are served over HTTP."""
    from xdpchain.cli.client import call

    click.echo(call("metrics", socket=socket)["text"], nl=False)
