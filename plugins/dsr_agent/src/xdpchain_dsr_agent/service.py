# SPDX-License-Identifier: Apache-2.0
"""A service, as the node file or a line of the file of services has it."""

from __future__ import annotations

from typing import Literal

import attrs
from xdpchain import IPAddress, option

MAX_ENDPOINTS = 16

Unknown = Literal["snat", "direct", "learn"]


# thousands are compared and looked up in each apply: a hash is computed once
@attrs.frozen(kw_only=True, cache_hash=True)
class Service:
    """`[[function.dsr_agent.service]]`: an address and port of clients, and the workload that serves them."""

    vip: IPAddress = option(help="The address that clients call.")
    port: int = option(min=0, max=65535, help="The port that clients call; 0: all ports.")
    protocol: Literal["tcp", "udp"] = option(default="tcp", help="The protocol.")
    workload: IPAddress = option(help="The workload's own address, of the same family.")
    backend_port: int | None = option(default=None, min=1, max=65535, help="The port of the workload; absent: the one that clients call.")
    endpoint: tuple[IPAddress, ...] = option(
        default=(),
        max=MAX_ENDPOINTS,
        help="The addresses that load balancers send its packets to, of either family; absent: the workload's own.",
    )
    unknown: Unknown = option(
        default="snat",
        help="What becomes of packets from its port that are of no known flow: they get the VIP as source (snat: nobody reaches the port but "
        "through the VIP), leave as they are (direct), or are held back for some seconds until the client is heard (learn).",
    )

    @property
    def endpoints(self) -> tuple[IPAddress, ...]:
        """The outer destinations of its packets."""
        return self.endpoint or (self.workload,)

    @property
    def workload_port(self) -> int:
        """The workload's port; 0: all."""
        return self.port if self.backend_port is None else self.backend_port

    def __str__(self) -> str:
        """`10.200.1.1:443 tcp`."""
        return f"{with_port(self.vip, self.port)} {self.protocol}"

    @property
    def back(self) -> str:
        """Where it is served: `10.1.0.5:8443`."""
        return with_port(self.workload, self.workload_port)


def with_port(address: IPAddress, port: int) -> str:
    """`10.200.1.1:443` or `[2001:db8::1]:443`."""
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
