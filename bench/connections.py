# SPDX-License-Identifier: Apache-2.0
"""
The cost of maxconn: the whole program, entry and return included.

SYNs of one flow come as they are. Those of many or always new flows have a front that makes them; what it takes by itself is subtracted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from scapy.layers.inet import TCP, UDP
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.bpf.handle import Handle
from xdpchain_maxconn import Maxconn

from bench.chains import families, frame, load
from bench.elb_front import Flows, Fronts, shape
from bench.measure import Behind, Result, bare, compare, compare_net, program

REACH_SYN, REACH_OTHER = 3.0, 1.4

_FULL, _FREE, _BY_SOURCE, _UNLISTED = 80, 81, 82, 83
"""Ports: one whose limit is reached, one with room for all, one with a limit for each source, one without a limit."""
_DESTINATIONS = {"IPv4": "192.0.2.2", "IPv6": "2001:db8::2"}
_MOST = 4_000_000


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
    reference = bare(compiler)
    for family, network in families().items():
        frames = {
            "SYN over the limit": (frame(network, TCP(sport=2, dport=_FULL, flags="S")), REACH_SYN),
            "SYN that was sent again": (frame(network, TCP(dport=_FREE, flags="S")), REACH_SYN),
            "SYN to a port without a limit": (frame(network, TCP(dport=_UNLISTED, flags="S")), REACH_SYN),
            "TCP, no SYN": (frame(network, TCP(dport=_FULL, flags="A")), REACH_OTHER),
            "UDP": (frame(network, UDP(dport=_FULL)), REACH_OTHER),
        }
        chain.send(frame(network, TCP(sport=1, dport=_FULL, flags="S")))
        cases = {name: program(chain.program(), data) for name, (data, _) in frames.items()}
        samples = compare(program(reference.fd, frames["UDP"][0]), cases, rounds)
        for name, (_, reach) in frames.items():
            yield Result("maxconn", f"{name}, {family}", samples[name].ratio, "x", reach, f"{samples[name].ns:.0f} ns")
        yield from _many(compiler, chain.program(), reference, family, rounds)


def _many(compiler: Compiler, chain: int, reference: Handle, family: str, rounds: int) -> Iterator[Result]:
    """SYNs of more than one flow. Each new one makes a reservation, and takes the place of the oldest one in the table."""
    fronts, passing = Fronts(compiler, frags=True), bare(compiler, frags=True)
    cases, reaches = {}, {}
    for name, port, flows in (
        ("SYN over the limit, always a new flow", _FULL, Flows.NEW),
        ("SYN that is admitted, always a new flow", _FREE, Flows.NEW),
        ("SYN that is admitted, limited by source, always a new flow", _BY_SOURCE, Flows.NEW),
        ("SYN sent again, among 64k flows", _FREE, Flows.MANY),
    ):
        form = shape(_DESTINATIONS[family], TCP(dport=port, flags="S"))
        front, alone = (fronts.before(target, form, flows) for target in (Handle(os.dup(chain)), passing))
        cases[name] = Behind(front.time, alone.time)
        reaches[name] = REACH_SYN
    data = shape(_DESTINATIONS[family], TCP(dport=_FREE, flags="S")).frame
    for name, sample in compare_net(program(reference.fd, data), cases, rounds).items():
        yield Result("maxconn", f"{name}, {family}", sample.ratio, "x", reaches[name], f"{sample.ns:.0f} ns")
