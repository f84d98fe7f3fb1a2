# SPDX-License-Identifier: Apache-2.0
"""The keys of `[function.elb]`."""

from __future__ import annotations

from typing import Literal

import attrs
from xdpchain import Duration, IPAddress, MACAddress, Port, TextFile, duration, option

from xdpchain_elb.vip import Backend, Encapsulation, Option, SourceRoute, Vip
from xdpchain_elb.vips import MAX_VIPS, Listing

__all__ = ["Backend", "ElbConfig", "Encapsulation", "Option", "SourceRoute", "Vip"]

MAX_BACKENDS, MAX_MEMBERS = 65535, 1 << 20
SHORTEST_HOLD, LONGEST_HOLD = duration("1s"), duration("24h")


@attrs.frozen(kw_only=True)
class ElbConfig:
    """A load balancer."""

    encapsulation: Encapsulation = option(default="gue", help="How packets travel to the backends: in GUE (variant 1), or IP in IP.")
    gue_port: Port = option(default=Port(6080), min=1, help="The UDP port on which backends take GUE.")
    source: tuple[IPAddress, ...] = option(
        default=(), max=2, help="The outer source addresses of this node for GUE, one of each family that backends have."
    )
    next_hop: MACAddress | Literal["auto"] = option(
        default="auto",
        help="Who takes the packets on to the backends; auto: whom the kernel's routes and neighbours say, for each backend.",
    )
    ring: Literal["maglev-v2", "maglev"] = option(
        default="maglev-v2", help="How the flows of a pool are spread; unequal weights weigh with maglev in the first round only."
    )
    max_vips: int = option(default=512, min=1, max=MAX_VIPS, help="Most VIPs.")
    max_backends: int = option(default=4095, min=1, max=MAX_BACKENDS, help="Most addresses of backends.")
    max_members: int = option(
        default=65536, min=1, max=MAX_MEMBERS, help="Most pairs of a VIP (or one of its source routes) and one of its backends."
    )
    flow_table: int = option(default=1_000_000, min=1024, max=16_777_216, help="Most flows that are remembered at a time.")
    hold_tcp: Duration = option(
        default=duration("15m"), min=SHORTEST_HOLD, max=LONGEST_HOLD, help="How long a silent TCP flow keeps its backend after a change."
    )
    hold_udp: Duration = option(
        default=duration("5m"), min=SHORTEST_HOLD, max=LONGEST_HOLD, help="How long a silent UDP flow keeps its backend after a change."
    )
    second_chance: bool = option(
        default=False,
        help="Whether a TCP packet that may belong to either of two backends, since the memory of flows was lost while backends changed, names the "
        "other one for an agent (dsr_agent) that does not know its flow. GUE only; packets of such flows are no longer Katran's.",
    )
    mtu: int | None = option(
        default=None, min=576, max=9216, help="The MTU of the way to the backends; not set: what the kernel's routes say."
    )
    vip: tuple[Vip, ...] = option(default=(), help="The VIPs.")
    vips: TextFile | None = option(default=None, help="A file with more VIPs, for thousands of lines.")

    listing: Listing = attrs.field(init=False, eq=False, repr=False)
    """what `vips` says"""

    @listing.default
    def _read_listing(self) -> Listing:
        return Listing.of(self.vips)

    @property
    def all_vips(self) -> tuple[Vip, ...]:
        """Those of the node file and those of the file of their own. One that did not change is the same object in the next config."""
        return self.vip + self.listing.vips

    def encapsulation_of(self, vip: Vip) -> Encapsulation:
        """How the packets of a VIP travel."""
        return vip.encapsulation or self.encapsulation

    def has_second_chance(self, vip: Vip) -> bool:
        """Whether packets of a VIP may name an alternate backend."""
        return self.second_chance and vip.protocol == "tcp" and self.encapsulation_of(vip) == "gue"

    def hold_of(self, vip: Vip) -> Duration:
        """The hold time of a VIP in nanoseconds."""
        return self.hold_tcp if vip.protocol == "tcp" else self.hold_udp
