# SPDX-License-Identifier: Apache-2.0
"""
The cost of maxconn: the whole program, entry and return included.

SYNs of one flow come as they are. Those of many or always new flows have a front that makes them; what it takes by itself is subtracted.

Beside them stand floors of the same run: a function that only parses, and for what touches a table the kernel's hash table by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial

from scapy.layers.inet import TCP, UDP
from xdpchain.bpf.compiler.compile import Compiler, Unit
from xdpchain.bpf.compiler.splice import splice
from xdpchain.bpf.handle import Handle
from xdpchain.bpf.libbpf import map_create
from xdpchain.bpf.loader import load_program
from xdpchain.bpf.unit import INCLUDE
from xdpchain.chain.private import PrivateChain
from xdpchain.function import Hook
from xdpchain_maxconn import Maxconn
from xdpchain_maxconn.tables import no_count

from bench.chains import families, frame, load
from bench.elb_front import Flows, Front, Fronts, shape
from bench.functions.xdpchain_bench import Noop
from bench.measure import Behind, Result, bare, compare, compare_net, program

REACH_SYN, REACH_OTHER = 3.0, 1.4

_FULL, _FREE, _BY_SOURCE, _UNLISTED = 80, 81, 82, 83
"""Ports: one whose limit is reached, one with room for all, one with a limit for each source, one without a limit."""
_DESTINATIONS = {"IPv4": "192.0.2.2", "IPv6": "2001:db8::2"}
_MOST = 4_000_000

_FLOOR = """
struct floor_key {
	u32 word[9];
};

struct floor_value {
	u64 word[5];
};

BPF_TABLE("hash", struct floor_key, struct floor_value, floor_flows, 65536);
BPF_TABLE("lru_hash", struct floor_key, struct floor_value, floor_recent, 65536);

/* Addresses and ports are somewhere in these 36 bytes. */
static __always_inline int floor_read(struct xdp_md *ctx, struct floor_key *key)
{
	void *data = (void *)(long)ctx->data;
	struct floor_key *from = data + FROM;

	if ((void *)(from + 1) > (void *)(long)ctx->data_end)
		return 0;
	*key = *from;
	return 1;
}

int floor_hash(struct xdp_md *ctx)
{
	struct floor_value value = {};
	struct floor_key key;

	if (floor_read(ctx, &key) && !floor_flows.insert(&key, &value))
		floor_flows.delete(&key);
	return XDP_PASS;
}

int floor_lru(struct xdp_md *ctx)
{
	struct floor_value value = {};
	struct floor_key key;

	if (floor_read(ctx, &key) && !floor_recent.lookup(&key))
		floor_recent.insert(&key, &value);
	return XDP_PASS;
}
"""
_FLOORS = {"floor_hash": "floor: insert into a hash and delete", "floor_lru": "floor: look-up in an LRU hash and insert"}


def measure(compiler: Compiler, rounds: int) -> Iterator[Result]:
    """Each kind of packet as a multiple of the reference."""
    limits = [
        {"ports": [_FULL], "max": 1},
        {"ports": [_FREE], "max": _MOST},
        {"ports": [_BY_SOURCE], "max": _MOST, "source_max": _MOST, "source_ipv4": 32, "source_ipv6": 64},
    ]
    table = {"limit": limits, "connections": 4_194_304}
    document = {"interface": {"eth0": {"chain": ["maxconn"]}}, "function": {"maxconn": table}}
    chain = load(document, {"maxconn": Maxconn()}, compiler).chain
    nothing = {"interface": {"eth0": {"chain": ["noop"]}}, "function": {"noop": {"plugin": "noop"}}}
    noop = load(nothing, {"noop": Noop("noop")}, compiler).chain
    reference = bare(compiler)
    for family, network in families().items():
        ack, udp = frame(network, TCP(dport=_FULL, flags="A")), frame(network, UDP(dport=_FULL))
        frames = {
            "SYN over the limit": (chain, frame(network, TCP(sport=2, dport=_FULL, flags="S")), REACH_SYN),
            "SYN that was sent again": (chain, frame(network, TCP(dport=_FREE, flags="S")), REACH_SYN),
            "SYN to a port without a limit": (chain, frame(network, TCP(dport=_UNLISTED, flags="S")), REACH_SYN),
            "TCP, no SYN": (chain, ack, REACH_OTHER),
            "UDP": (chain, udp, REACH_OTHER),
            "floor: TCP through a function that only parses": (noop, ack, None),
            "floor: UDP through a function that only parses": (noop, udp, None),
        }
        chain.send(frame(network, TCP(sport=1, dport=_FULL, flags="S")))
        cases = {name: program(one.program(), data) for name, (one, data, _) in frames.items()}
        samples = compare(program(reference.fd, udp), cases, rounds)
        for name, (_, _, reach) in frames.items():
            yield Result("maxconn", f"{name}, {family}", samples[name].ratio, "x", reach, f"{samples[name].ns:.0f} ns")
        yield from _many(compiler, chain, reference, family, rounds)


def _many(compiler: Compiler, chain: PrivateChain, reference: Handle, family: str, rounds: int) -> Iterator[Result]:
    """SYNs of more than one flow. Each new one that is admitted makes a reservation, and takes the place of an old one in the table."""
    fronts, passing = Fronts(compiler, frags=True), bare(compiler, frags=True)
    cases: dict[str, Behind] = {}
    reaches: dict[str, float | None] = {}
    for name, port, flows, reach in (
        ("SYN over the limit, always a new flow", _FULL, Flows.NEW, REACH_SYN),
        ("SYN that is admitted, always a new flow", _FREE, Flows.NEW, REACH_SYN),
        ("SYN that is admitted, limited by source, always a new flow", _BY_SOURCE, Flows.NEW, REACH_SYN),
        ("SYN sent again, among 64k flows", _FREE, Flows.MANY, REACH_SYN),
    ):
        form = shape(_DESTINATIONS[family], TCP(dport=port, flags="S"))
        front, alone = (fronts.before(target, form, flows) for target in (Handle(os.dup(chain.program())), passing))
        cases[name] = Behind(partial(_timed, chain, front), alone.time)
        reaches[name] = reach
    form = shape(_DESTINATIONS[family], TCP(dport=_FREE, flags="S"))
    for name, floor in _floors(compiler, form.port + 4 - 36).items():
        front, alone = (fronts.before(target, form, Flows.NEW) for target in (floor, passing))
        cases[name] = Behind(front.time, alone.time)
        reaches[name] = None
    for name, sample in compare_net(program(reference.fd, form.frame), cases, rounds).items():
        yield Result("maxconn", f"{name}, {family}", sample.ratio, "x", reaches[name], f"{sample.ns:.0f} ns")


def _timed(chain: PrivateChain, front: Front) -> float:
    """Nanoseconds for one run, with room for all that is admitted meanwhile: no limit has so much that many rounds would not use it up."""
    maps = chain.maps["maxconn"]
    for place, rule in maps["mc_rules"].items():
        if rule["max"] == _MOST:
            maps["mc_limits"].put(place, {"id": rule["id"], "count": no_count()})
    return front.time()


def _floors(compiler: Compiler, first: int) -> Mapping[str, Handle]:
    """The kernel's own tables, with a key of 36 bytes of the frame."""
    text = f"#define FROM {first}\n{splice(INCLUDE / 'xdpchain.h', ())}{_FLOOR}"
    artifact = compiler.compile(Unit("bench", text, dict.fromkeys(_FLOORS, Hook.XDP)))
    tables = {name: Handle(map_create(one.kind, name, one.key_size, one.value_size, one.capacity)) for name, one in artifact.maps.items()}
    maps = {name: one.fd for name, one in tables.items()}
    return {text: load_program(artifact, name, Hook.XDP, maps, {}, name=name, frags=True) for name, text in _FLOORS.items()}
