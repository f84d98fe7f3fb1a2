# SPDX-License-Identifier: Apache-2.0
"""A balancer in the lab's network: the real daemon, whose VIPs stand in a file of their own."""

from __future__ import annotations

import signal
from collections.abc import Mapping

import attrs

from lab.balance import VIPS, Balance
from lab.balance_driver import PORT
from tests.helpers.node import Node

_NODE = """\
[node]
metrics = "off"

[interface.eth0]
chain = ["elb"]

[function.elb]
encapsulation = "{encapsulation}"
source = ["{ipv4}", "{ipv6}"]
vips = "vips"
"""


@attrs.frozen
class State:
    """What the file says of a backend."""

    weight: int = 100
    drain: bool = False
    down: bool = False

    def __str__(self) -> str:
        return f"weight={self.weight}{' drain' * self.drain}{' down' * self.down}"


UP = State()
States = Mapping[str, State]
"""Backends by name; one that is not there is not in the file."""


class Site:
    """
    The balancer.

    Args:
        balance: the network.
        node: the daemon, not started yet.
        encapsulation: how packets travel to the backends.
        crossed: whether IPv4 packets travel in IPv6 and the other way round.
    """

    def __init__(self, balance: Balance, node: Node, encapsulation: str, *, crossed: bool = False) -> None:
        self.balance, self.node = balance, node
        self._crossed = crossed
        end = balance.balancer_end
        node.configure(_NODE.format(encapsulation=encapsulation, ipv4=end.ipv4, ipv6=end.ipv6))

    def write(self, states: States) -> None:
        """Write the file of VIPs: all have the same backends."""
        lines = []
        for vip in VIPS:
            family = 6 if (":" in vip) != self._crossed else 4
            lines.append(f"vip {f'[{vip}]' if ':' in vip else vip}:{PORT} tcp")
            there = [backend for backend in self.balance.backends if backend.name in states]
            lines += [f"    {backend.address(family)} {states[backend.name]}" for backend in there]
        (self.node.file.parent / "vips").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start the daemon in the balancer's namespace."""
        with self.balance.balancer.entered():
            self.node.start()

    def apply(self, states: States) -> None:
        """Write the file and apply it."""
        self.write(states)
        self.node.ask("apply")

    def restart(self, number: signal.Signals) -> None:
        """End the daemon by a signal and start it again."""
        self.node.end(number)
        self.start()

    def wrong_packets(self) -> dict[str, Mapping[str, int]]:
        """What backends have found wrong with outer headers, by backend."""
        found = {one.name: one.decapsulator.seen() for one in self.balance.backends}
        return {name: seen for name, seen in found.items() if any(what.startswith("bad") for what in seen)}
