# SPDX-License-Identifier: Apache-2.0
"""Which packets count: every form in which a host would accept a SYN, and nothing else."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert, fragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from xdpchain.testing import Verdict

from plugins.ratelimit.tests.conftest import Limiter

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
IP4 = IP(src="192.0.2.1", dst="192.0.2.2")
IP6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
SYN = TCP(sport=1024, dport=80, flags="S")
OPTIONS = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])

COUNTED = {
    "IPv4": IP4 / SYN,
    "IPv6": IP6 / SYN,
    "SYN that offers ECN": IP4 / TCP(dport=80, flags="SEC"),
    "SYN with data": IP4 / SYN / Raw(b"x" * 400),
    "SYN with TCP options": IP4 / TCP(dport=80, flags="S", options=[("MSS", 1460), ("SAckOK", b""), ("WScale", 7)]),
    "SYN that asks for TCP fast open": IP4 / TCP(dport=80, flags="S", options=[("TFO", (0x01020304, 0x05060708))]) / Raw(b"GET /"),
    "SYN with URG and PSH": IP4 / TCP(dport=80, flags="SUP"),
    "one VLAN tag": Dot1Q(vlan=5) / IP4 / SYN,
    "one VLAN tag, IPv6": Dot1Q(vlan=5) / IP6 / SYN,
    "two VLAN tags": Dot1AD(vlan=5) / Dot1Q(vlan=6) / IP4 / SYN,
    "two VLAN tags, IPv6": Dot1Q(vlan=5) / Dot1Q(vlan=6) / IP6 / SYN,
    "IPv4 options": IP(src="192.0.2.1", dst="192.0.2.2", options=[IPOption_Router_Alert()]) / SYN,
    "IPv4 first fragment": IP(src="192.0.2.1", dst="192.0.2.2", flags="MF") / SYN / Raw(b"x" * 4),
    "IPv4 don't fragment": IP(src="192.0.2.1", dst="192.0.2.2", flags="DF") / SYN,
    "IPv6 hop by hop": IP6 / IPv6ExtHdrHopByHop() / SYN,
    "IPv6 destination options": IP6 / OPTIONS / SYN,
    "IPv6 routing": IP6 / IPv6ExtHdrRouting(addresses=["2001:db8::3"], segleft=0) / SYN,
    "IPv6 authentication": IP6 / AH(nh=6, payloadlen=4, spi=1, seq=1, icv=b"\0" * 12) / SYN,
    "IPv6 first fragment": IP6 / IPv6ExtHdrFragment(offset=0, m=1, id=7) / SYN / Raw(b"x" * 4),
    "IPv6 fragment that is whole": IP6 / IPv6ExtHdrFragment(offset=0, m=0, id=7) / SYN,
    "IPv6 with six extension headers": IP6 / IPv6ExtHdrHopByHop() / OPTIONS / OPTIONS / OPTIONS / OPTIONS / OPTIONS / SYN,
    "IPv6 in a VLAN behind options": Dot1Q(vlan=5) / IP6 / IPv6ExtHdrHopByHop() / OPTIONS / SYN,
    "last port of a range": IP4 / TCP(dport=8099, flags="S"),
    "first port of a range": IP6 / TCP(dport=8000, flags="S"),
    "wrong checksum": IP4 / TCP(dport=80, flags="S", chksum=1),
}

FREE = {
    "SYN and ACK": IP4 / TCP(dport=80, flags="SA"),
    "ACK": IP4 / TCP(dport=80, flags="A"),
    "RST": IP4 / TCP(dport=80, flags="R"),
    "FIN": IP6 / TCP(dport=80, flags="FA"),
    "no flags": IP4 / TCP(dport=80, flags=0),
    "SYN to another port": IP4 / TCP(dport=81, flags="S"),
    "SYN from the port": IP4 / TCP(sport=80, dport=5000, flags="S"),
    "SYN beside a range": IP4 / TCP(dport=8100, flags="S"),
    "UDP to the port": IP4 / UDP(dport=80),
    "ICMP": IP4 / ICMP(),
    "IPv4 later fragment": IP(src="192.0.2.1", dst="192.0.2.2", frag=4, proto=6) / Raw(bytes(SYN)),
    "IPv6 later fragment": IP6 / IPv6ExtHdrFragment(offset=4, m=0, id=7, nh=6) / Raw(bytes(SYN)),
    "IPv6 later fragment of a packet with options": IP6 / IPv6ExtHdrFragment(offset=4, m=0, id=7, nh=60) / Raw(bytes(SYN)),
    "IPv6 without a next header": IPv6(src="2001:db8::1", dst="2001:db8::2", nh=59),
    "ARP": ARP(),
    "a header that is cut short": IP(src="192.0.2.1", dst="192.0.2.2", proto=6) / Raw(bytes(SYN)[:12]),
}

OUT_OF_REACH = {
    "IPv4 fragment without its TCP flags": IP(src="192.0.2.1", dst="192.0.2.2", flags="MF", proto=6) / Raw(bytes(SYN)[:8]),
    "IPv6 fragment without its TCP flags": IP6 / IPv6ExtHdrFragment(offset=0, m=1, id=7, nh=6) / Raw(bytes(SYN)[:8]),
    "IPv6 with seven extension headers": IP6 / OPTIONS / OPTIONS / OPTIONS / OPTIONS / OPTIONS / OPTIONS / OPTIONS / SYN,
}


def rule(rate: int) -> dict[str, object]:
    return {"ports": [80, "8000-8099"], "rate": rate}


@pytest.mark.parametrize("packet", COUNTED.values(), ids=COUNTED.keys())
def test_every_form_of_a_syn_is_counted_and_limited(limiter: Limiter, packet: Packet, long_window: str) -> None:
    chain = limiter(rule(1), window=long_window)

    assert chain.send(ETHER / packet).verdict is Verdict.PASS
    result = chain.send(ETHER / packet)

    assert (result.verdict, result.reason, result.function) == (Verdict.DROP, "rate_exceeded", "ratelimit")
    assert chain.counts("ratelimit") == {(Verdict.NEXT, "admitted"): 1, (Verdict.DROP, "rate_exceeded"): 1}


@pytest.mark.parametrize("packet", FREE.values(), ids=FREE.keys())
def test_everything_else_goes_on_uncounted(limiter: Limiter, packet: Packet, long_window: str) -> None:
    chain = limiter(rule(1), window=long_window)
    chain.send(ETHER / IP4 / SYN)

    results = [chain.send(ETHER / packet) for _ in range(3)]

    assert {result.verdict for result in results} == {Verdict.PASS}
    assert chain.counts("ratelimit")[Verdict.NEXT, ""] == 3


@pytest.mark.parametrize("packet", OUT_OF_REACH.values(), ids=OUT_OF_REACH.keys())
def test_what_could_hide_a_syn_is_dropped(limiter: Limiter, packet: Packet, long_window: str) -> None:
    result = limiter(rule(1), window=long_window).send(ETHER / packet)

    assert (result.verdict, result.reason) == (Verdict.DROP, "unreadable")


def test_of_a_packet_in_fragments_the_first_one_counts(limiter: Limiter, long_window: str) -> None:
    chain = limiter(rule(1), window=long_window)
    parts = fragment(IP4 / SYN / Raw(b"x" * 100), fragsize=48)

    first = [chain.send(ETHER / part).verdict for part in parts]
    again = [chain.send(ETHER / part).verdict for part in parts]

    assert first == [Verdict.PASS] * 3
    assert again == [Verdict.DROP, Verdict.PASS, Verdict.PASS]


def test_both_families_and_all_ports_of_a_rule_share_its_limit(limiter: Limiter, long_window: str) -> None:
    chain = limiter(rule(3), {"ports": [443], "rate": 1}, window=long_window)

    mixed = [IP4 / SYN, IP6 / TCP(dport=8001, flags="S"), IP6 / SYN]
    assert [chain.send(ETHER / packet).verdict for packet in mixed] == [Verdict.PASS] * 3
    assert chain.send(ETHER / IP4 / TCP(dport=8002, flags="S")).verdict is Verdict.DROP
    assert chain.send(ETHER / IP4 / TCP(dport=443, flags="S")).verdict is Verdict.PASS


def test_packets_leave_as_they_came(limiter: Limiter, long_window: str) -> None:
    frame = bytes(ETHER / Dot1Q(vlan=5) / IP6 / OPTIONS / SYN / Raw(b"x" * 100))

    assert limiter(rule(1), window=long_window).send(frame).packet == frame
