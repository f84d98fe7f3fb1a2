# SPDX-License-Identifier: Apache-2.0
"""What a service is in the tables, as far as it does not depend on its place. The answers are remembered: most services are the same in the next config."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

import attrs
from xdpchain import IPAddress

from xdpchain_dsr_agent.config import MAX_SERVICES, Service
from xdpchain_dsr_agent.tables import PORT, SERVICE, TARGET

PROTOCOLS = {"tcp": 6, "udp": 17}
BITS = {"tcp": 1, "udp": 2}
"""of an element of dsr_listed"""
UNKNOWN = {"snat": 0, "direct": 1, "learn": 2}
"""`enum dsr_unknown`"""

_MAPPED = bytes(10) + b"\xff\xff"


@attrs.frozen(eq=False)
class Shape:
    """
    One service.

    `packed` is its `struct dsr_service`, `way_back` its key in dsr_ports, `targets` those in dsr_targets, one for each of its `endpoints`, which
    are keys of dsr_endpoints; `listed` is the workload's port (0: all) and `bit` that of the protocol.
    """

    id: int
    packed: bytes
    way_back: bytes
    targets: tuple[bytes, ...]
    endpoints: tuple[bytes, ...]
    listed: int
    bit: int


def mapped(address: IPAddress) -> IPv6Address:
    """An address as the tables have it: IPv4 as ::ffff:a.b.c.d."""
    return IPv6Address(_MAPPED + address.packed) if isinstance(address, IPv4Address) else address


def service_id(service: Service) -> int:
    """A number that stays with a service as long as it leads from the same VIP and port to the same workload and port."""
    text = f"{service.vip} {service.port} {service.protocol} {service.workload} {service.workload_port}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


@lru_cache(maxsize=2 * MAX_SERVICES)
def shape_of(service: Service) -> Shape:
    """The shape of a service."""
    id_, proto, port = service_id(service), PROTOCOLS[service.protocol], service.workload_port
    vip, workload = mapped(service.vip), mapped(service.workload)
    endpoints = [mapped(endpoint) for endpoint in service.endpoints]
    packed = {
        "vip": vip,
        "workload": workload,
        "id": id_,
        "port": service.port,
        "backend_port": port,
        "proto": proto,
        "unknown": UNKNOWN[service.unknown],
        "zero": 0,
    }
    return Shape(
        id_,
        SERVICE.pack(packed),
        PORT.pack({"workload": workload, "port": port, "proto": proto, "zero": 0}),
        tuple(TARGET.pack({"endpoint": endpoint, "vip": vip, "port": service.port, "proto": proto, "zero": 0}) for endpoint in endpoints),
        tuple(endpoint.packed for endpoint in endpoints),
        port,
        BITS[service.protocol],
    )
