# SPDX-License-Identifier: Apache-2.0
"""
The cost of elb for a packet: the head of its chain, entry and counters included.

A program in front makes the frame whole again and chooses its flow; what it takes with a bare XDP_PASS behind it, in the same mode, is subtracted.
The unit is that front with the bare program and one flow, which reach figures in nanoseconds took to be 31.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
from scapy.layers.inet import TCP, UDP
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.bpf.handle import Handle
from xdpchain.chain.private import PrivateChain
from xdpchain.config import loads
from xdpchain.function import Verdict
from xdpchain_elb import Elb

from bench.elb_front import PAYLOAD, Flows, Fronts, Shape, shape
from bench.measure import Behind, Result, bare, compare_net

UNIT_NS = 31.0
"""What the unit took where the reach figures come from."""
BACKENDS = 100
_SHARE = 0.99
"""So many of a case's packets must be treated as the case says."""
_RUNS = 2_000_000
"""Frames that each case is proven with: 64k flows by chance are all among them."""

_TCP4, _UDP4, _QUIC, _TCP6, _NOBODY = "203.0.113.1", "203.0.113.2", "203.0.113.3", "2001:db8::1", "203.0.113.200"
_SERVICES = "192.0.2."
"""256 VIPs of a chain of their own."""
_PORT = 443


@attrs.frozen
class Case:
    """
    One line of the table.

    `expected` is the verdict and reason that the chain has to count for its packets; `chain` says in which of the chains; `reach_ns` is None for
    what is only told.
    """

    name: str
    shape: Shape
    flows: Flows
    reach_ns: float | None = None
    expected: tuple[Verdict, str] = (Verdict.TX, "ring")
    chain: str = "addresses"


def _cases(owner: int) -> Sequence[Case]:
    """`owner` is the server id of the backend that the ring has for the flow of the QUIC packets."""
    established, syn, udp, six = _tcp(_TCP4, "A"), _tcp(_TCP4, "S"), shape(_UDP4, UDP(dport=_PORT)), _tcp(_TCP6, "A")
    other, nobody = _tcp(_NOBODY, "A"), (Verdict.NEXT, "")
    quic, elsewhere = (shape(_QUIC, UDP(dport=_PORT), _short_header(number)) for number in (owner, owner % BACKENDS + 1))
    return (
        Case("tcp4, established, 1 flow", established, Flows.ONE, 95),
        Case("tcp4, established, 64k flows", established, Flows.MANY, 115),
        Case("tcp4, established, 64k flows, 256 VIPs", _tcp(_SERVICES + "0", "A"), Flows.SERVICES, chain="services"),
        Case("tcp4, every packet a new flow, SYN", syn, Flows.NEW, 115),
        Case("tcp4, SYN flood, random sources", syn, Flows.ANY, 115),
        Case("tcp6, established, 1 flow", six, Flows.ONE, 105),
        Case("tcp6, established, 64k flows", six, Flows.MANY, 125),
        Case("udp4, established, 64k flows", udp, Flows.MANY, 125),
        Case("QUIC by connection id", quic, Flows.ONE, 105, (Verdict.TX, "quic_id")),
        Case("QUIC by connection id, not the slot's backend", elsewhere, Flows.ONE, 105, (Verdict.TX, "quic_id")),
        Case("any-port VIP", established, Flows.ONE, 120, chain="any port"),
        Case("moving slot, tracked, 64k flows", established, Flows.MANY, 450, (Verdict.TX, "tracked"), "tracked"),
        Case("moving slot, every packet a new flow, SYN", syn, Flows.NEW, None, (Verdict.TX, "moving"), "new"),
        Case("not a VIP", other, Flows.ONE, 35, nobody),
        Case("not a VIP, beside an any-port VIP", other, Flows.ONE, None, nobody, "any port"),
    )


def _tcp(destination: str, flags: str) -> Shape:
    return shape(destination, TCP(dport=_PORT, flags=flags))


def _short_header(number: int) -> bytes:
    """A QUIC packet with a short header whose connection id (version 1, 16 bits) names a server."""
    begin = bytes((0x40, 0x40 | number >> 10, number >> 2 & 0xFF, (number & 3) << 6))
    return begin.ljust(64, b"\x5a")


def _document(encapsulation: str, vips: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    table = {
        "encapsulation": encapsulation,
        "source": ["198.51.100.1", "2001:db8:ffff::1"],
        "next_hop": "02:00:00:00:00:03",
        "mtu": 9000,
        "vip": vips,
    }
    return {"interface": {"eth0": {"chain": ["elb"]}}, "function": {"elb": table}}


def _vip(address: str, *, port: int = _PORT, protocol: str = "tcp", options: Sequence[str] = (), moved: bool = False) -> Mapping[str, Any]:
    """A VIP; when it has `moved`, all of its backends are drained, and as many others have taken their place."""
    network = "fc00::" if ":" in address else "10.10.0."
    backends: list[dict[str, Any]] = [{"address": f"{network}{number}", "server_id": number} for number in range(1, BACKENDS + 1)]
    if moved:
        backends = [{**one, "drain": True} for one in backends]
        backends += [{"address": f"{network}{100 + number}"} for number in range(1, BACKENDS + 1)]
    return {"address": address, "port": port, "protocol": protocol, "options": options, "backend": backends}


def _chains(encapsulation: str, compiler: Compiler) -> Mapping[str, PrivateChain]:
    """Chains by name, as `Case.chain` has them."""
    addresses = [_vip(_TCP4), _vip(_UDP4, protocol="udp"), _vip(_QUIC, protocol="udp", options=["quic"]), _vip(_TCP6)]
    return {
        "addresses": _load(encapsulation, compiler, addresses),
        "any port": _load(encapsulation, compiler, [_vip(_TCP4, port=0)]),
        "tracked": _load(encapsulation, compiler, [_vip(_TCP4)], [_vip(_TCP4, moved=True)]),
        "services": _load(encapsulation, compiler, [_vip(f"{_SERVICES}{number}") for number in range(256)]),
        "new": _load(encapsulation, compiler, [_vip(_TCP4)], [_vip(_TCP4, moved=True)]),
    }


def _load(encapsulation: str, compiler: Compiler, *states: Sequence[Mapping[str, Any]]) -> PrivateChain:
    """A chain that went through several states of its VIPs."""
    elb = {"elb": Elb()}
    first, *later = (loads(_document(encapsulation, vips), elb) for vips in states)
    chain = PrivateChain(first, "eth0", compiler)
    for config in later:
        chain.configure("elb", config.instances["elb"].config)
    return chain


def measure(compiler: Compiler, rounds: int) -> Iterator[Result]:
    """The cases with both encapsulations, and the cheapest encapsulation that there can be."""
    fronts, passing = Fronts(compiler, frags=True), bare(compiler, frags=True)
    yield _floor(fronts, passing, rounds)
    for encapsulation in ("ipip", "gue"):
        chains = _chains(encapsulation, compiler)
        cases = {case.name: case for case in _cases(_owner(chains["addresses"]))}
        behind = {}
        for name, case in cases.items():
            _prove(case, fronts, chains[case.chain])
            behind[name] = _behind(case.shape, case.flows, fronts, _head(chains[case.chain]), passing)
        for name, sample in compare_net(next(iter(behind.values())).front, behind, rounds).items():
            reach = cases[name].reach_ns
            detail = f"{sample.ns:.0f} ns net"
            yield Result("elb", f"{encapsulation}, {name}", sample.ratio, "x", reach and round(reach / UNIT_NS, 2), detail)


def _owner(chain: PrivateChain) -> int:
    """The number of the backend to which a QUIC packet without an id goes: the last byte of the outer destination."""
    return chain.send(shape(_QUIC, UDP(dport=_PORT), bytes(PAYLOAD)).frame).packet[33]


def _head(chain: PrivateChain) -> Handle:
    return Handle(os.dup(chain.program()))


def _behind(frame: Shape, flows: Flows, fronts: Fronts, target: Handle, passing: Handle) -> Behind:
    return Behind(fronts.before(target, frame, flows).time, fronts.before(passing, frame, flows).time)


def _floor(fronts: Fronts, passing: Handle, rounds: int) -> Result:
    frame = _tcp(_TCP4, "A")
    behind = _behind(frame, Flows.ONE, fronts, fronts.floor(frame), passing)
    sample = compare_net(behind.front, {"": behind}, rounds)[""]
    return Result("elb", "28 constant bytes and XDP_TX", sample.ratio, "x", None, f"{sample.ns:.0f} ns net")


def _prove(case: Case, fronts: Fronts, chain: PrivateChain) -> None:
    """See that the front makes each frame whole again behind this very program, and that the program treats the frames as the case says."""
    _send(case, fronts, chain)  # where flows are remembered, now they are known
    treated = _send(case, fronts, chain)
    if treated[case.expected] < _SHARE * _RUNS:
        sys.exit(f"{case.name}: not {case.expected} but {dict(treated)}")


def _send(case: Case, fronts: Fronts, chain: PrivateChain) -> Counter[tuple[Verdict, str]]:
    before = _treated(chain)
    broken = fronts.proof(_head(chain), case.shape, case.flows, _RUNS)
    if broken:
        sys.exit(f"{case.name}: {broken} of {_RUNS} frames were not as they should be")
    return _treated(chain) - before


def _treated(chain: PrivateChain) -> Counter[tuple[Verdict, str]]:
    return Counter({(count.verdict, count.reason): count.packets for count in chain.counts("elb")})
