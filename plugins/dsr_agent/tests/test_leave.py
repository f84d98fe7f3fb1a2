# SPDX-License-Identifier: Apache-2.0
"""What a workload answers leaves with the address and port that the client has called; all else leaves as it is."""

from __future__ import annotations

import attrs
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadedChain, Verdict

from plugins.dsr_agent.tests.arriving import stats
from plugins.dsr_agent.tests.conftest import LoadAgent
from plugins.dsr_agent.tests.leaving import hear, leave, only_flow
from plugins.dsr_agent.tests.packets import (
    CLIENT_PORT,
    ETHER,
    FROM_VIP,
    FROM_WORKLOAD,
    LINKS,
    OUTERS,
    PORT,
    SERVICES,
    TO_VIP,
    TO_WORKLOAD,
    WORKLOAD_PORT,
    Outer,
    assert_valid,
)

SYN = TCP(sport=CLIENT_PORT, dport=PORT, flags="S", seq=1)
QUESTION = UDP(sport=CLIENT_PORT, dport=PORT) / Raw(b"who?")
BEGINS = {"tcp": SYN, "udp": QUESTION}
SYN_ACK = TCP(sport=WORKLOAD_PORT, dport=CLIENT_PORT, flags="SA", seq=8, ack=2)
PAGE = TCP(sport=WORKLOAD_PORT, dport=CLIENT_PORT, flags="PA", seq=9, ack=20) / Raw(b"HTTP/1.1 200 OK\r\n\r\n!")
REPLY = UDP(sport=WORKLOAD_PORT, dport=CLIENT_PORT) / Raw(b"me")


def as_sent(packet: Packet) -> Packet:
    """What the client gets of what the workload has sent to it."""
    got = packet.copy()
    got.src = FROM_VIP[packet.version].src
    got[TCP if TCP in got else UDP].sport = PORT
    return got


@pytest.mark.parametrize("link", LINKS, ids=["untagged", "802.1Q", "802.1ad"])
@pytest.mark.parametrize("answer", [SYN_ACK, PAGE, REPLY], ids=["syn-ack", "tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6])
def test_the_answer_comes_from_the_vip(chain: LoadedChain, family: int, answer: Packet, link: Packet) -> None:
    hear(chain, Outer("gue", family).around(TO_VIP[family] / BEGINS["udp" if UDP in answer else "tcp"]))
    packet = FROM_WORKLOAD[family] / answer
    result = leave(chain, link / packet)

    assert (result.verdict, result.reason) == (Verdict.NEXT, "answered")
    assert_valid(result.frame)
    assert bytes(link / as_sent(packet)) == result.frame


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("answer", [PAGE, REPLY], ids=["tcp", "udp"])
def test_every_length_and_every_checksum_comes_out_right(chain: LoadedChain, family: int, answer: Packet) -> None:
    hear(chain, Outer("gue", family).around(TO_VIP[family] / BEGINS["udp" if UDP in answer else "tcp"]))
    for number in range(300):
        packet = FROM_WORKLOAD[family] / answer.__class__(bytes(answer)[: len(answer) - len(answer.payload)])
        packet = packet / Raw(number.to_bytes(2) + b"x" * (number % 5))
        del packet[answer.__class__].chksum
        if UDP in packet:
            del packet[UDP].len
        result = leave(chain, ETHER / packet)

        assert_valid(result.frame)
        assert bytes(ETHER / as_sent(packet)) == result.frame


def test_a_udp_answer_over_ipv4_without_checksum_stays_without(chain: LoadedChain) -> None:
    hear(chain, Outer().around(TO_VIP[4] / QUESTION))
    packet = FROM_WORKLOAD[4] / REPLY
    packet[UDP].chksum = 0
    result = leave(chain, ETHER / packet)

    assert result.reason == "answered"
    assert Ether(result.frame)[UDP].chksum == 0
    assert_valid(result.frame)


@pytest.mark.parametrize("answer", [PAGE, REPLY], ids=["tcp", "udp"])
@pytest.mark.parametrize(("vip", "port"), [("10.1.1.5", WORKLOAD_PORT - 256), ("10.0.0.6", WORKLOAD_PORT)])
def test_changes_that_cancel_each_other_are_made(agent: LoadAgent, vip: str, port: int, answer: Packet) -> None:
    protocol = "udp" if UDP in answer else "tcp"
    service = {"vip": vip, "port": port, "protocol": protocol, "workload": "10.1.0.5", "backend_port": WORKLOAD_PORT}
    chain = agent("workload", service)
    for number in range(50):
        packet = FROM_WORKLOAD[4] / answer.copy()
        packet[Raw].load = number.to_bytes(2)
        del packet[UDP if UDP in answer else TCP].chksum
        result = leave(chain, ETHER / IP(bytes(packet)))
        got = packet.copy()
        got.src, got.payload.sport = vip, port

        assert bytes(ETHER / got) == result.frame


@pytest.mark.parametrize("answer", [PAGE, REPLY], ids=["tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6])
def test_a_wrong_checksum_stays_wrong(chain: LoadedChain, family: int, answer: Packet) -> None:
    hear(chain, Outer("gue", family).around(TO_VIP[family] / BEGINS["udp" if UDP in answer else "tcp"]))
    frame = bytearray(bytes(ETHER / FROM_WORKLOAD[family] / answer))
    frame[-1] ^= 1
    result = leave(chain, bytes(frame))

    assert result.reason == "answered"
    with pytest.raises(AssertionError):
        assert_valid(result.frame)


@pytest.mark.parametrize(
    "packet",
    [
        FROM_WORKLOAD[4] / TCP(sport=22, dport=CLIENT_PORT, flags="PA"),
        FROM_WORKLOAD[6] / UDP(sport=53, dport=CLIENT_PORT),
        IP(src="10.1.0.6", dst=FROM_WORKLOAD[4].dst) / PAGE,
        FROM_WORKLOAD[4] / TCP(sport=WORKLOAD_PORT, dport=CLIENT_PORT + 1, flags="S"),
        FROM_WORKLOAD[4] / TCP(sport=CLIENT_PORT, dport=WORKLOAD_PORT, flags="PA"),
        FROM_WORKLOAD[4].__class__(src=FROM_WORKLOAD[4].src, dst=FROM_WORKLOAD[4].dst, proto=47) / Raw(b"gre"),
    ],
    ids=["another port", "another UDP port", "another workload", "a call of its own", "the other way", "another protocol"],
)
def test_all_else_leaves_as_it_is(chain: LoadedChain, packet: Packet) -> None:
    hear(chain, Outer().around(TO_VIP[4] / SYN))
    result = leave(chain, ETHER / packet)

    assert (result.verdict, result.reason) == (Verdict.NEXT, "")
    assert bytes(ETHER / packet) == result.frame


@pytest.mark.parametrize("family", [4, 6])
def test_answers_to_the_workloads_own_address_leave_as_they_are(chain: LoadedChain, family: int) -> None:
    hear(chain, TO_WORKLOAD[family] / TCP(sport=CLIENT_PORT, dport=WORKLOAD_PORT, flags="S"))
    for answer in (SYN_ACK, PAGE):
        frame = bytes(ETHER / FROM_WORKLOAD[family] / answer)
        result = leave(chain, frame)

        assert result.reason == ""
        assert frame == result.frame


@pytest.mark.parametrize("family", [4, 6])
def test_options_and_extension_headers_are_stepped_over(chain: LoadedChain, family: int) -> None:
    hear(chain, Outer("gue", family).around(TO_VIP[family] / SYN))
    packet = FROM_WORKLOAD[family].copy()
    if family == 4:
        packet.options = b"\x94\x04\x00\x00"
        packet = packet / PAGE
    else:
        packet = packet / IPv6ExtHdrDestOpt() / PAGE
    result = leave(chain, ETHER / packet)

    assert result.reason == "answered"
    assert_valid(result.frame)
    assert bytes(ETHER / as_sent(packet)) == result.frame


def test_what_leaves_is_counted_and_the_state_follows(chain: LoadedChain) -> None:
    hear(chain, Outer().around(TO_VIP[4] / SYN))
    packet = FROM_WORKLOAD[4] / PAGE
    leave(chain, ETHER / packet)
    flow, counted = only_flow(chain), stats(chain)

    assert (flow["state"], flow["marks"], flow["map"]) == ("syn", {"answered"}, "dsr_opening")
    assert (counted["out_packets"], counted["out_bytes"]) == (1, len(packet))

    leave(chain, ETHER / FROM_WORKLOAD[4] / TCP(sport=WORKLOAD_PORT, dport=CLIENT_PORT, flags="FA"))

    assert only_flow(chain)["state"] == "fin"

    leave(chain, ETHER / FROM_WORKLOAD[4] / TCP(sport=WORKLOAD_PORT, dport=CLIENT_PORT, flags="R"))

    assert only_flow(chain)["state"] == "closed"


@pytest.mark.parametrize("outer", OUTERS, ids=str)
@pytest.mark.parametrize("family", [4, 6])
def test_a_workload_does_not_speak_for_a_load_balancer(agent_for_all: LoadAgent, family: int, outer: Outer) -> None:
    chain = agent_for_all("workload", *SERVICES)
    forged = leave(chain, ETHER / outer.around(TO_VIP[family] / SYN))
    own = attrs.evolve(outer, source=FROM_WORKLOAD[outer.family].src)
    frame = bytes(ETHER / own.around(TO_VIP[family] / SYN))
    result = leave(chain, frame)

    assert (forged.verdict, forged.reason) == (Verdict.DROP, "spoofed")
    assert (result.verdict, result.reason) == (Verdict.NEXT, "")
    assert frame == result.frame


def test_a_host_may_be_a_load_balancer_itself(agent: LoadAgent) -> None:
    chain = agent("network", *SERVICES)

    assert leave(chain, ETHER / Outer().around(TO_VIP[4] / SYN)).verdict is Verdict.NEXT
