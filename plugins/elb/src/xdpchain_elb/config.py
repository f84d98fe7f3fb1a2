# SPDX-License-Identifier: Apache-2.0
"""The keys of `[function.elb]`: VIPs with their backends, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import attrs
from xdpchain import Duration, IPAddress, IPNetwork, MACAddress, Port, TextFile, duration, option

Encapsulation = Literal["gue", "ipip"]
Option = Literal[
    "no-source-port",
    "hash-destination-port-only",
    "hash-source-and-destination-port",
    "quic",
    "server-id",
    "udp-stable",
    "udp-migration",
    "no-tracking",
]

MAX_WEIGHT = 2**31 - 1
"""The ring's credits are 32 bits wide and may reach twice the largest weight."""
MAX_SERVER_ID = 2**32 - 1
MAX_POOL = 4096
"""Backends of one pool."""
SHORTEST_HOLD, LONGEST_HOLD = duration("1s"), duration("24h")


@attrs.frozen(kw_only=True, cache_hash=True)
class Backend:
    """A server of a pool."""

    address: IPAddress = option(help="Where encapsulated packets go to.")
    weight: int = option(default=1, min=0, max=MAX_WEIGHT, help="Its share of new flows in relation to the others; 0: as with drain.")
    drain: bool = option(default=False, help="No new flows, the old ones stay.")
    down: bool = option(
        default=False,
        help="It is known not to answer: no new flows, and flows of VIPs with udp-migration leave it at once; else as with drain.",
    )
    server_id: int | None = option(
        default=None, min=1, max=MAX_SERVER_ID, help="The number by which packets of quic, server-id and udp-stable name it."
    )

    @property
    def share(self) -> int:
        """The weight for the ring: 0 where it gets no new flows."""
        return 0 if self.drain or self.down else self.weight


@attrs.frozen(kw_only=True, cache_hash=True)
class SourceRoute:
    """Clients of some prefixes that go to backends of their own; of several routes the longest prefix decides."""

    name: str = option(min=1, max=63, help="Its name, once in the VIP.")
    prefixes: tuple[IPNetwork, ...] = option(min=1, help="The clients, by their addresses.")
    backend: tuple[Backend, ...] = option(default=(), help="Their backends.")


@attrs.frozen(kw_only=True, cache_hash=True)
class Vip:
    """An address, or a prefix of them, that clients connect to."""

    address: IPNetwork = option(help="The address, or a prefix.")
    port: Port = option(help="The port; 0: any that no other VIP of the address has.")
    protocol: Literal["tcp", "udp"] = option(help="Its protocol.")
    options: tuple[Option, ...] = option(default=(), help="How flows are told apart and followed.")
    encapsulation: Encapsulation | None = option(default=None, help="Overrides the encapsulation of the instance.")
    backend: tuple[Backend, ...] = option(default=(), help="Who serves it.")
    source: tuple[SourceRoute, ...] = option(default=(), help="Clients that are served by others.")

    @property
    def is_prefix(self) -> bool:
        """Whether it stands for more than one address."""
        return self.address.prefixlen != self.address.max_prefixlen

    @property
    def pools(self) -> Iterator[tuple[str, tuple[Backend, ...]]]:
        """Its sets of backends: its own, under no name, then those of its source routes."""
        yield "", self.backend
        for route in self.source:
            yield route.name, route.backend

    def __str__(self) -> str:
        address = self.address if self.is_prefix else self.address.network_address
        place = f"[{address}]" if self.address.version == 6 else str(address)
        return f"{place}:{self.port} {self.protocol}"


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
    max_vips: int = option(default=512, min=1, max=4096, help="Most VIPs.")
    max_backends: int = option(default=4095, min=1, max=65535, help="Most addresses of backends.")
    max_members: int = option(
        default=65536, min=1, max=1_048_576, help="Most pairs of a VIP (or one of its source routes) and one of its backends."
    )
    flow_table: int = option(default=1_000_000, min=1024, max=16_777_216, help="Most flows that are remembered at a time.")
    hold_tcp: Duration = option(
        default=duration("15m"), min=SHORTEST_HOLD, max=LONGEST_HOLD, help="How long a silent TCP flow keeps its backend after a change."
    )
    hold_udp: Duration = option(
        default=duration("5m"), min=SHORTEST_HOLD, max=LONGEST_HOLD, help="How long a silent UDP flow keeps its backend after a change."
    )
    mtu: int | None = option(
        default=None, min=576, max=9216, help="The MTU of the way to the backends; not set: what the kernel's routes say."
    )
    vip: tuple[Vip, ...] = option(default=(), help="The VIPs.")
    vips: TextFile | None = option(default=None, help="A file with more VIPs, for thousands of lines.")

    @property
    def all_vips(self) -> tuple[Vip, ...]:
        """Those of the node file and those of the file of their own. One that did not change is the same object in the next config."""
        return self.vip

    def encapsulation_of(self, vip: Vip) -> Encapsulation:
        """How the packets of a VIP travel."""
        return vip.encapsulation or self.encapsulation

    def hold_of(self, vip: Vip) -> Duration:
        """The hold time of a VIP in nanoseconds."""
        return self.hold_tcp if vip.protocol == "tcp" else self.hold_udp
