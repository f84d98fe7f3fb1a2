# SPDX-License-Identifier: Apache-2.0
"""The writes between two configs: services keep their places, so that flows which name one find it again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

from xdpchain import Delete, IPAddress, IPNetwork, Maps, Put, Write

from xdpchain_dsr_agent.config import DsrAgentConfig, Service

FORMS = {"gue": 1, "ipip": 2}
UNKNOWN = {"snat": 0, "direct": 1, "learn": 2}
PROTOCOLS = {"tcp": 6, "udp": 17}
NOWHERE = IPv6Address(0)

Row = tuple[str, Any]
"""a map and a key"""


def mapped(address: IPAddress) -> IPv6Address:
    """An address as the tables have it: IPv4 as ::ffff:a.b.c.d."""
    return IPv6Address(f"::ffff:{address}") if isinstance(address, IPv4Address) else address


def service_id(service: Service) -> int:
    """A number that stays with a service as long as it leads from the same VIP and port to the same workload and port."""
    text = f"{service.vip} {service.port} {service.protocol} {service.workload} {service.workload_port}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def places(maps: Maps) -> dict[int, int]:
    """The places of all services by their ids."""
    return {service["id"]: place for place, service in maps["dsr_services"].items() if service["id"]}


def writes(old: DsrAgentConfig | None, new: DsrAgentConfig, maps: Maps) -> Iterator[Write]:
    """The writes from `old` to `new`: a service is there before anything leads to it, and goes when nothing does."""
    had = places(maps)
    wanted = _place([service_id(service) for service in new.service], had)
    before, after = (_rows(old, had) if old else {}), _rows(new, wanted)
    services = {wanted[service_id(service)]: _service(service) for service in new.service}
    for place, service in services.items():
        if service["id"] not in had:
            yield Delete("dsr_stats", place)
        yield Put("dsr_services", place, service)
    # what is refused comes last, so that no packet is taken for a stranger's in between
    yield from (Put(name, _key(name, key), value) for (name, key), value in after.items() if before.get((name, key)) != value)
    yield from (Delete(name, _key(name, key)) for name, key in reversed(list(before)) if (name, key) not in after)
    yield from (Delete("dsr_services", place) for id_, place in had.items() if id_ not in wanted)


def _place(ids: Sequence[int], had: Mapping[int, int]) -> dict[int, int]:
    taken = set(had.values())
    free = (place for place in range(1, len(ids) + len(taken) + 2) if place not in taken)
    return {id_: had[id_] if id_ in had else next(free) for id_ in ids}


def _service(service: Service) -> dict[str, Any]:
    return {
        "vip": mapped(service.vip),
        "workload": mapped(service.workload),
        "id": service_id(service),
        "port": service.port,
        "backend_port": service.workload_port,
        "proto": PROTOCOLS[service.protocol],
        "unknown": UNKNOWN[service.unknown],
        "zero": 0,
    }


def _rows(config: DsrAgentConfig, places: Mapping[int, int]) -> dict[Row, Any]:
    """All elements of the maps that a config asks for, in the order in which they are to be written."""
    rows: dict[Row, Any] = {("dsr_settings", 0): _settings(config)}
    rows |= {("dsr_accept", _prefix(network)): 1 for network in config.accept_from}
    listed: dict[int, int] = {}
    for service in config.service:
        place, proto, port = places[service_id(service)], PROTOCOLS[service.protocol], service.workload_port
        rows["dsr_ports", (mapped(service.workload), port, proto)] = place
        rows |= {("dsr_targets", (mapped(endpoint), mapped(service.vip), service.port, proto)): place for endpoint in service.endpoints}
        if port:
            listed[port] = listed.get(port, 0) | {6: 1, 17: 2}[proto]
    rows |= {("dsr_listed", port): bits for port, bits in listed.items()}
    rows |= {("dsr_endpoints", mapped(endpoint)): 1 for service in config.service for endpoint in service.endpoints}
    return rows


def _key(name: str, key: Any) -> Any:
    if name == "dsr_accept":
        return {"bits": key[0], "address": key[1]}
    if name == "dsr_ports":
        return {"workload": key[0], "port": key[1], "proto": key[2], "zero": 0}
    if name == "dsr_targets":
        return {"endpoint": key[0], "vip": key[1], "port": key[2], "proto": key[3], "zero": 0}
    return key


def _prefix(network: IPNetwork) -> tuple[int, IPv6Address]:
    more = 96 if isinstance(network, IPv4Network) else 0
    return network.prefixlen + more, mapped(network.network_address)


def _settings(config: DsrAgentConfig) -> dict[str, Any]:
    hairpin = {address.version: mapped(address) for address in config.hairpin}
    return {
        "forms": sum({FORMS[name] for name in config.encapsulation}),
        "all_ports": int(any(not service.workload_port for service in config.service)),
        "to_stack": int(config.answers == "stack"),
        "gue_port": config.gue_port,
        "zero": 0,
        "hairpin4": hairpin.get(4, NOWHERE),
        "hairpin6": hairpin.get(6, NOWHERE),
    }
