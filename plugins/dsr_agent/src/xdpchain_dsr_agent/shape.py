# SPDX-License-Identifier: Apache-2.0
"""What a service is in the tables, as far as it does not depend on its place. The answers are remembered: most services are the same in the next config."""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache

import attrs
from xdpchain import IPAddress

from xdpchain_dsr_agent.config import MAX_SERVICES, DsrAgentConfig, Service

PROTOCOLS = {"tcp": 6, "udp": 17}
BITS = {"tcp": 1, "udp": 2}
"""of an element of dsr_listed"""
UNKNOWN = {"snat": 0, "direct": 1, "learn": 2}
"""`enum dsr_unknown`"""

_MAPPED = bytes(10) + b"\xff\xff"
# as in the schema, which takes three times as long; there may be tens of thousands
_PORT = struct.Struct(">16sHBB")
_SERVICE = struct.Struct("=16s16sQ2s2sBBH")
_TARGET = struct.Struct(">16s16sHBB")


@attrs.frozen(eq=False)
class Shape:
    """
    One service.

    `vip` and `workload` are the addresses in 16 bytes, `packed` is its `struct dsr_service`, `way_back` its key in dsr_ports, `targets` those in dsr_targets, one for each of its `endpoints`, which
    are keys of dsr_endpoints; `listed` is the workload's port (0: all) and `bit` that of the protocol.
    """

    id: int
    vip: bytes
    workload: bytes
    packed: bytes
    way_back: bytes
    targets: tuple[bytes, ...]
    endpoints: tuple[bytes, ...]
    listed: int
    bit: int


def sixteen(address: IPAddress) -> bytes:
    """An address as the tables have it: IPv4 as ::ffff:a.b.c.d."""
    return _MAPPED + address.packed if address.version == 4 else address.packed


@lru_cache(maxsize=2 * MAX_SERVICES)
def shape_of(service: Service) -> Shape:
    """The shape of a service."""
    vip, workload, port = sixteen(service.vip), sixteen(service.workload), service.workload_port
    proto, unknown = PROTOCOLS[service.protocol], UNKNOWN[service.unknown]
    way_back = _PORT.pack(workload, port, proto, 0)
    # stays with a service as long as it leads from the same VIP and port to the same workload and port
    id_ = int.from_bytes(hashlib.blake2b(_PORT.pack(vip, service.port, proto, 0) + way_back, digest_size=8).digest(), "little")
    packed = _SERVICE.pack(vip, workload, id_, service.port.to_bytes(2, "big"), port.to_bytes(2, "big"), proto, unknown, 0)
    endpoints = tuple(map(sixteen, service.endpoints))
    targets = tuple(_TARGET.pack(endpoint, vip, service.port, proto, 0) for endpoint in endpoints)
    return Shape(id_, vip, workload, packed, way_back, targets, endpoints, port, BITS[service.protocol])


@lru_cache(maxsize=2)
def shapes_of(config: DsrAgentConfig) -> tuple[Shape, ...]:
    """The shapes of all services, in their order."""
    return tuple(map(shape_of, config.all_services))
