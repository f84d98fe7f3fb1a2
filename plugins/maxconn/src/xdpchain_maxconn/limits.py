# SPDX-License-Identifier: Apache-2.0
"""
The limits of a config as they stand in the maps, and the writes that lead from one config to another.

A limit is found again by its id, a hash of what it is about: its counts go on whatever becomes of its numbers and of its place in the file.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from xdpchain import Delete, IPAddress, IPNetwork, Maps, Put, Write

from xdpchain_maxconn.config import Limit, MaxconnConfig, ports_of
from xdpchain_maxconn.tables import PLACES, SECRETS, no_count

NO_MAX = 1 << 62
Service = tuple[IPv6Address, int]


def mapped(address: IPAddress) -> IPv6Address:
    """An address in 16 bytes."""
    return IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed) if isinstance(address, IPv4Address) else address


def limit_id(limit: Limit) -> int:
    """What a limit is found again by."""
    ports = ",".join(map(str, sorted(set(ports_of(limit)))))
    text = f"{limit.address or ''} {ports} {limit.source_ipv4} {limit.source_ipv6}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") | 1


def places(maps: Maps) -> dict[int, int]:
    """The places of all limits by their ids."""
    return {limit["id"]: place for place, limit in maps["mc_limits"].items() if limit["id"]}


def generation(config: MaxconnConfig) -> int:
    """A number of 32 bits that differs when connections may concern other limits."""
    text = " ".join(f"{limit_id(limit)}:{limit.source_max is not None}" for limit in sorted(config.limit, key=limit_id))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def writes(old: MaxconnConfig | None, new: MaxconnConfig, maps: Maps) -> Iterator[Write]:
    """The writes from `old` to `new`, in an order that packets may see half of."""
    if old is None:
        yield from (Put("mc_masks", bits, IPv6Network((0, bits)).netmask) for bits in range(129))
    if not any(maps["mc_secret"].blob()):
        yield Put("mc_secret", 0, {"word": [secrets.randbits(64) for _ in range(SECRETS)]})
    had = places(maps)
    wanted = _place([limit_id(limit) for limit in new.limit], had)
    for id_, place in wanted.items():
        if id_ not in had:
            yield Put("mc_limits", place, {"id": id_, "count": no_count()})
    before = _rules(old, had) if old else {}
    after = _rules(new, wanted)
    yield from (Put("mc_rules", place, rule) for place, rule in after.items() if before.get(place) != rule)
    old_routes, routes = _routes(old, had) if old else {}, _routes(new, wanted)
    yield from _allow(old.allow if old else (), new.allow)
    # a connection that finds a new way while the settings are the old ones is counted right; only its generation is old
    yield from (_route(service, place) for service, place in routes.items() if old_routes.get(service) != place)
    settings = _settings(new, wanted)
    if old is None or _settings(old, had) != settings:
        yield Put("mc_settings", 0, settings)
    for address, port in old_routes.keys() - routes.keys():
        yield Delete("mc_services", {"address": address, "port": port}) if address else Delete("mc_ports", port)
    for place in set(had.values()).difference(wanted.values()):
        yield Delete("mc_rules", place)
        yield Delete("mc_limits", place)
        yield Delete("mc_stats", place)


def destination(config: MaxconnConfig) -> Mapping[tuple[bytes, int], Limit]:
    """The limits by what they are about: address (empty: any) and port (0: any)."""
    return {(mapped(limit.address).packed if limit.address else b"", port): limit for limit in config.limit for port in ports_of(limit)}


def _place(wanted: Iterable[int], had: Mapping[int, int]) -> dict[int, int]:
    """A place for each: the one that it has, or a free one. What became free last is taken last: a packet may still be reading there."""
    top = max(had.values(), default=0)
    used = set(had.values())
    free = (place for place in (*range(top + 1, PLACES), *range(1, top + 1)) if place not in used)
    return {one: had[one] if one in had else next(free) for one in wanted}


def _rules(config: MaxconnConfig, at: Mapping[int, int]) -> dict[int, dict[str, Any]]:
    return {at[limit_id(limit)]: _rule(limit) for limit in config.limit}


def _rule(limit: Limit) -> dict[str, Any]:
    return {
        "id": limit_id(limit),
        "max": NO_MAX if limit.max is None else limit.max,
        "source_max": limit.source_max or 0,
        "enforce": limit.enforced,
        "reset": int(limit.action == "reset"),
        "bits": [96 + limit.source_ipv4, limit.source_ipv6],
        "unused": 0,
    }


def _routes(config: MaxconnConfig, at: Mapping[int, int]) -> dict[tuple[IPv6Address | None, int], int]:
    """Places by address and port, the node's left out."""
    return {
        (mapped(limit.address) if limit.address else None, port): at[limit_id(limit)]
        for limit in config.limit
        if limit.address or limit.ports
        for port in ports_of(limit)
    }


def _route(service: tuple[IPv6Address | None, int], place: int) -> Write:
    address, port = service
    return Put("mc_services", {"address": address, "port": port}, place) if address else Put("mc_ports", port, place)


def _settings(config: MaxconnConfig, at: Mapping[int, int]) -> dict[str, int]:
    node = next((at[limit_id(limit)] for limit in config.limit if not limit.address and not limit.ports), 0)
    return {
        "generation": generation(config),
        "node": node,
        "addresses": int(any(limit.address for limit in config.limit)),
        "allow": int(bool(config.allow)),
        "outgoing": int(config.outgoing),
    }


def _allow(old: Iterable[IPNetwork], new: Iterable[IPNetwork]) -> Iterator[Write]:
    before, after = set(map(_prefix, old)), set(map(_prefix, new))
    for bits, address in sorted(after - before):
        yield Put("mc_allow", {"bits": bits, "address": address}, 1)
    for bits, address in sorted(before - after):
        yield Delete("mc_allow", {"bits": bits, "address": address})


def _prefix(network: IPNetwork) -> tuple[int, IPv6Address]:
    bits = network.prefixlen + (96 if isinstance(network, IPv4Network) else 0)
    return bits, mapped(network.network_address)
