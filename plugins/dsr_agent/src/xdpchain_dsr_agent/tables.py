# SPDX-License-Identifier: Apache-2.0
"""The maps of bpf/tables.h and bpf/frame.h, with capacities from the config."""

from __future__ import annotations

from collections.abc import Sequence

from xdpchain import Map, MapKind, Raw, Role, Struct, be16, ipv6, u8, u16, u32, u64

from xdpchain_dsr_agent.config import MAX_SOURCES, DsrAgentConfig

TICK_BITS = 30
BOTH = 2
"""Between two configs there is room for the elements of both."""
ENDPOINTS_PER_SERVICE = 4
"""Endpoints of all services, in relation to the maximum of services."""

SETTINGS = Struct(
    "dsr_settings",
    {"forms": u32, "all_ports": u32, "to_stack": u32, "gue_port": be16, "zero": u16, "generation": u32, "hairpin4": ipv6, "hairpin6": ipv6},
)
TARGET = Struct("dsr_target", {"endpoint": ipv6, "vip": ipv6, "port": be16, "proto": u8, "zero": u8})
PREFIX = Struct("dsr_prefix", {"bits": u32, "address": ipv6})
PORT = Struct("dsr_port", {"workload": ipv6, "port": be16, "proto": u8, "zero": u8})
SERVICE = Struct(
    "dsr_service",
    {"vip": ipv6, "workload": ipv6, "id": u64, "port": be16, "backend_port": be16, "proto": u8, "unknown": u8, "zero": u16},
)
KEY = Struct("dsr_key", {"workload": ipv6, "client": ipv6, "port": be16, "client_port": be16, "proto": u8, "zero": Raw(3)})
FLOW = Struct("dsr_flow", {"vip": ipv6, "vip_port": be16, "state": u8, "marks": u8, "seen": u32, "place": u32, "around": u32, "id": u64})
DATAGRAM = Struct("dsr_datagram", {"source": ipv6, "destination": ipv6, "id": u32, "proto": u8, "zero": Raw(3)})
REST = Struct("dsr_rest", {"source": ipv6, "destination": ipv6, "seen": u32, "place": u32})
STATS_FIELDS = ("in_packets", "in_bytes", "out_packets", "out_bytes", "flows", "guessed", "conflicts")
STATS = Struct("dsr_stats", dict.fromkeys(STATS_FIELDS, u64))
CLOCK = Struct("dsr_clock", {"jiffies": u64, "tick": u64})
FRAME = Struct(
    "dsr_frame",
    {
        **dict.fromkeys(("endpoint", "source", "destination"), ipv6),
        **dict.fromkeys(("source_port", "destination_port"), be16),
        **dict.fromkeys(
            ("proto", "flags", "ip6", "fragment", "malformed", "icmp", "id", "link", "around", "around_ip6", "around_tos", "hops"), u32
        ),
        **dict.fromkeys(("header", "length", "tos"), u32),
    },
)
FOUND = Struct("dsr_found", {"first": ipv6, "second": ipv6, **dict.fromkeys(("what", "generation", "answer", "zero"), u32)})

STATES = ("syn", "established", "fin", "closed", "udp")
IDLE_TICKS = {"syn": 28, "established": 6706, "fin": 56, "closed": 10, "udp": 56}
ANSWERED, FIN_IN, FIN_OUT, DIRECT, HAIRPIN, HELD = (1 << bit for bit in range(6))


def maps(config: DsrAgentConfig) -> Sequence[Map]:
    """The schema."""
    services = BOTH * config.max_services
    targets = services * ENDPOINTS_PER_SERVICE
    places = services + 1  # place 0 is none
    return (
        Map(name="dsr_settings", kind=MapKind.ARRAY, key=u32, value=SETTINGS, capacity=1, role=Role.CONFIG, help="how"),
        Map(
            name="dsr_accept",
            kind=MapKind.LPM_TRIE,
            key=PREFIX,
            value=u32,
            capacity=BOTH * MAX_SOURCES,
            role=Role.CONFIG,
            help="outer sources",
            flags=1,
        ),
        Map(name="dsr_endpoints", kind=MapKind.HASH, key=ipv6, value=u32, capacity=targets, role=Role.CONFIG, help="outer destinations"),
        Map(name="dsr_targets", kind=MapKind.HASH, key=TARGET, value=u32, capacity=targets, role=Role.CONFIG, help="ways to services"),
        Map(name="dsr_ports", kind=MapKind.HASH, key=PORT, value=u32, capacity=services, role=Role.CONFIG, help="ports of workloads"),
        Map(name="dsr_listed", kind=MapKind.ARRAY, key=u32, value=u32, capacity=65_536, role=Role.CONFIG, help="ports of any workload"),
        Map(name="dsr_services", kind=MapKind.ARRAY, key=u32, value=SERVICE, capacity=places, role=Role.STATE, help="services"),
        Map(name="dsr_flows", kind=MapKind.LRU_HASH, key=KEY, value=FLOW, capacity=config.flow_table, role=Role.STATE, help="flows"),
        Map(
            name="dsr_opening",
            kind=MapKind.LRU_HASH,
            key=KEY,
            value=FLOW,
            capacity=max(config.flow_table // 4, 1024),
            role=Role.STATE,
            help="flows in which only one side has spoken",
        ),
        Map(
            name="dsr_rests", kind=MapKind.LRU_HASH, key=DATAGRAM, value=REST, capacity=8192, role=Role.STATE, help="datagrams in fragments"
        ),
        Map(name="dsr_stats", kind=MapKind.PERCPU_ARRAY, key=u32, value=STATS, capacity=places, role=Role.STATE, help="numbers by service"),
        Map(name="dsr_clock", kind=MapKind.PERCPU_ARRAY, key=u32, value=CLOCK, capacity=1, role=Role.SCRATCH, help="the time"),
        Map(name="dsr_frames", kind=MapKind.PERCPU_ARRAY, key=u32, value=FRAME, capacity=1, role=Role.SCRATCH, help="the packet at hand"),
        Map(
            name="dsr_found",
            kind=MapKind.PERCPU_ARRAY,
            key=u32,
            value=FOUND,
            capacity=256,
            role=Role.SCRATCH,
            help="what was looked up lately",
        ),
    )
