# SPDX-License-Identifier: Apache-2.0
"""Packets that name their backend, and clients whose addresses do: they go there, and everybody else to the backend of the slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadChain, LoadedChain

from plugins.elb.tests.balancer import PORT, SERVERS, balancer_of, lead, server_of
from plugins.elb.tests.documents import backends, vip
from plugins.elb.tests.packets import CLIENT4, CLIENT6, LINKS, TO4, TO6, VIP4, VIP6

LINK = [there for there, _ in LINKS]
OTHER4 = "10.200.1.2"
STRANGER = "10.0.0.77"
"""a backend of another VIP alone"""


def of_16_bits(server: int) -> bytes:
    return (1 << 62 | server << 46).to_bytes(8, "big")


def of_24_bits(server: int) -> bytes:
    return b"\x80" + server.to_bytes(3, "big") + bytes(4)


def of_32_bits(server: int) -> bytes:
    return b"\xc0" + server.to_bytes(4, "big") + bytes(3)


def short(connection_id: bytes) -> bytes:
    return b"\x40" + connection_id


def long(connection_id: bytes) -> bytes:
    return b"\xe0\0\0\0\1" + bytes([len(connection_id)]) + connection_id


def tcp(server: int) -> Packet:
    return TCP(sport=40000, dport=PORT, flags="A", options=[("NOP", None), ("NOP", None), (0xB7, server.to_bytes(4, "little"))])


def udp(payload: bytes) -> Packet:
    return UDP(sport=40000, dport=PORT) / Raw(payload + b"some data")


@attrs.frozen
class Kind:
    """A way to name a backend: the option of the VIP, the reason, the highest id, and a packet for an id."""

    option: str
    protocol: str
    reason: str
    highest: int
    packet: Callable[[int], Packet]


KINDS = [
    Kind("quic", "udp", "quic_id", 0xFFFF, lambda server: udp(short(of_16_bits(server)))),
    Kind("quic", "udp", "quic_id", 0xFFFFFF, lambda server: udp(short(of_24_bits(server)))),
    Kind("quic", "udp", "quic_id", 0xFFFFFFFF, lambda server: udp(short(of_32_bits(server)))),
    Kind("quic", "udp", "quic_id", 0xFFFF, lambda server: udp(long(of_16_bits(server)))),
    Kind("quic", "udp", "quic_id", 0xFFFFFF, lambda server: udp(long(of_24_bits(server)))),
    Kind("quic", "udp", "quic_id", 0xFFFFFFFF, lambda server: udp(long(of_32_bits(server)))),
    Kind("server-id", "tcp", "server_id", 0xFFFFFFFF, tcp),
    Kind("udp-stable", "udp", "stable_id", 0xFFFFFF, lambda server: udp(b"\x52" + server.to_bytes(3, "big") + bytes(4))),
]
NAMES = [
    "QUIC short 16",
    "QUIC short 24",
    "QUIC short 32",
    "QUIC long 16",
    "QUIC long 24",
    "QUIC long 32",
    "TCP option",
    "UDP stable routing",
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=NAMES)


@pytest.fixture(scope="module")
def loaded(load_for_all: LoadChain) -> LoadedChain:
    return balancer_of(load_for_all)


@pytest.fixture
def chain(loaded: LoadedChain) -> LoadedChain:
    """A balancer without VIPs."""
    lead(loaded)
    return loaded


def members(kind: Kind, *without: str, **marks: dict[str, Any]) -> list[dict[str, Any]]:
    """All servers but some, with ids up to the highest; `marks` by the last number of an address."""
    ids = [1, 2, 77, 0x1234, kind.highest - 2, kind.highest - 1, kind.highest, 5]
    return [
        {"address": server, "server_id": number, **marks.get(f"_{server.rpartition('.')[2]}", {})}
        for server, number in zip(SERVERS, ids, strict=True)
        if server not in without
    ]


def services(kind: Kind, *without: str, **marks: dict[str, Any]) -> list[dict[str, Any]]:
    """VIPs of both families with these servers, and one with another."""
    servers = members(kind, *without, **marks)
    these = [vip(address, PORT, kind.protocol, options=[kind.option], backend=servers) for address in (VIP4, VIP6)]
    return [*these, vip(OTHER4, PORT, kind.protocol, options=[kind.option], backend=[{"address": STRANGER, "server_id": 99}])]


def client(number: int, family: int = 4, destination: str = VIP4) -> Packet:
    """An IP header of some client."""
    return IP(src=f"198.51.100.{number}", dst=destination) if family == 4 else IPv6(src=f"2001:db8:7::{number}", dst=VIP6)


@each_kind
def test_a_packet_goes_to_the_backend_that_it_names(chain: LoadedChain, kind: Kind) -> None:
    lead(chain, *services(kind))
    extended = IPv6(src=CLIENT6, dst=VIP6) / IPv6ExtHdrDestOpt()
    options = IP(src=CLIENT4, dst=VIP4, options=b"\x94\x04\0\0" * 10)
    for link in LINK:
        for server in members(kind):
            for to in (TO4, TO6, options, extended):
                assert server["address"] == server_of(chain, link / to / kind.packet(server["server_id"]), kind.reason)


@each_kind
def test_an_id_that_nobody_of_the_vip_has_is_ignored(chain: LoadedChain, kind: Kind) -> None:
    lead(chain, *services(kind))
    used = set()
    for number in range(30):
        at = LINK[0] / client(number)
        slots = server_of(chain, at / kind.packet(0), "ring")
        used.add(slots)

        assert slots == server_of(chain, at / kind.packet(1000 + number), "ring")
        assert slots == server_of(chain, at / kind.packet(99), "ring"), "the id of another VIP's backend"
    assert len(used) > 1
    assert STRANGER not in used


@each_kind
def test_without_the_option_nobody_looks_for_ids(chain: LoadedChain, kind: Kind) -> None:
    lead(chain, vip(VIP4, PORT, kind.protocol, backend=members(kind)))
    for number in range(10):
        at = LINK[0] / client(number)

        assert server_of(chain, at / kind.packet(0), "ring") == server_of(chain, at / kind.packet(77), "ring")


@each_kind
@pytest.mark.parametrize("mark", [{"drain": True}, {"weight": 0}, {"down": True}], ids=["draining", "weight 0", "down"])
def test_a_backend_that_takes_no_new_flows_is_still_reached_by_its_id(chain: LoadedChain, kind: Kind, mark: dict[str, Any]) -> None:
    lead(chain, *services(kind))
    lead(chain, *services(kind, _3=mark))

    assert server_of(chain, LINK[0] / TO4 / kind.packet(77), kind.reason) == "10.0.0.3"


@each_kind
def test_a_removed_backend_is_not_reached_by_its_id_nor_who_comes_after_it(chain: LoadedChain, kind: Kind) -> None:
    lead(chain, *services(kind))
    lead(chain, *services(kind, "10.0.0.3"))
    for number in range(30):
        assert chain.send(LINK[0] / client(number) / kind.packet(77)).reason in {"ring", "moving", "tracked"}

    servers = [*members(kind, "10.0.0.3"), {"address": "10.0.0.30", "server_id": 78}]
    lead(chain, vip(VIP4, PORT, kind.protocol, options=[kind.option], backend=servers))

    assert chain.send(LINK[0] / TO4 / kind.packet(77)).reason in {"ring", "moving", "tracked"}
    assert server_of(chain, LINK[0] / TO4 / kind.packet(78), kind.reason) == "10.0.0.30"


@each_kind
def test_an_id_that_is_given_to_another_backend_leads_there_at_once(chain: LoadedChain, kind: Kind) -> None:
    for server in ("10.0.0.1", "10.0.0.2", "10.0.0.1"):
        two = [{"address": one, "server_id": 7} if one == server else {"address": one} for one in SERVERS[:2]]
        lead(chain, vip(VIP4, PORT, kind.protocol, options=[kind.option], backend=two))

        assert server == server_of(chain, LINK[0] / TO4 / kind.packet(7), kind.reason)


def test_a_backend_that_is_down_is_left_by_its_id_where_flows_migrate(chain: LoadedChain) -> None:
    kind = KINDS[0]
    servers = members(kind, _3={"down": True})
    lead(chain, vip(VIP4, PORT, "udp", options=["quic", "udp-migration"], backend=servers))
    for number in range(30):
        assert server_of(chain, LINK[0] / client(number) / kind.packet(77), "ring") != "10.0.0.3"


def test_a_flow_that_a_connection_id_led_elsewhere_stays_there_without_one(chain: LoadedChain) -> None:
    kind = KINDS[0]
    lead(chain, *services(kind))
    for family in (4, 6):
        for number in range(20):
            at = LINK[0] / client(number, family)
            slots = server_of(chain, at / kind.packet(0), "ring")
            server_of(chain, at / kind.packet(77), "quic_id")

            assert server_of(chain, at / kind.packet(0), "ring" if slots == "10.0.0.3" else "tracked") == "10.0.0.3"


def test_a_syn_names_nobody_and_initial_packets_are_new_connections(chain: LoadedChain) -> None:
    option, quic = KINDS[6], KINDS[3]
    lead(chain, *services(option))
    syn = option.packet(77)
    syn.flags = "S"

    assert server_of(chain, LINK[0] / TO4 / syn, "ring") == server_of(chain, LINK[0] / TO4 / option.packet(0), "ring")

    lead(chain, *services(quic))
    initial = udp(b"\xc0" + long(of_16_bits(77))[1:])

    assert server_of(chain, LINK[0] / TO4 / initial, "ring") == server_of(chain, LINK[0] / TO4 / udp(b""), "ring")


# source routes


def routed(family: int) -> dict[str, Any]:
    """A VIP with a route inside a route, and one beside them."""
    nets = ("198.51.0.0/16", "198.51.100.0/24", "203.0.113.7/32") if family == 4 else ("2001:db8::/32", "2001:db8:7::/48", "fd00::7/128")
    names = ("wide", "narrow", "one")
    routes = [
        {"name": name, "prefixes": [net], "backend": backends(f"10.0.{at}.1", f"10.0.{at}.2")}
        for at, (name, net) in enumerate(zip(names, nets, strict=True), 1)
    ]
    return vip(VIP4 if family == 4 else VIP6, PORT, "tcp", backend=backends(*SERVERS), source=routes)


CLIENTS = {
    4: {"198.51.1.": 1, "198.51.100.": 2, "203.0.113.": 0, "192.0.2.": 0},
    6: {"2001:db8:8::": 1, "2001:db8:7::": 2, "fd00::": 0, "2001:db9::": 0},
}


@pytest.mark.parametrize("family", [4, 6])
def test_the_longest_route_of_the_clients_address_leads_to_backends_of_its_own(chain: LoadedChain, family: int) -> None:
    lead(chain, routed(4), routed(6))
    for start, route in CLIENTS[family].items():
        used = set()
        for number in range(10, 50):
            to = IP(src=f"{start}{number}", dst=VIP4) if family == 4 else IPv6(src=f"{start}{number}", dst=VIP6)
            used.add(server_of(chain, LINK[0] / to / TCP(sport=40000, dport=PORT, flags="A"), "ring"))

        assert len(used) > 1
        assert used <= ({f"10.0.{route}.1", f"10.0.{route}.2"} if route else set(SERVERS))
    one = IP(src="203.0.113.7", dst=VIP4) if family == 4 else IPv6(src="fd00::7", dst=VIP6)

    assert server_of(chain, LINK[0] / one / TCP(dport=PORT, flags="A"), "ring").startswith("10.0.3.")


def test_a_route_is_of_its_vip_alone(chain: LoadedChain) -> None:
    lead(chain, routed(4), vip(OTHER4, PORT, "tcp", backend=backends(STRANGER)))
    for number in range(10):
        assert server_of(chain, LINK[0] / client(number, destination=OTHER4) / TCP(dport=PORT, flags="A"), "ring") == STRANGER


def test_a_route_without_backends_takes_nothing(chain: LoadedChain) -> None:
    empty = routed(4)
    empty["source"][1]["backend"] = []
    lead(chain, empty)

    assert chain.send(LINK[0] / client(1) / TCP(dport=PORT, flags="A")).reason == "no_backend"
    assert server_of(chain, LINK[0] / IP(src="198.51.1.1", dst=VIP4) / TCP(dport=PORT, flags="A"), "ring").startswith("10.0.1.")


def test_an_id_comes_before_a_route_and_may_name_a_backend_of_either(chain: LoadedChain) -> None:
    service = routed(4)
    service["options"] = ["server-id"]
    service["backend"][0]["server_id"] = 1
    service["source"][0]["backend"][0]["server_id"] = 2
    lead(chain, service)
    for start in CLIENTS[4]:
        for number, server in ((1, SERVERS[0]), (2, "10.0.1.1")):
            assert server == server_of(chain, LINK[0] / IP(src=f"{start}9", dst=VIP4) / tcp(number), "server_id")
