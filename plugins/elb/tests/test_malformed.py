# SPDX-License-Identifier: Apache-2.0
"""Packets whose headers are cut short or lie: what leaves is as long as its headers say, or nothing leaves and it is counted."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadChain, LoadedChain, Verdict

from plugins.elb.tests.balancer import PORT, balancer_of, lead, outcome, passed
from plugins.elb.tests.documents import backends, vip
from plugins.elb.tests.outer import Way
from plugins.elb.tests.packets import CLIENT4, CLIENT6, LINKS, TO4, TO6, VIP4, VIP6

LINK = [there for there, _ in LINKS]
MALFORMED = (Verdict.DROP, "malformed")
SENT = (Verdict.TX, "ring")
DATA = b"some data that is long enough"
TCPS, UDPS = TCP(sport=40000, dport=PORT, flags="A"), UDP(sport=40000, dport=PORT)
OPTIONS = IP(src=CLIENT4, dst=VIP4, options=b"\x94\x04\0\0" * 10)
EXTENDED = TO6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()
HEADERS = [TO4, OPTIONS, TO6, EXTENDED]
WAYS = [Way("gue", "10.0.0.1"), Way("gue", "fc00::1"), Way("ipip", "fc00::1")]


@pytest.fixture(scope="module")
def chains(load_for_all: LoadChain) -> dict[Way, LoadedChain]:
    """VIPs in each way that carries both families."""
    made = {}
    for way in WAYS:
        made[way] = balancer_of(load_for_all, encapsulation=way.encapsulation)
        vips = [vip(address, PORT, proto, backend=backends(way.backend)) for address in (VIP4, VIP6) for proto in ("tcp", "udp")]
        lead(made[way], *vips, encapsulation=way.encapsulation)
    return made


@pytest.fixture
def chain(chains: dict[Way, LoadedChain]) -> LoadedChain:
    return chains[WAYS[0]]


def packets() -> Iterator[bytes]:
    for header, transport in itertools.product(HEADERS, (TCPS, UDPS)):
        yield bytes(header / transport / Raw(DATA))


def header_of(packet: bytes) -> int:
    """Bytes in front of the transport header."""
    if packet[0] >> 4 == 4:
        return (packet[0] & 15) * 4
    return 40 if packet[6] in {6, 17} else 56


def needed(packet: bytes) -> int:
    """Bytes without which nobody knows the flow."""
    proto = packet[9] if packet[0] >> 4 == 4 else (packet[6] if packet[6] in {6, 17} else packet[48])
    return header_of(packet) + {6: 20, 17: 8}[proto]


def with_length(packet: bytes, length: int) -> bytes:
    """The packet with a length in its IP header that may be a lie; the checksum of an IPv4 header does not matter to anybody here."""
    at, value = (2, length) if packet[0] >> 4 == 4 else (4, length - 40)
    return packet[:at] + struct.pack("!H", value) + packet[at + 2 :]


def link_bytes(link: Packet, packet: bytes) -> bytes:
    whole = bytes(link / (IP if packet[0] >> 4 == 4 else IPv6)())
    return whole[: len(link)]


def test_a_frame_that_is_cut_short_anywhere_leaves_nowhere(chains: dict[Way, LoadedChain]) -> None:
    for chain in chains.values():
        for link, packet in itertools.product(LINK, packets()):
            front = link_bytes(link, packet)
            at_all = 20 if packet[0] >> 4 == 4 else 40
            if packet[0] >> 4 == 4:
                at_all = header_of(packet)  # before its end, nobody believes the addresses
            for length in range(len(packet)):
                result = chain.send(front + packet[:length])
                if length < at_all:
                    assert passed(result), f"{length} bytes of an IP header"
                else:
                    assert outcome(result) == MALFORMED, f"{length} bytes of {len(packet)}"


def test_a_packet_is_as_long_as_its_header_says_and_the_rest_is_padding(chains: dict[Way, LoadedChain]) -> None:
    for way, chain in chains.items():
        for link, packet in itertools.product(LINK, packets()):
            for length in range(needed(packet), len(packet) + 1):
                lying = with_length(packet, length)
                result = chain.send(link_bytes(link, packet) + lying)

                assert outcome(result) == SENT
                got = result.packet[len(link) :]
                outer = struct.unpack_from("!H", got, 2)[0] if got[0] >> 4 == 4 else 40 + struct.unpack_from("!H", got, 4)[0]
                assert outer == length + way.overhead
                assert lying == got[way.overhead :], "neither longer nor shorter"


def test_a_packet_that_says_it_is_longer_than_its_frame_is_dropped(chains: dict[Way, LoadedChain]) -> None:
    for chain in chains.values():
        for link, packet in itertools.product(LINK, packets()):
            for length in (len(packet) + 1, len(packet) + 2, 1000, 1472, 9000, 65535):
                assert outcome(chain.send(link_bytes(link, packet) + with_length(packet, length))) == MALFORMED


def test_a_packet_that_says_it_is_shorter_than_its_headers_is_dropped(chain: LoadedChain) -> None:
    for link, packet in itertools.product(LINK, packets()):
        least = 0 if packet[0] >> 4 == 4 else 40
        for length in range(least, needed(packet)):
            assert outcome(chain.send(link_bytes(link, packet) + with_length(packet, length))) == MALFORMED


def test_lies_about_the_length_of_the_header_go_nowhere(chain: LoadedChain) -> None:
    packet = bytes(TO4 / TCPS / Raw(DATA))
    for ihl in range(16):
        result = chain.send(link_bytes(LINK[0], packet) + bytes([0x40 | ihl]) + packet[1:])
        if ihl == 5:
            assert outcome(result) == SENT
        else:
            assert result.verdict is not Verdict.TX, f"the ports are not those of a VIP behind {ihl} words"


def test_a_version_that_is_not_that_of_the_frame_goes_on(chain: LoadedChain) -> None:
    for packet, version in itertools.product((bytes(TO4 / TCPS), bytes(TO6 / TCPS)), range(16)):
        if version != packet[0] >> 4:
            frame = link_bytes(LINK[0], packet) + bytes([version << 4 | packet[0] & 15]) + packet[1:]

            assert passed(chain.send(frame))


def test_the_length_of_a_tcp_header_is_the_backends_business(chain: LoadedChain) -> None:
    for words in range(16):
        assert outcome(chain.send(LINK[0] / TO4 / TCP(sport=40000, dport=PORT, flags="A", dataofs=words) / Raw(DATA))) == SENT


def test_lies_about_the_length_of_a_datagram_are_the_backends_business_too(chains: dict[Way, LoadedChain]) -> None:
    for way, chain in chains.items():
        for header, length in itertools.product(HEADERS, (0, 7, 8, 9, 20, 1000, 65535)):
            packet = bytes(header / UDP(sport=40000, dport=PORT, len=length) / Raw(DATA))
            expected = way.frame(LINK[0], packet, CLIENT4 if header.version == 4 else CLIENT6, 40000)

            result = chain.send(link_bytes(LINK[0], packet) + packet)

            assert expected == result.packet


def test_extension_headers_that_reach_behind_the_packet_are_malformed(chain: LoadedChain) -> None:
    packet = bytes(TO6 / IPv6ExtHdrDestOpt() / UDPS / Raw(DATA))
    for words in range(1, 256):
        result = chain.send(LINK[0] / IPv6(packet[:41] + bytes([words]) + packet[42:]))

        assert result.verdict is not Verdict.TX
    assert outcome(chain.send(LINK[0] / IPv6(packet[:41] + b"\xff" + packet[42:]))) == MALFORMED


def test_more_extension_headers_than_anybody_needs_are_malformed(chain: LoadedChain) -> None:
    header = TO6
    for number in range(1, 9):
        header = header / IPv6ExtHdrDestOpt()

        assert outcome(chain.send(LINK[0] / header / UDPS)) == (SENT if number <= 6 else MALFORMED)


def test_what_is_malformed_for_nobody_here_goes_on(chain: LoadedChain) -> None:
    for packet in (bytes(IP(src=CLIENT4, dst="10.200.1.2") / UDPS), bytes(IPv6(src=CLIENT6, dst="fc00:1::2") / UDPS)):
        for length in range(len(packet)):
            assert passed(chain.send(link_bytes(LINK[0], packet) + packet[:length]))


def test_malformed_packets_are_counted(chain: LoadedChain) -> None:
    before = chain.counts("elb").get(MALFORMED, 0)
    for packet in packets():
        chain.send(link_bytes(LINK[0], packet) + packet[:-1])

    assert chain.counts("elb")[MALFORMED] == before + len(list(packets()))
