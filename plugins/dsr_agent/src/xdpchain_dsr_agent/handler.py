# SPDX-License-Identifier: Apache-2.0
"""The writes between two configs: services keep their places, so that flows which name one find it again."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address
from itertools import chain
from operator import attrgetter
from typing import Any

import attrs
from xdpchain import Delete, IPNetwork, Maps, Put, PutMany, Write

from xdpchain_dsr_agent.config import DsrAgentConfig
from xdpchain_dsr_agent.shape import Shape, shapes_of, sixteen
from xdpchain_dsr_agent.tables import PREFIX, SERVICE, STATS

FORMS = {"gue": 1, "ipip": 2}
"""`enum dsr_form`"""
_NOWHERE = IPv6Address(0)
_ID_AT, _WORDS = SERVICE.offsets["id"] // 8, SERVICE.size // 8


def places(maps: Maps) -> dict[int, int]:
    """The places of all services by their ids."""
    ids = memoryview(maps["dsr_services"].blob()).cast("Q")[_ID_AT::_WORDS].tolist()
    return {id_: place for place, id_ in enumerate(ids) if id_}


@attrs.frozen(eq=False)
class _Wanted:
    """What a config asks for: its services without order, who may send, what is called, and the ports that are listed."""

    shapes: Mapping[Shape, None]
    sources: frozenset[bytes]
    endpoints: frozenset[bytes]
    listed: Mapping[int, int]


_NOTHING = _Wanted({}, frozenset(), frozenset(), {})


@lru_cache(maxsize=2)  # what is old now was new before
def _wanted(config: DsrAgentConfig) -> _Wanted:
    shapes = dict.fromkeys(shapes_of(config))
    listed: dict[int, int] = {}
    for shape in shapes:
        if shape.listed:
            listed[shape.listed] = listed.get(shape.listed, 0) | shape.bit
    endpoints = frozenset(endpoint for shape in shapes for endpoint in shape.endpoints)
    return _Wanted(shapes, frozenset(map(_prefix, config.accept_from)), endpoints, listed)


def writes(old: DsrAgentConfig | None, new: DsrAgentConfig, maps: Maps) -> Iterator[Write]:
    """
    The writes from `old` to `new`, in an order in which packets may see any part of them.

    A service is there before anything leads to it, and its way back before its way in: no answer leaves untranslated. What refuses packets comes
    last, so that none is taken for a stranger's in between. What goes, goes the other way round.
    """
    had = places(maps)
    before, after = _wanted(old) if old else _NOTHING, _wanted(new)
    wanted = {shape.id for shape in after.shapes}
    place_of = {**had, **_new_places([id_ for id_ in wanted if id_ not in had], had, wanted, maps["dsr_services"].schema.capacity)}
    coming = [shape for shape in after.shapes if shape not in before.shapes or shape.id not in had]
    going = [shape for shape in before.shapes if shape not in after.shapes]
    fresh = [place_of[shape.id] for shape in coming if shape.id not in had]
    settings = {**_settings(new), "generation": _generation(after, place_of)}
    changing = old is None or settings != maps["dsr_settings"].get(0)

    if old is not None and changing:
        yield Put("dsr_settings", 0, {**_settings(old), "generation": 0})  # packets trust what they find in the tables themselves only
    yield from _put("dsr_stats", fresh, [STATS.pack(dict.fromkeys(STATS.fields, 0))] * len(fresh))
    yield from _put("dsr_services", [place_of[shape.id] for shape in coming], [shape.packed for shape in coming])
    yield from _put("dsr_accept", sorted(after.sources - before.sources), 1)
    yield from _put("dsr_ports", [shape.way_back for shape in coming], [place_of[shape.id] for shape in coming])
    both = {**before.listed, **{port: before.listed.get(port, 0) | bits for port, bits in after.listed.items()}}
    yield from _listed(before.listed, both)
    if changing:
        yield Put("dsr_settings", 0, {**settings, "generation": 0})
    targets = [(target, place_of[shape.id]) for shape in coming for target in shape.targets]
    yield from _put("dsr_targets", [target for target, _ in targets], [place for _, place in targets])
    yield from _put("dsr_endpoints", sorted(after.endpoints - before.endpoints), 1)

    kept = {target for target, _ in targets}
    yield from (Delete("dsr_targets", target) for shape in going for target in shape.targets if target not in kept)
    yield from (Delete("dsr_endpoints", endpoint) for endpoint in sorted(before.endpoints - after.endpoints))
    kept = {shape.way_back for shape in coming}
    yield from (Delete("dsr_ports", shape.way_back) for shape in going if shape.way_back not in kept)
    yield from _listed(both, {**dict.fromkeys(both, 0), **after.listed})
    yield from (Delete("dsr_accept", source) for source in sorted(before.sources - after.sources))
    used = {place_of[id_] for id_ in wanted}
    yield from (Delete("dsr_services", place) for place in had.values() if place not in used)
    if changing:
        yield Put("dsr_settings", 0, settings)


def _generation(wanted: _Wanted, place_of: Mapping[int, int]) -> int:
    """A number that is another one when a packet would find anything else in the tables; never 0."""
    found = hashlib.blake2b(digest_size=4)
    for shape in sorted(wanted.shapes, key=attrgetter("id")):
        found.update(place_of[shape.id].to_bytes(4, "big") + shape.packed + b"".join(shape.targets))
    for source in sorted(wanted.sources):
        found.update(source)
    return int.from_bytes(found.digest(), "big") or 1


def _put(name: str, keys: Sequence[Any], values: Sequence[Any] | int) -> Iterator[Write]:
    """Many elements of a map; one value may be that of all."""
    if keys:
        yield PutMany(name, keys, [values] * len(keys) if isinstance(values, int) else values)


def _listed(before: Mapping[int, int], after: Mapping[int, int]) -> Iterator[Write]:
    changed = [port for port, bits in after.items() if before.get(port, 0) != bits]
    yield from _put("dsr_listed", changed, [after[port] for port in changed])


def _new_places(ids: Sequence[int], had: Mapping[int, int], wanted: Container[int], capacity: int) -> dict[int, int]:
    """Places that nobody has, and where they do not suffice (a daemon was killed in the middle of a change), those of services that are to go."""
    taken = set(had.values())
    free = (place for place in range(1, capacity) if place not in taken)
    going = (place for id_, place in had.items() if id_ not in wanted)
    return dict(zip(ids, chain(free, going), strict=False))


def _prefix(network: IPNetwork) -> bytes:
    more = 96 if isinstance(network, IPv4Network) else 0
    return PREFIX.pack({"bits": network.prefixlen + more, "address": IPv6Address(sixteen(network.network_address))})


def _settings(config: DsrAgentConfig) -> dict[str, Any]:
    hairpin = {address.version: IPv6Address(sixteen(address)) for address in config.hairpin}
    return {
        "forms": sum({FORMS[name] for name in config.encapsulation}),
        "all_ports": int(any(not shape.listed for shape in shapes_of(config))),
        "to_stack": int(config.answers == "stack"),
        "gue_port": config.gue_port,
        "zero": 0,
        "hairpin4": hairpin.get(4, _NOWHERE),
        "hairpin6": hairpin.get(6, _NOWHERE),
    }
