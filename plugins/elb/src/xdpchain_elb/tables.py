# SPDX-License-Identifier: Apache-2.0
"""The tables of `bpf/tables.h` as map schemas: the same structs, with capacities from the config."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import attrs
from xdpchain import Array, Map, MapKind, Raw, Role, Struct, be16, ipv6, u8, u16, u32, u64
from xdpchain.schema import Type

RING_SIZE = 65537
POOL_MEMBERS = 4096
LAST_SLOTS = 256
TICK_BITS = 30

SERVICE = Struct("elb_service", {"address": ipv6, "port": be16, "proto": u8, "zero": u8})
PREFIX = Struct("elb_prefix", {"length": u32, "proto": u8, "zero": u8, "port": be16, "address": ipv6})
VIP = Struct("elb_vip", {"options": u32, "pool": u32, "side": u32, "hold": u32})
RING = Struct("elb_ring", {"until": u32, "word": Array(u32, RING_SIZE)})
MOVES = Struct("elb_moves", {"previous": Array(u32, RING_SIZE), "needed": Array(u32, RING_SIZE)})
MEMBER = Struct(
    "elb_member",
    {
        "destination": Raw(16),
        "source": Raw(16),
        "ip_sum": u32,
        "udp_sum": u32,
        "backend": u32,
        "pool": u32,
        "gue_port": be16,
        "form": u8,
        "overhead": u8,
    },
)
STATS = Struct("elb_stats", {"packets": u64, "bytes": u64, "flows": u64})
FLOW = Struct("elb_flow", {"source": ipv6, "destination": ipv6, "source_port": be16, "destination_port": be16, "proto": u8, "zero": Raw(3)})
MEMORY = Struct("elb_memory", {"member": u32, "incarnation": u32, "seen": u32, "phase": u32})
ID = Struct("elb_id", {"pool": u32, "id": u32})
SOURCE = Struct("elb_source", {"length": u32, "pool": u32, "address": ipv6})
BACKEND = Struct("elb_backend", {"pool": u32, "address": ipv6})
TURN = Struct("elb_turn", {"member": u32, "sum": u32, "skip": u32, "inverse": u32, "weight": u32, "credit": u32, "more": u32})
PLAN = Struct(
    "elb_plan",
    {
        "zero": u64,
        "taken": u64,
        **dict.fromkeys(("pool", "members", "track", "hold", "heaviest", "stage", "at", "rest", "moving", "holding", "into"), u32),
        **dict.fromkeys(("listed", "free", "looked"), u32),
        "turn": Array(TURN, POOL_MEMBERS),
        "last": Array(u32, LAST_SLOTS),
    },
)
PROGRESS = Struct("elb_progress", {"moving": u32, "holding": u32})
FRAME = Struct(
    "elb_frame",
    {
        "flow": FLOW,
        **dict.fromkeys(
            ("event", "ip6", "vlans", "fragment", "malformed", "icmp", "summed", "extended", "link", "header", "transport"), u32
        ),
        "tos": u8,
        "mac": Array(u16, 3),
        "tags": Array(u32, 2),
        "length": u32,
        "sum": u64,
    },
)
FOUND = Struct("elb_found", {"address": Array(u64, 2), "port_proto": u32, "gates": u32, "vip": u32, "zero": u32})
BUDGET = Struct("elb_budget", {"tick": u32, "spent": u32})
POOL = Struct("elb_pool", {"name": u64, "ring": u64, "moves": u64})


def tables(*, vips: int, backends: int, members: int, flows: int) -> Sequence[Map]:
    """
    The schemas.

    Args:
        vips: most VIPs. There is room for twice as many: an old one and a new one side by side.
        backends: most addresses of backends. There is room for twice as many, too.
        members: most pairs of a pool and a backend. There is room for one pool more, since pools are changed one after the other.
        flows: entries of the flow table.
    """

    def state(name: str, kind: MapKind, key: Type, value: Type, capacity: int, help: str, flags: int = 0, inner: Map | None = None) -> Map:
        return Map(name=name, kind=kind, key=key, value=value, capacity=capacity, role=Role.STATE, help=help, flags=flags, inner=inner)

    array, hash_ = MapKind.ARRAY, MapKind.HASH
    numbers = 2 * vips + 1
    seats = members + POOL_MEMBERS + 1
    ring = state("elb_ring", array, u32, RING, 1, "the slots of one pool")
    move = state("elb_move", array, u32, MOVES, 1, "where the flows of moving slots were")
    schemas = (
        state("elb_services", hash_, SERVICE, u32, 4 * vips, "from address, port and protocol to the VIP"),
        state("elb_prefixes", MapKind.LPM_TRIE, PREFIX, u32, 4 * vips, "from protocol, port and prefix to the VIP", flags=1),
        state("elb_gates", array, u32, u32, 1, "what kinds of VIPs there are, and a number that changes with them"),
        state("elb_vips", array, u32, VIP, numbers, "the VIPs"),
        state("elb_rings", MapKind.ARRAY_OF_MAPS, u32, u32, numbers, "from each pool to its ring", inner=ring),
        state(
            "elb_moves", MapKind.ARRAY_OF_MAPS, u32, u32, numbers, "from each pool with moving slots to where their flows were", inner=move
        ),
        state("elb_members", array, u32, MEMBER, 2 * seats, "the outer headers, two for each member"),
        state("elb_states", array, u32, u32, seats, "the state of each member"),
        state("elb_stats", MapKind.PERCPU_ARRAY, u32, STATS, seats, "packets, bytes and new flows of each member"),
        state("elb_hops", array, u32, u64, 2 * backends + 1, "MAC address and MTU of the way to each backend"),
        state("elb_flows", MapKind.LRU_HASH, FLOW, MEMORY, flows, "the flows of moving slots"),
        state("elb_ids", hash_, ID, u32, members, "from server ids to members"),
        state("elb_sources", MapKind.LPM_TRIE, SOURCE, u32, 16 * vips, "from clients' prefixes to pools", flags=1),
        attrs.evolve(state("elb_plan", array, u32, PLAN, 1, "the ring under construction"), role=Role.SCRATCH),
        state("elb_progress", array, u32, PROGRESS, numbers, "moving slots of each pool"),
        attrs.evolve(state("elb_frames", MapKind.PERCPU_ARRAY, u32, FRAME, 1, "the packet that a CPU is at"), role=Role.SCRATCH),
        attrs.evolve(state("elb_found", MapKind.PERCPU_ARRAY, u32, FOUND, 256, "VIPs that packets asked for lately"), role=Role.SCRATCH),
        attrs.evolve(
            state("elb_kept", MapKind.PERCPU_ARRAY, u32, u64, 256, "flows with connection ids that were seen to lately"), role=Role.SCRATCH
        ),
        state("elb_budget", MapKind.PERCPU_ARRAY, u32, BUDGET, 1, "errors sent lately about packets that are too big"),
        state("elb_pools", array, u32, POOL, numbers, "what each pool is for, and what its ring is made of"),
        state("elb_directory", hash_, BACKEND, u32, seats + 2 * backends, "from the backends of each pool to their numbers"),
    )
    kept = [schema for schema in schemas if schema.role is Role.STATE]
    # a flow table of another size is filled anew, and nothing else changes
    family = hashlib.blake2b(repr([attrs.evolve(one, capacity=one.capacity if one.name != "elb_flows" else 1) for one in kept]).encode())
    return [attrs.evolve(one, family=family.hexdigest()[:8]) if one in kept else one for one in schemas]
