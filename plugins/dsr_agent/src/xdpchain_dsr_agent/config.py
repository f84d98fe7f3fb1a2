# SPDX-License-Identifier: Apache-2.0
"""The keys of `[function.dsr_agent]`."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Literal

import attrs
from xdpchain import IPAddress, IPNetwork, option

MAX_SERVICES = 16_384
MAX_FLOWS = 4_194_304


@attrs.frozen(kw_only=True)
class Service:
    """`[[function.dsr_agent.service]]`: an address and port of clients, and the workload that serves them."""

    vip: IPAddress = option(help="The address that clients call.")
    port: int = option(min=0, max=65535, help="The port that clients call; 0: all ports.")
    protocol: Literal["tcp", "udp"] = option(default="tcp", help="The protocol.")
    workload: IPAddress = option(help="The workload's own address, of the same family.")
    backend_port: int | None = option(default=None, min=1, max=65535, help="The port of the workload; absent: the one that clients call.")
    endpoint: tuple[IPAddress, ...] = option(
        default=(), help="The addresses that load balancers send its packets to, of either family; absent: the workload's own."
    )
    unknown: Literal["snat", "direct", "learn"] = option(
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


@attrs.frozen(kw_only=True)
class DsrAgentConfig:
    """All services of an instance."""

    accept_from: tuple[IPNetwork, ...] = option(
        min=1, max=4096, help="The load balancers: outer sources that packets are taken from. Others are dropped and counted."
    )
    encapsulation: tuple[Literal["gue", "ipip"], ...] = option(default=("gue", "ipip"), min=1, help="What may be around a packet.")
    gue_port: int = option(default=6080, min=1, max=65535, help="The UDP port of GUE.")
    service: tuple[Service, ...] = option(default=(), max=MAX_SERVICES, help="The services.")
    answers: Literal["direct", "stack"] = option(
        default="direct",
        help="How answers of a workload behind a tap or a veth leave a host that routes them: straight to the next hop (direct: the host's "
        "filters, which do not know the VIP, do not see them), or through the host's stack.",
    )
    hairpin: tuple[IPAddress, ...] = option(
        default=(IPv4Address("169.254.64.1"), IPv6Address("fd64:7372::1")),
        max=2,
        help="The address under which a workload sees itself when it calls its own service, one of each family. It must be routed to this node.",
    )
    flow_table: int = option(default=262_144, min=1024, max=MAX_FLOWS, help="Room for so many flows in which both sides have spoken.")
