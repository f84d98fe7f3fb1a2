# SPDX-License-Identifier: Apache-2.0
"""The maps of bpf/tables.h, and the bytes of their keys."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from xdpchain import Array, Map, MapKind, Raw, Role, Struct, ipv6, u8, u16, u32, u64
from xdpchain.schema import Type

from xdpchain_maxconn.config import MAX_LIMITS, MaxconnConfig

PLACES = 2 * MAX_LIMITS + 1
"""Room for the limits of two configs, the old and the new; place 0 means none."""
EPOCHS, EPOCH_SHIFT = 4, 35
NO_SOURCE = 255
TODO = 4096
"""How much of a sweep's work is written down at a time."""
SETS, SET = 8192, 8
"""How many sets of reservations there are, and how many ways each has."""
SECRETS = 7
CLOSED = 16_384

FLOW = struct.Struct("=16s16sHH")
SOURCE_KEY = struct.Struct("=Q16s")

SETTINGS = Struct("mc_settings", {"generation": u32, "node": u32, "addresses": u32, "allow": u32, "outgoing": u32})
RULE = Struct("mc_rule", {"id": u64, "max": u64, "source_max": u64, "enforce": u32, "reset": u8, "bits": Array(u8, 2), "unused": u8})
SERVICE = Struct("mc_service", {"address": ipv6, "port": u32})
PREFIX = Struct("mc_prefix", {"bits": u32, "address": ipv6})
COUNT = Struct("mc_count", {"established": u64, "reserved": Array(u64, EPOCHS)})
LIMIT = Struct("mc_limit", {"id": u64, "count": COUNT})
CLAIM = Struct("mc_claim", {"id": Array(u64, 2), "place": Array(u32, 2), "bits": Array(u8, 2), "unused": Raw(6)})
HALF = Struct("mc_half", {"flow": Raw(FLOW.size), "way": u32, "since_ns": u64, "claim": CLAIM})
WAYS = Struct("mc_ways", {"tag": Array(u64, SET)})
SECRET = Struct("mc_secret", {"word": Array(u64, SECRETS)})
CONNECTION = Struct("mc_connection", {"since_ns": u64, "generation": u64, "claim": CLAIM})
STATS_FIELDS = ("admitted", "refused", "source_refused", "excused", "found", "lost", "corrected", "full")
STATS = Struct("mc_stats", dict.fromkeys(STATS_FIELDS, u64))
CLOCK = Struct("mc_clock", {"tick": u64, "ns": u64})
REPAIR = Struct("mc_todo", {"key": Raw(FLOW.size), "what": u32, "old": u64, "new": u64})
JOB = Struct("mc_job", {"at_ns": u64, "at": u32, "todo": u32})

__all__ = ["FLOW", "SOURCE_KEY", "maps", "no_count", "u16"]


def maps(config: MaxconnConfig) -> Sequence[Map]:
    """The schema."""
    by_source = any(limit.source_max for limit in config.limit)
    addresses = sum(max(sum(ports.last - ports.first + 1 for ports in limit.ports), 1) for limit in config.limit if limit.address)

    def array(name: str, value: Type, capacity: int, role: Role, help: str, kind: MapKind = MapKind.ARRAY) -> Map:
        return Map(name=name, kind=kind, key=u32, value=value, capacity=capacity, role=role, help=help)

    def table(name: str, kind: MapKind, key: Type, value: Type, capacity: int, role: Role, help: str, flags: int = 0) -> Map:
        return Map(name=name, kind=kind, key=key, value=value, capacity=capacity, role=role, help=help, flags=flags)

    flow, source = Raw(FLOW.size), Raw(SOURCE_KEY.size)
    return (
        array("mc_settings", SETTINGS, 1, Role.CONFIG, "which rules there are"),
        array("mc_rules", RULE, PLACES, Role.CONFIG, "the limits"),
        array("mc_ports", u32, 65_536, Role.CONFIG, "from each port to its limit"),
        table("mc_services", MapKind.HASH, SERVICE, u32, _room(addresses), Role.CONFIG, "from addresses and ports to their limits"),
        table("mc_allow", MapKind.LPM_TRIE, PREFIX, u32, _room(len(config.allow)), Role.CONFIG, "sources that are never refused", 1),
        array("mc_masks", ipv6, 129, Role.CONFIG, "masks of prefixes by their length"),
        array("mc_limits", LIMIT, PLACES, Role.STATE, "how many connections each limit has"),
        table("mc_sources", MapKind.HASH, source, COUNT, config.sources if by_source else 1, Role.STATE, "connections by source"),
        table("mc_flows", MapKind.HASH, flow, CONNECTION, config.connections, Role.STATE, "connections that are open"),
        array("mc_secret", SECRET, 1, Role.STATE, "by which connections being opened are found"),
        array("mc_ways", WAYS, SETS, Role.STATE, "which places of mc_half are taken"),
        array("mc_half", HALF, SETS * SET, Role.STATE, "connections being opened"),
        table("mc_closed", MapKind.LRU_HASH, flow, u64, CLOSED, Role.STATE, "when connections were closed"),
        # kept like `stats`, but counted by `metrics`: with the limit for a label, not the place
        array("mc_stats", STATS, PLACES, Role.STATE, "what became of connections, by limit", MapKind.PERCPU_ARRAY),
        array("mc_clock", CLOCK, 1, Role.SCRATCH, "the time", MapKind.PERCPU_ARRAY),
        array("mc_todo", REPAIR, TODO, Role.SCRATCH, "what a sweep has found out"),
        array("mc_job", JOB, 1, Role.SCRATCH, "how much of it is done"),
    )


def _room(wanted: int) -> int:
    """A capacity that stays the same while a config grows a little: another one means another map, and a new generation of the chain."""
    room = 64
    # old and new entries are in a map at the same time
    while room < 2 * wanted:
        room *= 4
    return room


def no_count() -> Mapping[str, Any]:
    """Nothing is counted."""
    return {"established": 0, "reserved": [0] * EPOCHS}


def reserved(count: Mapping[str, Any], now_ns: int) -> int:
    """The reservations in a count that are not forgotten yet."""
    epoch = now_ns >> EPOCH_SHIFT
    return sum(word & 0xFFFFFFFF for word in count["reserved"] if (epoch - (word >> 32)) & 0xFFFFFFFF < EPOCHS)


def established(count: Mapping[str, Any]) -> int:
    """The connections in a count."""
    value: int = count["established"]
    return value if value < 1 << 63 else 0
