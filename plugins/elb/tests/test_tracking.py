# SPDX-License-Identifier: Apache-2.0
"""
Flows through random changes of their backends, against what must hold for each of them.

The model knows nothing of slots, rings and tables. It knows which backends there are, and of each flow where its last packet went and how long
ago: as long as that backend lives and the flow was not silent for too long, that is where the next packet goes.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, ip_address
from typing import Any

import attrs
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from xdpchain import MapKind
from xdpchain.testing import LoadChain, LoadedChain
from xdpchain_elb.function import Elb
from xdpchain_elb.tables import MEMORY, MOVES, RING

from plugins.elb.tests.shot import Flag, Shot, tcp

BACKENDS = tuple(tuple(IPv4Address(f"10.0.{vip}.{number}") for number in range(1, 7)) for vip in range(2))
"""Those of each VIP: none is in both, so that a packet for one that comes to a server of the other is seen"""
VIPS = (IPv4Address("10.200.1.1"), IPv4Address("10.200.1.2"))
HOLD_TICKS = 111
"""120 s in ticks of 2^30 ns"""
OPENING_TICKS = CLOSING_TICKS = 60
PAUSES_TICKS = (25, 25, 50, 75)
REST_TICKS = 150
"""no sum of them comes near one of the limits: a test takes a tick or two itself"""
GOING_ON_TICKS = 50
FLOWS_AT_ONCE = 25
NUMBERS = 13
"""for members: one more than there ever are at a time"""


@attrs.define
class Server:
    """What the config says of a backend of a VIP."""

    weight: int = 1
    drain: bool = False
    down: bool = False

    @property
    def takes_new(self) -> bool:
        return self.weight > 0 and not self.drain and not self.down


@attrs.define
class Flow:
    """A flow: the VIP and the backend that it is at, None where nothing can be said; its phase, and when its last packet was."""

    vip: int
    number: int
    backend: IPv4Address | None
    opening: bool
    closing: bool
    last_tick: int

    def frame(self, flags: Flag) -> bytes:
        return tcp(IPv4Address("198.18.0.0") + self.number, 1024 + self.number, VIPS[self.vip], 80, flags)

    def may_have_ended(self, now: int) -> bool:
        limit = OPENING_TICKS if self.opening else CLOSING_TICKS if self.closing else HOLD_TICKS
        return now - self.last_tick > limit


def table(servers: Sequence[Mapping[IPv4Address, Server]]) -> dict[str, Any]:
    """The config."""
    vips = []
    for address, those in zip(VIPS, servers, strict=True):
        backends = [{"address": str(one), **attrs.asdict(server)} for one, server in those.items()]
        vips.append({"address": str(address), "port": 80, "protocol": "tcp", "backend": backends})
    sizes = {"max_vips": 4, "max_backends": 12, "max_members": 32, "flow_table": 16384}
    return {"source": ["10.0.13.37"], "next_hop": "02:00:00:00:00:ff", "hold_tcp": "120s", "vip": vips, **sizes}


class Changes(RuleBasedStateMachine):
    """Two VIPs that share their numbers, a few backends, time, and flows."""

    chain: LoadedChain
    """one for all examples: the verifier takes its time"""

    def __init__(self) -> None:
        super().__init__()
        self.servers: list[dict[IPv4Address, Server]] = [{one: Server() for one in BACKENDS[vip][: 3 - vip]} for vip in range(2)]
        self.flows: list[Flow] = []
        self.numbers = 0
        self.tick = 0

    @initialize()
    def begin(self) -> None:
        self.chain.configure("elb", table([{}, {}]))
        empty(self.chain)
        wear_out(self.chain)
        self.restart()
        self.shot = Shot(self.chain)
        self._apply()

    def _apply(self) -> None:
        self.chain.configure("elb", table(self.servers))

    # what an operator does

    @rule(vip=st.integers(0, 1), which=st.integers(0, 5), weight=st.sampled_from((1, 1, 2, 5)))
    def add(self, vip: int, which: int, weight: int) -> None:
        self.servers[vip].setdefault(BACKENDS[vip][which], Server(weight))
        self._apply()

    @rule(vip=st.integers(0, 1), which=st.integers(0, 5))
    def remove(self, vip: int, which: int) -> None:
        self.servers[vip].pop(BACKENDS[vip][which], None)
        for flow in self.flows:
            if flow.backend == BACKENDS[vip][which]:
                flow.backend = None
        self._apply()

    @rule(vip=st.integers(0, 1), which=st.integers(0, 5), what=st.sampled_from(("drain", "down", "weight")), much=st.integers(0, 3))
    def change(self, vip: int, which: int, what: str, much: int) -> None:
        server = self.servers[vip].get(BACKENDS[vip][which])
        if server:
            setattr(server, what, much if what == "weight" else much > 1)
            self._apply()

    @rule(vip=st.integers(0, 1))
    def use_up_numbers(self, vip: int) -> None:
        """Backends come and go at once: what is given a number next gets one that somebody had."""
        there = self.servers[vip]
        for _ in range(2):
            self.servers[vip] = {**there, **{one: Server() for one in BACKENDS[vip] if one not in there}}
            self._apply()
            self.servers[vip] = there
            self._apply()

    @rule()
    def restart(self) -> None:
        """A daemon that knows only what the tables hold."""
        one = self.chain.config.instances["elb"]
        self.chain.carry_out("elb", one.function.configure(None, one.config, self.chain.maps["elb"]))

    @rule()
    def upkeep(self) -> None:
        self.chain.upkeep("elb")

    # what time does

    @rule(ticks=st.sampled_from(PAUSES_TICKS))
    def wait(self, ticks: int) -> None:
        self._wait(ticks)

    @rule(times=st.integers(2, 5))
    def go_on(self, times: int) -> None:
        """Flows that live longer than any hold, on slots that would settle if they did not."""
        for _ in range(times):
            self._wait(GOING_ON_TICKS)
            for flow in self.flows:
                if not flow.closing:
                    self._follow(flow, Flag.ACK)
                    flow.opening = False
            self.chain.upkeep("elb")

    @rule()
    def rest(self) -> None:
        """Silence until all slots settle."""
        self._wait(REST_TICKS)
        self.chain.upkeep("elb")

    def _wait(self, ticks: int) -> None:
        self.tick += ticks
        pass_time(self.chain, ticks)

    # what clients do

    @rule()
    def open(self) -> None:
        for vip in (0, 1) * FLOWS_AT_ONCE:
            self.numbers += 1
            flow = Flow(vip, self.numbers, None, opening=True, closing=False, last_tick=self.tick)
            self._begin(flow)
            self.flows.append(flow)

    @precondition(lambda self: self.flows)
    @rule(part=st.integers(0, 4))
    def talk(self, part: int) -> None:
        for flow in self._some(part):
            self._follow(flow, Flag.ACK)
            flow.opening = False

    @precondition(lambda self: self.flows)
    @rule(part=st.integers(0, 4))
    def close(self, part: int) -> None:
        for flow in self._some(part):
            self._follow(flow, Flag.ACK | Flag.FIN)
            flow.opening, flow.closing = False, True

    @precondition(lambda self: self.flows)
    @rule(part=st.integers(0, 4))
    def reset(self, part: int) -> None:
        for flow in self._some(part):
            self._follow(flow, Flag.RST)
            flow.backend, flow.opening, flow.closing = None, False, True

    @precondition(lambda self: self.flows)
    @rule(part=st.integers(0, 4))
    def open_again(self, part: int) -> None:
        """With the same ports, or the SYN once more."""
        for flow in self._some(part):
            self._begin(flow)

    def _some(self, part: int) -> list[Flow]:
        return self.flows[part::4] if part < 4 else self.flows

    def _begin(self, flow: Flow) -> None:
        """A SYN: to a backend that takes new flows, or where the SYN before it went."""
        servers, before = self.servers[flow.vip], flow.backend if flow.opening else None
        now = self._send(flow, Flag.SYN)
        new = {one for one, server in servers.items() if server.takes_new}

        assert now in new or (before is not None and now == before) or (now is None and not new)

        flow.backend, flow.opening, flow.closing, flow.last_tick = now, True, False, self.tick

    def _follow(self, flow: Flow, flags: Flag) -> None:
        now = self._send(flow, flags)
        if flow.backend is None or flow.may_have_ended(self.tick):
            flow.backend = None  # wherever it went, that backend knows nothing of it
        else:
            assert flow.backend == now
        flow.last_tick = self.tick

    def _send(self, flow: Flow, flags: Flag) -> IPv4Address | None:
        packed = self.shot.backend(flow.frame(flags))
        backend = IPv4Address(packed) if packed else None

        assert backend is None or backend in self.servers[flow.vip], "a backend that is not there gets a packet"
        return backend


def empty(chain: LoadedChain) -> None:
    """Make all tables what they are in a new instance."""
    for one in chain.maps["elb"].values():
        keys = list(one.keys_raw())
        if one.schema.kind in {MapKind.ARRAY, MapKind.PERCPU_ARRAY}:
            value = one.get_raw(bytes(4)) or b""
            one.put_many_raw(keys, [bytes(len(value))] * len(keys))
            continue
        for key in keys:
            one.delete_raw(key)


def wear_out(chain: LoadedChain) -> None:
    """Leave hardly more numbers for members than are in use at a time: the others look as if many had had them, and are taken last."""
    states = chain.maps["elb"]["elb_states"]
    states.put_many((number, 1000 << 2) for number in range(NUMBERS + 1, states.schema.capacity))


def pass_time(chain: LoadedChain, ticks: int) -> None:
    """Make everything that the tables know older: the kernel's clock cannot be set."""
    maps = chain.maps["elb"]
    flows = maps["elb_flows"]
    remembered = dict(flows.items_raw())
    flows.put_many_raw(list(remembered), [_older(value, MEMORY.offsets["seen"], 1, ticks) for value in remembered.values()])
    for outer, offset, words in (
        ("elb_rings", RING.offsets["until"], 1),
        ("elb_moves", MOVES.offsets["needed"], MOVES.fields["needed"].size // 4),
    ):
        for number in range(maps[outer].schema.capacity):
            inner = maps[outer].inner(number)
            value = inner.get_raw(bytes(4)) if inner else None
            if inner and value:
                inner.put_raw(bytes(4), _older(value, offset, words, ticks))


def _older(value: bytes, offset: int, words: int, ticks: int) -> bytes:
    times = array("I", value[offset : offset + 4 * words])
    return value[:offset] + array("I", [time - ticks & 0xFFFFFFFF for time in times]).tobytes() + value[offset + 4 * words :]


def test_no_flow_changes_its_backend_while_that_lives(load_chain: LoadChain) -> None:
    document = {"interface": {"eth0": {"chain": ["elb"]}}, "function": {"elb": table([{}, {}])}}
    machine = type("Machine", (Changes,), {"chain": load_chain(document, functions=[Elb()])})

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),  # an example takes a second: nobody waits for a hundred shorter ones
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_number_that_a_server_of_another_vip_got_leads_no_flow_there(load_chain: LoadChain) -> None:
    ours, theirs = BACKENDS[0][:3], BACKENDS[1][:2]
    document = {"interface": {"eth0": {"chain": ["elb"]}}, "function": {"elb": table([dict.fromkeys(ours[:2], Server()), {}])}}
    chain = load_chain(document, functions=[Elb()])
    wear_out(chain)
    shot = Shot(chain)
    flows = [Flow(0, number, None, opening=True, closing=False, last_tick=0) for number in range(1000)]
    before = [shot.backend(flow.frame(Flag.SYN)) for flow in flows]
    chain.configure("elb", table([dict.fromkeys(ours, Server()), {}]))

    assert before == [shot.backend(flow.frame(Flag.ACK)) for flow in flows], "those of moving slots are remembered now"
    remembered = {key["source_port"]: memory["member"] for key, memory in chain.maps["elb"]["elb_flows"].items()}
    gone = member_of(chain, ours[0])
    assert gone in remembered.values()

    chain.configure("elb", table([dict.fromkeys(ours[1:], Server()), {}]))
    for _ in range(40):
        chain.configure("elb", table([dict.fromkeys(ours[1:], Server()), dict.fromkeys(theirs, Server())]))
        if gone in {member_of(chain, one) for one in theirs}:
            break
        chain.configure("elb", table([dict.fromkeys(ours[1:], Server()), {}]))

    assert gone in {member_of(chain, one) for one in theirs}
    now = {shot.backend(flow.frame(Flag.ACK)) for flow in flows}
    assert {one.packed for one in ours[1:]} == now


def member_of(chain: LoadedChain, backend: IPv4Address) -> int:
    """The number of a backend in its pool."""
    mapped = ip_address(f"::ffff:{backend}")
    (number,) = [number for key, number in chain.maps["elb"]["elb_directory"].items() if key["pool"] and key["address"] == mapped]
    return int(number)
