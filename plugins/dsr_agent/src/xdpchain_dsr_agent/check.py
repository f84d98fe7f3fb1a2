# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a config beyond the types of its keys."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Network
from itertools import chain, islice

from xdpchain import IPAddress, Problem

from xdpchain_dsr_agent.config import MAX_SERVICES, DsrAgentConfig
from xdpchain_dsr_agent.flaws import MAPPED, Place, flaws, refusal
from xdpchain_dsr_agent.service import with_port
from xdpchain_dsr_agent.shape import BITS, shapes_of, sixteen
from xdpchain_dsr_agent.tables import ENDPOINTS_PER_SERVICE

MOST_PROBLEMS = 100


def problems(config: DsrAgentConfig) -> Iterator[Problem]:
    """Everything that is wrong, up to a number that can still be read."""
    found = chain(
        config.listing.faults(),
        _sources(config),
        _hairpin(config),
        _each(config),
        _way_in(config),
        _way_back(config),
        _all_ports(config),
        _too_many(config),
    )
    yield from islice(found, MOST_PROBLEMS)
    more = sum(1 for _ in found)
    if more:
        yield Problem((), f"and {more} more problems", "correct those above first")


def _problem(config: DsrAgentConfig, number: int, place: Place, message: str, hint: str) -> Problem:
    """A problem in the service of that number in `all_services`."""
    in_table = len(config.service)
    if number < in_table:
        return Problem(("service", number, *place), message, hint)
    return Problem(("services",), message, hint, config.listing.file, config.listing.lines[number - in_table])


def _name(config: DsrAgentConfig, number: int) -> str:
    """Where a service stands, in words."""
    in_table = len(config.service)
    return f"service[{number}]" if number < in_table else f"{config.listing.file}, line {config.listing.lines[number - in_table]}"


def _sources(config: DsrAgentConfig) -> Iterator[Problem]:
    for number, network in enumerate(config.accept_from):
        if isinstance(network, IPv6Network) and network.overlaps(MAPPED):
            hint = "write IPv4 addresses as such, and 2000::/3 for all of IPv6"
            yield Problem(("accept_from", number), f"{network} has IPv4 addresses in it, in the clothes of IPv6", hint)
        elif network.is_multicast:
            yield Problem(("accept_from", number), f"{network} is not unicast", "write the addresses that load balancers send from")


def _hairpin(config: DsrAgentConfig) -> Iterator[Problem]:
    shapes = shapes_of(config)
    used = {shape.vip: "a VIP" for shape in shapes} | {shape.workload: "a workload's" for shape in shapes}
    families = set[int]()
    for number, address in enumerate(config.hairpin):
        place = ("hairpin", number)
        if why := refusal(address):
            yield Problem(place, *why)
        if address.version in families:
            yield Problem(place, f"{address} is the second IPv{address.version} address", "one of each family is used")
        families.add(address.version)
        if whose := used.get(sixteen(address)):
            yield Problem(place, f"{address} is {whose} address of a service", "write an address that is used for nothing else")


def _each(config: DsrAgentConfig) -> Iterator[Problem]:
    """Flaws of the services themselves, and what the others and the instance make of their addresses and ports."""
    gue = config.gue_port if "gue" in config.encapsulation else None
    shapes = shapes_of(config)
    vips = {shape.vip for shape in shapes}
    for number, (service, shape) in enumerate(zip(config.all_services, shapes, strict=True)):
        for flaw in flaws(service):
            yield _problem(config, number, flaw.place, flaw.message, flaw.hint)
        if shape.workload in vips or not vips.isdisjoint(shape.endpoints):
            yield from _vip_itself(config, number, vips)
        if shape.bit == BITS["udp"] and gue in {service.port, shape.listed}:
            key = "port" if gue == service.port else "backend_port"
            hint = "choose another port, or another gue_port"
            yield _problem(
                config, number, (key,), f"UDP port {gue} is where GUE comes in (gue_port): nothing else can be served at it", hint
            )


def _vip_itself(config: DsrAgentConfig, number: int, vips: set[bytes]) -> Iterator[Problem]:
    """Addresses of a service that are VIPs: what is sent to these goes to the load balancers."""
    service = config.all_services[number]
    named: list[tuple[Place, IPAddress]] = [(("endpoint", at), one) for at, one in enumerate(service.endpoint)]
    if service.workload != service.vip:
        named.append((("workload",), service.workload))
    for place, address in named:
        if sixteen(address) in vips:
            yield _problem(config, number, place, f"{address} is a VIP itself", "write the address of the machine behind it")


def _way_in(config: DsrAgentConfig) -> Iterator[Problem]:
    """Two services that the same packets are for."""
    owners: dict[bytes, int] = {}
    for number, shape in enumerate(shapes_of(config)):
        for at, target in enumerate(shape.targets):
            owner = owners.setdefault(target, number)
            if owner != number:
                service = config.all_services[number]
                endpoint = service.endpoints[at]
                hint = "one packet has one workload: keep one of the two, or give them endpoints of their own"
                message = f"{service} at {endpoint} is in {_name(config, owner)} already"
                yield _problem(config, number, ("endpoint",) if service.endpoint else (), message, hint)


def _way_back(config: DsrAgentConfig) -> Iterator[Problem]:
    """Two services of which nobody can say whose answer it is that a workload sends."""
    owners: dict[bytes, int] = {}
    for number, shape in enumerate(shapes_of(config)):
        owner = owners.setdefault(shape.way_back, number)
        if owner == number:
            continue
        service, other = config.all_services[number], config.all_services[owner]
        same = str(other) == str(service)
        if same and not set(other.endpoints).isdisjoint(service.endpoints):
            continue  # a problem of the way in
        if same:
            message = f"{service} of {service.workload} is in {_name(config, owner)} already, with other endpoints"
            yield _problem(config, number, (), message, "write one service with all of its endpoints")
            continue
        ports = "all ports of" if not service.workload_port else f"port {service.workload_port} of"
        message = f"an answer from {ports} {service.workload} ({service.protocol}) may be that of {service} or of {other} ({_name(config, owner)})"
        hint = "give each VIP and port a port of its own at the workload (backend_port), or an address of its own"
        yield _problem(config, number, ("workload",) if not service.workload_port else ("backend_port",), message, hint)


def _all_ports(config: DsrAgentConfig) -> Iterator[Problem]:
    """Services of single ports of a workload, beside one of all its ports."""
    shapes = shapes_of(config)
    whole = {(shape.workload, shape.bit): number for number, shape in enumerate(shapes) if not shape.listed}
    if not whole:
        return
    for number, shape in enumerate(shapes):
        owner = whole.get((shape.workload, shape.bit))
        if owner is None or not shape.listed:
            continue
        service, other = config.all_services[number], config.all_services[owner]
        if (service.vip, service.port) == (other.vip, service.workload_port):
            continue
        its = with_port(other.vip, service.workload_port)
        message = (
            f"an answer from {service.back} may be that of {service} or of {its} {service.protocol} ({_name(config, owner)} has all ports)"
        )
        hint = "list the ports of the other service one by one, or give one of the two an address of its own at the workload"
        yield _problem(config, number, ("backend_port",) if service.backend_port is not None else ("port",), message, hint)


def _too_many(config: DsrAgentConfig) -> Iterator[Problem]:
    """More than the tables have room for."""
    shapes = shapes_of(config)
    count, most = len(shapes), config.max_services
    if count > most:
        hint = (
            f"set max_services to {count} or more"
            if count <= MAX_SERVICES
            else f"even max_services = {MAX_SERVICES}, the highest, is not enough: use several nodes"
        )
        yield Problem(("max_services",), f"{count} services are too many for max_services = {most}", hint)
    endpoints = sum(len(shape.endpoints) for shape in shapes)
    if endpoints > ENDPOINTS_PER_SERVICE * most:
        hint = f"there is room for {ENDPOINTS_PER_SERVICE} for each service of max_services = {most}: set it higher"
        yield Problem(("max_services",), f"{endpoints} endpoints of all services together are too many", hint)
