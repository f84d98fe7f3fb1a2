# SPDX-License-Identifier: Apache-2.0
"""Who sends what does not fit into the way to the backends is told how much does, but not too often."""

from __future__ import annotations

import os
import time

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadChain, LoadedChain, Result, Verdict

from plugins.elb.tests.balancer import PORT, load_balancer
from plugins.elb.tests.packets import CLIENT4, CLIENT6, ETHER, LINKS, TO4, TO6, VIP4, VIP6, assert_valid

QUOTE = 512
TICK_BITS = 30
ANSWERS = 1000
WAYS = [("gue", "10.0.0.1", 28), ("gue", "fc00::1", 48), ("ipip", "10.0.0.1", 20), ("ipip", "fc00::1", 40)]
"""encapsulation, backend, and the length of the outer headers"""
BELOW4 = [TO4, IP(src=CLIENT4, dst=VIP4, options=[IPOption_RR(length=39, routers=["0.0.0.0"] * 9)], tos=9)]
BELOW6 = [TO6, TO6 / IPv6ExtHdrDestOpt()]


def grown(packet: Packet, length: int) -> Packet:
    """The packet with data up to this length."""
    return packet / Raw((b"\xa5\x5a\x01" * length)[: length - len(packet)])


def error4(packet: Packet, mtu: int) -> Packet:
    message = ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(bytes(packet)[:QUOTE])
    return IP(src=VIP4, dst=CLIENT4, ttl=64, id=0, flags="DF") / message


def error6(packet: Packet, mtu: int) -> Packet:
    return IPv6(src=VIP6, dst=CLIENT6, hlim=64) / ICMPv6PacketTooBig(mtu=max(mtu, 1280)) / Raw(bytes(packet)[:QUOTE])


def told(result: Result) -> bool:
    return (result.verdict, result.reason) == (Verdict.TX, "too_big")


@pytest.mark.parametrize("mtu", [1500, 1310, 8000])
@pytest.mark.parametrize(("encapsulation", "server", "overhead"), WAYS)
def test_a_packet_that_does_not_fit_is_answered_with_what_does(
    load_chain: LoadChain, encapsulation: str, server: str, overhead: int, mtu: int
) -> None:
    both = (encapsulation, server) != ("ipip", "10.0.0.1")
    chain = load_balancer(load_chain, (server,), (VIP4, VIP6) if both else (VIP4,), encapsulation=encapsulation, mtu=mtu)
    fits = mtu - overhead
    for there, back in LINKS:
        for below, error in [(one, error4) for one in BELOW4] + [(one, error6) for one in BELOW6 if both]:
            for transport in (TCP(sport=40000, dport=PORT, flags="A"), UDP(sport=40000, dport=PORT)):
                assert chain.send(there / grown(below / transport, fits)).reason == "ring"
                for length in (fits + 1, fits + 200, 9000):
                    packet = grown(below / transport, length)
                    result = chain.send(there / packet)

                    assert told(result)
                    assert bytes(back / error(packet, fits)) == result.packet
                    assert_valid(result.packet)


def test_padding_behind_a_packet_does_not_count(load_chain: LoadChain) -> None:
    chain = load_balancer(load_chain)
    frame = bytes(ETHER / grown(TO4 / TCP(dport=PORT, flags="A"), 1472))

    assert chain.send(frame + bytes(100)).reason == "ring"


def test_an_icmp_error_that_does_not_fit_is_not_answered(load_chain: LoadChain) -> None:
    chain = load_balancer(load_chain, mtu=1300)
    quoted4, quoted6 = IP(src=VIP4, dst=CLIENT4) / TCP(sport=PORT), IPv6(src=VIP6, dst=CLIENT6) / TCP(sport=PORT)
    for packet in (TO4 / ICMP(type=3) / quoted4, TO6 / ICMPv6DestUnreach() / quoted6):
        result = chain.send(ETHER / grown(packet, 1280))

        assert (Verdict.DROP, "too_big_limited") == (result.verdict, result.reason)


def test_only_the_first_fragment_of_what_does_not_fit_is_answered(load_chain: LoadChain) -> None:
    chain = load_balancer(load_chain, port=0, options=["no-source-port"])
    first = grown(IP(src=CLIENT4, dst=VIP4, flags="MF") / UDP(dport=PORT, len=3000, chksum=1), 1476)
    later = grown(IP(src=CLIENT4, dst=VIP4, frag=182, proto=17), 1476)

    assert told(chain.send(ETHER / first))

    result = chain.send(ETHER / later)

    assert (Verdict.DROP, "too_big_limited") == (result.verdict, result.reason)


def tick() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) >> TICK_BITS


def spend(chain: LoadedChain, in_tick: int, spent: int) -> None:
    """Make every CPU believe that it has sent so many answers in a tick."""
    budget = chain.maps["elb"]["elb_budget"]
    budget.put(0, [{"tick": in_tick, "spent": spent}] * os.sysconf("SC_NPROCESSORS_CONF"))


@pytest.mark.usefixtures("one_cpu")
def test_so_many_senders_are_told_and_no_more_until_the_next_tick(load_chain: LoadChain) -> None:
    chain = load_balancer(load_chain)
    frame = bytes(ETHER / grown(TO4 / TCP(dport=PORT, flags="A"), 1500))
    now, reasons = 0, list[str]()
    while now != tick():  # all of it within one tick
        now = tick()
        spend(chain, now, ANSWERS - 2)
        reasons = [chain.send(frame).reason for _ in range(4)]

    assert ["too_big"] * 2 + ["too_big_limited"] * 2 == reasons

    spend(chain, now - 1, ANSWERS)

    assert told(chain.send(frame))
