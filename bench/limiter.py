# SPDX-License-Identifier: Apache-2.0
"""The cost of ratelimit: the whole program, entry and return included, nothing subtracted."""

from __future__ import annotations

from collections.abc import Iterator

from scapy.layers.inet import TCP, UDP
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain_ratelimit import Ratelimit

from bench.chains import families, frame, load
from bench.measure import Result, bare, compare, program

REACH_LIMITED, REACH_OTHER = 4.0, 1.5

_LIMITED, _ADMITTED, _FREE = 80, 81, 82
"""Ports: one whose rate is used up for a day, one whose rate is never used up, one without a rule."""


def measure(compiler: Compiler, rounds: int) -> Iterator[Result]:
    """Each kind of packet as a multiple of the reference."""
    reference = bare(compiler)
    rules = [{"ports": [_LIMITED], "rate": 1, "window": "24h"}, {"ports": [_ADMITTED], "rate": 4_000_000, "window": "1ms"}]
    document = {"interface": {"eth0": {"chain": ["ratelimit"]}}, "function": {"ratelimit": {"rule": rules}}}
    chain = load(document, {"ratelimit": Ratelimit()}, compiler).chain
    for family, network in families().items():
        frames = {
            "limited SYN": (frame(network, TCP(dport=_LIMITED, flags="S")), REACH_LIMITED),
            "admitted SYN": (frame(network, TCP(dport=_ADMITTED, flags="S")), None),
            "SYN to a port without a rule": (frame(network, TCP(dport=_FREE, flags="S")), REACH_OTHER),
            "TCP, no SYN": (frame(network, TCP(dport=_LIMITED, flags="A")), REACH_OTHER),
            "UDP": (frame(network, UDP(dport=_LIMITED)), REACH_OTHER),
        }
        chain.send(frames["limited SYN"][0])
        cases = {name: program(chain.program(), data) for name, (data, _) in frames.items()}
        samples = compare(program(reference.fd, frames["UDP"][0]), cases, rounds)
        for name, (_, reach) in frames.items():
            yield Result("ratelimit", f"{name}, {family}", samples[name].ratio, "x", reach, f"{samples[name].ns:.0f} ns")
