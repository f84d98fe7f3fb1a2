# SPDX-License-Identifier: Apache-2.0
"""ICMP errors: what they quote is translated as the quoted packet was, the other way round."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_Redirect,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    in6_chksum,
)
from scapy.packet import Packet, Raw
from scapy.utils import checksum
from xdpchain.testing import LoadedChain, Result, Verdict

from plugins.dsr_agent.tests.conftest import BALANCERS, LoadAgent
from plugins.dsr_agent.tests.packets import (
    CLIENT4,
    CLIENT6,
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
    VIP4,
    VIP6,
    WORKLOAD4,
    WORKLOAD6,
    WORKLOAD_PORT,
    Outer,
    assert_valid,
)

ROUTER = {4: IP(src="198.51.100.1", tos=0xC0, id=7), 6: IPv6(src="2001:db8:e::1", hlim=61)}
"""in the network; where to, is open"""
ERRORS: dict[int, Sequence[Packet]] = {
    4: [
        *(ICMP(type=3, code=code) for code in (0, 1, 3, 13)),
        ICMP(type=3, code=4, nexthopmtu=1400),
        ICMP(type=11, code=0),
        ICMP(type=12, code=0, ptr=9),
    ],
    6: [ICMPv6DestUnreach(code=4), ICMPv6PacketTooBig(mtu=1280), ICMPv6TimeExceeded(), ICMPv6ParamProblem(code=1)],
}
TOO_BIG = {4: ICMP(type=3, code=4, nexthopmtu=1400), 6: ICMPv6PacketTooBig(mtu=1400)}
UNREACHABLE = {4: ICMP(type=3, code=3), 6: ICMPv6DestUnreach(code=4)}
DATA = Raw(b"an odd number of bytes.")
IP_BYTES = {4: 20, 6: 40}
TRANSPORTS = {
    "TCP": TCP(seq=0x12345678, ack=7, flags="PA"),
    "UDP": UDP(),
}


def arrive(chain: LoadedChain, side: str, frame: Packet | bytes) -> Result:
    """From the network towards the workload."""
    return chain.send(frame, egress=side == "workload")


def leave(chain: LoadedChain, side: str, frame: Packet | bytes) -> Result:
    """From the workload to the network."""
    return chain.send(frame, egress=side == "network")


def outcome(result: Result) -> tuple[Verdict, str]:
    return result.verdict, result.reason


def packet(ip: Packet, transport: Packet, source: int, destination: int, data: Packet = DATA) -> Packet:
    """A packet between two ports."""
    one = transport.copy()
    one.sport, one.dport = source, destination
    return ip / one / data


def to(ip: Packet, destination: str) -> Packet:
    copy = ip.copy()
    copy.dst = destination
    return copy


def shown(link: Packet, side: str) -> Packet:
    """The link headers of what arrives: at TC the first tag is beside the frame then."""
    if side == "network" or link is ETHER:
        return link
    rest = link.payload.payload
    return ETHER / rest.copy() if rest else ETHER


def counted(chain: LoadedChain, reason: str) -> int:
    return chain.counts("dsr_agent").get((Verdict.NEXT, reason), 0)


@pytest.mark.parametrize("family", [4, 6])
def test_an_error_reaches_the_workload_as_if_it_quoted_what_the_workload_has_sent(chain: LoadedChain, side: str, family: int) -> None:
    vip, workload = {4: (VIP4, WORKLOAD4), 6: (VIP6, WORKLOAD6)}[family]
    sent, before = 0, counted(chain, "delivered")
    for number, (transport, error) in enumerate((t, e) for t in TRANSPORTS.values() for e in ERRORS[family]):
        outer, link = OUTERS[number % len(OUTERS)], LINKS[number % len(LINKS)]
        seen = bytes(packet(FROM_VIP[family], transport, PORT, CLIENT_PORT))
        had = bytes(packet(FROM_WORKLOAD[family], transport, WORKLOAD_PORT, CLIENT_PORT))
        for cut in (len(seen), len(seen) - 1, IP_BYTES[family] + 18, IP_BYTES[family] + 16, IP_BYTES[family] + 8):
            result = arrive(chain, side, link / outer.around(to(ROUTER[family], vip) / error / Raw(seen[:cut])))
            expected = bytes(shown(link, side) / to(ROUTER[family], workload) / error / Raw(had[:cut]))
            sent += 1

            assert expected == result.packet, (outer, transport, error, cut)
            assert counted(chain, "delivered") == before + sent
            assert_valid(result.packet)


@pytest.mark.parametrize("outer", OUTERS, ids=str)
def test_an_error_is_taken_out_of_every_encapsulation(chain: LoadedChain, side: str, outer: Outer) -> None:
    for family, (vip, workload) in {4: (VIP4, WORKLOAD4), 6: (VIP6, WORKLOAD6)}.items():
        seen = packet(FROM_VIP[family], UDP(), PORT, CLIENT_PORT)
        had = packet(FROM_WORKLOAD[family], UDP(), WORKLOAD_PORT, CLIENT_PORT)
        for link in LINKS:
            result = arrive(chain, side, link / outer.around(to(ROUTER[family], vip) / TOO_BIG[family] / seen))

            assert bytes(shown(link, side) / to(ROUTER[family], workload) / TOO_BIG[family] / had) == result.packet


UNUSUAL = {
    "IP options": lambda ip: IP(src=ip.src, dst=CLIENT4, options=[IPOption_RR(length=39, routers=["0.0.0.0"] * 9)]),
    "first fragment": lambda ip: IP(src=ip.src, dst=CLIENT4, flags="MF", id=9),
}
UNUSUAL6 = {
    "hop by hop": lambda ip: ip / IPv6ExtHdrHopByHop(),
    "first fragment, IPv6": lambda ip: ip / IPv6ExtHdrFragment(m=1, id=9),
    "four extension headers": lambda ip: (
        ip / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(addresses=["2001:db8::3"], segleft=0) / IPv6ExtHdrFragment(id=9)
    ),
}


@pytest.mark.parametrize("name", [*UNUSUAL, *UNUSUAL6])
def test_an_unusual_quote_is_understood(chain: LoadedChain, side: str, name: str) -> None:
    family = 4 if name in UNUSUAL else 6
    vip, workload = {4: (VIP4, WORKLOAD4), 6: (VIP6, WORKLOAD6)}[family]
    make = {**UNUSUAL, **UNUSUAL6}[name]
    for transport in TRANSPORTS.values():
        seen = packet(make(FROM_VIP[family]), transport, PORT, CLIENT_PORT)
        had = packet(make(FROM_WORKLOAD[family]), transport, WORKLOAD_PORT, CLIENT_PORT)
        result = arrive(chain, side, ETHER / Outer().around(to(ROUTER[family], vip) / TOO_BIG[family] / seen))

        assert bytes(ETHER / to(ROUTER[family], workload) / TOO_BIG[family] / had) == result.packet
        assert_valid(result.packet)


def test_a_quoted_datagram_without_a_checksum_still_has_none(chain: LoadedChain, side: str) -> None:
    seen = packet(FROM_VIP[4], UDP(chksum=0), PORT, CLIENT_PORT)
    had = packet(FROM_WORKLOAD[4], UDP(chksum=0), WORKLOAD_PORT, CLIENT_PORT)
    result = arrive(chain, side, ETHER / Outer().around(to(ROUTER[4], VIP4) / TOO_BIG[4] / seen))

    assert bytes(ETHER / to(ROUTER[4], WORKLOAD4) / TOO_BIG[4] / had) == result.packet


def test_half_a_quoted_checksum_stays(chain: LoadedChain, side: str) -> None:
    seen = bytes(packet(FROM_VIP[4], TRANSPORTS["TCP"], PORT, CLIENT_PORT))[:37]
    had = bytes(packet(FROM_WORKLOAD[4], TRANSPORTS["TCP"], WORKLOAD_PORT, CLIENT_PORT))[:36] + seen[36:]
    result = arrive(chain, side, ETHER / Outer().around(to(ROUTER[4], VIP4) / TOO_BIG[4] / Raw(seen)))

    assert bytes(ETHER / to(ROUTER[4], WORKLOAD4) / TOO_BIG[4] / Raw(had)) == result.packet
    assert_valid(result.packet)


def test_what_is_behind_an_error_is_not_taken_for_its_quote(chain: LoadedChain, side: str) -> None:
    seen = bytes(packet(FROM_VIP[4], TRANSPORTS["TCP"], PORT, CLIENT_PORT))[:28]
    had = bytes(packet(FROM_WORKLOAD[4], TRANSPORTS["TCP"], WORKLOAD_PORT, CLIENT_PORT))[:28]
    padding = bytes(range(1, 41))
    result = arrive(chain, side, bytes(ETHER / Outer().around(to(ROUTER[4], VIP4) / TOO_BIG[4] / Raw(seen))) + padding)

    assert bytes(ETHER / to(ROUTER[4], WORKLOAD4) / TOO_BIG[4] / Raw(had)) + padding == result.packet


def test_what_a_router_says_behind_its_quote_stays(chain: LoadedChain, side: str) -> None:
    """RFC 4884 and RFC 4950: the quote is padded to 128 bytes, then come extensions with a checksum of their own."""
    extension = bytes.fromhex("2000 dfe5 0008 0101 0001 8d01".replace(" ", ""))
    for family, (vip, workload) in {4: (VIP4, WORKLOAD4), 6: (VIP6, WORKLOAD6)}.items():
        error = {4: ICMP(type=11, length=32), 6: ICMPv6TimeExceeded(length=16)}[family]
        seen = bytes(packet(FROM_VIP[family], TRANSPORTS["TCP"], PORT, CLIENT_PORT)).ljust(128, b"\0") + extension
        had = bytes(packet(FROM_WORKLOAD[family], TRANSPORTS["TCP"], WORKLOAD_PORT, CLIENT_PORT)).ljust(128, b"\0") + extension
        result = arrive(chain, side, ETHER / Outer().around(to(ROUTER[family], vip) / error / Raw(seen)))

        assert bytes(ETHER / to(ROUTER[family], workload) / error / Raw(had)) == result.packet


def test_a_damaged_error_stays_damaged(chain: LoadedChain, side: str) -> None:
    for family, (vip, workload) in {4: (VIP4, WORKLOAD4), 6: (VIP6, WORKLOAD6)}.items():
        seen, had = (
            FROM_VIP[family] / UDP(sport=PORT, dport=CLIENT_PORT),
            FROM_WORKLOAD[family] / UDP(sport=WORKLOAD_PORT, dport=CLIENT_PORT),
        )
        right = bytes(to(ROUTER[family], vip) / TOO_BIG[family] / seen)
        at = IP_BYTES[family] + 2
        wrong = bytearray(right)
        wrong[at] ^= 0x40
        expected = bytearray(bytes(ETHER / to(ROUTER[family], workload) / TOO_BIG[family] / had))
        result = arrive(chain, side, ETHER / Outer().around(bytes(wrong)))

        assert result.packet != bytes(expected)
        assert bytes(expected[: 14 + at]) == result.packet[: 14 + at]
        assert bytes(expected[14 + at + 2 :]) == result.packet[14 + at + 2 :]


def test_a_service_of_all_ports_keeps_the_quoted_one(agent: LoadAgent, side: str) -> None:
    chain = agent(side, {"vip": VIP4, "port": 0, "workload": WORKLOAD4})
    seen, had = packet(FROM_VIP[4], TCP(), 8080, CLIENT_PORT), packet(FROM_WORKLOAD[4], TCP(), 8080, CLIENT_PORT)
    result = arrive(chain, side, ETHER / Outer().around(to(ROUTER[4], VIP4) / TOO_BIG[4] / seen))

    assert bytes(ETHER / to(ROUTER[4], WORKLOAD4) / TOO_BIG[4] / had) == result.packet


ANSWER = TCP(sport=PORT, dport=CLIENT_PORT, flags="A")
AT4, AT6 = to(ROUTER[4], VIP4), to(ROUTER[6], VIP6)
UNMATCHED = {
    "a later fragment": AT4 / TOO_BIG[4] / IP(src=VIP4, dst=CLIENT4, frag=8) / ANSWER,
    "a later fragment, IPv6": AT6 / TOO_BIG[6] / FROM_VIP[6] / IPv6ExtHdrFragment(offset=8, m=1) / ANSWER,
    "five extension headers": AT6
    / TOO_BIG[6]
    / FROM_VIP[6]
    / IPv6ExtHdrHopByHop()
    / IPv6ExtHdrDestOpt()
    / IPv6ExtHdrDestOpt()
    / IPv6ExtHdrDestOpt()
    / IPv6ExtHdrDestOpt()
    / ANSWER,
    "somebody else's packet": AT4 / TOO_BIG[4] / IP(src="192.0.2.99", dst=CLIENT4) / ANSWER,
    "somebody else's packet, IPv6": AT6 / TOO_BIG[6] / IPv6(src="2001:db8::99", dst=CLIENT6) / ANSWER,
    "the workload's own packet": AT4 / TOO_BIG[4] / FROM_WORKLOAD[4] / TCP(sport=WORKLOAD_PORT, dport=CLIENT_PORT),
    "another VIP": to(ROUTER[4], "10.200.1.2") / TOO_BIG[4] / IP(src="10.200.1.2", dst=CLIENT4) / ANSWER,
    "what its addressee has not sent": to(ROUTER[4], "10.200.1.2") / TOO_BIG[4] / FROM_VIP[4] / ANSWER,
    "what its addressee has not sent, IPv6": to(ROUTER[6], "fd00::2") / TOO_BIG[6] / FROM_VIP[6] / ANSWER,
    "another port": AT4 / TOO_BIG[4] / FROM_VIP[4] / TCP(sport=80, dport=CLIENT_PORT),
    "another protocol": AT4 / TOO_BIG[4] / FROM_VIP[4] / ICMP(type=0),
    "a header that is too short": AT4 / TOO_BIG[4] / IP(src=VIP4, dst=CLIENT4, ihl=4) / ANSWER,
    "another version": AT4 / TOO_BIG[4] / IP(src=VIP4, dst=CLIENT4, version=5) / ANSWER,
    "IPv6 in ICMP": AT4 / TOO_BIG[4] / FROM_VIP[6] / ANSWER,
    "no ports": AT4 / TOO_BIG[4] / Raw(bytes(FROM_VIP[4] / ANSWER)[:27]),
    "nothing": AT4 / TOO_BIG[4],
    "an error in fragments": IP(src="198.51.100.1", dst=VIP4, flags="MF") / TOO_BIG[4] / FROM_VIP[4] / ANSWER,
}
OF_NO_SERVICE = {
    "an echo request": TO_VIP[4] / ICMP(),
    "an echo request, IPv6": TO_VIP[6] / ICMPv6EchoRequest(),
    "an echo reply": TO_VIP[4] / ICMP(type=0),
    "a redirect": AT4 / ICMP(type=5, gw="10.0.0.1") / FROM_VIP[4] / ANSWER,
    "a redirect, IPv6": AT6 / ICMPv6ND_Redirect() / FROM_VIP[6] / ANSWER,
    "an unknown error": AT6 / ICMPv6DestUnreach(type=5) / FROM_VIP[6] / ANSWER,
}


def test_an_error_that_quotes_nothing_of_its_addressee_is_dropped(chain: LoadedChain, side: str) -> None:
    for what, error in UNMATCHED.items():
        assert (what, (Verdict.DROP, "icmp_unmatched")) == (what, outcome(arrive(chain, side, ETHER / Outer().around(error))))


def test_other_messages_to_a_vip_are_of_no_service(chain: LoadedChain, side: str) -> None:
    for what, message in OF_NO_SERVICE.items():
        assert (what, (Verdict.DROP, "no_service")) == (what, outcome(arrive(chain, side, ETHER / Outer().around(message))))


def test_a_message_that_is_cut_short_is_dropped(chain: LoadedChain, side: str) -> None:
    for ip in (AT4 / Raw(bytes(TOO_BIG[4])[:7]), IPv6(src="2001:db8:e::1", dst=VIP6, nh=58) / Raw(bytes(7))):
        if isinstance(ip, IP):
            ip.proto = 1

        assert (Verdict.DROP, "bad_inner") == outcome(arrive(chain, side, ETHER / Outer().around(ip)))


def test_errors_that_are_not_encapsulated_pass(chain: LoadedChain, side: str) -> None:
    for error in (
        ROUTER[4] / TOO_BIG[4] / FROM_WORKLOAD[4] / TCP(sport=WORKLOAD_PORT, dport=CLIENT_PORT),
        AT4 / TOO_BIG[4] / FROM_VIP[4] / ANSWER,
        AT6 / TOO_BIG[6] / FROM_VIP[6] / ANSWER,
    ):
        frame = bytes(ETHER / error)
        result = arrive(chain, side, frame)

        assert (frame, (Verdict.PASS, "end_of_chain")) == (result.packet, outcome(result))


def know(chain: LoadedChain, side: str, family: int, transport: Packet, *, ip: Packet | None = None) -> None:
    """The client calls the VIP; `ip` where it is somebody else."""
    first = transport.copy()
    if isinstance(first, TCP):
        first.flags = "S"
    result = arrive(chain, side, ETHER / Outer().around(packet(ip or TO_VIP[family], first, CLIENT_PORT, PORT)))

    assert result.verdict is Verdict.PASS


@pytest.mark.parametrize("family", [4, 6])
def test_an_error_of_the_workload_leaves_as_if_the_vip_had_sent_it(chain: LoadedChain, side: str, family: int) -> None:
    before = counted(chain, "answered")
    for transport in TRANSPORTS.values():
        know(chain, side, family, transport)
        had = bytes(packet(TO_VIP[family], transport, CLIENT_PORT, PORT))
        seen = bytes(packet(TO_WORKLOAD[family], transport, CLIENT_PORT, WORKLOAD_PORT))
        for number, error in enumerate(ERRORS[family]):
            link = LINKS[number % len(LINKS)]
            for cut in (len(seen), IP_BYTES[family] + 16, IP_BYTES[family] + 8):
                result = leave(chain, side, link / FROM_WORKLOAD[family] / error / Raw(seen[:cut]))

                assert bytes(link / FROM_VIP[family] / error / Raw(had[:cut])) == result.packet
                assert result.verdict is Verdict.PASS
                assert_valid(result.packet)
    assert counted(chain, "answered") == before + 2 * 3 * len(ERRORS[family])


def test_a_router_in_front_of_the_workload_keeps_its_address(chain: LoadedChain, side: str) -> None:
    for family, router in {4: IP(src="10.1.0.1", dst=CLIENT4), 6: IPv6(src="fd01::1", dst=CLIENT6)}.items():
        know(chain, side, family, UDP())
        seen = packet(TO_WORKLOAD[family], UDP(), CLIENT_PORT, WORKLOAD_PORT)
        result = leave(chain, side, ETHER / router / TOO_BIG[family] / seen)

        assert bytes(ETHER / router / TOO_BIG[family] / packet(TO_VIP[family], UDP(), CLIENT_PORT, PORT)) == result.packet


def test_what_is_about_no_flow_of_a_vip_leaves_as_it_is(chain: LoadedChain, side: str) -> None:
    before = counted(chain, "answered")
    know(chain, side, 4, UDP())
    know(chain, side, 6, UDP())
    arrive(chain, side, ETHER / packet(TO_WORKLOAD[4], TCP(flags="S"), CLIENT_PORT, WORKLOAD_PORT))
    known = packet(TO_WORKLOAD[4], UDP(), CLIENT_PORT, WORKLOAD_PORT)
    for what, message in {
        "an echo request": FROM_WORKLOAD[4] / ICMP(),
        "an echo reply": FROM_WORKLOAD[4] / ICMP(type=0),
        "an echo reply, IPv6": FROM_WORKLOAD[6] / ICMPv6EchoReply(),
        "a redirect": FROM_WORKLOAD[4] / ICMP(type=5) / known,
        "of an unknown flow": FROM_WORKLOAD[4] / UNREACHABLE[4] / packet(TO_WORKLOAD[4], UDP(), CLIENT_PORT + 1, WORKLOAD_PORT),
        "of a direct flow": FROM_WORKLOAD[4] / UNREACHABLE[4] / packet(TO_WORKLOAD[4], TCP(), CLIENT_PORT, WORKLOAD_PORT),
        "of another protocol": FROM_WORKLOAD[6] / UNREACHABLE[6] / packet(TO_WORKLOAD[6], TCP(), CLIENT_PORT, WORKLOAD_PORT),
        "a quote that is too short": FROM_WORKLOAD[4] / UNREACHABLE[4] / Raw(bytes(known)[:27]),
        "a lie about lengths": IP(src=WORKLOAD4, dst=CLIENT4, len=36) / UNREACHABLE[4] / known,
        "in fragments": IP(src=WORKLOAD4, dst=CLIENT4, flags="MF") / UNREACHABLE[4] / known,
    }.items():
        frame = bytes(ETHER / message)
        result = leave(chain, side, frame)

        assert (what, frame, (Verdict.PASS, "end_of_chain")) == (what, result.packet, outcome(result))
    assert counted(chain, "answered") == before


def test_an_error_about_what_was_held_back_leaves_as_it_is(agent: LoadAgent, side: str) -> None:
    chain = agent(side, *({**service, "unknown": "learn"} for service in SERVICES))

    assert (Verdict.DROP, "held") == outcome(leave(chain, side, ETHER / packet(FROM_WORKLOAD[4], UDP(), WORKLOAD_PORT, CLIENT_PORT)))

    error = bytes(ETHER / FROM_WORKLOAD[4] / UNREACHABLE[4] / packet(TO_WORKLOAD[4], UDP(), CLIENT_PORT, WORKLOAD_PORT))

    assert error == leave(chain, side, error).packet


def test_an_error_about_a_service_that_is_gone_leaves_as_it_is(agent: LoadAgent, side: str) -> None:
    chain = agent(side, *SERVICES)
    know(chain, side, 4, UDP())
    error = bytes(ETHER / FROM_WORKLOAD[4] / UNREACHABLE[4] / packet(TO_WORKLOAD[4], UDP(), CLIENT_PORT, WORKLOAD_PORT))

    assert error != leave(chain, side, error).packet

    chain.configure("dsr_agent", {"accept_from": BALANCERS, "flow_table": 1024, "service": []})

    assert error == leave(chain, side, error).packet


def test_a_workload_hears_its_own_error_about_its_own_service(chain: LoadedChain, side: str) -> None:
    """It has called itself by the VIP, so what it has sent came back to it with the hairpin's address as the source."""
    hairpin = {4: "169.254.64.1", 6: "fd64:7372::1"}
    for family, (make, vip, workload) in {4: (IP, VIP4, WORKLOAD4), 6: (IPv6, VIP6, WORKLOAD6)}.items():
        know(chain, side, family, UDP(), ip=make(src=workload, dst=vip))
        seen = packet(make(src=hairpin[family], dst=workload), UDP(), CLIENT_PORT, WORKLOAD_PORT)
        had = packet(make(src=workload, dst=vip), UDP(), CLIENT_PORT, PORT)
        result = leave(chain, side, ETHER / make(src=workload, dst=hairpin[family]) / UNREACHABLE[family] / seen)
        back = ETHER.copy()
        back.src, back.dst = ETHER.dst, ETHER.src

        assert (Verdict.REDIRECT, "hairpinned") == outcome(result)
        assert bytes(back / make(src=vip, dst=workload) / UNREACHABLE[family] / had) == result.packet


def test_errors_count_as_packets_of_their_service(chain: LoadedChain, side: str) -> None:
    know(chain, side, 4, UDP())
    error = AT4 / TOO_BIG[4] / packet(FROM_VIP[4], UDP(), PORT, CLIENT_PORT)
    arrive(chain, side, ETHER / Outer().around(error))
    answer = FROM_WORKLOAD[4] / UNREACHABLE[4] / packet(TO_WORKLOAD[4], UDP(), CLIENT_PORT, WORKLOAD_PORT)
    leave(chain, side, ETHER / answer)
    (stats,) = [one for one in total(chain) if one["in_packets"]]

    assert stats["in_packets"] == 2
    assert stats["in_bytes"] == len(packet(TO_VIP[4], UDP(), CLIENT_PORT, PORT)) + len(error)
    assert (stats["out_packets"], stats["out_bytes"]) == (1, len(answer))


def total(chain: LoadedChain) -> list[dict[str, int]]:
    """The numbers of all services, of all CPUs."""
    return [
        {name: sum(cpu[name] for cpu in cpus) for name in ("in_packets", "in_bytes", "out_packets", "out_bytes", "flows")}
        for _, cpus in chain.maps["dsr_agent"]["dsr_stats"].items()
    ]


def fault(frame: bytes) -> tuple[int, int]:
    """By how much the checksums of an IPv4 header and of the ICMP message in it are wrong; that of IPv6 has none."""
    ip = dissected(frame)
    header = IP_BYTES[ip.version]
    message = bytes(frame[14 + header :])
    wrong = checksum(message) if ip.version == 4 else in6_chksum(58, ip, message)
    return (checksum(frame[14 : 14 + header]) if ip.version == 4 else 0) % 0xFFFF, wrong % 0xFFFF


def dissected(frame: bytes) -> Packet:
    return IP(frame[14:]) if frame[14] >> 4 == 4 else IPv6(frame[14:])


FLIPS = some.lists(some.tuples(some.integers(0, 199), some.integers(1, 255)), max_size=4)
CUTS = some.integers(0, 120)
ANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def mangled(message: Packet, flips: Sequence[tuple[int, int]], cut: int, whole: int) -> Packet:
    """The packet with other bytes behind its ICMP header, and up to `cut` bytes shorter."""
    data = bytearray(bytes(message))[: max(len(message) - cut, whole)]
    for at, bits in flips:
        if whole + at < len(data):
            data[whole + at] ^= bits
    ip = type(message)(bytes(data))
    if ip.version == 4:
        del ip.len, ip.chksum
    else:
        del ip.plen
    ip.remove_payload()
    return ip / Raw(bytes(data[IP_BYTES[ip.version] :]))


@ANY
@given(family=some.sampled_from([4, 6]), udp=some.booleans(), flips=FLIPS, cut=CUTS)
def test_whatever_an_arriving_error_quotes_its_checksum_is_as_right_as_it_was(
    chain: LoadedChain, side: str, family: int, *, udp: bool, flips: Sequence[tuple[int, int]], cut: int
) -> None:
    seen = packet(FROM_VIP[family], TRANSPORTS["UDP" if udp else "TCP"], PORT, CLIENT_PORT)
    sent = mangled(to(ROUTER[family], {4: VIP4, 6: VIP6}[family]) / TOO_BIG[family] / seen, flips, cut, IP_BYTES[family] + 8)
    result = arrive(chain, side, ETHER / Outer().around(sent))
    if result.verdict is Verdict.PASS:
        assert fault(bytes(ETHER / sent)) == fault(result.packet)
        assert dissected(result.packet).dst == {4: WORKLOAD4, 6: WORKLOAD6}[family]
    else:
        assert (Verdict.DROP, "icmp_unmatched") == outcome(result)


@ANY
@given(family=some.sampled_from([4, 6]), udp=some.booleans(), flips=FLIPS, cut=CUTS)
def test_whatever_a_leaving_error_quotes_its_checksum_is_as_right_as_it_was(
    chain: LoadedChain, side: str, family: int, *, udp: bool, flips: Sequence[tuple[int, int]], cut: int
) -> None:
    transport = TRANSPORTS["UDP" if udp else "TCP"]
    know(chain, side, family, transport)
    had = packet(TO_WORKLOAD[family], transport, CLIENT_PORT, WORKLOAD_PORT)
    sent = mangled(FROM_WORKLOAD[family] / TOO_BIG[family] / had, flips, cut, IP_BYTES[family] + 8)
    result = leave(chain, side, ETHER / sent)

    assert result.verdict is Verdict.PASS
    assert fault(bytes(ETHER / sent)) == fault(result.packet)
