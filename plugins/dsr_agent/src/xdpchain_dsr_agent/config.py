# SPDX-License-Identifier: Apache-2.0
"""The keys of `[function.dsr_agent]`."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Literal

import attrs
from xdpchain import IPAddress, IPNetwork, TextFile, option

from xdpchain_dsr_agent.listing import Listing
from xdpchain_dsr_agent.service import Service

__all__ = ["DsrAgentConfig", "Service"]

MAX_SERVICES = 16_384
MAX_FLOWS = 4_194_304
MAX_SOURCES = 4096


@attrs.frozen(kw_only=True, cache_hash=True)
class DsrAgentConfig:
    """All services of an instance."""

    accept_from: tuple[IPNetwork, ...] = option(
        min=1, max=MAX_SOURCES, help="The load balancers: outer sources that packets are taken from. Others are dropped and counted."
    )
    encapsulation: tuple[Literal["gue", "ipip"], ...] = option(default=("gue", "ipip"), min=1, help="What may be around a packet.")
    gue_port: int = option(default=6080, min=1, max=65535, help="The UDP port of GUE.")
    service: tuple[Service, ...] = option(default=(), help="The services.")
    services: TextFile | None = option(default=None, help="A file with more services, for thousands of lines.")
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
    max_services: int = option(default=4096, min=1, max=MAX_SERVICES, help="Most services.")
    flow_table: int = option(default=262_144, min=1024, max=MAX_FLOWS, help="Room for so many flows in which both sides have spoken.")

    listing: Listing = attrs.field(init=False, eq=False, repr=False)
    """what `services` says"""

    @listing.default
    def _read_listing(self) -> Listing:
        return Listing.of(self.services)

    @property
    def all_services(self) -> tuple[Service, ...]:
        """Those of the node file and those of the file of their own, in this order."""
        return self.service + self.listing.services
