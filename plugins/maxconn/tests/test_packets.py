# SPDX-License-Identifier: Apache-2.0
"""Which packets take a reservation, and what those are answered that get none."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadedChain, Verdict

from plugins.maxconn.tests.conftest import Limiter

IP4, IP6 = IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def syn(port: int = 1000, to: int = 80, flags: str = "S", **fields: Any) -> Packet:
    return TCP(sport=port, dport=to, flags=flags, **fields)


def fill(chain: LoadedChain, below: Packet, count: int) -> None:
    for port in range(count):
        assert chain.send(below / syn(port)).verdict is Verdict.PASS


@pytest.mark.parametrize(
    "packet",
    [
        IP4 / syn(),
        IP6 / syn(),
        Dot1Q(vlan=5) / IP4 / syn(),
        Dot1AD(vlan=6) / Dot1Q(vlan=5) / IP6 / syn(),
        IP(src="192.0.2.1", options=b"\x01" * 8) / syn(),
        IP6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / syn(),
        IP(flags="MF") / syn(),
        IP6 / IPv6ExtHdrFragment(m=1) / syn(),
        IP4 / syn(flags="SEC"),
        IP4 / syn() / Raw(b"x" * 100),
        IP4 / syn(options=[("TFO", (1, 2))]),
        IP4 / syn(flags="SPU"),
    ],
    ids=repr,
)
def test_whatever_opens_a_connection_is_refused_at_the_limit(limiter: Limiter, packet: Packet) -> None:
    chain = limiter({"ports": [80], "max": 1})
    fill(chain, IP(src="198.51.100.1"), 1)

    refused = chain.send(ETHER / packet)
    assert (refused.verdict, refused.reason) == (Verdict.DROP, "limit_reached")


@pytest.mark.parametrize(
    "packet",
    [
        IP4 / syn(flags="SA"),
        IP4 / syn(flags="A"),
        IP6 / syn(flags="R"),
        IP4 / syn(flags="SR"),
        IP4 / syn(flags="SF"),
        IP4 / syn(to=81),
        IP(frag=5, proto=6) / Raw(bytes(20)),
        IP4 / UDP(dport=80),
        IP4 / ICMP(),
        ARP(),
    ],
    ids=repr,
)
def test_everything_else_passes_and_takes_nothing(limiter: Limiter, packet: Packet) -> None:
    chain = limiter({"ports": [80], "max": 1})
    for _ in range(3):
        assert chain.send(ETHER / packet).verdict is Verdict.PASS
    fill(chain, IP4, 1)


def test_a_syn_that_is_sent_again_has_its_reservation_already(limiter: Limiter) -> None:
    chain = limiter({"ports": [80], "max": 2, "source_max": 1})
    for _ in range(4):
        assert chain.send(IP4 / syn()).verdict is Verdict.PASS

    assert (1, 3) == tuple(chain.counts("maxconn")[Verdict.NEXT, reason] for reason in ("admitted", "sent_again"))
    assert chain.send(IP(src="198.51.100.1") / syn()).verdict is Verdict.PASS


def test_both_families_and_all_ports_of_a_limit_share_it(limiter: Limiter) -> None:
    chain = limiter({"ports": [80, "8000-8009"], "max": 3})
    for packet in (IP4 / syn(), IP6 / syn(), IP6 / syn(to=8009)):
        assert chain.send(packet).verdict is Verdict.PASS

    assert chain.send(IP4 / syn(to=8003)).reason == "limit_reached"
    assert chain.send(IP4 / syn(to=8010)).verdict is Verdict.PASS


def test_the_limit_of_the_address_and_port_wins_over_that_of_the_address_and_that_of_the_port(limiter: Limiter) -> None:
    address = "192.0.2.2"
    chain = limiter({"ports": [80], "max": 3}, {"address": address, "max": 2}, {"address": address, "ports": [80], "max": 1})

    def admitted(to: str, port: int) -> int:
        return sum(chain.send(IP(src=f"198.51.100.{host}", dst=to) / syn(to=port)).verdict is Verdict.PASS for host in range(5))

    assert (1, 2, 3, 5) == (admitted(address, 80), admitted(address, 81), admitted("192.0.2.3", 80), admitted("192.0.2.3", 81))


def test_the_nodes_limit_holds_beside_the_others(limiter: Limiter) -> None:
    chain = limiter({"max": 4}, {"ports": [80], "max": 3})
    fill(chain, IP4, 3)
    assert chain.send(IP4 / syn(5)).verdict is Verdict.DROP
    assert chain.send(IP4 / syn(to=81)).verdict is Verdict.PASS

    assert chain.send(IP4 / syn(to=82)).reason == "limit_reached"
    # a refused connection gave back what it had taken elsewhere
    assert [(row[0], row[2]) for row in chain.status("maxconn")[0].rows] == [("node", 4), ("port 80", 3)]


@pytest.mark.parametrize(
    ("below", "neighbour", "stranger"),
    [
        (IP(src="192.0.2.1"), IP(src="192.0.2.200"), IP(src="192.0.3.1")),
        (IPv6(src="2001:db8:0:1::1"), IPv6(src="2001:db8:0:1:ff::1"), IPv6(src="2001:db8:0:2::1")),
    ],
    ids=["IPv4", "IPv6"],
)
def test_a_source_prefix_has_a_limit_of_its_own(limiter: Limiter, below: Packet, neighbour: Packet, stranger: Packet) -> None:
    chain = limiter({"ports": [80], "max": 10, "source_max": 2, "source_ipv4": 24})
    fill(chain, below, 2)

    assert chain.send(neighbour / syn(7)).reason == "source_limit_reached"
    assert chain.send(stranger / syn(7)).verdict is Verdict.PASS


def test_a_source_that_is_allowed_is_counted_and_never_refused(limiter: Limiter) -> None:
    chain = limiter({"ports": [80], "max": 2}, allow=["192.0.2.0/24", "2001:db8::/32"])
    fill(chain, IP4, 3)

    assert chain.send(IP6 / syn()).verdict is Verdict.PASS
    assert chain.send(IP(src="198.51.100.1") / syn()).reason == "limit_reached"
    assert chain.counts("maxconn")[Verdict.NEXT, "would_refuse"] == 2


def test_action_count_tells_what_it_would_refuse(limiter: Limiter) -> None:
    chain = limiter({"ports": [80], "max": 2, "action": "count"})
    fill(chain, IP4, 5)

    assert chain.counts("maxconn")[Verdict.NEXT, "would_refuse"] == 3
    assert chain.status("maxconn")[0].rows[0][8] == 3


def test_enforce_refuses_a_share_of_the_connections_and_each_always_or_never(limiter: Limiter) -> None:
    chain = limiter({"ports": [80], "max": 1, "enforce": 30})
    fill(chain, IP(src="198.51.100.1"), 1)
    packets = [IP4 / syn(port) for port in range(2000, 3000)]
    refused = [chain.send(packet).verdict is Verdict.DROP for packet in packets]

    assert 200 < sum(refused) < 400
    assert refused == [chain.send(packet).verdict is Verdict.DROP for packet in packets]


@pytest.mark.parametrize(
    "packet",
    [
        IP4 / syn(seq=4_294_967_295),
        IP6 / syn(seq=7),
        Dot1Q(vlan=5) / IP4 / syn(options=[("MSS", 1460), ("WScale", 7)]),
        Dot1AD(vlan=6) / Dot1Q(vlan=5) / IP6 / syn() / Raw(b"x" * 100),
    ],
    ids=repr,
)
def test_reset_answers_as_a_closed_port_would(limiter: Limiter, packet: Packet) -> None:
    chain = limiter({"ports": [80], "max": 1, "action": "reset"})
    fill(chain, IP(src="198.51.100.1"), 1)
    sent = ETHER / packet
    result = chain.send(sent)

    assert (result.verdict, result.reason) == (Verdict.TX, "limit_reached")
    sent, answer = Ether(bytes(sent)), result.scapy
    layer = IP if IP in sent else IPv6
    assert (answer.src, answer.dst) == (sent.dst, sent.src)
    assert (answer[layer].src, answer[layer].dst) == (sent[layer].dst, sent[layer].src)
    tcp, asked = answer[TCP], sent[TCP]
    assert (tcp.sport, tcp.dport, str(tcp.flags), tcp.seq, tcp.window) == (80, 1000, "RA", 0, 0)
    assert tcp.ack == (asked.seq + 1 + len(asked.payload)) % 2**32
    assert [one.vlan for one in answer.iterpayloads() if isinstance(one, Dot1Q)] == [
        one.vlan for one in sent.iterpayloads() if isinstance(one, Dot1Q)
    ]
    sums = tcp.chksum, getattr(answer[layer], "chksum", None)
    del tcp.chksum
    if layer is IP:
        del answer[IP].chksum
    again = Ether(bytes(answer))
    assert sums == (again[TCP].chksum, getattr(again[layer], "chksum", None))
    assert len(bytes(answer[layer])) - len(tcp.payload) == (40 if layer is IP else 60)


@pytest.mark.parametrize("packet", [IP(options=b"\x01" * 8) / syn(), IP(flags="MF") / syn(), IP6 / IPv6ExtHdrDestOpt() / syn()], ids=repr)
def test_what_is_not_plain_is_dropped_in_place_of_an_answer(limiter: Limiter, packet: Packet) -> None:
    chain = limiter({"ports": [80], "max": 1, "action": "reset"})
    fill(chain, IP(src="198.51.100.1"), 1)

    assert chain.send(packet).verdict is Verdict.DROP


def test_a_tcp_header_that_cannot_be_read_is_dropped(limiter: Limiter) -> None:
    chain = limiter({"ports": [80], "max": 1})
    assert chain.send(IP(flags="MF", proto=6) / Raw(bytes(8))).reason == "unreadable"
