# SPDX-License-Identifier: Apache-2.0
"""What a VIP is in the tables, as far as it does not depend on numbers: keys, options, pools and their backends."""

from __future__ import annotations

import functools
import hashlib
import struct
from array import array
from collections.abc import Sequence

import attrs
from xdpchain import IPAddress, IPNetwork

from xdpchain_elb.config import Backend, Vip
from xdpchain_elb.gates import ANY_PORTS, PREFIXES

GONE, UP, DRAINING = 0, 1, 2
"""`enum elb_state`"""

NO_SOURCE_PORT, NO_DESTINATION_PORT, DESTINATION_PORT_ONLY, PORTLESS, SOURCE_ROUTES = 1, 2, 4, 8, 16
"""`enum elb_option`, with the next"""
ID_OPTIONS = {"quic": 32, "server-id": 64, "udp-stable": 128}
ANY_ID = sum(ID_OPTIONS.values())
SECOND_CHANCE = 256

PROTOCOLS = {"tcp": 6, "udp": 17}
TICK_NS = 1 << 30

_MAPPED = bytes(10) + b"\xff\xff"
_SERVICE = struct.Struct(">16sHBB")
_PREFIX = struct.Struct(">BBH16s")
_MARK = struct.Struct("=16sII")

Key = tuple[str, bytes]
"""A map and a packed key in it."""


@attrs.frozen(eq=False)
class Seat:
    """A backend in a pool. `packed` is its address in 16 bytes, `share` its weight in the ring."""

    address: IPAddress
    packed: bytes
    share: int
    state: int
    server_id: int | None


@attrs.frozen(eq=False)
class Pool:
    """
    A set of backends with one ring.

    `name` is a hash of what it is for, `marks` is what its ring depends on besides numbers, `has_gone` says whether members are gone that may come back.
    """

    name: int
    route: str
    seats: Sequence[Seat]
    marks: bytes
    has_gone: bool

    def content(self, members: Sequence[int], version: int, *, track: bool) -> int:
        """A hash of what its ring is made of, never 0."""
        return _hash64(self.marks + array("I", [*members, version, track]).tobytes())


@attrs.frozen(eq=False)
class Shape:
    """One VIP. `sources` are its source routes: bits of the prefix, its address, and which of the pools."""

    vip: Vip
    service: Key
    marker: Key
    options: int
    track: bool
    pools: Sequence[Pool]
    sources: Sequence[tuple[int, bytes, int]]
    addresses: frozenset[bytes]

    @property
    def gates(self) -> int:
        """The gates through which packets find it."""
        return (0 if self.vip.port else ANY_PORTS) | (PREFIXES if self.vip.is_prefix else 0)


@functools.lru_cache(maxsize=8192)
def shape_of(vip: Vip) -> Shape:
    """The shape of a VIP; the same object for the same VIP."""
    migrates = "udp-migration" in vip.options
    pools = [_pool(vip, route, backends, migrates=migrates) for route, backends in vip.pools]
    return Shape(
        vip=vip,
        service=service_key(vip.address, vip.port, PROTOCOLS[vip.protocol]),
        marker=service_key(vip.address, 0, 0),
        options=options_of(vip),
        track="no-tracking" not in vip.options,
        pools=pools,
        sources=[(*_bits(prefix), at) for at, route in enumerate(vip.source, 1) for prefix in route.prefixes],
        addresses=frozenset(seat.packed for pool in pools for seat in pool.seats),
    )


def options_of(vip: Vip) -> int:
    """The bits of `enum elb_option`."""
    bits = sum(bit for name, bit in ID_OPTIONS.items() if name in vip.options)
    by_destination = "hash-destination-port-only" in vip.options
    if by_destination:
        bits |= DESTINATION_PORT_ONLY
    if "no-source-port" in vip.options:
        bits |= NO_SOURCE_PORT
    if not vip.port and not by_destination and "hash-source-and-destination-port" not in vip.options:
        bits |= NO_DESTINATION_PORT
    if bits & NO_SOURCE_PORT and bits & NO_DESTINATION_PORT:
        bits |= PORTLESS
    return bits | (SOURCE_ROUTES if vip.source else 0)


def mapped(address: IPAddress) -> bytes:
    """An address in 16 bytes, IPv4 as IPv4-mapped."""
    return _MAPPED + address.packed if address.version == 4 else address.packed


def is_ipv4(packed: bytes) -> bool:
    """Whether 16 bytes are an IPv4 address."""
    return packed.startswith(_MAPPED)


def service_key(network: IPNetwork, port: int, protocol: int) -> Key:
    """Where the number of a VIP stands."""
    bits, packed = _bits(network)
    if bits == 128:
        return "elb_services", _SERVICE.pack(packed, port, protocol, 0)
    return "elb_prefixes", (32 + bits).to_bytes(4, "little") + _PREFIX.pack(protocol, 0, port, packed)


def ticks(span_ns: int) -> int:
    """A span of time in ticks of the datapath, rounded up."""
    return -(-span_ns // TICK_NS)


def _bits(network: IPNetwork) -> tuple[int, bytes]:
    bits = network.prefixlen + (96 if network.version == 4 else 0)
    return bits, mapped(network.network_address)


def _pool(vip: Vip, route: str, backends: Sequence[Backend], *, migrates: bool) -> Pool:
    seats = [_seat(backend, migrates=migrates) for backend in backends]
    name = _hash64(f"{vip.address} {vip.port} {vip.protocol} {route}".encode())
    marks = b"".join(_MARK.pack(seat.packed, seat.share, seat.state) for seat in seats)
    return Pool(name, route, seats, marks, any(seat.state == GONE for seat in seats))


@functools.lru_cache(maxsize=16384)
def _seat(backend: Backend, *, migrates: bool) -> Seat:
    state = UP if backend.share else DRAINING
    if backend.down and migrates:
        state = GONE
    return Seat(backend.address, mapped(backend.address), backend.share, state, backend.server_id)


def _hash64(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") or 1
