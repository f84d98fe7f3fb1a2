# SPDX-License-Identifier: Apache-2.0
"""Flows as arriving packets make them: through the VIP, straight to the workload, and one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadedChain, Verdict
from xdpchain_dsr_agent.handler import places

from plugins.dsr_agent.tests.arriving import Arrival, arrive, at_workload, flows, stats
from plugins.dsr_agent.tests.conftest import LoadAgent
from plugins.dsr_agent.tests.leaving import leave, only_flow
from plugins.dsr_agent.tests.packets import (
    CLIENT4,
    CLIENT_PORT,
    ETHER,
    FROM_WORKLOAD,
    PORT,
    TO_VIP,
    TO_WORKLOAD,
    VIP4,
    WORKLOAD4,
    WORKLOAD_PORT,
    Outer,
)

UDP_BYTES = Raw(b"who?")
UNTOUCHED = (Verdict.NEXT, "")
DELIVERED = (Verdict.NEXT, "delivered")


def through_vip(chain: LoadedChain, flags: str, family: int = 4) -> Arrival:
    """A TCP packet of the client to the VIP; it must be delivered."""
    inner = TO_VIP[family] / TCP(sport=CLIENT_PORT, dport=PORT, flags=flags)
    result = arrive(chain, ETHER / Outer(family=family).around(inner))

    assert (result.verdict, result.reason) == DELIVERED
    assert bytes(ETHER / at_workload(inner)) == result.frame

    return result


def direct(chain: LoadedChain, flags: str, family: int = 4) -> None:
    """One to the workload itself; it must stay as it is."""
    untouched(chain, TO_WORKLOAD[family] / TCP(sport=CLIENT_PORT, dport=WORKLOAD_PORT, flags=flags))


def untouched(chain: LoadedChain, packet: Packet) -> None:
    frame = bytes(ETHER / packet)

    assert arrive(chain, frame) == Arrival(*UNTOUCHED, frame)


def answer(chain: LoadedChain, flags: str, family: int = 4) -> str:
    """One of the workload; says what the agent makes of it."""
    return leave(chain, ETHER / FROM_WORKLOAD[family] / TCP(sport=WORKLOAD_PORT, dport=CLIENT_PORT, flags=flags)).reason


def told(chain: LoadedChain) -> Mapping[str, Any]:
    """What is remembered of the one flow, without what never varies here."""
    flow = only_flow(chain)
    return {key: flow[key] for key in ("map", "state", "marks")}


@pytest.mark.parametrize("family", [4, 6])
def test_a_connection_moves_to_the_large_table_when_both_have_spoken(chain: LoadedChain, family: int) -> None:
    through_vip(chain, "S", family)
    assert told(chain) == {"map": "dsr_opening", "state": "syn", "marks": set()}

    through_vip(chain, "S", family)
    assert stats(chain)["flows"] == 1

    assert answer(chain, "SA", family) == "answered"
    assert told(chain) == {"map": "dsr_opening", "state": "syn", "marks": {"answered"}}

    through_vip(chain, "S", family)
    assert told(chain) == {"map": "dsr_opening", "state": "syn", "marks": {"answered"}}

    through_vip(chain, "A", family)
    assert told(chain) == {"map": "dsr_flows", "state": "established", "marks": {"answered"}}
    assert stats(chain)["flows"] == 1


def test_what_is_remembered_is_what_the_way_back_needs(chain: LoadedChain) -> None:
    for outer, around in ((Outer(), 28), (Outer("ipip", 6), 40)):
        arrive(chain, ETHER / outer.around(TO_VIP[4] / TCP(sport=CLIENT_PORT + around, dport=PORT, flags="S")))

    keys = ("workload", "client", "vip")
    told = {
        flow["client_port"]: ([str(flow[key].ipv4_mapped) for key in keys], flow["port"], flow["vip_port"], flow["around"])
        for flow in flows(chain)
    }
    expected = [WORKLOAD4, CLIENT4, VIP4]
    assert told == {
        CLIENT_PORT + 28: (expected, WORKLOAD_PORT, PORT, 28),
        CLIENT_PORT + 40: (expected, WORKLOAD_PORT, PORT, 40),
    }


def test_a_connection_closes_when_both_have_ended_it(chain: LoadedChain) -> None:
    through_vip(chain, "S")
    answer(chain, "SA")
    through_vip(chain, "A")

    through_vip(chain, "FA")
    assert told(chain) == {"map": "dsr_flows", "state": "fin", "marks": {"answered", "fin_in"}}

    answer(chain, "FA")
    assert told(chain) == {"map": "dsr_flows", "state": "closed", "marks": {"answered", "fin_in", "fin_out"}}

    # it leaves the table of those that live, and does not come back for what is sent again
    over = {"map": "dsr_opening", "state": "closed", "marks": {"answered", "fin_in", "fin_out"}}
    through_vip(chain, "A")
    assert told(chain) == over
    answer(chain, "FA")
    through_vip(chain, "A")
    assert told(chain) == over

    through_vip(chain, "S")
    assert told(chain) == {"map": "dsr_opening", "state": "syn", "marks": set()}


def test_a_reset_closes_a_connection(chain: LoadedChain) -> None:
    through_vip(chain, "S")
    through_vip(chain, "R")

    assert told(chain) == {"map": "dsr_opening", "state": "closed", "marks": set()}


@pytest.mark.parametrize("end", ["FA", "R"])
def test_a_client_may_use_a_port_again(chain: LoadedChain, end: str) -> None:
    through_vip(chain, "S")
    answer(chain, "SA")
    through_vip(chain, "A")
    through_vip(chain, end)

    through_vip(chain, "S")

    assert told(chain) == {"map": "dsr_opening", "state": "syn", "marks": set()}
    assert stats(chain)["flows"] == 2


def test_a_connection_that_is_not_known_is_known_from_then_on(chain: LoadedChain) -> None:
    """After a restart with empty tables, or where a workload has moved to."""
    through_vip(chain, "A")
    assert told(chain) == {"map": "dsr_opening", "state": "established", "marks": set()}

    answer(chain, "A")
    through_vip(chain, "A")
    assert told(chain) == {"map": "dsr_flows", "state": "established", "marks": {"answered"}}


def test_udp_has_one_state(chain: LoadedChain) -> None:
    packet = ETHER / Outer().around(TO_VIP[4] / UDP(sport=CLIENT_PORT, dport=PORT) / UDP_BYTES)
    arrive(chain, packet)
    assert told(chain) == {"map": "dsr_opening", "state": "udp", "marks": set()}

    leave(chain, ETHER / FROM_WORKLOAD[4] / UDP(sport=WORKLOAD_PORT, dport=CLIENT_PORT) / UDP_BYTES)
    arrive(chain, packet)
    assert told(chain) == {"map": "dsr_flows", "state": "udp", "marks": {"answered"}}
    assert stats(chain)["flows"] == 1


def test_an_idle_connection_counts_as_absent(chain: LoadedChain) -> None:
    through_vip(chain, "S")
    table = chain.maps["dsr_agent"]["dsr_opening"]
    ((key, flow),) = table.items()
    table.put(key, {**flow, "seen": flow["seen"] - 29})

    through_vip(chain, "S")

    assert stats(chain)["flows"] == 2
    assert only_flow(chain)["seen"] >= flow["seen"]


@pytest.mark.parametrize("family", [4, 6])
def test_a_connection_to_the_workload_itself_is_not_translated(chain: LoadedChain, family: int) -> None:
    direct(chain, "S", family)
    assert told(chain) == {"map": "dsr_opening", "state": "syn", "marks": {"direct"}}

    assert answer(chain, "SA", family) == ""
    direct(chain, "A", family)
    assert told(chain) == {"map": "dsr_flows", "state": "established", "marks": {"answered", "direct"}}
    assert stats(chain)["conflicts"] == 0


def test_udp_to_the_workload_itself_is_not_translated(chain: LoadedChain) -> None:
    untouched(chain, TO_WORKLOAD[4] / UDP(sport=CLIENT_PORT, dport=WORKLOAD_PORT) / UDP_BYTES)

    assert told(chain) == {"map": "dsr_opening", "state": "udp", "marks": {"direct"}}
    assert leave(chain, ETHER / FROM_WORKLOAD[4] / UDP(sport=WORKLOAD_PORT, dport=CLIENT_PORT) / UDP_BYTES).reason == ""


def test_a_connection_in_its_midst_to_the_workload_itself_is_not_translated(chain: LoadedChain) -> None:
    direct(chain, "A")

    assert told(chain) == {"map": "dsr_opening", "state": "established", "marks": {"direct"}}
    assert answer(chain, "A") == ""


def test_a_client_may_use_one_port_towards_the_vip_and_then_towards_the_workload(chain: LoadedChain) -> None:
    through_vip(chain, "S")
    answer(chain, "SA")
    through_vip(chain, "A")

    direct(chain, "S")

    assert told(chain) == {"map": "dsr_opening", "state": "syn", "marks": {"direct"}}
    assert answer(chain, "SA") == ""


def test_and_the_other_way_round(chain: LoadedChain) -> None:
    direct(chain, "S")
    answer(chain, "SA")
    direct(chain, "A")

    through_vip(chain, "S")

    assert told(chain) == {"map": "dsr_opening", "state": "syn", "marks": set()}
    assert answer(chain, "SA") == "answered"


def test_a_client_that_changes_its_mind_again_and_again_is_always_answered_rightly(chain: LoadedChain) -> None:
    for _ in range(10):
        through_vip(chain, "S")
        assert answer(chain, "SA") == "answered"

        direct(chain, "S")
        assert answer(chain, "SA") == ""


def test_a_packet_of_a_live_connection_of_the_other_kind_is_a_conflict(chain: LoadedChain) -> None:
    through_vip(chain, "S")
    answer(chain, "SA")
    through_vip(chain, "A")
    direct(chain, "A")

    assert told(chain) == {"map": "dsr_flows", "state": "established", "marks": {"answered"}}
    assert stats(chain)["conflicts"] == 1

    direct(chain, "S")
    through_vip(chain, "A")

    assert told(chain) == {"map": "dsr_opening", "state": "syn", "marks": {"direct"}}
    assert stats(chain)["conflicts"] == 2


def test_a_live_connection_of_another_vip_is_replaced(agent: LoadAgent) -> None:
    """Two VIPs cannot have one port of a workload at a time, but one after the other."""
    service = {"vip": VIP4, "port": PORT, "workload": WORKLOAD4}
    chain = agent("network", service)
    packet = TCP(sport=CLIENT_PORT, dport=PORT, flags="A")
    arrive(chain, ETHER / Outer().around(IP(src=CLIENT4, dst=VIP4) / packet))
    chain.configure("dsr_agent", {"accept_from": ["10.0.13.0/24"], "service": [{**service, "vip": "10.200.1.2"}]})

    assert arrive(chain, ETHER / Outer().around(IP(src=CLIENT4, dst=VIP4) / packet)).reason == "no_service"
    assert arrive(chain, ETHER / Outer().around(IP(src=CLIENT4, dst="10.200.1.2") / packet)).reason == "delivered"

    assert only_flow(chain)["vip"] == "10.200.1.2"
    assert stats(chain)["conflicts"] == 1


def test_a_service_that_comes_again_has_its_flows_again(agent: LoadAgent) -> None:
    """Its place may be another one then."""
    services = [{"vip": VIP4, "port": port, "workload": WORKLOAD4} for port in (PORT, 22)]
    chain = agent("network", *services)
    packet = ETHER / Outer().around(IP(src=CLIENT4, dst=VIP4) / TCP(sport=CLIENT_PORT, dport=22, flags="A"))
    arrive(chain, packet)
    for some in ([], services[:0:-1], services[::-1]):
        chain.configure("dsr_agent", {"accept_from": ["10.0.13.0/24"], "service": some})

    arrive(chain, packet)

    flow = only_flow(chain)
    assert flow["place"] == places(chain.maps["dsr_agent"])[flow["id"]]


@pytest.mark.parametrize(
    "packet",
    [
        IP(src=CLIENT4, dst=WORKLOAD4) / TCP(sport=CLIENT_PORT, dport=22, flags="S"),
        IP(src=CLIENT4, dst="10.1.0.99") / TCP(sport=CLIENT_PORT, dport=WORKLOAD_PORT, flags="S"),
        IP(src=CLIENT4, dst=WORKLOAD4, frag=5) / Raw(bytes(40)),
        IP(src=CLIENT4, dst=WORKLOAD4, proto=6) / Raw(bytes(7)),
    ],
    ids=["another port", "another host", "a later fragment", "a header cut short"],
)
def test_of_other_packets_nothing_is_remembered(chain: LoadedChain, packet: Packet) -> None:
    untouched(chain, packet)

    assert flows(chain) == []
