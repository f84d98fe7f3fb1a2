# SPDX-License-Identifier: Apache-2.0
"""Fragments go to one backend where no port decides which, and are dropped and counted where one does."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, fragment6
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadChain, LoadedChain, Verdict

from plugins.elb.tests.balancer import PORT, SERVERS, balancer_of, lead, outcome, passed, server_of
from plugins.elb.tests.documents import backends, vip
from plugins.elb.tests.outer import Way
from plugins.elb.tests.packets import LINKS, VIP4, VIP6

LINK = [there for there, _ in LINKS]
OTHER4, OTHER6 = "10.200.1.2", "fc00:1::2"
DATA = Raw(bytes(range(256)) * 8)
SHORT = Raw(b"some data")
FRAGMENT = (Verdict.DROP, "fragment")
VIPS = [(VIP4, 4), (VIP6, 6)]


@pytest.fixture(scope="module")
def loaded(load_for_all: LoadChain) -> LoadedChain:
    return balancer_of(load_for_all)


@pytest.fixture
def portless(loaded: LoadedChain) -> LoadedChain:
    """VIPs for any port in which no port is hashed."""
    lead(loaded)
    lead(loaded, *services(0, ["no-source-port"]))
    return loaded


@pytest.fixture
def plain(loaded: LoadedChain) -> LoadedChain:
    """VIPs in which ports are hashed."""
    lead(loaded)
    lead(loaded, *services(PORT, []))
    return loaded


def services(port: int, options: list[str]) -> list[dict[str, object]]:
    return [
        vip(address, port, protocol, backend=backends(*SERVERS), options=options) for address in (VIP4, VIP6) for protocol in ("tcp", "udp")
    ]


def pieces(number: int, family: int, transport: Packet, *, destination: str = "") -> Sequence[Packet]:
    """A packet in three fragments."""
    if family == 4:
        whole = IP(src=f"198.51.100.{number}", dst=destination or VIP4, id=number + 1) / transport / DATA
        return [IP(bytes(one)) for one in fragment(whole, fragsize=800)]
    header = IPv6(src=f"2001:db8:7::{number}", dst=destination or VIP6)
    return [IPv6(bytes(one)) for one in fragment6(header / IPv6ExtHdrFragment(id=number + 1) / transport / DATA, 900)]


@pytest.mark.parametrize(("address", "family"), VIPS)
@pytest.mark.parametrize("proto", [TCP, UDP])
def test_all_fragments_go_where_whole_packets_go_if_no_port_decides(
    portless: LoadedChain, address: str, family: int, proto: type[Packet]
) -> None:
    used = set()
    for number in range(40):
        transport = proto(sport=1000 + number, dport=2000 + number)
        if proto is TCP:
            transport.flags = "A"
        three = pieces(number, family, transport)
        whole = type(three[0])(src=three[0].src, dst=address) / transport
        home = server_of(portless, LINK[0] / whole, "ring")
        used.add(home)

        assert len(three) == 3
        for link in LINK:
            assert [home] * 3 == [server_of(portless, link / one, "ring") for one in three]
            assert home == server_of(portless, link / three[2], "ring"), "also if it comes first"

    assert len(used) > len(SERVERS) // 2


def test_all_fragments_of_a_packet_go_to_one_backend_in_slots_that_move_too(portless: LoadedChain) -> None:
    portless_vips = services(0, ["no-source-port"])
    lead(portless, *({**one, "backend": backends("10.0.0.1")} for one in portless_vips))
    lead(portless, *portless_vips)
    for number, (_, family) in itertools.product(range(20), VIPS):
        transport = TCP(sport=1000 + number, dport=2000, flags="S")
        first, *others = pieces(number, family, TCP(sport=1000 + number, dport=2000, flags="A"))
        portless.send(LINK[0] / type(first)(src=first.src, dst=first.dst) / transport)  # at a new backend, and remembered
        home = portless.send(LINK[0] / first).scapy[IP].dst

        assert [home] * 2 == [portless.send(LINK[0] / one).scapy[IP].dst for one in others]


@pytest.mark.parametrize("way", [Way("gue", "10.0.0.1"), Way("gue", "fc00::1"), Way("ipip", "fc00::1")], ids=str)
def test_each_fragment_leaves_in_the_outer_header_that_the_format_says(loaded: LoadedChain, way: Way) -> None:
    lead(loaded)
    both = [vip(address, 0, "udp", backend=backends(way.backend), options=["no-source-port"]) for address in (VIP4, VIP6)]
    lead(loaded, *both, encapsulation=way.encapsulation)
    for link in LINK:
        for _, family in VIPS:
            for one in pieces(7, family, UDP(sport=1000, dport=2000)):
                for padding in (b"", b"\x77\x77\x77"):
                    expected = way.frame(link, one, one.src, 0, padding=padding)

                    assert expected == loaded.send(bytes(link / one) + padding).packet


@pytest.mark.parametrize("options", [[], ["hash-destination-port-only"], ["hash-source-and-destination-port"]])
@pytest.mark.parametrize(("address", "family"), VIPS)
def test_fragments_are_dropped_and_counted_where_a_port_decides(loaded: LoadedChain, address: str, family: int, options: list[str]) -> None:
    lead(loaded)
    lead(loaded, vip(address, 0, "udp", backend=backends(*SERVERS), options=options))
    before = loaded.counts("elb").get(FRAGMENT, 0)
    for one in pieces(7, family, UDP(sport=1000, dport=2000)):
        assert outcome(loaded.send(LINK[0] / one)) == FRAGMENT

    assert loaded.counts("elb")[FRAGMENT] == before + 3


def test_fragments_for_a_port_of_a_vip_are_dropped(plain: LoadedChain) -> None:
    for _, family in VIPS:
        for proto in (TCP, UDP):
            for one in pieces(7, family, proto(sport=1000, dport=PORT)):
                assert outcome(plain.send(LINK[0] / one)) == FRAGMENT


def test_what_is_for_no_vip_goes_on_in_fragments_too(plain: LoadedChain) -> None:
    for _, family in VIPS:
        for one in pieces(7, family, UDP(sport=1000, dport=PORT), destination=OTHER4 if family == 4 else OTHER6):
            assert passed(plain.send(LINK[0] / one))

        first, *others = pieces(7, family, UDP(sport=1000, dport=PORT + 1))

        assert passed(plain.send(LINK[0] / first)), "the first one says its port"
        for one in others:
            assert outcome(plain.send(LINK[0] / one)) == FRAGMENT, "of the others nobody knows it"


def test_later_fragments_of_other_protocols_go_on(plain: LoadedChain) -> None:
    for proto in (47, 50, 132):
        assert passed(plain.send(LINK[0] / IP(src="198.51.100.1", dst=VIP4, proto=proto, frag=10) / DATA))
        assert passed(plain.send(LINK[0] / IPv6(src="2001:db8::1", dst=VIP6) / IPv6ExtHdrFragment(nh=proto, offset=10) / DATA))


def test_later_fragments_of_icmp_are_dropped(plain: LoadedChain) -> None:
    assert outcome(plain.send(LINK[0] / IP(src="198.51.100.1", dst=VIP4, proto=1, frag=10) / DATA)) == FRAGMENT
    assert outcome(plain.send(LINK[0] / IP(src="198.51.100.1", dst=VIP4, flags="MF") / ICMP() / DATA)) == FRAGMENT


def test_an_atomic_fragment_is_a_whole_packet(plain: LoadedChain) -> None:
    used = set()
    for number in range(40):
        header = IPv6(src=f"2001:db8:7::{number}", dst=VIP6)
        for proto in (TCP(sport=1000, dport=PORT, flags="A"), UDP(sport=1000, dport=PORT)):
            home = server_of(plain, LINK[0] / header / proto / SHORT, "ring")
            used.add(home)
            for atomic in (
                header / IPv6ExtHdrFragment(id=9) / proto / SHORT,
                header / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(id=9) / proto / SHORT,
            ):
                for link in LINK:
                    assert home == server_of(plain, link / atomic, "ring")
    assert len(used) > 1


def test_a_first_fragment_that_hides_its_ports_is_malformed(portless: LoadedChain) -> None:
    for length in range(8):
        cut = Raw(bytes(UDP(sport=1000, dport=PORT))[:length])

        assert outcome(portless.send(LINK[0] / IP(src="198.51.100.1", dst=VIP4, proto=17, flags="MF") / cut)) == (
            Verdict.DROP,
            "malformed",
        )
        assert outcome(portless.send(LINK[0] / IPv6(src="2001:db8::1", dst=VIP6) / IPv6ExtHdrFragment(nh=17, m=1) / cut)) == (
            Verdict.DROP,
            "malformed",
        )


def test_df_and_the_evil_bit_make_no_fragment(plain: LoadedChain) -> None:
    for flags in ("DF", "evil", "DF+evil"):
        packet = IP(src="198.51.100.1", dst=VIP4, flags=flags) / UDP(sport=1000, dport=PORT)

        assert server_of(plain, LINK[0] / packet, "ring")
