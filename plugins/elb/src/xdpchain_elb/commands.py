# SPDX-License-Identifier: Apache-2.0
"""`xdpchain elb`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from xdpchain.cli.options import json_option, socket_option

MAX_PORT = 65535


class Endpoint(click.ParamType[tuple[str, int]]):
    """`198.51.100.7:40000` or `[2001:db8::7]:40000`."""

    name = "ADDRESS:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """The address and the port."""
        address, colon, port = str(value).rpartition(":")
        bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
        if not colon or not port.isascii() or not port.isdigit() or int(port) > MAX_PORT or (":" in bare and bare == address):
            self.fail(f"{value!r} is no address with a port: write 198.51.100.7:40000 or [2001:db8::7]:40000", param, ctx)
        try:
            return str(ipaddress.ip_address(bare)), int(port)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group()
def elb() -> None:
    """Ask a load balancer."""


@elb.command()
@click.argument("source", type=Endpoint(), metavar="SOURCE:PORT")
@click.argument("vip", type=Endpoint(), metavar="VIP:PORT")
@click.option("--udp", is_flag=True, help="The flow is UDP; else it is TCP.")
@click.option("--server-id", type=click.IntRange(min=1), metavar="N", help="The server id that its packets carry.")
@click.option("--syn", is_flag=True, help="Ask about a packet that begins a TCP connection.")
@click.option("--instance", default="elb", show_default=True, help="Which load balancer.")
@socket_option
@json_option
def where(
    source: tuple[str, int],
    vip: tuple[str, int],
    server_id: int | None,
    instance: str,
    socket: Path,
    *,
    udp: bool,
    syn: bool,
    as_json: bool,
) -> None:
    """
    Say which backend the flow from SOURCE to VIP goes to, and why. Nothing is changed by asking.

    Example: xdpchain elb where 198.51.100.7:40000 10.200.1.1:443
    """
    from xdpchain.cli.client import call
    from xdpchain.cli.render import print_json

    question = {
        "source": source[0],
        "source_port": source[1],
        "address": vip[0],
        "port": vip[1],
        "protocol": "udp" if udp else "tcp",
        "server_id": server_id,
        "syn": syn,
    }
    answer = call("ask", socket=socket, instance=instance, question=question)
    if as_json:
        print_json(answer)
    else:
        click.echo(told(answer))


def told(answer: Mapping[str, Any]) -> str:
    """An answer in lines: the backend and the reason, then what led there."""
    lines = [f"{click.style(answer['backend'] or 'no backend', bold=True)} ({answer['reason']})"]
    rest = {name: value for name, value in answer.items() if name not in {"backend", "reason"} and value is not None}
    width = max(map(len, rest), default=0)
    lines += [f"  {name.replace('_', ' ').ljust(width)}  {_text(value)}" for name, value in rest.items()]
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_text(one)}" for name, one in value.items())
    return str(value)
