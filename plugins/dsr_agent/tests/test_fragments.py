# SPDX-License-Identifier: Apache-2.0
"""Datagrams in fragments: only the first has ports; what becomes of its addresses becomes of the others', in both directions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, fragment6
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadedChain, Result, Verdict

from plugins.dsr_agent.tests.conftest import LoadAgent
from plugins.dsr_agent.tests.packets import (
    CLIENT_PORT,
    ETHER,
    FROM_VIP,
    FROM_WORKLOAD,
    OUTERS,
    PORT,
    SERVICES,
    TO_VIP,
    TO_WORKLOAD,
    VIP4,
    VIP6,
    WORKLOAD4,
    WORKLOAD6,
    WORKLOAD_PORT,
    Outer,
    assert_valid,
)

ID = 0x1234
BYTES = 1000
"""of each fragment at most"""
DATA = Raw(bytes(range(256)) * 12)
TICKS = 28
"""for which the rest of a datagram is waited for"""
HAIRPIN = {4: "169.254.64.1", 6: "fd64:7372::1"}


def arrive(chain: LoadedChain, side: str, packet: Packet, outer: Outer | None = None) -> Result:
    """From a load balancer towards the workload."""
    return chain.send(ETHER / (outer or Outer()).around(packet), egress=side == "workload")


def leave(chain: LoadedChain, side: str, packet: Packet) -> Result:
    """From the workload to the network."""
    return chain.send(ETHER / packet, egress=side == "network")


def outcome(result: Result) -> tuple[Verdict, str]:
    return result.verdict, result.reason


def fragments(ip: Packet, sport: int, dport: int, number: int = ID) -> Sequence[Packet]:
    """A datagram between two ports in at least three fragments."""
    udp = UDP(sport=sport, dport=dport) / DATA
    if ip.version == 4:
        one = ip.copy()
        one.id = number
        parts = fragment(IP(bytes(one / udp)), fragsize=BYTES)
    else:
        parts = fragment6(IPv6(bytes(ip / IPv6ExtHdrFragment(id=number) / udp)), BYTES + 40)

    assert len(parts) > 2
    return [type(part)(bytes(part)) for part in parts]


@pytest.mark.parametrize("family", [4, 6])
def test_fragments_reach_the_workload(chain: LoadedChain, side: str, family: int) -> None:
    for number, outer in enumerate(OUTERS):
        expected = fragments(TO_WORKLOAD[family], CLIENT_PORT, WORKLOAD_PORT, number + 1)
        for sent, got in zip(fragments(TO_VIP[family], CLIENT_PORT, PORT, number + 1), expected, strict=True):
            result = arrive(chain, side, sent, outer)

            assert bytes(ETHER / got) == result.packet
            assert_valid(result.packet)


@pytest.mark.parametrize("family", [4, 6])
def test_fragments_of_answers_leave_with_the_vip(chain: LoadedChain, side: str, family: int) -> None:
    arrive(chain, side, TO_VIP[family] / UDP(sport=CLIENT_PORT, dport=PORT))
    for number in range(1, 4):
        expected = fragments(FROM_VIP[family], PORT, CLIENT_PORT, number)
        for sent, got in zip(fragments(FROM_WORKLOAD[family], WORKLOAD_PORT, CLIENT_PORT, number), expected, strict=True):
            result = leave(chain, side, sent)

            assert bytes(ETHER / got) == result.packet
            assert result.verdict is Verdict.PASS
            assert_valid(result.packet)


@pytest.mark.parametrize("family", [4, 6])
def test_later_fragments_that_come_first_are_dropped(chain: LoadedChain, side: str, family: int) -> None:
    first, *later = fragments(TO_VIP[family], CLIENT_PORT, PORT)
    for one in later:
        assert (Verdict.DROP, "early_fragment") == outcome(arrive(chain, side, one))
    arrive(chain, side, first)
    for one in later:
        assert arrive(chain, side, one).verdict is Verdict.PASS


@pytest.mark.parametrize("family", [4, 6])
def test_another_datagram_is_not_the_one_that_began(chain: LoadedChain, side: str, family: int) -> None:
    arrive(chain, side, fragments(TO_VIP[family], CLIENT_PORT, PORT)[0])
    other = TO_VIP[family].copy()
    other.src = {4: "192.0.2.8", 6: "2001:db8:c::8"}[family]

    assert (Verdict.DROP, "early_fragment") == outcome(arrive(chain, side, fragments(TO_VIP[family], CLIENT_PORT, PORT, ID + 1)[1]))
    assert (Verdict.DROP, "early_fragment") == outcome(arrive(chain, side, fragments(other, CLIENT_PORT, PORT)[1]))


@pytest.mark.parametrize("family", [4, 6])
def test_a_datagram_of_no_service_is_dropped_with_all_of_its_fragments(chain: LoadedChain, side: str, family: int) -> None:
    first, *later = fragments(TO_VIP[family], CLIENT_PORT, 80)

    assert (Verdict.DROP, "no_service") == outcome(arrive(chain, side, first))
    for one in later:
        assert (Verdict.DROP, "early_fragment") == outcome(arrive(chain, side, one))


@pytest.mark.parametrize("family", [4, 6])
def test_fragments_of_what_is_not_translated_leave_as_they_are(chain: LoadedChain, side: str, family: int) -> None:
    chain.send(ETHER / TO_WORKLOAD[family] / UDP(sport=CLIENT_PORT, dport=WORKLOAD_PORT), egress=side == "workload")
    for source in (WORKLOAD_PORT, 1024):
        for one in fragments(FROM_WORKLOAD[family], source, CLIENT_PORT):
            assert bytes(ETHER / one) == leave(chain, side, one).packet


@pytest.mark.parametrize("family", [4, 6])
def test_an_id_that_is_used_again_means_the_last_datagram(chain: LoadedChain, side: str, family: int) -> None:
    arrive(chain, side, TO_VIP[family] / UDP(sport=CLIENT_PORT, dport=PORT))
    for one in fragments(FROM_WORKLOAD[family], WORKLOAD_PORT, CLIENT_PORT):
        leave(chain, side, one)
    for one in fragments(FROM_WORKLOAD[family], 1024, CLIENT_PORT):
        assert bytes(ETHER / one) == leave(chain, side, one).packet


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_remembered_of_a_datagram_ends_with_the_patience_of_hosts(chain: LoadedChain, side: str, family: int) -> None:
    first, later, _ = [*fragments(TO_VIP[family], CLIENT_PORT, PORT)][:3]
    arrive(chain, side, first)
    rests = chain.maps["dsr_agent"]["dsr_rests"]
    ((datagram, rest),) = rests.items()
    rests.put(datagram, {**rest, "seen": (rest["seen"] - TICKS - 2) % 2**32})

    assert (Verdict.DROP, "early_fragment") == outcome(arrive(chain, side, later))


@pytest.mark.parametrize("family", [4, 6])
def test_what_another_cpu_has_remembered_may_be_of_a_moment_that_has_not_begun_here(chain: LoadedChain, side: str, family: int) -> None:
    first, later, _ = [*fragments(TO_VIP[family], CLIENT_PORT, PORT)][:3]
    arrive(chain, side, first)
    for name in ("dsr_rests", "dsr_opening"):
        table = chain.maps["dsr_agent"][name]
        ((key, value),) = table.items()
        table.put(key, {**value, "seen": value["seen"] + 1})

    assert arrive(chain, side, later).verdict is Verdict.PASS
    leave(chain, side, FROM_WORKLOAD[family] / UDP(sport=WORKLOAD_PORT, dport=CLIENT_PORT))
    began = sum(cpu["flows"] for _, cpus in chain.maps["dsr_agent"]["dsr_stats"].items() for cpu in cpus)

    assert began == 1


def test_later_fragments_of_ipv6_may_name_another_protocol(chain: LoadedChain, side: str) -> None:
    """The first fragment has options behind its fragment header; each names what follows that in it."""
    first = TO_VIP[6] / IPv6ExtHdrFragment(id=ID, m=1) / IPv6ExtHdrDestOpt() / UDP(sport=CLIENT_PORT, dport=PORT, len=1000, chksum=1)
    later = TO_VIP[6] / IPv6ExtHdrFragment(id=ID, offset=4, nh=60) / Raw(bytes(984))
    arrive(chain, side, first / Raw(bytes(16)))
    result = arrive(chain, side, later)

    assert bytes(ETHER / TO_WORKLOAD[6] / IPv6ExtHdrFragment(id=ID, offset=4, nh=60) / Raw(bytes(984))) == result.packet


def test_an_id_that_is_behind_too_many_headers_joins_nothing(chain: LoadedChain, side: str) -> None:
    far = TO_VIP[6] / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt()
    arrive(chain, side, far / IPv6ExtHdrFragment(id=ID, m=1) / UDP(sport=CLIENT_PORT, dport=PORT, len=1000) / Raw(bytes(16)))
    later = far / IPv6ExtHdrFragment(id=ID, offset=3) / Raw(bytes(984))

    assert (Verdict.DROP, "early_fragment") == outcome(arrive(chain, side, later))


@pytest.mark.parametrize("family", [4, 6])
def test_a_workload_that_calls_itself_gets_all_fragments(chain: LoadedChain, side: str, family: int) -> None:
    make, vip, workload = {4: (IP, VIP4, WORKLOAD4), 6: (IPv6, VIP6, WORKLOAD6)}[family]
    hairpin = HAIRPIN[family]
    expected = fragments(make(src=hairpin, dst=workload), CLIENT_PORT, WORKLOAD_PORT)
    for sent, got in zip(fragments(make(src=workload, dst=vip), CLIENT_PORT, PORT), expected, strict=True):
        assert bytes(ETHER / got) == arrive(chain, side, sent).packet

    back = ETHER.copy()
    back.src, back.dst = ETHER.dst, ETHER.src
    expected = fragments(make(src=vip, dst=workload), PORT, CLIENT_PORT)
    for sent, got in zip(fragments(make(src=workload, dst=hairpin), WORKLOAD_PORT, CLIENT_PORT), expected, strict=True):
        result = leave(chain, side, sent)

        assert (Verdict.REDIRECT, "hairpinned") == outcome(result)
        assert bytes(back / got) == result.packet


@pytest.mark.parametrize("family", [4, 6])
def test_a_datagram_that_is_held_back_is_so_with_all_of_its_fragments(agent: LoadAgent, side: str, family: int) -> None:
    chain = agent(side, *({**service, "unknown": "learn"} for service in SERVICES))
    for one in fragments(FROM_WORKLOAD[family], WORKLOAD_PORT, CLIENT_PORT):
        assert (Verdict.DROP, "held") == outcome(leave(chain, side, one))


@pytest.mark.parametrize("family", [4, 6])
def test_all_fragments_count_as_packets_of_their_service(chain: LoadedChain, side: str, family: int) -> None:
    there = fragments(TO_VIP[family], CLIENT_PORT, PORT)
    back = fragments(FROM_WORKLOAD[family], WORKLOAD_PORT, CLIENT_PORT)
    for one in there:
        arrive(chain, side, one)
    for one in back:
        leave(chain, side, one)
    names = ("in_packets", "in_bytes", "out_packets", "out_bytes")
    numbers = [[sum(cpu[name] for cpu in cpus) for name in names] for _, cpus in chain.maps["dsr_agent"]["dsr_stats"].items()]

    assert [len(there), sum(map(len, there)), len(back), sum(map(len, back))] in numbers
