# SPDX-License-Identifier: Apache-2.0
"""The keys of `[function.maxconn]`, and what has to fit together in them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import Literal

import attrs
from xdpchain import Duration, IPAddress, IPNetwork, Percent, PortRange, Problem, duration, option

MAX_LIMITS = 512
MAX_CONNECTIONS = 4_194_304


@attrs.frozen(kw_only=True)
class Limit:
    """`[[function.maxconn.limit]]`: connections that are limited together."""

    address: IPAddress | None = option(default=None, help="The address that they are made to; absent: any.")
    ports: tuple[PortRange, ...] = option(default=(), help="The ports that they are made to; absent: any. With neither: the whole node.")
    max: int | None = option(default=None, min=1, max=MAX_CONNECTIONS, help="How many may be open at a time.")
    source_max: int | None = option(default=None, min=1, max=MAX_CONNECTIONS, help="How many of them may be of one source prefix.")
    source_ipv4: int = option(default=32, min=8, max=32, help="The length of an IPv4 source prefix.")
    source_ipv6: int = option(default=64, min=32, max=128, help="The length of an IPv6 source prefix.")
    action: Literal["drop", "reset", "count"] = option(
        default="drop", help="What becomes of one too many: dropped without a word, answered with RST, or only counted."
    )
    enforce: Percent = option(default=Percent(100.0), help="How many percent of the connections over the limit are refused.")

    @property
    def enforced(self) -> int:
        """How many of a hundred are refused."""
        return 0 if self.action == "count" else round(self.enforce)

    def show(self) -> str:
        """What it is about, in words."""
        ports = f"port {','.join(map(str, self.ports))}" if self.ports else ""
        return " ".join(filter(None, (str(self.address or ""), ports))) or "node"


@attrs.frozen(kw_only=True)
class MaxconnConfig:
    """All limits of an instance."""

    limit: tuple[Limit, ...] = option(
        min=1, max=MAX_LIMITS, help="The limits. The most specific one for a destination counts, and the node's."
    )
    allow: tuple[IPNetwork, ...] = option(default=(), help="Sources that are never refused; they are counted all the same.")
    handshake: Duration = option(
        default=duration("3s"),
        min=duration("1s"),
        max=duration("60s"),
        help="How long a reservation is held for a SYN of which the kernel knows nothing (any more).",
    )
    connections: int = option(default=131_072, min=1024, max=MAX_CONNECTIONS, help="Room for so many connections.")
    sources: int = option(default=65_536, min=1024, max=MAX_CONNECTIONS, help="Room for so many source prefixes with connections.")
    outgoing: bool = option(default=False, help="Whether connections count that this node opens. They are never refused.")


def problems(config: MaxconnConfig) -> Iterator[Problem]:
    """Limits without a number, destinations in two limits, and more connections than there is room for."""
    owners: dict[tuple[IPAddress | None, int], int] = {}
    for index, limit in enumerate(config.limit):
        path = ("limit", index)
        if limit.max is None and limit.source_max is None:
            yield Problem((*path, "max"), "neither max nor source_max is there", "say how many connections may be open")
        if limit.max is not None and limit.source_max is not None and limit.source_max > limit.max:
            yield Problem((*path, "source_max"), f"{limit.source_max} for one source is more than {limit.max} for all", "lower it")
        if (limit.max or 0) > config.connections:
            hint = f"set connections = {limit.max} at least"
            yield Problem((*path, "max"), f"there is room for {config.connections} connections only", hint)
        if isinstance(limit.address, IPv6Address) and limit.address.ipv4_mapped:
            yield Problem((*path, "address"), f"{limit.address} is an IPv4 address", f'write "{limit.address.ipv4_mapped}"')
        taken: dict[int, int] = {}
        for port in ports_of(limit):
            other = owners.setdefault((limit.address, port), index)
            if other != index:
                taken.setdefault(other, port)
        for other, port in taken.items():
            what = f"port {port} of {limit.address or 'any address'}" if port else str(limit.address or "the node")
            yield Problem((*path, "ports" if port else "max"), f"{what} is in limit[{other}] already", "a destination has one limit")


def ports_of(limit: Limit) -> Iterator[int]:
    """The single ports; 0 for all that no other limit lists."""
    if not limit.ports:
        yield 0
    for ports in limit.ports:
        yield from range(ports.first, ports.last + 1)
