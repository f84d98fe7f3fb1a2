# SPDX-License-Identifier: Apache-2.0
"""ICMP errors go to the backend of the flow that they quote."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadChain, LoadedChain, Verdict

from plugins.elb.tests.balancer import PORT, SERVERS, load_balancer, passed, server_of
from plugins.elb.tests.packets import CLIENT4, CLIENT6, ETHER, LINKS, TO4, TO6, VIP4, VIP6

ROUTER4, ROUTER6 = IP(src="198.51.100.1", dst=VIP4), IPv6(src="2001:db8:e::1", dst=VIP6)
FROM4, FROM6 = IP(src=VIP4, dst=CLIENT4), IPv6(src=VIP6, dst=CLIENT6)
ERRORS4 = [
    *(ICMP(type=3, code=code) for code in (0, 1, 3, 13)),
    ICMP(type=3, code=4, nexthopmtu=1400),
    ICMP(type=11, code=0),
    ICMP(type=11, code=1),
    ICMP(type=12, code=0, ptr=9),
]
ERRORS6 = [ICMPv6DestUnreach(code=4), ICMPv6PacketTooBig(mtu=1280), ICMPv6TimeExceeded(), ICMPv6ParamProblem(code=1)]
FAMILIES: Sequence[tuple[Packet, Packet, Packet, Sequence[Packet], int]] = [
    (TO4, FROM4, ROUTER4, ERRORS4, 20),
    (TO6, FROM6, ROUTER6, ERRORS6, 40),
]
"""a client's packet, the backend's answer, a router's packet, its errors, and the length of an IP header"""
CLIENT_PORT = 40000


@pytest.fixture
def chain(load_chain: LoadChain) -> LoadedChain:
    return load_balancer(load_chain)


@pytest.mark.parametrize(("encapsulation", "families"), [("gue", FAMILIES), ("ipip", FAMILIES[:1])], ids=["GUE", "IP in IP"])
def test_an_error_goes_to_the_backend_of_the_flow_that_it_quotes(
    load_chain: LoadChain, encapsulation: str, families: Sequence[Any]
) -> None:
    chain = load_balancer(load_chain, addresses=(VIP4, VIP6)[: len(families)], encapsulation=encapsulation)
    for to, answer, router, errors, header in families:
        homes = set()
        errors_in_turn = itertools.cycle(errors)
        for port, transport in itertools.product(range(CLIENT_PORT, CLIENT_PORT + 30), (TCP(flags="A"), UDP())):
            there, back = transport.copy(), transport.copy()
            there.sport, there.dport = back.dport, back.sport = port, PORT
            home = server_of(chain, ETHER / to / there / Raw(b"some data"), "ring")
            quote = bytes(answer / back / Raw(b"some data"))
            homes.add(home)

            assert home == server_of(chain, ETHER / router / next(errors_in_turn) / Raw(quote), "icmp_error")
            assert home == server_of(chain, ETHER / router / next(errors_in_turn) / Raw(quote[: header + 8]), "icmp_error")

        assert len(homes) > len(SERVERS) // 2


ANSWER = TCP(sport=PORT, dport=CLIENT_PORT, flags="A")
UNUSUAL = {
    "IP options": (
        TO4,
        ROUTER4 / ERRORS4[0] / IP(src=VIP4, dst=CLIENT4, options=[IPOption_RR(length=39, routers=["0.0.0.0"] * 9)]) / ANSWER,
    ),
    "first fragment": (TO4, ROUTER4 / ERRORS4[0] / IP(src=VIP4, dst=CLIENT4, flags="MF") / ANSWER),
    "hop by hop": (TO6, ROUTER6 / ERRORS6[0] / FROM6 / IPv6ExtHdrHopByHop() / ANSWER),
    "first fragment, IPv6": (TO6, ROUTER6 / ERRORS6[0] / FROM6 / IPv6ExtHdrFragment(m=1) / ANSWER),
    "four extension headers": (
        TO6,
        ROUTER6
        / ERRORS6[0]
        / FROM6
        / IPv6ExtHdrHopByHop()
        / IPv6ExtHdrDestOpt()
        / IPv6ExtHdrRouting(addresses=["2001:db8::3"], segleft=0)
        / IPv6ExtHdrFragment()
        / ANSWER,
    ),
}


@pytest.mark.parametrize(("to", "error"), UNUSUAL.values(), ids=UNUSUAL.keys())
def test_an_unusual_quote_is_understood(chain: LoadedChain, to: Packet, error: Packet) -> None:
    for port in range(CLIENT_PORT, CLIENT_PORT + 30):
        error.lastlayer().dport = port
        home = server_of(chain, ETHER / to / TCP(sport=port, dport=PORT, flags="A"), "ring")
        for link, _ in LINKS:
            sent = link / error
            result = chain.send(sent)

            assert (Verdict.TX, "icmp_error") == (result.verdict, result.reason)
            assert home == result.scapy[IP].dst
            assert result.packet.endswith(bytes(error))


NOTHING_OF_A_VIP = {
    "a later fragment": ROUTER4 / ERRORS4[0] / IP(src=VIP4, dst=CLIENT4, frag=8) / ANSWER,
    "a later fragment, IPv6": ROUTER6 / ERRORS6[0] / FROM6 / IPv6ExtHdrFragment(offset=8, m=1) / ANSWER,
    "five extension headers": ROUTER6
    / ERRORS6[0]
    / FROM6
    / IPv6ExtHdrHopByHop()
    / IPv6ExtHdrDestOpt()
    / IPv6ExtHdrDestOpt()
    / IPv6ExtHdrDestOpt()
    / IPv6ExtHdrDestOpt()
    / ANSWER,
    "a packet of somebody else": ROUTER4 / ERRORS4[0] / IP(src="192.0.2.99", dst=CLIENT4) / ANSWER,
    "a packet of somebody else, IPv6": ROUTER6 / ERRORS6[0] / IPv6(src="2001:db8::99", dst=CLIENT6) / ANSWER,
    "another port": ROUTER4 / ERRORS4[0] / FROM4 / TCP(sport=80, dport=CLIENT_PORT),
    "an echo reply": ROUTER4 / ERRORS4[0] / FROM4 / ICMP(type=0),
    "a header that is too short": ROUTER4 / ERRORS4[0] / IP(src=VIP4, dst=CLIENT4, ihl=4) / ANSWER,
    "another version": ROUTER4 / ERRORS4[0] / IP(src=VIP4, dst=CLIENT4, version=5) / ANSWER,
    "IPv6 in ICMP": ROUTER4 / ERRORS4[0] / FROM6 / ANSWER,
    "no error": ROUTER4 / ICMP(type=5) / FROM4 / ANSWER,
    "no error, IPv6": ROUTER6 / ICMPv6DestUnreach(type=5) / FROM6 / ANSWER,
}


@pytest.mark.parametrize("error", NOTHING_OF_A_VIP.values(), ids=NOTHING_OF_A_VIP.keys())
def test_an_error_that_quotes_no_flow_of_its_addressee_passes(chain: LoadedChain, error: Packet) -> None:
    assert passed(chain.send(ETHER / error))


def test_an_error_that_quotes_what_another_vip_has_sent_passes(load_chain: LoadChain) -> None:
    chain = load_balancer(load_chain, addresses=(VIP4, VIP6, "10.200.1.2", "fc00:1::2"))
    for router, errors, theirs in ((ROUTER4, ERRORS4, IP(src="10.200.1.2")), (ROUTER6, ERRORS6, IPv6(src="fc00:1::2"))):
        quoted = theirs / ANSWER
        quoted.dst = CLIENT4 if quoted.version == 4 else CLIENT6

        assert passed(chain.send(ETHER / router / errors[0] / quoted))


def test_a_quote_of_less_than_eight_bytes_of_transport_is_no_quote(chain: LoadedChain) -> None:
    for _, answer, router, errors, header in FAMILIES:
        quote = bytes(answer / ANSWER)
        for length in range(header + 8):
            frame = bytes(ETHER / router / errors[0] / Raw(quote[:length]))

            assert passed(chain.send(frame))
            assert passed(chain.send(frame + quote[length:])), "what is behind the IP packet is no quote"


def test_an_error_in_a_frame_that_is_cut_short_goes_nowhere(chain: LoadedChain) -> None:
    for _, answer, router, errors, _ in FAMILIES:
        frame = bytes(ETHER / router / errors[0] / answer / ANSWER)
        for length in range(14, len(frame)):
            assert chain.send(frame[:length]).verdict is not Verdict.TX
