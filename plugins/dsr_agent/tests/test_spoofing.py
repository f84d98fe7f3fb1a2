# SPDX-License-Identifier: Apache-2.0
"""What arrives encapsulated and is forged, damaged or for nobody: none of it is delivered, all of it is counted."""

from __future__ import annotations

import random

import pytest
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadedChain, Verdict

from plugins.dsr_agent.tests.arriving import Arrival, arrive, at_workload, flows, stats
from plugins.dsr_agent.tests.conftest import LoadAgent
from plugins.dsr_agent.tests.packets import (
    BALANCER4,
    CLIENT4,
    CLIENT_PORT,
    ETHER,
    GUE_PORT,
    HOPS,
    OUTER_PORT,
    OUTERS,
    PORT,
    SERVICES,
    STRANGER4,
    STRANGER6,
    TO_VIP,
    VIP4,
    WORKLOAD4,
    Outer,
)

REQUEST = TCP(sport=CLIENT_PORT, dport=PORT, flags="PA") / Raw(b"GET / HTTP/1.1\r\n\r\n")
INNER = TO_VIP[4] / REQUEST
DATA = bytes(INNER)
FROM_BALANCER = IP(src=BALANCER4, dst=WORKLOAD4, flags="DF")
_LINK = 14


def assert_dropped(chain: LoadedChain, reason: str, packet: Packet | bytes) -> None:
    """With that reason, and nothing is remembered of it."""
    result = arrive(chain, packet)

    assert (result.verdict, result.reason) == (Verdict.DROP, reason)
    assert flows(chain) == []
    assert stats(chain).total() == 0


def gue(payload: bytes, length: int | None = None) -> Packet:
    """A GUE packet with any content, and a length of UDP that may lie."""
    return ETHER / FROM_BALANCER / UDP(sport=OUTER_PORT, dport=GUE_PORT, len=length) / Raw(payload)


def hop_list(next_hop: int, count: int, *, hops: int, words: int, kind: int = 0) -> bytes:
    """Variant 0 with a list of hops that says this of itself, whatever it has."""
    return bytes((words, 4, 0, 0, kind >> 8, kind & 255, next_hop, count)) + bytes(4 * hops) + DATA


@pytest.mark.parametrize("outer", OUTERS, ids=str)
def test_what_a_stranger_encapsulates_is_dropped(chain: LoadedChain, outer: Outer) -> None:
    stranger = STRANGER4 if outer.family == 4 else STRANGER6
    for inner in (TO_VIP[4] / REQUEST, TO_VIP[6] / REQUEST):
        assert_dropped(chain, "strange_source", ETHER / Outer(outer.form, outer.family, outer.hops, source=stranger).around(inner))


def test_a_source_that_is_accepted_no_more_is_a_stranger(agent: LoadAgent) -> None:
    chain = agent("network", *SERVICES)
    packet = ETHER / Outer().around(INNER)
    assert arrive(chain, packet).reason == "delivered"

    chain.configure("dsr_agent", {"accept_from": ["10.0.14.0/24"], "service": SERVICES})
    assert arrive(chain, packet).reason == "strange_source"

    chain.configure("dsr_agent", {"accept_from": ["10.0.0.0/8"], "service": SERVICES})
    assert arrive(chain, packet).reason == "delivered"


@pytest.mark.parametrize(
    "inner",
    [
        IP(src=CLIENT4, dst="10.200.1.99") / REQUEST,
        IP(src=CLIENT4, dst=WORKLOAD4) / REQUEST,
        IP(src=CLIENT4, dst=VIP4) / TCP(dport=PORT + 1, flags="S"),
        IP(src=CLIENT4, dst=VIP4) / UDP(dport=PORT + 1) / Raw(b"x"),
        IP(src=CLIENT4, dst=VIP4, proto=47) / Raw(bytes(20)),
        IP(src=CLIENT4, dst=VIP4, proto=132) / Raw(bytes(20)),
    ],
    ids=["another VIP", "the workload", "another TCP port", "another UDP port", "GRE", "SCTP"],
)
@pytest.mark.parametrize("outer", OUTERS, ids=str)
def test_what_is_for_no_service_is_dropped(chain: LoadedChain, outer: Outer, inner: Packet) -> None:
    assert_dropped(chain, "no_service", ETHER / outer.around(inner))


@pytest.mark.parametrize("nested", [Outer(), Outer("gue0"), Outer("ipip"), Outer("gue", 6), Outer("ipip", 6)], ids=str)
@pytest.mark.parametrize("outer", OUTERS, ids=str)
def test_what_is_encapsulated_twice_is_dropped(chain: LoadedChain, outer: Outer, nested: Outer) -> None:
    assert_dropped(chain, "bad_inner", ETHER / outer.around(nested.around(INNER)))


@pytest.mark.parametrize("outer", [Outer(), Outer("ipip"), Outer("gue0")], ids=str)
def test_fragments_of_encapsulated_packets_are_dropped(chain: LoadedChain, outer: Outer) -> None:
    """Later ones of UDP cannot be told from others, and are let alone: without the first they are nothing."""
    packet = outer.around(TO_VIP[4] / TCP(dport=PORT) / Raw(bytes(600)))
    packet.flags = 0
    first, *later = fragment(packet, fragsize=400)
    assert_dropped(chain, "outer_fragment", ETHER / first)

    for one in later:
        if outer.form == "ipip":
            assert_dropped(chain, "outer_fragment", ETHER / one)
        else:
            assert arrive(chain, ETHER / one) == Arrival(Verdict.NEXT, "", bytes(ETHER / one))


def test_first_fragments_over_ipv6_are_dropped(chain: LoadedChain) -> None:
    packet = Outer(family=6).around(INNER)
    packet.payload = IPv6ExtHdrFragment(nh=17, m=1, id=7) / packet.payload
    packet.nh = 44

    assert_dropped(chain, "outer_fragment", ETHER / packet)


@pytest.mark.parametrize(
    "frame",
    [
        gue(DATA, 8 + len(DATA) - 1),
        gue(DATA, 8 + len(DATA) + 1),
        gue(DATA, 0),
        gue(DATA, 7),
        gue(b""),
        gue(b"\x45"),
        gue(b"\x00\x04\x00"),
        gue(b"\x00\x04\x00\x01" + DATA),
        gue(b"\x00\x06\x00\x00" + DATA),
        gue(b"\x20\x04\x00\x00" + DATA),
        gue(b"\x80\x04\x00\x00" + DATA),
        gue(b"\xc0\x04\x00\x00" + DATA),
        gue(b"\x01\x04\x00\x00" + bytes(4) + DATA),
        gue(b"\x1f\x04\x00\x00" + DATA),
        gue(hop_list(0, 1, hops=1, words=3)),
        gue(hop_list(0, 2, hops=1, words=2)),
        gue(hop_list(0, 0, hops=0, words=1)),
        gue(hop_list(0, 5, hops=5, words=6)),
        gue(hop_list(0, 1, hops=1, words=2, kind=1)),
        gue(hop_list(0, 4, hops=1, words=17)),
    ],
    ids=[
        "UDP too short",
        "UDP too long",
        "UDP without a length",
        "UDP shorter than its header",
        "nothing",
        "a byte",
        "cut short",
        "flags",
        "another protocol",
        "a control message",
        "variant 2",
        "variant 3",
        "other private data",
        "longer than the packet",
        "more words than hops",
        "more hops than words",
        "an empty list",
        "a long list",
        "another type",
        "IPv6 hops over IPv4",
    ],
)
def test_outer_headers_of_no_form_that_is_taken_drop_the_packet(chain: LoadedChain, frame: Packet) -> None:
    assert_dropped(chain, "bad_outer", frame)


@pytest.mark.parametrize("outer", OUTERS, ids=str)
@pytest.mark.parametrize("more", [1, 100, 40000])
def test_an_outer_packet_that_reaches_beyond_the_frame_is_dropped(chain: LoadedChain, outer: Outer, more: int) -> None:
    packet = outer.around(INNER)
    length = len(packet)
    if outer.family == 4:
        packet.len = length + more
    else:
        packet.plen = length - 40 + more

    assert_dropped(chain, "bad_outer", ETHER / packet)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("difference", [-30, -1, 1, 500])
@pytest.mark.parametrize("outer", OUTERS, ids=str)
def test_an_inner_packet_that_lies_about_its_length_is_dropped(chain: LoadedChain, outer: Outer, family: int, difference: int) -> None:
    inner = TO_VIP[family] / REQUEST
    if family == 4:
        inner.len = len(inner) + difference
    else:
        inner.plen = len(inner) - 40 + difference

    assert_dropped(chain, "bad_inner", ETHER / outer.around(inner))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("outer", [one for one in OUTERS if one.form != "gue"], ids=str)
def test_an_inner_packet_of_another_family_than_said_is_dropped(chain: LoadedChain, outer: Outer, family: int) -> None:
    data = bytearray(bytes(TO_VIP[family] / REQUEST))
    packet = outer.around(bytes(data))
    frame = bytearray(bytes(ETHER / packet))
    at = len(frame) - len(data)
    frame[at] ^= 0x20

    assert_dropped(chain, "bad_inner", bytes(frame))


@pytest.mark.parametrize("version", [5, 7])
def test_gue_that_carries_no_ip_is_dropped(chain: LoadedChain, version: int) -> None:
    """As if it were variant 1; it begins with the same two bits."""
    assert_dropped(chain, "bad_inner", gue(bytes((version << 4 | 5,)) + DATA[1:]))


@pytest.mark.parametrize("length", [1, 19, 20, 24, 39])
@pytest.mark.parametrize("outer", OUTERS, ids=str)
def test_an_inner_packet_that_is_cut_short_is_dropped(chain: LoadedChain, outer: Outer, length: int) -> None:
    """The lengths agree; the TCP header is not all there."""
    short = bytearray(DATA[:length])
    if length >= 4:
        short[2:4] = length.to_bytes(2, "big")

    result = arrive(chain, bytes(ETHER / outer.around(bytes(short))) + bytes(60))

    assert result.verdict is Verdict.DROP
    assert result.reason in {"bad_inner", "bad_outer"}
    assert flows(chain) == []


def test_addresses_that_look_mapped_are_no_outer_ones(chain: LoadedChain) -> None:
    packet = Outer(family=6, source=f"::ffff:{BALANCER4}", destination=f"::ffff:{WORKLOAD4}").around(INNER)

    assert arrive(chain, ETHER / packet) == Arrival(Verdict.NEXT, "", bytes(ETHER / packet))


def test_whatever_happens_to_a_packet_it_is_delivered_right_or_not_at_all(chain: LoadedChain) -> None:
    """Bytes of the headers become others by chance. What is delivered is for the workload, and its checksums are as right as they were."""
    chance = random.Random(5)
    for outer in (*OUTERS, *(Outer("gue0", family, hops=hops) for family, hops in HOPS.items())):
        for family in (4, 6):
            inner = TO_VIP[family] / TCP(sport=CLIENT_PORT, dport=PORT, flags="S") / Raw(bytes(8))
            whole = bytes(ETHER / outer.around(inner))
            expected = bytes(ETHER / at_workload(inner))
            for _ in range(15):
                frame = bytearray(whole)
                for _ in range(chance.randint(1, 2)):
                    frame[chance.randrange(_LINK, len(frame))] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
                result = arrive(chain, bytes(frame))

                assert result.verdict in {Verdict.DROP, Verdict.NEXT}
                if result.reason == "delivered":
                    assert len(result.frame) == len(expected)
                    assert Ether(result.frame).payload.dst == Ether(expected).payload.dst
                    assert broken_by(frame, whole, outer) == broken_by(bytearray(result.frame), expected, None)
                elif result.verdict is Verdict.NEXT:
                    assert bytes(frame) == result.frame


def broken_by(frame: bytearray, whole: bytes, outer: Outer | None) -> tuple[int, ...]:
    """By how much the checksums of the inner headers are wrong: of IPv4, and of TCP."""
    at = _LINK + (outer.overhead if outer else 0)
    data = bytes(frame[at:])
    packet: Packet = IP(data) if data[0] >> 4 == 4 else IPv6(data)
    if TCP not in packet:
        return ()
    wrong = []
    for layer, field in ((packet, "chksum"), (packet[TCP], "chksum")):
        if field in layer.fields:
            said = layer.fields[field]
            fresh = packet.copy()
            target = fresh if layer is packet else fresh[TCP]
            delattr(target, field)
            right = type(packet)(bytes(fresh))
            computed = (right if layer is packet else right[TCP]).fields[field]
            wrong.append((said - computed) % 0xFFFF)
    return tuple(wrong)
