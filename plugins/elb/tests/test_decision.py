# SPDX-License-Identifier: Apache-2.0
"""Which VIP a packet is for, and which backend its slot names."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadChain, LoadedChain
from xdpchain_elb.hashing import backend_hash, offset_and_skip, slot_of

from plugins.elb.tests.balancer import SERVERS, balancer_of, lead, passed, server_of
from plugins.elb.tests.documents import backends, vip
from plugins.elb.tests.model import Turn, maglev
from plugins.elb.tests.packets import CLIENT4, CLIENT6, ETHER, LINKS, TO4, VIP4, VIP6

OTHER4, OTHER6 = "10.200.1.2", "fc00:1::2"
NET4, WIDE4, NET6, WIDE6 = "10.200.1.0/24", "10.200.0.0/16", "fc00:1::/64", "fc00::/16"
STEPS = {
    "exact": "10.0.0.1",
    "prefix": "10.0.0.2",
    "wide prefix": "10.0.0.3",
    "any port": "10.0.0.4",
    "prefix, any port": "10.0.0.5",
    "wide prefix, any port": "10.0.0.6",
}
"""the order of the decision, each step with the backend of its VIP"""


def order_of_vips(family: int, without: Iterable[str] = ()) -> list[dict[str, Any]]:
    """A VIP for each step, but for some."""
    host, net, wide = (VIP4, NET4, WIDE4) if family == 4 else (VIP6, NET6, WIDE6)
    where = dict(zip(STEPS, [(host, 80), (net, 80), (wide, 80), (host, 0), (net, 0), (wide, 0)], strict=True))
    return [vip(*where[step], "tcp", backend=backends(server)) for step, server in STEPS.items() if step not in without]


def segment(destination: str = VIP4, port: int = 80, source_port: int = 40000, **keys: Any) -> Packet:
    to = IP(src=CLIENT4, dst=destination) if ip_address(destination).version == 4 else IPv6(src=CLIENT6, dst=destination)
    return ETHER / to / TCP(sport=source_port, dport=port, flags="A", **keys)


def datagram(destination: str = VIP4, port: int = 80, source_port: int = 40000) -> Packet:
    to = IP(src=CLIENT4, dst=destination) if ip_address(destination).version == 4 else IPv6(src=CLIENT6, dst=destination)
    return ETHER / to / UDP(sport=source_port, dport=port)


@pytest.fixture(scope="module")
def loaded(load_for_all: LoadChain) -> LoadedChain:
    return balancer_of(load_for_all)


@pytest.fixture
def chain(loaded: LoadedChain) -> LoadedChain:
    """A balancer without VIPs."""
    lead(loaded)
    return loaded


# the order


@pytest.mark.parametrize("family", [4, 6])
def test_an_exact_vip_comes_before_a_prefix_and_both_before_any_port(chain: LoadedChain, family: int) -> None:
    destination = VIP4 if family == 4 else VIP6
    for number, server in enumerate(STEPS.values()):
        lead(chain, *order_of_vips(family, list(STEPS)[:number]))

        assert server == server_of(chain, segment(destination), "ring")

    lead(chain)

    assert passed(chain.send(segment(destination)))


@pytest.mark.parametrize("family", [4, 6])
def test_another_port_or_address_is_for_what_is_left(chain: LoadedChain, family: int) -> None:
    host, sibling, cousin, stranger = (VIP4, OTHER4, "10.200.77.1", "10.201.0.1") if family == 4 else (VIP6, OTHER6, "fc00:2::1", "fd00::1")
    lead(chain, *order_of_vips(family))

    assert STEPS["any port"] == server_of(chain, segment(host, 81), "ring")
    assert STEPS["prefix"] == server_of(chain, segment(sibling), "ring")
    assert STEPS["prefix, any port"] == server_of(chain, segment(sibling, 81), "ring")
    assert STEPS["wide prefix"] == server_of(chain, segment(cousin), "ring")
    assert STEPS["wide prefix, any port"] == server_of(chain, segment(cousin, 65535), "ring")
    assert passed(chain.send(segment(stranger)))
    assert passed(chain.send(datagram(host)))


def test_vips_of_both_protocols_and_families_do_not_mix(chain: LoadedChain) -> None:
    four = [(VIP4, "tcp"), (VIP4, "udp"), (VIP6, "tcp"), (VIP6, "udp")]
    lead(
        chain,
        *(vip(address, 80, protocol, backend=backends(server)) for (address, protocol), server in zip(four, SERVERS, strict=False)),
    )
    for (address, protocol), server in zip(four, SERVERS, strict=False):
        packet = segment(address) if protocol == "tcp" else datagram(address)

        assert server == server_of(chain, packet, "ring")


def test_an_address_and_its_prefix_of_full_length_are_the_same(chain: LoadedChain) -> None:
    lead(chain, vip(f"{VIP4}/32", 80, backend=backends("10.0.0.1")), vip(NET4, 80, backend=backends("10.0.0.2")))

    assert server_of(chain, segment(VIP4), "ring") == "10.0.0.1"
    assert server_of(chain, segment(OTHER4), "ring") == "10.0.0.2"


def test_all_of_a_family_may_be_a_vip(chain: LoadedChain) -> None:
    lead(chain, vip("0.0.0.0/0", 0, backend=backends("10.0.0.1")), vip("2000::/3", 0, backend=backends("10.0.0.2")))

    assert server_of(chain, segment("8.8.8.8", 1), "ring") == "10.0.0.1"
    assert server_of(chain, segment("2001:db8::5", 1), "ring") == "10.0.0.2"
    assert passed(chain.send(segment("fc00::5", 1)))


def test_port_0_in_a_packet_is_a_port_like_others(chain: LoadedChain) -> None:
    lead(chain, vip(VIP4, 80))

    assert passed(chain.send(segment(VIP4, 0)))

    lead(chain, vip(VIP4, 80), vip(VIP4, 0, backend=backends("10.0.0.4")))

    assert server_of(chain, segment(VIP4, 0), "ring") == "10.0.0.4"


FOR_NOBODY = {
    "another address": segment(OTHER4),
    "another port": segment(VIP4, 81),
    "another protocol": datagram(VIP4),
    "another IPv6 address": segment(OTHER6),
    "an IPv4 address in the clothes of IPv6": segment(f"::ffff:{VIP4}"),
    "SCTP": ETHER / TO4 / SCTP(sport=1, dport=80),
    "GRE": ETHER / IP(src=CLIENT4, dst=VIP4, proto=47) / Raw(bytes(20)),
    "IP in IP": ETHER / TO4 / IP(src=CLIENT4, dst=VIP4) / TCP(dport=80),
    "IPv6 without anything in it": ETHER / IPv6(src=CLIENT6, dst=VIP6, nh=59),
    "ARP": ETHER / ARP(pdst=VIP4),
    "no IP": ETHER / Raw(bytes(46)),
    "an echo request to somebody else": ETHER / IP(src=CLIENT4, dst=OTHER4) / ICMP(),
    "an echo reply": ETHER / TO4 / ICMP(type=0),
    "a fragment for somebody else": ETHER / IP(src=CLIENT4, dst=OTHER4, proto=17, frag=8) / Raw(bytes(30)),
    "options, for somebody else": ETHER / IP(src=CLIENT4, dst=OTHER4, options=b"\x94\x04\0\0") / TCP(dport=80),
    "three tags": LINKS[2][0] / LINKS[1][0].getlayer(1) / TO4 / TCP(dport=80),
}


@pytest.mark.parametrize("packet", FOR_NOBODY.values(), ids=FOR_NOBODY.keys())
def test_what_is_for_no_vip_goes_on_untouched(chain: LoadedChain, packet: Packet) -> None:
    lead(chain, vip(VIP4, 80), vip(VIP6, 80))

    assert passed(chain.send(packet))
    assert passed(chain.send(bytes(packet) + b"\xa5" * 9))


def test_the_chain_goes_on_behind_what_is_for_no_vip(chain: LoadedChain) -> None:
    lead(chain, vip(VIP4, 80))
    before = chain.counts("elb")

    result = chain.send(segment(OTHER4))

    assert ("", "end_of_chain") == (result.function, result.reason)
    assert {("next", ""): 1} == {
        (verdict.name.lower(), reason): count - before.get((verdict, reason), 0)
        for (verdict, reason), count in chain.counts("elb").items()
        if count != before.get((verdict, reason), 0)
    }


# the slot


def owners() -> list[str]:
    """Whose the slots of a ring of all servers are."""
    servers = sorted(map(ip_address, SERVERS), key=backend_hash)
    turns = [Turn(SERVERS.index(str(one)) + 1, *offset_and_skip(backend_hash(one)), 1) for one in servers]
    return [SERVERS[member - 1] for member in maglev(turns, 2)]


@pytest.fixture(scope="module")
def ring() -> list[str]:
    return owners()


NO_SOURCE, NO_DESTINATION, DESTINATION_ONLY = 1, 2, 4
HASHES = {
    "nothing said": (80, [], 0),
    "no source port": (80, ["no-source-port"], NO_SOURCE),
    "destination port only": (80, ["hash-destination-port-only"], DESTINATION_ONLY),
    "any port": (0, [], NO_DESTINATION),
    "any port, no source port": (0, ["no-source-port"], NO_SOURCE | NO_DESTINATION),
    "any port, destination port only": (0, ["hash-destination-port-only"], DESTINATION_ONLY),
    "any port, source and destination port": (0, ["hash-source-and-destination-port"], 0),
}


@pytest.mark.parametrize(("port", "options", "hashed"), HASHES.values(), ids=HASHES.keys())
def test_a_flow_goes_where_the_format_says_whatever_the_options_leave_in_the_hash(
    chain: LoadedChain, ring: list[str], port: int, options: list[str], hashed: int
) -> None:
    lead(chain, *(vip(address, port, "tcp", backend=backends(*SERVERS), options=options) for address in (VIP4, VIP6)))
    used = set()
    for number, family in itertools.product(range(60), (4, 6)):
        client = f"198.51.{number}.{255 - number}" if family == 4 else f"2001:db8:{number}::{number * 31:x}"
        source_port, destination_port = number * 1091 % 65536, port or number * 257 + 1
        to = IP(src=client, dst=VIP4) if family == 4 else IPv6(src=client, dst=VIP6)
        expected = ring[slot_of(ip_address(client), source_port, destination_port, hashed)]
        used.add(expected)

        assert expected == server_of(chain, ETHER / to / TCP(sport=source_port, dport=destination_port, flags="A"), "ring")
    assert len(used) <= 2 if hashed == DESTINATION_ONLY and port else len(used) > 4


def test_the_flow_of_the_formats_own_example_goes_where_it_goes_in_katran(chain: LoadedChain, ring: list[str]) -> None:
    lead(chain, *(vip(address, 80, "tcp", backend=backends(*SERVERS)) for address in (VIP4, VIP6)))
    from4, from6 = IP(src="192.168.1.1", dst=VIP4), IPv6(src="fc00:2::1", dst=VIP6)

    assert ring[48717] == server_of(chain, ETHER / from4 / TCP(sport=31337, dport=80, flags="A"), "ring")
    assert ring[37505] == server_of(chain, ETHER / from6 / TCP(sport=31337, dport=80, flags="A"), "ring")
