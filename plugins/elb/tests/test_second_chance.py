# SPDX-License-Identifier: Apache-2.0
"""A second chance for flows that are not remembered: their packets name the other backend that they may be at."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadChain, LoadedChain, Verdict

from plugins.elb.tests.balancer import PORT, balancer_of, lead
from plugins.elb.tests.documents import SOURCES, backends, vip
from plugins.elb.tests.packets import ETHER, NEXT_HOP, VIP4, VIP6, assert_valid

FOUR, SIX = ("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")
SOME = 40


@pytest.fixture(scope="module")
def loaded(load_for_all: LoadChain) -> LoadedChain:
    return balancer_of(load_for_all, second_chance=True)


@pytest.fixture
def chain(loaded: LoadedChain) -> LoadedChain:
    """A balancer without VIPs and with an empty memory."""
    lead(loaded, second_chance=True)
    forget(loaded)
    return loaded


def forget(chain: LoadedChain) -> None:
    flows = chain.maps["elb"]["elb_flows"]
    for key, _ in list(flows.items()):
        flows.delete(key)


def serve(chain: LoadedChain, *servers: str, second_chance: bool = True, **keys: Any) -> None:
    lead(chain, *(vip(address, PORT, backend=backends(*servers), **keys) for address in (VIP4, VIP6)), second_chance=second_chance)


def clients() -> Iterator[Packet]:
    for number in range(SOME // 2):
        yield IP(src=f"198.51.100.{number}", dst=VIP4)
        yield IPv6(src=f"2001:db8:7::{number:x}", dst=VIP6)


def segment(to: Packet, flags: str = "A", load: bytes = b"abc") -> Packet:
    return ETHER / to / TCP(sport=40000, dport=PORT, flags=flags) / Raw(load)


def named(frame: Packet) -> tuple[str, str]:
    """The backend to which a frame goes and the one that it names; the headers around the packet are as the format says."""
    outer = frame[IPv6] if frame.type == 0x86DD else frame[IP]
    is4 = isinstance(outer, IP)
    content = bytes(outer[UDP].payload)
    proto = {4: 4, 6: 41}[content[12 if is4 else 24] >> 4]
    assert content[:8] == bytes([2 if is4 else 5, proto, 0, 0, 0, 0, 0, 1])
    return outer.dst, str(ip_address(content[8:12] if is4 else content[8:24]))


@pytest.mark.parametrize("servers", [FOUR, SIX], ids=["outer IPv4", "outer IPv6"])
def test_packets_of_flows_that_nobody_remembers_name_the_other_backend(chain: LoadedChain, servers: tuple[str, str]) -> None:
    one, two = servers
    serve(chain, one)
    serve(chain, one, two)
    doubted = 0
    for to in clients():
        for flags in ("A", "PA", "FA"):
            result = chain.send(segment(to, flags))

            assert result.verdict is Verdict.TX
            assert_valid(result.packet)
            inner = result.sent[14:]
            assert result.packet.endswith(inner)
            if result.reason == "second_chance":
                doubted += 1
                assert (one, two) == named(result.scapy)
                assert len(result.packet) == 14 + (20 + 8 + 12 if servers == FOUR else 40 + 8 + 24) + len(inner)
                is4 = servers == FOUR
                link = ETHER.copy()
                link.src, link.dst = ETHER.dst, NEXT_HOP
                ip = result.scapy.payload
                outer = IP(src=SOURCES[0], dst=one, tos=0, id=0, ttl=64) if is4 else IPv6(src=SOURCES[1], dst=one, hlim=64)
                listed = bytes([2 if is4 else 5, 4 if IP in to else 41, 0, 0, 0, 0, 0, 1]) + ip_address(two).packed
                expected = outer / UDP(sport=ip[UDP].sport, dport=6080) / Raw(listed + inner)
                assert bytes(link / expected) == result.packet
    assert 0 < doubted < 3 * SOME, "some slots move, others do not"
    assert doubted % 3 == 0, "a doubt stays with a flow to its end"


def test_a_flow_that_begins_is_remembered_without_doubt(chain: LoadedChain) -> None:
    serve(chain, FOUR[0])
    serve(chain, *FOUR)
    reasons = set()
    for to in clients():
        chain.send(segment(to, "S", b""))
        reasons.add(chain.send(segment(to)).reason)
    assert reasons == {"tracked", "ring"}


def test_a_memory_that_is_lost_leaves_a_doubt_in_place_of_a_wrong_conclusion(chain: LoadedChain) -> None:
    serve(chain, FOUR[0])
    serve(chain, *FOUR)
    moved = [to for to in clients() if chain.send(segment(to, "S", b"")).scapy[IP].dst == FOUR[1]]
    forget(chain)

    for to in moved:
        result = chain.send(segment(to))
        assert (result.reason, named(result.scapy)) == ("second_chance", FOUR)


def test_an_alternate_that_is_gone_is_not_named(chain: LoadedChain) -> None:
    serve(chain, FOUR[0])
    serve(chain, *FOUR)
    doubted = [to for to in clients() if chain.send(segment(to)).reason == "second_chance"]
    assert doubted
    serve(chain, FOUR[0])
    for to in doubted:
        assert chain.send(segment(to)).reason in {"tracked", "ring"}


@pytest.mark.parametrize("off", [{"second_chance": False}, {"encapsulation": "ipip"}])
def test_nothing_is_named_unless_it_is_asked_for_and_can_be(chain: LoadedChain, off: dict[str, Any]) -> None:
    def turn(*servers: str, **keys: Any) -> None:
        lead(chain, vip(VIP4, PORT, backend=backends(*servers)), **{"second_chance": True, **keys})

    sources = [to for to in clients() if IP in to]
    turn(FOUR[0], **off)
    turn(*FOUR, **off)
    assert {chain.send(segment(to)).reason for to in sources} == {"moving", "ring"}
    forget(chain)
    # turned on later, it holds for flows from then on
    turn(*FOUR)
    assert {chain.send(segment(to)).reason for to in sources} == {"second_chance", "ring"}


def test_udp_and_backends_of_two_families_have_no_second_chance(chain: LoadedChain) -> None:
    lead(chain, vip(VIP4, PORT, "udp", backend=backends(FOUR[0])), vip(VIP4, PORT, backend=backends(FOUR[0])), second_chance=True)
    lead(chain, vip(VIP4, PORT, "udp", backend=backends(*FOUR)), vip(VIP4, PORT, backend=backends(FOUR[0], SIX[1])), second_chance=True)
    for number in range(SOME):
        to = IP(src=f"198.51.100.{number}", dst=VIP4)
        assert chain.send(ETHER / to / UDP(sport=40000, dport=PORT)).reason in {"moving", "ring"}
        assert chain.send(segment(to)).reason in {"moving", "ring"}
