# SPDX-License-Identifier: Apache-2.0
"""The tables of `bpf/tables.h`: schemas, and the keys that are made of a config."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from xdpchain import Array, IPNetwork, Map, MapKind, Role, Struct, be16, ipv6, u8, u16, u32, u64
from xdpchain.schema import Type

from xdpchain_ratelimit.config import MAX_RULES, Protocol, RatelimitConfig

PLACES = 2 * MAX_RULES + 1
"""Room for the limits of two configs, the old and the new; place 0 means none."""
MAX_TARGETS = 65536
"""Most pairs of a destination and a port, or a destination for all ports."""
MAX_LISTED = 131_072
"""Most prefixes in lists, of all rules together."""
_NO_PREALLOC, _MMAPABLE = 1, 1 << 10
"""`BPF_F_*`: memory for what is there only; elements that begin where a page does"""

PROTOCOLS: dict[Protocol, int] = {"tcp": 0, "udp": 1, "icmp": 2}
"""`enum rl_proto`"""
IPV6, ANY_PORT = 0x40, 0x80
PORTS, ANY_PORTS = 65536, 131_072

EXACT, PREFIXES, ANYWHERE, ALL_PORTS, TCP_PACKETS, UDP_RULES, ICMP_RULES, ANSWERING = 1, 2, 4, 3, 64, 128, 256, 512
"""`enum rl_gate`"""
GCRA, SOURCE_GCRA, BYTES, PER_SOURCE, LISTED, COUNT_ALL, IN_PART, ANSWERS = 1, 2, 4, 8, 16, 32, 64, 128
"""`enum rl_flag`"""
ACTIONS = {"drop": 0, "count": 1, "reset": 2, "syn-cookie": 3}
"""`enum rl_action`"""

WAYS = 5
"""How many sources a set has room for."""
LIMIT = Struct("rl_limit", {"span": u64, "most": u64})
RULE = Struct(
    "rl_rule",
    {
        "shared": LIMIT,
        "source": LIMIT,
        **dict.fromkeys(("source_id", "ban_ns", "mask4", "mask6_high", "mask6_low"), u64),
        **dict.fromkeys(("window", "flags", "action", "enforce", "sets", "memory"), u32),
    },
)
WINDOW = Struct("rl_window", {"id": u64, "word": u64})
OUTCOMES = (
    "admitted",
    "allowed",
    "denied",
    "banned",
    "source_exceeded",
    "rate_exceeded",
    "contended",
    "spared",
    "answered",
    "no_answer",
    "evicted",
)
STATS = Struct("rl_stats", {"tick": u64, "now": u64, **dict.fromkeys(OUTCOMES, u64)})
TARGET = Struct("rl_target", {"address": ipv6, "port": be16, "proto": u8, "zero": u8})
PREFIX = Struct("rl_prefix", {"length": u32, "proto": u8, "zero": u8, "port": be16, "address": ipv6})
LIST_KEY = Struct("rl_list_key", {"length": u32, "list": u32, "address": ipv6})
SET = Struct("rl_set", {"word": Array(u64, WAYS), "tag": Array(u32, WAYS), "marks": u32})
SENDER = Struct("rl_sender", {"id": u64, "address": ipv6, "banned_until": u64, "refused": u64})
FRAME = Struct(
    "rl_frame",
    {
        **dict.fromkeys(("source", "destination"), ipv6),
        **dict.fromkeys(("source_port", "destination_port"), be16),
        **dict.fromkeys(("seq", "segment"), u32),
        **dict.fromkeys(("link", "l4"), u16),
        **dict.fromkeys(("proto", "flags", "tcp_bytes", "zero"), u8),
    },
)
PRESSURE = Struct("rl_pressure", {"evicted": u64, "at_ns": u64, "per_second": u64})

_AT_EASE = 2
"""How many it has when as many sources are there as the config says: by chance it is to be more than five in few sets."""
_MAPPED = bytes(10) + b"\xff\xff"
_TARGET, _PREFIX, _LIST_KEY = struct.Struct(">16sHBx"), struct.Struct(">BxH16s"), struct.Struct("=I16s")


def maps(config: RatelimitConfig) -> Sequence[Map]:
    """The schema; only the table of sources depends on the config."""

    def one(name: str, kind: MapKind, key: Type, value: Type, capacity: int, role: Role, help: str, flags: int = 0) -> Map:
        return Map(name=name, kind=kind, key=key, value=value, capacity=capacity, role=role, help=help, flags=flags)

    targets, lists = 2 * MAX_TARGETS, 2 * MAX_LISTED
    array, lpm = MapKind.ARRAY, MapKind.LPM_TRIE
    return (
        one("rl_targets", MapKind.HASH, TARGET, u32, targets, Role.CONFIG, "from an address and port to its rule", _NO_PREALLOC),
        one("rl_prefixes", lpm, PREFIX, u32, targets, Role.CONFIG, "from a prefix and port to its rule", _NO_PREALLOC),
        # 32 bits, since the kernel may copy fewer byte by byte
        one("rl_ports", array, u32, u32, ANY_PORTS + len(PROTOCOLS), Role.CONFIG, "from a port of any address to its rule"),
        one("rl_gates", array, u32, u32, 1, Role.CONFIG, "what kinds of rules there are"),
        one("rl_rules", array, u32, RULE, PLACES, Role.CONFIG, "the rules"),
        one("rl_windows", array, u32, WINDOW, PLACES, Role.STATE, "the state of each rule's shared limit, in one word"),
        # kept like `stats`, but counted by `metrics`: with the ports for a label, not the place
        one("rl_stats", MapKind.PERCPU_ARRAY, u32, STATS, PLACES, Role.STATE, "what each rule has answered"),
        one("rl_lists", lpm, LIST_KEY, u32, lists, Role.CONFIG, "sources that a rule allows or denies", _NO_PREALLOC),
        one("rl_sources", array, u32, SET, sets(config), Role.STATE, "the state of each source's own limit, in sets of five", _MMAPABLE),
        one("rl_senders", array, u32, SENDER, WAYS * sets(config), Role.STATE, "who the sources are, five for each set"),
        one("rl_seed", array, u32, u64, 1, Role.STATE, "what the hash of sources begins with"),
        one("rl_frames", MapKind.PERCPU_ARRAY, u32, FRAME, 1, Role.SCRATCH, "the packet that a CPU is at"),
        one("rl_pressure", array, u32, PRESSURE, 1, Role.STATE, "how fast sources lose their places"),
    )


def sets(config: RatelimitConfig) -> int:
    """How many sets of sources there are: a power of two; one where no rule asks for sources."""
    wanted = config.sources // _AT_EASE if any(rule.per_source for rule in config.rule) else 1
    return 1 << (wanted - 1).bit_length()


def mapped(network: IPNetwork) -> tuple[bytes, int]:
    """A prefix as 16 bytes and the length that it has there."""
    packed = network.network_address.packed
    return (packed, network.prefixlen) if network.version == 6 else (_MAPPED + packed, 96 + network.prefixlen)


def target_key(network: IPNetwork | None, protocol: Protocol, port: int | None) -> tuple[str, bytes | int]:
    """The map and key by which a packet to a destination (None: any) and port (None: all) finds its rule."""
    number = PROTOCOLS[protocol]
    if network is None:
        return "rl_ports", ANY_PORTS + number if port is None else number * PORTS + port
    proto = number | (ANY_PORT if port is None else 0) | (IPV6 if network.version == 6 else 0)
    address, length = mapped(network)
    if length == 128:
        return "rl_targets", _TARGET.pack(address, port or 0, proto)
    return "rl_prefixes", u32.pack(32 + length) + _PREFIX.pack(proto, port or 0, address)


def list_key(place: int, network: IPNetwork) -> bytes:
    """The key of a source prefix in the lists of the rule whose window has that place."""
    address, length = mapped(network)
    return u32.pack(32 + length) + _LIST_KEY.pack(2 * place + (network.version == 6), address)


def mask_words(bits: int) -> tuple[int, int]:
    """The first `bits` of 16 bytes as two words as they lie in memory."""
    high, low = struct.unpack("=2Q", ((1 << 128) - (1 << 128 - bits)).to_bytes(16, "big"))
    return high, low
