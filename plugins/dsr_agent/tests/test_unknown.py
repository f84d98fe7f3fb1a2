# SPDX-License-Identifier: Apache-2.0
"""Packets from a service's port that are of no known flow: after a restart, after a move, or of the workload's own making."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadedChain, Verdict

from plugins.dsr_agent.tests.arriving import SIDES, arrive, stats
from plugins.dsr_agent.tests.conftest import LoadAgent
from plugins.dsr_agent.tests.leaving import hear, leave, only_flow
from plugins.dsr_agent.tests.packets import (
    CLIENT4,
    CLIENT_PORT,
    ETHER,
    FROM_VIP,
    FROM_WORKLOAD,
    PORT,
    SERVICES,
    TO_VIP,
    TO_WORKLOAD,
    WORKLOAD_PORT,
    Outer,
    assert_valid,
)

PAGE = TCP(sport=WORKLOAD_PORT, dport=CLIENT_PORT, flags="PA", seq=9, ack=20) / Raw(b"page")
REPLY = UDP(sport=WORKLOAD_PORT, dport=CLIENT_PORT) / Raw(b"me")
ANSWERS = {"tcp": PAGE, "udp": REPLY}
LEARN_TICKS = 3


def services(unknown: str) -> list[dict[str, object]]:
    return [{**service, "unknown": unknown} for service in SERVICES]


def from_vip(answer: Packet, family: int = 4) -> bytes:
    got = answer.copy()
    got.sport = PORT
    return bytes(ETHER / FROM_VIP[family] / got)


def seen_before(chain: LoadedChain, ticks: int) -> None:
    """Let the flows that wait have begun so many ticks earlier."""
    table = chain.maps["dsr_agent"]["dsr_opening"]
    for key, flow in list(table.items()):
        table.put(key, {**flow, "seen": flow["seen"] - ticks})


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> str:
    """Either."""
    return str(request.param)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_by_rule_they_come_from_the_vip(agent: LoadAgent, side: str, protocol: str, family: int) -> None:
    chain = agent(side, *services("snat"))
    for reason in ("guessed", "answered"):
        result = leave(chain, ETHER / FROM_WORKLOAD[family] / ANSWERS[protocol])

        assert (result.verdict, result.reason) == (Verdict.NEXT, reason)
        assert_valid(result.frame)
        assert from_vip(ANSWERS[protocol], family) == result.frame

    flow = only_flow(chain)

    assert (flow["state"], flow["marks"], flow["map"]) == ({"tcp": "established", "udp": "udp"}[protocol], {"answered"}, "dsr_opening")
    assert (stats(chain)["guessed"], stats(chain)["out_packets"], stats(chain)["flows"]) == (1, 2, 1)


@pytest.mark.parametrize("answer", [PAGE, REPLY], ids=["tcp", "udp"])
def test_by_rule_they_leave_as_they_are(agent: LoadAgent, side: str, answer: Packet) -> None:
    chain = agent(side, *services("direct"))
    frame = bytes(ETHER / FROM_WORKLOAD[4] / answer)
    result = leave(chain, frame)

    assert (result.verdict, result.reason) == (Verdict.NEXT, "")
    assert frame == result.frame


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_by_rule_they_wait_until_the_client_is_heard_through_the_vip(agent: LoadAgent, side: str, protocol: str) -> None:
    chain = agent(side, *services("learn"))
    frame = bytes(ETHER / FROM_WORKLOAD[4] / ANSWERS[protocol])
    waits = [leave(chain, frame) for _ in range(3)]
    request = {"tcp": TCP(sport=CLIENT_PORT, dport=PORT, flags="A"), "udp": UDP(sport=CLIENT_PORT, dport=PORT)}[protocol]

    assert [(Verdict.DROP, "held")] * 3 == [(one.verdict, one.reason) for one in waits]
    assert only_flow(chain)["marks"] == {"held"}

    hear(chain, Outer().around(TO_VIP[4] / request))
    result = leave(chain, frame)

    assert result.reason == "answered"
    assert from_vip(ANSWERS[protocol]) == result.frame


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_by_rule_they_wait_until_the_client_is_heard_at_the_workload(agent: LoadAgent, side: str, protocol: str) -> None:
    chain = agent(side, *services("learn"))
    frame = bytes(ETHER / FROM_WORKLOAD[4] / ANSWERS[protocol])
    request = {"tcp": TCP(sport=CLIENT_PORT, dport=WORKLOAD_PORT, flags="A"), "udp": UDP(sport=CLIENT_PORT, dport=WORKLOAD_PORT)}[protocol]

    assert leave(chain, frame).reason == "held"

    hear(chain, TO_WORKLOAD[4] / request)
    result = leave(chain, frame)

    assert result.reason == ""
    assert frame == result.frame


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_they_do_not_wait_for_ever(agent: LoadAgent, side: str, protocol: str) -> None:
    chain = agent(side, *services("learn"))
    frame = bytes(ETHER / FROM_WORKLOAD[4] / ANSWERS[protocol])
    leave(chain, frame)
    seen_before(chain, LEARN_TICKS)
    results = [leave(chain, frame) for _ in range(2)]

    assert ["guessed", "answered"] == [one.reason for one in results]
    assert only_flow(chain)["marks"] == {"answered"}


@pytest.mark.parametrize("unknown", ["snat", "direct", "learn"])
def test_a_connection_of_the_workloads_own_is_left_alone(agent: LoadAgent, side: str, unknown: str) -> None:
    chain = agent(side, *services(unknown))
    server, port = TO_WORKLOAD[4], WORKLOAD_PORT
    hello, more = (ETHER / FROM_WORKLOAD[4] / TCP(sport=port, dport=80, flags=flags) for flags in ("S", "PA"))

    assert bytes(hello) == leave(chain, hello).frame
    assert bytes(more) == leave(chain, more).frame, "whatever way the other side's packets have come"

    arrive(chain, ETHER / server / TCP(sport=80, dport=port, flags="SA"))

    assert bytes(more) == leave(chain, more).frame
    assert only_flow(chain)["marks"] == {"direct", "answered"}
    assert not stats(chain)["guessed"]
    assert not stats(chain)["conflicts"]


def test_a_reset_without_a_flow_comes_from_the_vip(agent: LoadAgent, side: str) -> None:
    chain = agent(side, *services("snat"))
    reset = TCP(sport=WORKLOAD_PORT, dport=CLIENT_PORT, flags="R")
    result = leave(chain, ETHER / FROM_WORKLOAD[4] / reset)

    assert result.reason == "guessed"
    assert from_vip(reset) == result.frame
    assert only_flow(chain)["state"] == "closed"


@pytest.mark.parametrize("port", [80, WORKLOAD_PORT])
def test_a_service_of_all_ports_keeps_each_port(agent: LoadAgent, side: str, port: int) -> None:
    chain = agent(side, {"vip": FROM_VIP[4].src, "port": 0, "workload": FROM_WORKLOAD[4].src})
    answer = TCP(sport=port, dport=CLIENT_PORT, flags="A")
    result = leave(chain, ETHER / FROM_WORKLOAD[4] / answer)
    stranger = bytes(ETHER / IP(src="10.1.0.6", dst=CLIENT4) / answer)

    assert result.reason == "guessed"
    assert bytes(ETHER / FROM_VIP[4] / answer) == result.frame
    assert leave(chain, stranger).frame == stranger


def test_what_is_remembered_of_a_service_that_is_gone_does_not_count(agent: LoadAgent, side: str) -> None:
    chain = agent(side, *services("snat"))
    hear(chain, Outer().around(TO_VIP[4] / TCP(sport=CLIENT_PORT, dport=PORT, flags="S")))
    accept_from = list(chain.config.instances["dsr_agent"].config.accept_from)
    now = [{**service, "port": 444} for service in services("snat")]
    chain.configure("dsr_agent", {"accept_from": [str(network) for network in accept_from], "service": now})
    result = leave(chain, ETHER / FROM_WORKLOAD[4] / PAGE)
    moved = PAGE.copy()
    moved.sport = 444

    assert result.reason == "guessed"
    assert bytes(ETHER / FROM_VIP[4] / moved) == result.frame
