# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with one VIP, whatever the others are. The answers are remembered, since most VIPs are the same in the next config."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import IPv6Network

import attrs
from xdpchain import IPAddress, IPNetwork

from xdpchain_elb.config import ElbConfig
from xdpchain_elb.vip import MAX_POOL, Backend, Encapsulation, Vip
from xdpchain_elb.vips import MAX_VIPS, Place

MAPPED = IPv6Network("::ffff:0:0/96")
_MAPPED_BYTES = MAPPED.network_address.packed[:12]
_UDP_OPTIONS = {"quic", "udp-stable", "udp-migration"}
_HASH_OPTIONS = ("no-source-port", "hash-destination-port-only", "hash-source-and-destination-port")


@attrs.frozen
class Flaw:
    """What is wrong, and where in the VIP."""

    place: Place
    message: str
    hint: str


@attrs.frozen(eq=False)
class Review:
    """
    What one VIP amounts to.

    `backends` has all addresses, `families` their IP versions, and `members` is the number of pairs of one of its pools and a backend.
    """

    flaws: tuple[Flaw, ...]
    backends: frozenset[IPAddress]
    families: frozenset[int]
    members: int


@lru_cache(maxsize=MAX_VIPS + 1024)
def review(vip: Vip, encapsulation: Encapsulation) -> Review:
    """Look at a VIP whose packets travel in that encapsulation."""
    flaws = [*_address(vip), *_options(vip), *_routes(vip)]
    addresses = set[IPAddress]()
    members = 0
    for place, backends in pools(vip):
        packed = [backend.address.packed for backend in backends]
        here = set(packed)
        if len(here) < len(packed):
            flaws += _twice(place, backends)
        if len(packed) > MAX_POOL:
            flaws.append(Flaw((*place, "backend", MAX_POOL), f"{len(packed)} backends are too many", f"a pool has at most {MAX_POOL}"))
        if not all(map(_is_server, here)):
            flaws += _no_servers(place, backends)
        addresses.update(backend.address for backend in backends)
        members += len(here)
    flaws += _server_ids(vip)
    if encapsulation == "ipip" and vip.address.version == 6:
        flaws += _uncarried(vip)
    return Review(tuple(flaws), frozenset(addresses), frozenset(address.version for address in addresses), members)


def reviews(config: ElbConfig) -> tuple[Review, ...]:
    """Look at all VIPs, in their order."""
    return tuple(review(vip, config.encapsulation_of(vip)) for vip in config.all_vips)


@lru_cache(maxsize=2)
def servers(reviewed: tuple[Review, ...]) -> frozenset[IPAddress]:
    """
    The addresses of all backends of some VIPs.

    A union of sets asks no address for its hash, which would be computed in Python, and compares none with itself: the file of VIPs has each once.
    """
    return frozenset[IPAddress]().union(*(each.backends for each in reviewed))


def refusal(address: IPAddress) -> tuple[str, str] | None:
    """Why an address is no server's and no node's own: a message and a hint."""
    if _is_server(address.packed):
        return None
    if address.version == 6 and address in MAPPED:
        return f"{address} is an IPv4 address in the clothes of IPv6", f"write {address.ipv4_mapped}"
    return f"{address} is not a unicast address that others could reach", "write the address of one machine on the network"


def pools(vip: Vip) -> Iterator[tuple[Place, tuple[Backend, ...]]]:
    """The sets of backends of a VIP, each with the key path of what it stands in."""
    yield (), vip.backend
    for number, route in enumerate(vip.source):
        yield ("source", number), route.backend


def _is_server(packed: bytes) -> bool:
    """Whether an address can be one machine's: not multicast, reserved, loopback, "this", mapped."""
    if len(packed) == 4:
        return 0 < packed[0] < 224 and packed[0] != 127
    return packed[0] != 0xFF and packed[:12] != _MAPPED_BYTES and packed[:15] != bytes(15)


def _address(vip: Vip) -> Iterator[Flaw]:
    network: IPNetwork = vip.address
    if isinstance(network, IPv6Network) and network.overlaps(MAPPED):
        hint = (
            "write IPv4 addresses as such, and 2000::/3 for all of IPv6"
            if vip.is_prefix
            else f"write {network.network_address.ipv4_mapped}"
        )
        yield Flaw(("address",), f"{network} has IPv4 addresses in it, in the clothes of IPv6", hint)
    elif not (vip.is_prefix or _is_server(network.network_address.packed)) or network.is_multicast:
        yield Flaw(("address",), f"{network} is not unicast", "a VIP is an address that clients connect to")


def _options(vip: Vip) -> Iterator[Flaw]:
    place: Place = ("options",)
    for option in sorted(_UDP_OPTIONS.intersection(vip.options)):
        if vip.protocol != "udp":
            yield Flaw(place, f'"{option}" is for UDP', 'leave it out, or write the protocol "udp"')
    if "server-id" in vip.options and vip.protocol != "tcp":
        yield Flaw(place, '"server-id" is an option of TCP', 'for UDP there are "quic" and "udp-stable"')
    if "quic" in vip.options and "udp-stable" in vip.options:
        yield Flaw(place, '"quic" and "udp-stable" read the same bytes in two ways', "keep the one that the VIP's clients speak")
    if "hash-source-and-destination-port" in vip.options and vip.port != 0:
        hint = "leave it out: the destination port of this VIP is in the hash by itself"
        yield Flaw(place, '"hash-source-and-destination-port" is for VIPs with port 0', hint)
    hashes = [option for option in _HASH_OPTIONS if option in vip.options]
    if len(hashes) > 1:
        yield Flaw(place, f'"{hashes[0]}" and "{hashes[1]}" contradict each other', "keep one of the two")


def _routes(vip: Vip) -> Iterator[Flaw]:
    names: dict[str, int] = {}
    owners: dict[IPNetwork, str] = {}
    for number, route in enumerate(vip.source):
        place: Place = ("source", number)
        if names.setdefault(route.name, number) != number:
            yield Flaw(
                (*place, "name"), f"{route.name} is the name of an earlier source route of {vip}", "each route has a name of its own"
            )
        for prefix in route.prefixes:
            if prefix.version != vip.address.version:
                hint = f"clients of {vip} have IPv{vip.address.version} addresses"
                yield Flaw((*place, "prefixes"), f"{prefix} is of another family than the VIP", hint)
            elif prefix in owners:
                hint = f"{owners[prefix]} has it already; leave each prefix to one route"
                yield Flaw((*place, "prefixes"), f"{prefix} stands twice in the source routes of {vip}", hint)
            owners.setdefault(prefix, route.name)


def _twice(pool: Place, backends: tuple[Backend, ...]) -> Iterator[Flaw]:
    seen = set[IPAddress]()
    for number, backend in enumerate(backends):
        if backend.address in seen:
            yield Flaw(
                (*pool, "backend", number), f"{backend.address} is in this pool already", "keep one of the two: its weight says its share"
            )
        seen.add(backend.address)


def _no_servers(pool: Place, backends: tuple[Backend, ...]) -> Iterator[Flaw]:
    for number, backend in enumerate(backends):
        if why := refusal(backend.address):
            yield Flaw((*pool, "backend", number, "address"), *why)


def _server_ids(vip: Vip) -> Iterator[Flaw]:
    """A packet names its backend by the id alone, so an id has to mean one address in all pools of a VIP."""
    owners: dict[int, IPAddress] = {}
    for pool, backends in pools(vip):
        for number, backend in enumerate(backends):
            if backend.server_id is not None and owners.setdefault(backend.server_id, backend.address) != backend.address:
                hint = f"{owners[backend.server_id]} has it already; each backend of a VIP has an id of its own"
                yield Flaw((*pool, "backend", number, "server_id"), f"server id {backend.server_id} stands twice in {vip}", hint)


def _uncarried(vip: Vip) -> Iterator[Flaw]:
    for pool, backends in pools(vip):
        wrong = [(number, backend) for number, backend in enumerate(backends) if backend.address.version == 4]
        if wrong:
            number, backend = wrong[0]
            more = f", and {len(wrong) - 1} more of this pool" if len(wrong) > 1 else ""
            hint = 'use the encapsulation "gue" for this VIP, or backends with IPv6 addresses'
            yield Flaw((*pool, "backend", number, "address"), f"IP in IP cannot carry packets of {vip} to {backend.address}{more}", hint)
