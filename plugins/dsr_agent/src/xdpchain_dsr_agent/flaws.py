# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with one service, whatever the others are. The answers are remembered, since most services are the same in the next config."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import IPv6Network

import attrs
from xdpchain import IPAddress

from xdpchain_dsr_agent.config import MAX_SERVICES, Service

MAPPED = IPv6Network("::ffff:0:0/96")
_MAPPED_BYTES = MAPPED.network_address.packed[:12]

Place = tuple[str | int, ...]


@attrs.frozen
class Flaw:
    """What is wrong, and where in the service."""

    place: Place
    message: str
    hint: str


@lru_cache(maxsize=2 * MAX_SERVICES)
def flaws(service: Service) -> tuple[Flaw, ...]:
    """Look at a service."""
    return tuple(_flaws(service))


def refusal(address: IPAddress) -> tuple[str, str] | None:
    """Why an address is no machine's on the network: a message and a hint."""
    packed = address.packed
    if len(packed) == 4:
        fine = 0 < packed[0] < 224 and packed[0] != 127
    else:
        fine = packed[0] != 0xFF and packed[:12] != _MAPPED_BYTES and packed[:15] != bytes(15)
    if fine:
        return None
    if address.version == 6 and address in MAPPED:
        return f"{address} is an IPv4 address in the clothes of IPv6", f"write {address.ipv4_mapped}"
    return f"{address} is not a unicast address that others could reach", "write the address of one machine on the network"


def _flaws(service: Service) -> Iterator[Flaw]:
    named: list[tuple[Place, IPAddress]] = [(("vip",), service.vip), (("workload",), service.workload)]
    for place, address in [*named, *((("endpoint", number), one) for number, one in enumerate(service.endpoint))]:
        if why := refusal(address):
            yield Flaw(place, *why)
    if service.vip.version != service.workload.version:
        hint = "packets are translated, not converted: a VIP of each family has a workload's address of that family"
        yield Flaw(("workload",), f"{service.workload} is of another family than the VIP {service.vip}", hint)
    elif service.vip == service.workload:
        hint = "leave the service out: what is sent to the workload's own address needs no agent"
        yield Flaw(("workload",), f"{service.workload} is the VIP itself", hint)
    if not service.port and service.backend_port is not None:
        hint = "with port 0 each port is the workload's, too: leave it out, or write services for single ports"
        yield Flaw(("backend_port",), f"one port, {service.backend_port}, cannot stand for all of the VIP", hint)
    seen = set[IPAddress]()
    for number, endpoint in enumerate(service.endpoint):
        if endpoint in seen:
            yield Flaw(("endpoint", number), f"{endpoint} stands here twice", "keep one of the two")
        seen.add(endpoint)
