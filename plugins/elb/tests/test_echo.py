# SPDX-License-Identifier: Apache-2.0
"""Echo requests to a VIP are answered in their own frames, and only those."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadChain, LoadedChain, Verdict

from plugins.elb.tests.balancer import load_balancer, passed
from plugins.elb.tests.packets import BACK, CLIENT4, CLIENT6, ETHER, LINKS, TO4, TO6, VIP4, VIP6, assert_valid


@pytest.fixture
def chain(load_chain: LoadChain) -> LoadedChain:
    return load_balancer(load_chain)


FROM4, FROM6 = IP(src=VIP4, dst=CLIENT4, ttl=64), IPv6(src=VIP6, dst=CLIENT6, hlim=64)
ECHOS = [
    (TO4 / ICMP(id=7, seq=9), FROM4 / ICMP(type=0, id=7, seq=9)),
    (
        IP(src=CLIENT4, dst=VIP4, ttl=3, id=77, tos=5, flags="DF") / ICMP(id=0xFFFF, seq=1, code=3),
        IP(src=VIP4, dst=CLIENT4, ttl=64, id=77, tos=5, flags="DF") / ICMP(type=0, id=0xFFFF, seq=1, code=3),
    ),
    (TO6 / ICMPv6EchoRequest(id=7, seq=9), FROM6 / ICMPv6EchoReply(id=7, seq=9)),
    (
        IPv6(src=CLIENT6, dst=VIP6, hlim=1, tc=9, fl=5) / ICMPv6EchoRequest(code=3, id=1),
        IPv6(src=VIP6, dst=CLIENT6, hlim=64, tc=9, fl=5) / ICMPv6EchoReply(code=3, id=1),
    ),
]


@pytest.mark.parametrize(("request_", "reply"), ECHOS)
def test_an_echo_request_to_a_vip_is_answered_in_its_own_frame(chain: LoadedChain, request_: Packet, reply: Packet) -> None:
    for there, back in LINKS:
        for data in (b"", b"odd", bytes(range(256)), b"\xff" * 1400, b"jumbo" * 1700):
            result = chain.send(there / request_ / Raw(data))

            assert (Verdict.TX, "echo_reply") == (result.verdict, result.reason)
            assert bytes(back / reply / Raw(data)) == result.packet
            assert_valid(result.packet)


def test_every_checksum_of_a_reply_is_right(chain: LoadedChain) -> None:
    for ttl in range(1, 256):
        number = ttl * 257
        frame = chain.send(ETHER / IP(src=CLIENT4, dst=VIP4, ttl=ttl, id=number) / ICMP(id=number, seq=0xF7FF)).packet

        assert bytes(BACK / IP(src=VIP4, dst=CLIENT4, ttl=64, id=number) / ICMP(type=0, id=number, seq=0xF7FF)) == frame


@pytest.mark.parametrize(
    "packet",
    [TO4 / ICMP(chksum=0x1234), IP(src=CLIENT4, dst=VIP4, chksum=0x1234) / ICMP(), TO6 / ICMPv6EchoRequest(cksum=0x1234)],
    ids=["ICMP", "IPv4", "ICMPv6"],
)
def test_a_damaged_request_gets_a_damaged_reply(chain: LoadedChain, packet: Packet) -> None:
    result = chain.send(ETHER / packet)

    assert result.reason == "echo_reply"
    with pytest.raises(AssertionError):
        assert_valid(result.packet)


def test_a_reply_of_nothing_but_zeros_has_a_checksum_that_is_not_zero(chain: LoadedChain) -> None:
    assert (
        bytes(BACK / FROM4 / ICMP(type=0, id=0, seq=0) / Raw(bytes(32)))
        == chain.send(ETHER / TO4 / ICMP(id=0, seq=0) / Raw(bytes(32))).packet
    )


def test_padding_behind_a_request_stays_there(chain: LoadedChain) -> None:
    result = chain.send(bytes(ETHER / TO4 / ICMP(id=1)) + b"\xee" * 18)

    assert bytes(BACK / FROM4 / ICMP(type=0, id=1)) + b"\xee" * 18 == result.packet


UNUSUAL = {
    "options": (IP(src=CLIENT4, dst=VIP4, options=[IPOption_NOP()]) / ICMP(), "echo_refused"),
    "first fragment": (IP(src=CLIENT4, dst=VIP4, flags="MF") / ICMP() / Raw(bytes(16)), "fragment"),
    "first fragment, IPv6": (TO6 / IPv6ExtHdrFragment(m=1) / ICMPv6EchoRequest() / Raw(bytes(16)), "fragment"),
    "extension headers": (TO6 / IPv6ExtHdrDestOpt() / ICMPv6EchoRequest(), "unroutable"),
    "a whole fragment": (TO6 / IPv6ExtHdrFragment() / ICMPv6EchoRequest(), "unroutable"),
}


@pytest.mark.parametrize(("packet", "reason"), UNUSUAL.values(), ids=UNUSUAL.keys())
def test_a_request_in_an_unusual_form_is_dropped(chain: LoadedChain, packet: Packet, reason: str) -> None:
    result = chain.send(ETHER / packet)

    assert (Verdict.DROP, reason) == (result.verdict, result.reason)


OTHERS = [
    IP(src=CLIENT4, dst="10.200.1.2") / ICMP(),
    IPv6(src=CLIENT6, dst="fc00:1::2") / ICMPv6EchoRequest(),
    TO4 / ICMP(type=0),
    TO4 / ICMP(type=13),
    TO6 / ICMPv6EchoReply(),
    IP(src=CLIENT4, dst=VIP4, proto=58) / Raw(bytes(ICMPv6EchoRequest())),
    IPv6(src=CLIENT6, dst=VIP6, nh=1) / Raw(bytes(ICMP())),
]


@pytest.mark.parametrize("packet", OTHERS, ids=Packet.summary)
def test_other_icmp_and_other_addresses_pass(chain: LoadedChain, packet: Packet) -> None:
    assert passed(chain.send(ETHER / packet))


def test_a_request_that_is_cut_short_anywhere_is_not_answered(chain: LoadedChain) -> None:
    for packet in (ETHER / TO4 / ICMP(), ETHER / TO6 / ICMPv6EchoRequest()):
        for length in range(14, len(packet)):
            assert chain.send(bytes(packet)[:length]).verdict is not Verdict.TX
