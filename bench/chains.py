# SPDX-License-Identifier: Apache-2.0
"""The cost of a function that does nothing but parse: what it adds to a chain of 1, 2, 4 and 8, from the dispatcher to the chain's end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.bpf.handle import Handle
from xdpchain.bpf.unit import dispatcher_unit
from xdpchain.chain.anchor import Dispatcher, make_dispatcher
from xdpchain.chain.model import Place, Wiring
from xdpchain.chain.private import PrivateChain
from xdpchain.config import loads
from xdpchain.function import Hook, KernelFunction

from bench.functions.xdpchain_bench import Noop
from bench.measure import Result, bare, compare, program

LENGTHS = (1, 2, 4, 8)
REACH, REACH_UP_TO = 0.45, 4


@attrs.frozen
class Loaded:
    """A chain behind a dispatcher, attached to nothing."""

    chain: PrivateChain
    dispatcher: Dispatcher

    @property
    def fd(self) -> int:
        return self.dispatcher.program.fd


def frame(network: Packet, transport: Packet) -> bytes:
    """An Ethernet frame of at least 60 bytes."""
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / network / transport).ljust(60, b"\0")


def families() -> Mapping[str, Packet]:
    """An IP header of each family."""
    return {"IPv4": IP(src="192.0.2.1", dst="192.0.2.2"), "IPv6": IPv6(src="2001:db8::1", dst="2001:db8::2")}


def load(document: Mapping[str, Any], functions: Mapping[str, KernelFunction[Any]], compiler: Compiler) -> Loaded:
    """The chain of `eth0` in a document, with a dispatcher as a running one has."""
    config = loads(document, functions)
    chain = PrivateChain(config, "eth0", compiler)
    used = (config.instances[name].function for name in document["interface"]["eth0"]["chain"])
    frags = all(one.frags for function in used for one in function.programs)
    dispatcher = make_dispatcher(Place(Hook.XDP, 1), Wiring((), (), (), frags=frags), compiler.compile(dispatcher_unit(Hook.XDP)))
    dispatcher.root.point(Handle(os.dup(chain.program())))
    return Loaded(chain, dispatcher)


def measure(compiler: Compiler, rounds: int) -> Iterator[Result]:
    """For chains of each length, with frags and without, the cost per function as a share of the reference."""
    reference = bare(compiler)
    loaded: dict[tuple[str, int], Loaded] = {}
    for frags in (False, True):
        noop = Noop("noop", frags=frags)
        for length in LENGTHS:
            names = [f"noop_{number}" for number in range(length)]
            document = {"interface": {"eth0": {"chain": names}}, "function": {name: {"plugin": "noop"} for name in names}}
            loaded["frags" if frags else "linear", length] = load(document, {"noop": noop}, compiler)
    for family, network in families().items():
        data = frame(network, TCP(dport=80, flags="A"))
        cases = {f"{kind} {length}": program(one.fd, data) for (kind, length), one in loaded.items()}
        samples = compare(program(reference.fd, data), cases, rounds)
        for kind, length in loaded:
            sample = samples[f"{kind} {length}"]
            yield Result(
                "chain",
                f"{length} no-op functions, {family}, {kind}",
                (sample.ratio - 1) / length,
                "x per function",
                REACH if length <= REACH_UP_TO else None,
                f"{sample.ns:.0f} ns in all, {sample.ratio:.2f} x",
            )
