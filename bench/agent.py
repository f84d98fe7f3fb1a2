# SPDX-License-Identifier: Apache-2.0
"""
The cost of dsr_agent, entry and return included, in multiples of a bare `return XDP_PASS`, and at TC of a bare `return TC_ACT_OK`.

A front makes each frame whole again; what it takes by itself is subtracted. At TC it must make room again for what the agent took off, and the
kernel's work for that is measured by a program that takes off the same bytes and does nothing else ("room taken off": the least that there can be).
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import attrs
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from xdpchain.bpf.compiler.compile import Compiler, Unit
from xdpchain.bpf.compiler.splice import splice
from xdpchain.bpf.handle import Handle
from xdpchain.bpf.libbpf import map_create, map_update, test_run
from xdpchain.bpf.loader import ProgArray, load_program
from xdpchain.bpf.unit import INCLUDE
from xdpchain.chain.private import PrivateChain
from xdpchain.config import loads
from xdpchain.function import Hook, Verdict
from xdpchain_dsr_agent import DsrAgent
from xdpchain_dsr_agent.tables import ANSWERED, STATES, TICK_BITS

from bench.measure import REPEAT, Result

REACH, REACH_OTHER = 6.0, 1.5

_SOURCE = Path(__file__).with_name("functions") / "agent_front.bpf.c"
_PORT, _THERE, _OTHER = 443, 8443, 22
_VIP, _WORKLOAD, _CLIENT = {4: "10.200.1.1", 6: "fd00::1"}, {4: "10.1.0.5", 6: "fd01::5"}, {4: "192.0.0.0", 6: "2001:db8::"}
_BALANCER = {4: "10.0.13.4", 6: "fc00:2307::4"}
_LINK, _UDP = 14, 8
_IP = {4: 20, 6: 40}
_SOURCE_END, _DESTINATION_END = {4: 16, 6: 24}, {4: 20, 6: 40}
"""where addresses end, in an IP header"""
_SOME = 256
"""flows are of so many addresses and ports"""


@attrs.frozen
class Case:
    """
    A frame and what the agent is to do with it.

    `hook` is where, `side` whose; `around` the bytes that go; `client` where the client's address ends in the frame, `port` where its port begins;
    `treated` what the agent says.
    """

    name: str
    frame: bytes = attrs.field(repr=False)
    hook: Hook
    side: str
    reach: float
    treated: tuple[Verdict, str] = (Verdict.NEXT, "")
    around: int = 0
    client: int = 0
    port: int = 0
    many: bool = False


def measure(compiler: Compiler, rounds: int) -> Iterator[Result]:
    """The cases, each of them in rounds of its own."""
    agents = {side: Agent(compiler, side) for side in ("network", "workload")}
    for case in _cases():
        agents[case.side].prove(case)
        yield _measured(case, Fronts(compiler, case, agents[case.side].program(case.hook)), rounds)


def _cases() -> Iterator[Case]:
    for family in (4, 6):
        around = _IP[family] + _UDP
        inner, outer = _packet(family, _CLIENT, 0, _VIP, _PORT), _network(family, _BALANCER, _WORKLOAD) / UDP(sport=31000, dport=6080)
        wrapped = _frame(outer / Raw(bytes(inner)))
        answer = _frame(_packet(family, _WORKLOAD, _THERE, _CLIENT, 0))
        for many in (False, True):
            flows = "64k flows" if many else "1 flow"
            at = _LINK + around
            for side, hook in (("network", Hook.XDP), ("workload", Hook.TC_EGRESS)):
                name, told = f"{side} IPv{family}, decapsulated, {flows}", (Verdict.NEXT, "delivered")
                yield Case(name, wrapped, hook, side, REACH, told, around, at + _SOURCE_END[family], at + _IP[family], many)
            for side, hook in (("network", Hook.TC_EGRESS), ("workload", Hook.TC_INGRESS)):
                name, told = f"{side} IPv{family}, answered, {flows}", (Verdict.NEXT, "answered")
                yield Case(name, answer, hook, side, REACH, told, 0, _LINK + _DESTINATION_END[family], _LINK + _IP[family] + 2, many)
        there, back = (
            _frame(_packet(family, *ends)) for ends in ((_CLIENT, 40000, _WORKLOAD, _OTHER), (_WORKLOAD, _OTHER, _CLIENT, 40000))
        )
        for side, hook, frame in (
            ("network", Hook.XDP, there),
            ("network", Hook.TC_EGRESS, back),
            ("workload", Hook.TC_EGRESS, there),
            ("workload", Hook.TC_INGRESS, back),
        ):
            yield Case(f"{side} IPv{family}, other packets, {hook.value}", frame, hook, side, REACH_OTHER)


def _network(family: int, source: dict[int, str], destination: dict[int, str]) -> Packet:
    return (IP if family == 4 else IPv6)(src=source[family], dst=destination[family])


def _packet(family: int, source: dict[int, str], source_port: int, destination: dict[int, str], port: int) -> Packet:
    return _network(family, source, destination) / TCP(sport=source_port, dport=port, flags="A") / Raw(bytes(64))


def _frame(packet: Packet) -> bytes:
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet)


def _mapped(address: str) -> IPv6Address:
    one = ip_address(address)
    return IPv6Address(f"::ffff:{one}") if isinstance(one, IPv4Address) else one


class Agent:
    """An agent on one side, to which 65,536 flows of each family are known as established."""

    def __init__(self, compiler: Compiler, side: str) -> None:
        services = [{"vip": _VIP[family], "port": _PORT, "workload": _WORKLOAD[family], "backend_port": _THERE} for family in (4, 6)]
        table = {"accept_from": ["10.0.13.0/24", "fc00:2307::/32"], "service": services, "answers": "stack"}
        document = {"interface": {"eth0": {"chain": ["dsr_agent"], "side": side}}, "function": {"dsr_agent": table}}
        self._chain = PrivateChain(loads(document, {"dsr_agent": DsrAgent()}), "eth0", compiler)
        maps = self._chain.maps["dsr_agent"]
        flow = {"vip_port": _PORT, "state": STATES.index("established"), "marks": ANSWERED, "seen": time.monotonic_ns() >> TICK_BITS}
        for place, service in maps["dsr_services"].items():
            if not service["id"]:
                continue
            family = 4 if service["vip"].ipv4_mapped else 6
            value = {**flow, "vip": service["vip"], "place": place, "around": _IP[family] + _UDP, "id": service["id"]}
            base = int(_mapped(_CLIENT[family]))
            key = {"workload": service["workload"], "port": _THERE, "proto": 6, "zero": bytes(3)}
            for number in range(_SOME**2):
                client, port = base + (number % _SOME << 8), number // _SOME << 8
                maps["dsr_flows"].put({**key, "client": client.to_bytes(16, "big"), "client_port": port}, value)

    def program(self, hook: Hook) -> Handle:
        """Its program on a hook."""
        return Handle(os.dup(self._chain.program(hook)))

    def prove(self, case: Case) -> None:
        """See that the agent does with the frame what the case says."""
        before = self._treated(case)
        self._chain.send(case.frame, egress=case.hook is Hook.TC_EGRESS)
        if self._treated(case) != before + 1:
            raise RuntimeError(f"{case.name}: not {case.treated}")

    def _treated(self, case: Case) -> int:
        return sum(one.packets for one in self._chain.counts("dsr_agent", case.hook) if (one.verdict, one.reason) == case.treated)


class Fronts:
    """The front of a case before the agent, before nothing, and (at TC) before the least that can take off what is around a packet."""

    def __init__(self, compiler: Compiler, case: Case, agent: Handle) -> None:
        xdp = case.hook is Hook.XDP
        headers = min(len(case.frame) - 32, max(case.client, case.port + 2) + 40)
        facts = {"BYTES": len(case.frame), "HEADERS": headers, "AROUND": case.around, "MANY": int(case.many)}
        facts |= {"ADDRESS": max(case.client - 2, 0), "PORT": case.port}
        text = "\n".join((*(f"#define FRAME_{name} {value}" for name, value in facts.items()), splice(_SOURCE, (INCLUDE,))))
        names = ("front_xdp", "front_pass_xdp") if xdp else ("front_tc", "front_pass_tc", "front_shrink")
        hooks = {"front_xdp": Hook.XDP, "front_pass_xdp": Hook.XDP}
        hooks |= dict.fromkeys(("front_tc", "front_pass_tc", "front_shrink"), Hook.TC_EGRESS)
        artifact = compiler.compile(Unit("bench", text, hooks))
        frame = case.frame

        def load(name: str, maps: dict[str, int]) -> Handle:
            return load_program(artifact, name, case.hook, maps, {}, name=name, frags=xdp)

        def timed(handle: Handle) -> Callable[[], float]:
            return lambda: test_run(handle.fd, frame, repeat=REPEAT)[2]

        def front(target: Handle) -> Callable[[], float]:
            behind = ProgArray.create()
            behind.point(target)
            layout = artifact.maps["front_headers"]
            values = Handle(map_create(layout.kind, "front_headers", layout.key_size, layout.value_size, 1))
            map_update(values.fd, bytes(4), frame[:headers])
            handle = load(names[0], {"front_next": behind.fd, "front_headers": values.fd})
            kept = (handle, behind, values)
            return lambda: test_run(kept[0].fd, frame, repeat=REPEAT)[2]

        passing = load(names[1], {})
        self.reference = timed(passing)
        self.agent = front(agent)
        self.alone = front(passing)
        self.shrink = front(load("front_shrink", {})) if not xdp and case.around else None


def _measured(case: Case, fronts: Fronts, rounds: int) -> Result:
    ratios, times, floors = [], [], []
    for _ in range(rounds):
        reference, alone = fronts.reference(), fronts.alone()
        whole = fronts.agent()
        room = 0.0
        if fronts.shrink:
            # what is made again in front and taken off behind: about half of it is the taking
            room = (fronts.shrink() - alone) / 2
            floors.append(room)
        alone_after, reference_after = fronts.alone(), fronts.reference()
        net = whole - (alone + alone_after) / 2 - room
        times.append(net)
        ratios.append(2 * net / (reference + reference_after))
    detail = f"{statistics.median(times):.0f} ns"
    if floors:
        detail += f"; the room taken off alone {statistics.median(floors):.0f} ns"
    return Result("agent", case.name, statistics.median(ratios), "x", case.reach, detail)
