# SPDX-License-Identifier: Apache-2.0
"""What leaves, byte for byte: the outer header in front of a packet that is as it was, whatever packet that is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN
from scapy.layers.l2 import Dot1AD, Dot1Q
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadChain, LoadedChain, Verdict

from plugins.elb.tests.balancer import PORT, balancer_of, lead, load_balancer, outcome
from plugins.elb.tests.documents import vip
from plugins.elb.tests.outer import Way
from plugins.elb.tests.packets import CLIENT4, CLIENT6, ETHER, LINKS, QINQ, TO4, TO6, VIP4, VIP6, VLAN, assert_valid

WAYS = [Way("gue", "10.0.0.1"), Way("gue", "fc00::1"), Way("ipip", "10.0.0.1"), Way("ipip", "fc00::1")]
LINK = [there for there, _ in LINKS]
CLIENT_PORT = 0xA1B2
MTU = 9216
IN_ONE_BUFFER = 3000
TCPS = TCP(sport=CLIENT_PORT, dport=PORT, flags="A", seq=7)
UDPS = UDP(sport=CLIENT_PORT, dport=PORT)
NO_SUM = UDP(sport=CLIENT_PORT, dport=PORT, chksum=0)
OPTIONS = IP(src=CLIENT4, dst=VIP4, options=[IPOption_RR(length=39, routers=["0.0.0.0"] * 9)])
EXTENDED = [
    TO6 / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\x05" * 3)]),
    TO6 / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\xa5" * 100)]),
    TO6 / IPv6ExtHdrRouting(addresses=["2001:db8::3"], segleft=0) / IPv6ExtHdrDestOpt(),
]
"""the addresses of a routing header and the content of an option are in no pseudo header"""


def carries(way: Way, packet: Packet) -> bool:
    return not (packet.version == 6 and way.encapsulation == "ipip" and way.backend == "10.0.0.1")


def addresses_for(way: Way) -> tuple[str, ...]:
    return (VIP4, VIP6) if carries(way, TO6) else (VIP4,)


def client_of(packet: Packet) -> str:
    client: str = packet.src
    return client


@pytest.fixture(params=WAYS, ids=lambda way: f"{way.encapsulation} to {way.backend}")
def way(request: pytest.FixtureRequest) -> Way:
    one: Way = request.param
    return one


@pytest.fixture(scope="module")
def chains(load_for_all: LoadChain) -> dict[Way, LoadedChain]:
    """For each way a balancer whose one backend is that of the way."""
    return {way: load_balancer(load_for_all, (way.backend,), addresses_for(way), encapsulation=way.encapsulation, mtu=MTU) for way in WAYS}


@pytest.fixture
def chain(chains: dict[Way, LoadedChain], way: Way) -> LoadedChain:
    return chains[way]


def assert_sent(chain: LoadedChain, way: Way, link: Packet, packet: Packet, padding: bytes = b"") -> None:
    """A packet leaves as it must, and so that a receiver takes it."""
    sent = bytes(packet)
    result = chain.send(bytes(link / packet) + padding)

    assert (Verdict.TX, "ring") == outcome(result)
    assert way.frame(link, sent, client_of(packet), CLIENT_PORT, padding=padding) == result.packet


def plain_packets() -> Iterator[Packet]:
    """Both families, each transport, and lengths around all that may be odd."""
    for to, transport, length in itertools.product((TO4, TO6), (TCPS, UDPS, NO_SUM), (0, 1, 2, 3, 64, 127, 128, 129, 1001)):
        if not (to is TO6 and transport is NO_SUM):
            yield to / transport / Raw((b"\xff\x01\xa5" * length)[:length])


def test_every_packet_leaves_in_the_outer_header_that_the_format_says(chain: LoadedChain, way: Way) -> None:
    for link, packet in itertools.product(LINK, plain_packets()):
        if carries(way, packet):
            assert_sent(chain, way, link, packet)
            assert_valid(chain.send(link / packet).packet)


def test_an_ipv6_datagram_without_a_checksum_gets_an_outer_one_that_is_right(chain: LoadedChain, way: Way) -> None:
    for length in (0, 1, 2, 1001):
        packet = TO6 / NO_SUM / Raw(b"\x81" * length)
        if carries(way, packet):
            assert_sent(chain, way, ETHER, packet)


def test_headers_with_options_or_extensions_are_carried(chain: LoadedChain, way: Way) -> None:
    for link, to, transport, length in itertools.product(LINK, (OPTIONS, *EXTENDED), (TCPS, UDPS), (0, 1, 200)):
        packet = to / transport / Raw(b"\x5a" * length)
        if carries(way, packet):
            assert_sent(chain, way, link, packet)
            assert_valid(chain.send(link / packet).packet)


def test_tos_and_ecn_are_copied_and_flow_label_ttl_id_and_df_are_not(chain: LoadedChain, way: Way) -> None:
    for tos in range(256):
        assert_sent(chain, way, ETHER, IP(src=CLIENT4, dst=VIP4, tos=tos, ttl=1 + tos % 255, id=tos * 257, flags="DF") / UDPS)
        if carries(way, TO6):
            assert_sent(chain, way, ETHER, IPv6(src=CLIENT6, dst=VIP6, tc=tos, fl=0xFFFFF - tos, hlim=1 + tos % 255) / UDPS)


def test_what_is_behind_the_packet_in_its_frame_stays_there(chain: LoadedChain, way: Way) -> None:
    for link, packet, padding in itertools.product(LINK, plain_packets(), (b"", b"\xee" * 18)):
        if carries(way, packet):
            assert_sent(chain, way, link, packet, padding)


def test_the_shortest_frame_leaves_without_anything_behind_it(chain: LoadedChain, way: Way) -> None:
    result = chain.send(ETHER / TO4 / UDPS)

    assert len(result.sent) == 42
    assert len(result.packet) == 42 + way.overhead


def test_frames_in_several_buffers_leave_whole(chain: LoadedChain, way: Way) -> None:
    for link, to, transport in itertools.product(LINK, (TO4, TO6, OPTIONS, *EXTENDED), (TCPS, UDPS, NO_SUM)):
        room = MTU - way.overhead - len(to / transport)
        for length in (IN_ONE_BUFFER, 4096, 5001, room - 1, room):
            packet = to / transport / Raw((b"\xfe\x01\x9c" * length)[:length])
            if carries(way, packet):
                assert_sent(chain, way, link, packet)


@pytest.mark.parametrize("trailer", [b"\xc5", b"\x11\x22\x33", b"\xff" * 40])
def test_a_datagram_that_is_shorter_than_its_packet_is_carried_with_what_is_behind_it(chain: LoadedChain, way: Way, trailer: bytes) -> None:
    for to in (TO4, TO6):
        packet = type(to)(bytes(to / UDPS / Raw(b"data")))
        if to is TO4:
            packet.len += len(trailer)
            del packet.chksum
        else:
            packet.plen += len(trailer)
        if carries(way, to):
            assert_sent(chain, way, ETHER, type(to)(bytes(packet) + trailer))


def test_each_tag_stays_as_it_is(chain: LoadedChain, way: Way) -> None:
    for tags in (
        Dot1Q(vlan=0, prio=7),
        Dot1Q(vlan=4095, prio=1, dei=1),
        Dot1AD(vlan=77),
        Dot1Q(vlan=1) / Dot1Q(vlan=2, prio=5),
        Dot1AD(vlan=4094, prio=6) / Dot1Q(vlan=3),
    ):
        assert_sent(chain, way, ETHER / tags, TO4 / TCPS / Raw(b"data"))


def test_the_frame_leaves_with_the_address_that_it_came_to(chain: LoadedChain, way: Way) -> None:
    link = ETHER.copy()
    link.dst = "02:00:00:00:00:42"

    assert_sent(chain, way, link, TO4 / TCPS)


addresses4, addresses6 = st.ip_addresses(v=4), st.ip_addresses(v=6)
links = st.sampled_from([ETHER, ETHER / VLAN, ETHER / QINQ])
transports = st.sampled_from([TCP(dport=PORT, flags="A"), UDP(dport=PORT), UDP(dport=PORT, chksum=0)])


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    link=links,
    client4=addresses4,
    client6=addresses6,
    port=st.integers(0, 65535),
    transport=transports,
    payload=st.binary(max_size=300),
    tos=st.integers(0, 255),
    padding=st.binary(max_size=20),
)
def test_any_client_and_any_payload_make_the_outer_header_that_the_format_says(
    chains: dict[Way, LoadedChain],
    link: Packet,
    client4: IPv4Address,
    client6: IPv6Address,
    port: int,
    transport: Packet,
    payload: bytes,
    tos: int,
    padding: bytes,
) -> None:
    segment = transport.copy()
    segment.sport = port
    for way, chain in chains.items():
        for packet in (IP(src=str(client4), dst=VIP4, tos=tos), IPv6(src=str(client6), dst=VIP6, tc=tos)):
            if carries(way, packet):
                whole = packet / segment / Raw(payload)
                result = chain.send(bytes(link / whole) + padding)

                assert way.frame(link, whole, client_of(packet), port, padding=padding) == result.packet


@pytest.mark.parametrize("way", [way for way in WAYS if way.encapsulation == "gue"], indirect=True)
def test_a_checksum_of_zero_is_sent_as_ones(chain: LoadedChain, way: Way) -> None:
    for to, transport in ((TO4, NO_SUM), (TO6, NO_SUM)):
        before = way.frame(ETHER, to / transport / Raw(b"\0\0"), client_of(to), CLIENT_PORT)
        at = 14 + way.overhead - 2
        packet = to / transport / Raw(before[at : at + 2])  # the word that is missing to a sum of minus zero

        assert_sent(chain, way, ETHER, packet)
        assert chain.send(ETHER / packet).packet[at : at + 2] == b"\xff\xff"


@pytest.mark.parametrize(
    ("options", "client4", "client6", "port"),
    [
        ([], CLIENT4, CLIENT6, CLIENT_PORT),
        (["no-source-port"], CLIENT4, CLIENT6, 0),
        (["hash-destination-port-only"], "0.0.0.0", "::", PORT),
    ],
)
def test_the_outer_header_shows_what_the_options_leave_of_the_client(
    load_chain: LoadChain, way: Way, options: list[str], client4: str, client6: str, port: int
) -> None:
    chain = load_balancer(load_chain, (way.backend,), addresses_for(way), encapsulation=way.encapsulation, options=options)
    for packet, client in ((TO4 / TCPS, client4), (TO6 / UDPS, client6)):
        if carries(way, packet):
            assert way.frame(ETHER, packet, client, port) == chain.send(ETHER / packet).packet


def test_a_vip_may_travel_in_another_way_than_the_others_and_change_it(load_chain: LoadChain) -> None:
    gue, ipip = Way("gue", "10.0.0.1", 7000), Way("ipip", "10.0.0.1")

    def vips(tcp: Way, udp: Way) -> tuple[dict[str, Any], ...]:
        return vip(VIP4, PORT, "tcp", encapsulation=tcp.encapsulation), vip(VIP4, PORT, "udp", encapsulation=udp.encapsulation)

    chain = balancer_of(load_chain, *vips(gue, ipip), gue_port=7000)

    assert_sent(chain, gue, ETHER, TO4 / TCPS)
    assert_sent(chain, ipip, ETHER, TO4 / UDPS)

    lead(chain, *vips(ipip, gue), gue_port=7000)

    assert_sent(chain, ipip, ETHER, TO4 / TCPS)
    assert_sent(chain, gue, ETHER, TO4 / UDPS)

    lead(chain, *vips(ipip, gue))

    assert_sent(chain, Way("gue", "10.0.0.1"), ETHER, TO4 / UDPS)
