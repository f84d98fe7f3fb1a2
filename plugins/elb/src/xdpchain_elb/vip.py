# SPDX-License-Identifier: Apache-2.0
"""VIPs, their backends and their source routes, as both the node file and the file of VIPs say them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args

import attrs
from xdpchain import IPAddress, IPNetwork, Port, option
from xdpchain.config import MisfitError, quoted

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
ENCAPSULATIONS: tuple[Encapsulation, ...] = get_args(Encapsulation)
OPTIONS: tuple[Option, ...] = get_args(Option)

MAX_WEIGHT = 2**31 - 1
"""The ring's credits are 32 bits wide and may reach twice the largest weight."""
MAX_SERVER_ID = 2**32 - 1
NAME_PATTERN = r"[A-Za-z0-9._-]{1,63}"
MAX_POOL = 4096
"""Backends of one pool."""


def _is_name(_: Any, __: attrs.Attribute[str], value: str) -> None:
    if re.fullmatch(NAME_PATTERN, value) is None:
        raise MisfitError(f"{quoted(value)} is not a name", hint="letters, digits, dots, hyphens and underscores, 63 in all")


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

    name: str = option(validator=_is_name, help="Its name, once in the VIP.")
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
