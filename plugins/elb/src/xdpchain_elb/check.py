# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a config beyond the types of its keys, and with its backends in the light of the routes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice

from xdpchain import IPAddress, IPNetwork, NextHop, NextHops, Problem

from xdpchain_elb.config import MAX_BACKENDS, MAX_MEMBERS, ElbConfig
from xdpchain_elb.flaws import Review, pools, refusal, reviews, servers
from xdpchain_elb.vips import MAX_VIPS, Place

Reviews = tuple[Review, ...]
"""Of all VIPs, in their order."""

MOST_PROBLEMS = 100
MOST_HOPS = 20
ROUTES_PER_VIP = 16
"""Prefixes in all source routes, in relation to the maximum of VIPs; see `elb_sources` in the schema."""
POOLS_PER_VIP = 2
"""VIPs and source routes together, in relation to the maximum of VIPs; see `elb_pools`."""


def problems(config: ElbConfig) -> Iterator[Problem]:
    """Everything that is wrong, up to a number that can still be read."""
    reviewed = reviews(config)
    return _at_most(
        MOST_PROBLEMS,
        chain(config.listing.faults(), _node(config, reviewed), _twice(config), _each(config, reviewed), _too_many(config, reviewed)),
    )


def next_hop_problems(config: ElbConfig, hops: NextHops) -> Iterator[Problem]:
    """Backends that no packet can be sent to, or not by the interface that it came from."""
    if config.next_hop != "auto":
        return iter(())
    unreachable = {address: why for address, hop in hops.items() if (why := _unreachable(hop))}
    return _at_most(MOST_HOPS, _first_places(config, unreachable)) if unreachable else iter(())


def _at_most(most: int, found: Iterator[Problem]) -> Iterator[Problem]:
    """The first ones, and how many more there are."""
    yield from islice(found, most)
    more = sum(1 for _ in found)
    if more:
        yield Problem((), f"and {more} more problems", "correct those above first")


def _problem(config: ElbConfig, number: int, place: Place, message: str, hint: str) -> Problem:
    """A problem at a key path in the VIP of that number in `all_vips`."""
    in_table = len(config.vip)
    if number < in_table:
        return Problem(("vip", number, *place), message, hint)
    return Problem(("vips",), message, hint, config.listing.file, config.listing.line_of(number - in_table, place))


def _name(config: ElbConfig, number: int) -> str:
    """Where a VIP stands, in words."""
    in_table = len(config.vip)
    if number < in_table:
        return f"vip[{number}]"
    return f"{config.listing.file}, line {config.listing.line_of(number - in_table, ())}"


def _node(config: ElbConfig, reviewed: Reviews) -> Iterator[Problem]:
    """The keys that hold for all VIPs."""
    mac = config.next_hop
    if isinstance(mac, bytes) and (mac[0] & 1 or not any(mac)):
        kind = "a group of machines" if mac[0] & 1 else "no machine"
        yield Problem(("next_hop",), f"{mac.hex(':')} is the address of {kind}", 'write the MAC address of one router, or "auto"')
    for number, address in enumerate(config.source):
        if why := refusal(address):
            yield Problem(("source", number), *why)
        if address.version in {earlier.version for earlier in config.source[:number]}:
            yield Problem(("source", number), f"{address} is the second IPv{address.version} address", "one of each family is used")
    missing = {4, 6} - {address.version for address in config.source}
    for number, (vip, its) in enumerate(zip(config.all_vips, reviewed, strict=True)):
        if config.encapsulation_of(vip) == "gue":
            for family in sorted(missing & its.families):
                missing.discard(family)
                hint = f"add an IPv{family} address of this node, from which GUE packets are sent"
                yield Problem(
                    ("source",), f"has no IPv{family} address, which GUE to backends of {vip} ({_name(config, number)}) needs", hint
                )


def _twice(config: ElbConfig) -> Iterator[Problem]:
    """VIPs that are there already, be it in the other file."""
    owners: dict[tuple[IPNetwork, int, str], int] = {}
    for number, vip in enumerate(config.all_vips):
        owner = owners.setdefault((vip.address, vip.port, vip.protocol), number)
        if owner != number:
            yield _problem(
                config, number, (), f"{vip} is in {_name(config, owner)} already", "keep one of the two, with the backends of both"
            )


def _each(config: ElbConfig, reviewed: Reviews) -> Iterator[Problem]:
    """Flaws of the VIPs themselves, and backends that are one of the VIPs: what is sent to these would come back."""
    vips = config.all_vips
    both = servers(reviewed).intersection([vip.address.network_address for vip in vips if not vip.is_prefix])
    for number, (vip, its) in enumerate(zip(vips, reviewed, strict=True)):
        for flaw in its.flaws:
            yield _problem(config, number, flaw.place, flaw.message, flaw.hint)
        if both and not both.isdisjoint(its.backends):
            for pool, backends in pools(vip):
                for index, address in enumerate(backend.address for backend in backends):
                    if address in both:
                        place = (*pool, "backend", index, "address")
                        yield _problem(config, number, place, f"{address} is a VIP itself", "write the address of the server behind it")


def _too_many(config: ElbConfig, reviewed: Reviews) -> Iterator[Problem]:
    """More than the tables have room for."""
    vips = config.all_vips
    members = sum(its.members for its in reviewed)
    for key, what, count, most, limit in (
        ("max_vips", "VIPs", len(vips), config.max_vips, MAX_VIPS),
        ("max_backends", "addresses of backends", len(servers(reviewed)), config.max_backends, MAX_BACKENDS),
        ("max_members", "backends of all VIPs together", members, config.max_members, MAX_MEMBERS),
    ):
        if count > most:
            hint = (
                f"set {key} to {count} or more"
                if count <= limit
                else f"even {key} = {limit}, the highest, is not enough: use several nodes"
            )
            yield Problem((key,), f"{count} {what} are too many for {key} = {most}", hint)
    sets = sum(1 + len(vip.source) for vip in vips)
    if sets > POOLS_PER_VIP * config.max_vips:
        hint = f"there is room for {POOLS_PER_VIP} times max_vips = {config.max_vips}: set it higher"
        yield Problem(("max_vips",), f"{sets} VIPs and source routes are too many", hint)
    prefixes = sum(len(route.prefixes) for vip in vips for route in vip.source)
    if prefixes > ROUTES_PER_VIP * config.max_vips:
        hint = f"there is room for {ROUTES_PER_VIP} for each VIP of max_vips = {config.max_vips}: set it higher"
        yield Problem(("max_vips",), f"{prefixes} prefixes of source routes are too many", hint)


def _unreachable(hop: NextHop) -> tuple[str, str] | None:
    """Why no packet can take this way: the end of a message, and a hint."""
    if not hop.interface:
        return hop.problem or "there is no route to it", "add a route, or remove the backend"
    if not hop.here:
        hint = (
            "packets leave by the interface that they came in on: route the backend by it, or put the instance into the chain of this one"
        )
        return f"the way to it leaves by {hop.interface}, where no chain has this instance", hint
    return None


def _first_places(config: ElbConfig, unreachable: Mapping[IPAddress, tuple[str, str]]) -> Iterator[Problem]:
    """One problem for each of these addresses, where it stands first."""
    left = dict(unreachable)
    for number, vip in enumerate(config.all_vips):
        for pool, backends in pools(vip):
            for index, backend in enumerate(backends):
                why = left.pop(backend.address, None)
                if why:
                    yield _problem(config, number, (*pool, "backend", index, "address"), f"{backend.address}: {why[0]}", why[1])
        if not left:
            return
