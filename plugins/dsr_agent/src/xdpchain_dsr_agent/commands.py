# SPDX-License-Identifier: Apache-2.0
"""`xdpchain dsr`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from xdpchain.cli.options import json_option, socket_option
from xdpchain.config import MisfitError

from xdpchain_dsr_agent import words
from xdpchain_dsr_agent.flows import MOST_LISTED


class Address(click.ParamType[str]):
    """An address of either family."""

    name = "ADDRESS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The address as text."""
        try:
            return str(ipaddress.ip_address(str(value)))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Called(click.ParamType[tuple[str, int | None]]):
    """`10.200.1.1`, `10.200.1.1:443`, `2001:db8::1` or `[2001:db8::1]:443`."""

    name = "ADDRESS[:PORT]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int | None]:
        """The address, and the port if there is one."""
        if isinstance(value, tuple):
            return value
        try:
            address, port = words.place(str(value))
        except MisfitError as misfit:
            self.fail(f"{misfit.message} ({misfit.hint})", param, ctx)
        return str(address), port


@click.group()
def dsr() -> None:
    """Ask an agent of direct server return."""


@dsr.command()
@click.option("--client", type=Address(), help="Only flows of this client.")
@click.option("--vip", type=Called(), help="Only flows to this VIP, and port.")
@click.option("--workload", type=Address(), help="Only flows of this workload, by its own address.")
@click.option("--limit", type=click.IntRange(0, MOST_LISTED), default=100, show_default=True, help="How many are printed.")
@click.option("--instance", default="dsr_agent", show_default=True, help="Which agent.")
@socket_option
@json_option
def flows(
    client: str | None,
    vip: tuple[str, int | None] | None,
    workload: str | None,
    limit: int,
    instance: str,
    socket: Path,
    *,
    as_json: bool,
) -> None:
    """
    List the flows that live.

    Example: xdpchain dsr flows --vip 10.200.1.1:443 --client 198.51.100.7
    """
    from xdpchain.cli.client import call
    from xdpchain.cli.render import print_json

    address, port = vip or (None, None)
    question = {"client": client, "workload": workload, "vip": address, "port": port, "limit": limit}
    answer = call("ask", socket=socket, instance=instance, question=question)
    if as_json:
        print_json(answer)
    else:
        click.echo(told(answer))


def told(answer: Mapping[str, Any]) -> str:
    """An answer as a table, and how many flows there are beyond it."""
    from xdpchain.cli.render import columns, span

    rows = [
        (one["client"], one["vip"] or "direct", one["workload"], one["protocol"], _state(one), span(one["idle_s"]))
        for one in answer["flows"]
    ]
    last = f"{len(rows)} of {answer['total']} flows"
    if not rows:
        return last
    return columns(("CLIENT", "VIP", "WORKLOAD", "PROTOCOL", "STATE", "IDLE"), rows) + "\n" + last


def _state(flow: Mapping[str, Any]) -> str:
    """Its state, with what is unusual about it."""
    more = [word for word, there in (("hairpin", flow["hairpin"]), ("not answered", not flow["answered"])) if there]
    return f"{flow['state']} ({', '.join(more)})" if more else str(flow["state"])
