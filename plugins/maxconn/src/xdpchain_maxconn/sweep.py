# SPDX-License-Identifier: Apache-2.0
"""
The sweep: what is counted, compared with the sockets that there are.

The sockets were read a moment before the maps, and everything goes on meanwhile. So nothing is set to a number that was computed here: what
differs is written down, connection by connection, and the routine `mc_repair` looks at each once more (bpf/repair.h).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from xdpchain import Maps, Put, Run, Sockets, Write
from xdpchain.sockets import TCP_LISTEN, TCP_SYN_RECV

from xdpchain_maxconn.config import MaxconnConfig
from xdpchain_maxconn.limits import destination, generation
from xdpchain_maxconn.tables import FLOW, NO_SOURCE, REPAIR, SOURCE_KEY, TODO, reserved

ADD, REMOVE, RELEASE, RECOUNT, SET_LIMIT, SET_SOURCE, FORGET = range(1, 8)
"""`enum mc_what`."""

_SYN_SENT = 2
_HELD = 2
"""The state of a way with a reservation (bpf/half.h)."""
_ANY = (bytes(16), bytes(10) + b"\xff\xff" + bytes(4))
_WHOLE = (1 << 128) - 1


@attrs.frozen
class Seen:
    """The sockets by what they are: keys of `mc_flows`, and the local addresses and ports that somebody listens on."""

    open: frozenset[bytes]
    opening: frozenset[bytes]
    listening: frozenset[tuple[bytes, int]]


def look(sockets: Sockets) -> Seen:
    """Sort the sockets."""
    opened, opening, listening = [], [], []
    for local, remote, local_port, remote_port, state in sockets.tcp:
        if state == TCP_LISTEN:
            listening.append((local, local_port))
        elif state == TCP_SYN_RECV:
            opening.append(FLOW.pack(local, remote, local_port, remote_port))
        elif state != _SYN_SENT:
            opened.append(FLOW.pack(local, remote, local_port, remote_port))
    return Seen(frozenset(opened), frozenset(opening), frozenset(listening))


def writes(config: MaxconnConfig, sockets: Sockets, maps: Maps) -> Iterator[Write]:
    """What is to be done about the differences."""
    todo = [
        REPAIR.pack(dict(zip(("what", "key", "old", "new"), one, strict=True)))
        for one in _differences(config, look(sockets), sockets.at_ns, maps)
    ]
    for first in range(0, len(todo), TODO):
        some = todo[first : first + TODO]
        yield from (Put("mc_todo", at, one) for at, one in enumerate(some))
        yield Put("mc_job", 0, {"at_ns": sockets.at_ns, "at": 0, "todo": len(some)})
        yield Run("mc_repair", most=len(some) + 1)


def _differences(config: MaxconnConfig, seen: Seen, at_ns: int, maps: Maps) -> Iterator[tuple[int, bytes, int, int]]:
    """What, key, old and new value; counts first, for what is done about connections changes them."""
    limits, sources = _limits(maps), _sources(maps)
    flows = dict(maps["mc_flows"].items())
    now = generation(config)
    yield from _counts(flows, limits, sources, _limits(maps), _sources(maps))
    for key, flow in flows.items():
        if key not in seen.open and flow["since_ns"] < at_ns:
            yield REMOVE, key, flow["since_ns"], 0
        elif flow["generation"] != now:
            yield RECOUNT, key, 0, 0
    concerned = destination(config)
    for key in seen.open.difference(flows):
        local, _, port, _ = FLOW.unpack(key)
        if _concerns(concerned, local, port) and (config.outgoing or _incoming(seen, local, port)):
            yield ADD, key, 0, 0
    for held in _half_open(maps):
        if held["since_ns"] < at_ns - config.handshake and held["flow"] not in seen.opening:
            yield RELEASE, held["flow"], held["since_ns"], 0


def _counts(
    flows: Mapping[bytes, Mapping[str, Any]],
    limits: Mapping[int, tuple[int, int]],
    sources: Mapping[bytes, Mapping[str, Any]],
    limits_later: Mapping[int, tuple[int, int]],
    sources_later: Mapping[bytes, Mapping[str, Any]],
) -> Iterator[tuple[int, bytes, int, int]]:
    """The counts that stood still while the connections were read, and differ from them all the same."""
    by_limit, by_source = tally(flows)
    for place, (id_, count) in limits.items():
        if limits_later.get(place) == (id_, count) and count != by_limit[id_]:
            yield SET_LIMIT, place.to_bytes(4, "little").ljust(FLOW.size, b"\0"), count, by_limit[id_]
    now_ns = time.monotonic_ns()
    for key, counted in sources.items():
        count, later = counted["established"], sources_later.get(key)
        if later is None or later["established"] != count:
            continue
        padded = key.ljust(FLOW.size, b"\0")
        if count != by_source[key]:
            yield SET_SOURCE, padded, count, by_source[key]
        elif not count and not reserved(later, now_ns):
            yield FORGET, padded, 0, 0


def tally(flows: Mapping[bytes, Mapping[str, Any]]) -> tuple[Counter[int], Counter[bytes]]:
    """How many connections there are by the id of a limit, and by the key of a source."""
    by_limit, by_source = Counter[int](), Counter[bytes]()
    for key, flow in flows.items():
        claim = flow["claim"]
        for id_, bits in zip(claim["id"], claim["bits"], strict=True):
            if id_:
                by_limit[id_] += 1
                if bits != NO_SOURCE:
                    by_source[source_key(id_, key, bits)] += 1
    return by_limit, by_source


def source_key(id_: int, flow: bytes, bits: int) -> bytes:
    """The key of the count of a connection's source."""
    address = int.from_bytes(flow[16:32], "big") & (_WHOLE << (128 - bits))
    return SOURCE_KEY.pack(id_, (address & _WHOLE).to_bytes(16, "big"))


def _half_open(maps: Maps) -> Iterator[Mapping[str, Any]]:
    """The entries of `mc_half` that are in use. One may be written at this moment: the routine finds no such connection then."""
    tags = memoryview(maps["mc_ways"].blob()).cast("Q")
    used = [at for at, tag in enumerate(tags) if tag & 3 == _HELD]
    yield from filter(None, maps["mc_half"].get_many(used))


def _limits(maps: Maps) -> dict[int, tuple[int, int]]:
    return {place: (limit["id"], limit["count"]["established"]) for place, limit in maps["mc_limits"].items() if limit["id"]}


def _sources(maps: Maps) -> dict[bytes, Mapping[str, Any]]:
    return dict(maps["mc_sources"].items())


def _concerns(limits: Mapping[tuple[bytes, int], object], local: bytes, port: int) -> bool:
    return any(one in limits for one in ((local, port), (local, 0), (b"", port), (b"", 0)))


def _incoming(seen: Seen, local: bytes, port: int) -> bool:
    """Whether somebody listens where this connection ends; the kernel does not tell who has opened it."""
    return any((address, port) in seen.listening for address in (local, *_ANY))
