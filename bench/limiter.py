# SPDX-License-Identifier: Apache-2.0
"""
The cost of ratelimit: the whole program, entry and return included.

Cases with one frame are measured as they are. Where each packet has another source, a program in front chooses it; what that one takes with a
bare XDP_PASS behind it is subtracted, and the bare program added again, so that all lines can be compared.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from scapy.layers.inet import TCP, UDP
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.bpf.handle import Handle
from xdpchain.bpf.libbpf import test_run
from xdpchain.chain.private import PrivateChain
from xdpchain_ratelimit import Ratelimit

from bench.chains import families, frame, load
from bench.elb_front import Flows, Front, Fronts, Shape, shape
from bench.measure import Behind, Result, bare, compare, compare_net, program

REACH_LIMITED, REACH_OTHER, REACH_SOURCES = 4.0, 1.4, 5.0

_LIMITED, _ADMITTED, _FREE, _SHORT = 80, 81, 82, 83
"""Ports: one whose rate is used up for a day, one whose rate is never used up, one without a rule, one whose window is the shortest."""
_SOURCES = 65_536
_WARM = 2_000_000
"""Frames by which all sources are known."""
_REPEAT = 1_000_000
"""Runs in one call where sources come by chance: with fewer, many would come for the first time since other programs had the caches."""
_PLENTY: Mapping[str, Any] = {"rate": 4_000_000, "window": "500ms"}
_DESTINATIONS = ("192.0.2.2", "2001:db8::2")


def measure(compiler: Compiler, rounds: int) -> Iterator[Result]:
    """Each kind of packet as a multiple of the reference."""
    yield from _one_frame(compiler, rounds)
    yield from _many_sources(compiler, rounds)


def _load(compiler: Compiler, *rules: Mapping[str, Any], **keys: Any) -> PrivateChain:
    document = {"interface": {"eth0": {"chain": ["ratelimit"]}}, "function": {"ratelimit": {**keys, "rule": list(rules)}}}
    return load(document, {"ratelimit": Ratelimit()}, compiler).chain


def _one_frame(compiler: Compiler, rounds: int) -> Iterator[Result]:
    reference = bare(compiler)
    chain = _load(
        compiler,
        {"ports": [_LIMITED], "rate": 1, "window": "24h"},
        {"ports": [_ADMITTED], **_PLENTY},
        {"ports": [_SHORT], **_PLENTY, "window": "1ms"},
    )
    near = _load(compiler, {"destination": _DESTINATIONS, "ports": [_LIMITED], "rate": 1, "window": "24h"})
    for family, network in families().items():
        syn = frame(network, TCP(dport=_LIMITED, flags="S"))
        frames = {
            "limited SYN": (chain, syn, REACH_LIMITED),
            "limited SYN, rule for an address": (near, syn, REACH_LIMITED),
            "admitted SYN": (chain, frame(network, TCP(dport=_ADMITTED, flags="S")), None),
            "admitted SYN, window of 1ms": (chain, frame(network, TCP(dport=_SHORT, flags="S")), None),
            "SYN to a port without a rule": (chain, frame(network, TCP(dport=_FREE, flags="S")), None),
            "TCP, no SYN": (chain, frame(network, TCP(dport=_LIMITED, flags="A")), REACH_OTHER),
            "UDP": (chain, frame(network, UDP(dport=_LIMITED)), REACH_OTHER),
        }
        chain.send(syn)
        near.send(syn)
        cases = {name: program(one.program(), data) for name, (one, data, _) in frames.items()}
        samples = compare(program(reference.fd, frames["UDP"][1]), cases, rounds)
        for name, (_, _, reach) in frames.items():
            yield Result("ratelimit", f"{name}, {family}", samples[name].ratio, "x", reach, f"{samples[name].ns:.0f} ns")


def _time(front: Front, shape: Shape) -> Callable[[], float]:
    return lambda: test_run(front.fd, shape.frame, repeat=_REPEAT)[2]


def _many_sources(compiler: Compiler, rounds: int) -> Iterator[Result]:
    """SYNs of 64k sources by chance, each with a state of its own: within their limits, and over them."""
    fronts, passing = Fronts(compiler, frags=True), bare(compiler, frags=True)
    cases, chains = {}, []
    for family, destination in zip(families(), _DESTINATIONS, strict=True):
        syn = shape(destination, TCP(dport=_LIMITED, flags="S"))
        for name, own in {"admitted": _PLENTY, "over its own limit": {"rate": 1, "window": "24h"}}.items():
            source = {**own, "ipv6": 128}
            chain = _load(compiler, {"ports": [_LIMITED], **_PLENTY, "per_source": source}, sources=_SOURCES)
            chains.append(chain)  # its programs end with it
            target = Handle(os.dup(chain.program()))
            behind = fronts.before(target, syn, Flows.ANY)
            test_run(behind.fd, syn.frame, repeat=_WARM)
            known = sum(1 for _, sender in chain.maps["ratelimit"]["rl_senders"].items() if sender["id"])
            if known < 0.97 * _SOURCES:
                sys.exit(f"{name}, {family}: only {known} sources are known")
            alone = fronts.before(passing, syn, Flows.ANY)
            cases[f"SYN of one of 64k sources, {name}, {family}"] = Behind(_time(behind, syn), _time(alone, syn))
    for name, sample in compare_net(program(passing.fd, frame(next(iter(families().values())), TCP(flags="S"))), cases, rounds).items():
        yield Result("ratelimit", name, 1 + sample.ratio, "x", REACH_SOURCES, f"{sample.ns:.0f} ns more than a bare XDP_PASS")
