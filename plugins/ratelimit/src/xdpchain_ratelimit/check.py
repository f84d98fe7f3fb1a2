# SPDX-License-Identifier: Apache-2.0
"""What has to fit together in a config beyond the types and bounds of its keys."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Network

import attrs
from xdpchain import IPNetwork, Problem
from xdpchain.config import show_duration

from xdpchain_ratelimit import ports
from xdpchain_ratelimit.config import RatelimitConfig, Rule
from xdpchain_ratelimit.shape import Limit, of_source, shared
from xdpchain_ratelimit.tables import MAX_LISTED, MAX_TARGETS
from xdpchain_ratelimit.window import MAX_BUDGET, MAX_RATE, MAX_ROOM

MIN_BYTES = 1514
"""A burst of fewer bytes never lets a packet of the usual size through."""
MAPPED = IPv6Network("::ffff:0.0.0.0/96")

Path = tuple[str | int, ...]


def problems(config: RatelimitConfig) -> Iterator[Problem]:
    """All of them."""
    for index, rule in enumerate(config.rule):
        path: Path = ("rule", index)
        yield from _limit(path, rule, shared(config, rule))
        if rule.per_source:
            yield from _limit((*path, "per_source"), rule, of_source(config, rule, rule.per_source))
        yield from _fits(path, rule)
        for fault in rule.listing.faults:
            yield attrs.evolve(fault, path=(*path, *fault.path))
    yield from _room(config)
    yield from _overlaps(config)


def _limit(path: Path, rule: Rule, limit: Limit) -> Iterator[Problem]:
    if limit.burst is None:
        window = show_duration(limit.window_ns)
        most = min(MAX_RATE, MAX_BUDGET // limit.window_ns)
        if limit.rate > most:
            hint = f"at most {most} with this window; a shorter window allows more, and so does `burst`"
            yield Problem((*path, "rate"), f"{limit.rate} is too many for a window of {window}", hint)
        return
    if rule.unit == "bytes" and limit.burst < MIN_BYTES:
        hint = f"set `burst` to at least {MIN_BYTES}: a packet that is longer than the burst is never let in"
        yield Problem((*path, "burst" if limit.burst != limit.rate else "rate"), f"{limit.burst} bytes at once are no packet", hint)
    if limit.burst * limit.span > MAX_ROOM:
        hint = "a smaller `burst`, or a higher rate: it must fill up within 39 hours"
        yield Problem((*path, "burst"), f"a burst of {limit.burst} takes too long to fill up", hint)


def _fits(path: Path, rule: Rule) -> Iterator[Problem]:
    if rule.protocol == "icmp" and rule.ports is not None:
        yield Problem((*path, "ports"), "ICMP has no ports", "leave `ports` out")
    connections = rule.protocol == "tcp" and rule.unit == "packets"
    if rule.action in {"reset", "syn-cookie"} and not connections:
        what = rule.protocol.upper() if rule.protocol != "tcp" else "TCP by bytes"
        yield Problem((*path, "action"), f"{rule.action} answers to new TCP connections, not to {what}", 'use "drop" or "count"')
    if rule.ban is not None and rule.per_source is None:
        yield Problem((*path, "ban"), "nobody is over a limit of his own here", "set `per_source`, too: a ban is for one source")
    for index, network in enumerate(rule.destination):
        if isinstance(network, IPv6Network) and network.overlaps(MAPPED) and network.prefixlen >= MAPPED.prefixlen:
            yield Problem((*path, "destination", index), f"{network} is an IPv4 address in disguise", "write the IPv4 address or prefix")


def _room(config: RatelimitConfig) -> Iterator[Problem]:
    targets = listed = 0
    for index, rule in enumerate(config.rule):
        count = len(set(ports.each(rule.ports))) if rule.ports is not None else 1
        targets += len(set(rule.destination)) * count
        listed += len(rule.listing.prefixes)
        if targets > MAX_TARGETS:
            hint = f"at most {MAX_TARGETS} pairs of a destination and a port; a rule without ports, or without destinations, needs few"
            yield Problem(("rule", index, "ports"), "too many destinations times ports", hint)
            return
        if listed > MAX_LISTED:
            yield Problem(("rule", index), "too many prefixes in lists", f"at most {MAX_LISTED} in all rules together")
            return


def _overlaps(config: RatelimitConfig) -> Iterator[Problem]:
    """What two rules name: destination and port, or a destination for all ports."""
    owners: dict[tuple[str, IPNetwork | None], dict[int | None, int]] = {}
    for index, rule in enumerate(config.rule):
        numbers = (None,) if rule.ports is None else tuple(sorted(set(ports.each(rule.ports))))
        taken: dict[tuple[int, IPNetwork | None], list[int | None]] = {}
        for network in sorted(set(rule.destination), key=str) or (None,):
            named = owners.setdefault((rule.protocol, network), {})
            for port in numbers:
                other = named.setdefault(port, index)
                if other != index:
                    taken.setdefault((other, network), []).append(port)
        for (other, network), shared_ports in taken.items():
            yield _overlap(rule, index, other, network, [port for port in shared_ports if port is not None])


def _overlap(rule: Rule, index: int, other: int, network: IPNetwork | None, numbers: list[int]) -> Problem:
    key = "ports" if rule.ports is not None else "destination" if network is not None else "protocol"
    each = "port" if numbers else "destination"
    what = {0: "the whole", 1: f"port {numbers[0]}" if numbers else ""}.get(len(numbers), f"ports {ports.show(numbers)}")
    of = f" of {network}" if network is not None else "" if numbers else f" of {rule.protocol}"
    verb = "are" if len(numbers) > 1 else "is"
    return Problem(
        ("rule", index, key), f"{what}{of} {verb} in rule[{other}] already", f"leave each {each} to one of rule[{other}] and rule[{index}]"
    )
