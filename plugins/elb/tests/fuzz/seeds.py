# SPDX-License-Identifier: Apache-2.0
"""Where mutations begin: a balancer with one VIP of each kind, and good packets for all of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from xdpchain.testing.frames import bytes_of, error_of, link_of, mend

NEXT_HOP = bytes.fromhex("025aa53cc396")
"""far from those of the frames: no change of one makes the other"""
OURS, ROUTER = "02:00:00:00:00:01", "02:00:00:00:00:02"
CLIENT4, CLIENT6 = "198.51.100.7", "2001:db8:c::7"
SOURCE4, SOURCE6 = "10.0.13.37", "fc00:2307::1337"
BACKENDS4 = tuple(f"10.0.0.{number}" for number in range(1, 6))
BACKENDS6 = tuple(f"fc00::{number}" for number in range(1, 6))
GUE_PORT = 6080
MTUS = (1500, 9000)
"""Of the way to the backends; with the first one most of the large frames do not fit, with the other they are sent in several buffers."""
REACHED = frozenset(
    (
        "ring",
        "moving",
        "tracked",
        "quic_id",
        "server_id",
        "stable_id",
        "icmp_error",
        "echo_reply",
        "echo_refused",
        "too_big",
        "too_big_limited",
        "no_backend",
        "fragment",
        "malformed",
    )
)
"""The reasons that mutated frames must come to; no other ones can be told here, but those of a node that is not set up."""
_SERVER_ID = bytes.fromhex("b706") + struct.pack("<I", 7)


def _vip(place: str, port: int, protocol: str, backends: Sequence[str], *options: str, **keys: Any) -> dict[str, Any]:
    servers = [{"address": address, "server_id": number} for number, address in enumerate(backends, 7)]
    return {"address": place, "port": port, "protocol": protocol, "options": list(options), "backend": servers, **keys}


VIPS: Sequence[dict[str, Any]] = (
    _vip("10.200.1.1", 80, "tcp", BACKENDS4),
    _vip("10.200.1.1", 443, "udp", BACKENDS4, "quic"),
    _vip("10.200.1.2", 0, "tcp", BACKENDS4, encapsulation="ipip"),
    _vip("10.200.1.3", 80, "tcp", BACKENDS6, "server-id"),
    _vip("10.200.1.4", 0, "udp", BACKENDS4, "no-source-port"),
    _vip("10.200.1.5", 5000, "udp", BACKENDS6, "udp-stable", encapsulation="ipip"),
    _vip(
        "10.200.1.6", 80, "tcp", BACKENDS4, source=[{"name": "all", "prefixes": ["198.51.0.0/16"], "backend": [{"address": BACKENDS6[0]}]}]
    ),
    _vip("10.200.1.7", 80, "tcp", ()),
    _vip("10.200.2.0/24", 53, "udp", BACKENDS4, "hash-destination-port-only"),
    _vip("10.200.3.0/24", 0, "udp", BACKENDS6, "hash-source-and-destination-port"),
    _vip("2001:db8:200::1", 80, "tcp", BACKENDS6),
    _vip("2001:db8:200::1", 443, "udp", BACKENDS6, "quic", encapsulation="ipip"),
    _vip("2001:db8:200::2", 0, "tcp", BACKENDS6, encapsulation="ipip"),
    _vip("2001:db8:200::3", 80, "tcp", BACKENDS4, "server-id"),
    _vip("2001:db8:200::4", 0, "udp", BACKENDS6, "no-source-port"),
    _vip("2001:db8:201::/64", 53, "udp", BACKENDS4, "no-tracking"),
)
NETWORKS: Sequence[IPv4Network | IPv6Network] = tuple(ip_network(vip["address"]) for vip in VIPS)


def table(mtu: int, vips: Sequence[dict[str, Any]] = VIPS) -> dict[str, Any]:
    """The table of the balancer."""
    return {
        "source": [SOURCE4, SOURCE6],
        "gue_port": GUE_PORT,
        "next_hop": NEXT_HOP.hex(":"),
        "mtu": mtu,
        "flow_table": 65536,
        "max_vips": 32,
        "max_backends": 32,
        "max_members": 256,
        "vip": list(vips),
    }


def document(mtu: int) -> dict[str, Any]:
    """A node with the balancer on eth0."""
    return {"interface": {"eth0": {"chain": ["elb"]}}, "function": {"elb": table(mtu)}}


def without(vips: Sequence[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """The VIPs, each of which has lost one backend and drains another."""
    changed = []
    for vip in vips:
        backends = [dict(one) for at, one in enumerate(vip["backend"]) if at != number % len(BACKENDS4)]
        for backend in backends[:1]:
            backend["drain"] = True
        changed.append({**vip, "backend": backends})
    return changed


def _services() -> Iterator[Packet]:
    """Good TCP and UDP packets for every VIP, from IP on."""
    for vip in VIPS:
        network = ip_network(vip["address"])
        address, six = str(network[-1] if network.num_addresses > 1 else network[0]), network.version == 6
        ip = IPv6(src=CLIENT6, dst=address, tc=0x5B, fl=77) if six else IP(src=CLIENT4, dst=address, tos=0x5B, id=9)
        port = vip["port"] or 4242
        if vip["protocol"] == "tcp":
            yield ip / TCP(sport=31337, dport=port, flags="S", options=[("MSS", 1460), ("SAckOK", b""), ("NOP", None), ("WScale", 7)])
            yield (
                ip
                / TCP(sport=31337, dport=port, flags="A", options=[("NOP", None), ("NOP", None), ("Timestamp", (1, 2))])
                / Raw(b"data" * 9)
            )
            yield ip / TCP(sport=31338, dport=port, flags="FA")
            yield ip / TCP(sport=31339, dport=port, flags="R") / Raw(b"odd")
            yield (
                ip
                / TCP(sport=31340, dport=port, flags="PA", options=[("NOP", None), ("NOP", None), (0xB7, _SERVER_ID[2:])])
                / Raw(b"x" * 50)
            )
        else:
            yield ip / UDP(sport=31337, dport=port) / Raw(b"payload")
            yield ip / UDP(sport=31338, dport=port, chksum=0) / Raw(b"no checksum, odd")
            yield ip / UDP(sport=31339, dport=port)
            yield ip / UDP(sport=31340, dport=port) / Raw(bytes.fromhex("40 8000000a 00000000 ff") + bytes(20))
            yield ip / UDP(sport=31341, dport=port) / Raw(bytes.fromhex("e0 00000001 08 c000000007 000000 00") + bytes(30))
            yield ip / UDP(sport=31342, dport=port) / Raw(bytes.fromhex("52 000008 00000000") + bytes(30))
            yield ip / UDP(sport=31343, dport=port, len=15) / Raw(b"payload and what is behind it")


def _around() -> Iterator[Packet]:
    """ICMP, fragments, options, extension headers; and what is for nobody here."""
    four, six = IP(src=CLIENT4, dst="10.200.1.1"), IPv6(src=CLIENT6, dst="2001:db8:200::1")
    yield four / ICMP(id=3, seq=4) / Raw(b"ping")
    yield six / ICMPv6EchoRequest(id=3, seq=4) / Raw(b"ping!")
    answer4 = IP(src="10.200.1.1", dst=CLIENT4) / TCP(sport=80, dport=31337, flags="A") / Raw(bytes(40))
    answer6 = IPv6(src="2001:db8:200::1", dst=CLIENT6) / TCP(sport=80, dport=31337, flags="A") / Raw(bytes(40))
    yield IP(src="203.0.113.9", dst="10.200.1.1") / ICMP(type=3, code=4, nexthopmtu=1400) / answer4
    yield IP(src="203.0.113.9", dst="10.200.1.1") / ICMP(type=3, code=1) / Raw(bytes(answer4)[:28])
    yield IP(src="203.0.113.9", dst="10.200.1.1") / ICMP(type=11) / Raw(bytes(answer4))
    yield IPv6(src="2001:db8:99::9", dst="2001:db8:200::1") / ICMPv6PacketTooBig(mtu=1300) / answer6
    yield IPv6(src="2001:db8:99::9", dst="2001:db8:200::1") / ICMPv6DestUnreach() / Raw(bytes(answer6)[:48])
    yield four / ICMP(type=13) / Raw(bytes(12))
    portless = IP(src=CLIENT4, dst="10.200.1.4", id=77)
    yield IP(src=CLIENT4, dst="10.200.1.4", id=77, flags="MF", proto=17) / Raw(bytes(UDP(sport=1, dport=2, len=1000)) + bytes(992))
    yield IP(src=CLIENT4, dst="10.200.1.4", id=77, frag=125, proto=17) / Raw(b"the rest of it")
    yield IP(src=CLIENT4, dst="10.200.1.4", id=77, frag=125, proto=17) / Raw(b"a large piece of it" * 80)
    yield IP(src=CLIENT4, dst="10.200.1.1", id=78, frag=125, proto=6) / Raw(b"the rest of it")
    yield IPv6(src=CLIENT6, dst="2001:db8:200::4") / IPv6ExtHdrFragment(m=1, id=5, nh=17) / Raw(bytes(UDP(sport=1, dport=2)) + bytes(40))
    yield IPv6(src=CLIENT6, dst="2001:db8:200::4") / IPv6ExtHdrFragment(offset=6, id=5, nh=17) / Raw(b"the rest of it, odd")
    yield IP(src=CLIENT4, dst="10.200.1.1", options=[IPOption(b"\x94\x04\0\0")]) / TCP(sport=5, dport=80, flags="A")
    yield portless / UDP(sport=5, dport=9) / Raw(b"\xff" * 33)
    yield six / IPv6ExtHdrHopByHop() / TCP(sport=5, dport=80, flags="A") / Raw(b"behind a header")
    yield six / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting() / UDP(sport=5, dport=443, chksum=0) / Raw(b"behind two")
    yield IP(src=CLIENT4, dst="10.99.0.1") / TCP(sport=5, dport=80, flags="S")
    yield IP(src=CLIENT4, dst="10.200.1.1") / TCP(sport=5, dport=81, flags="S")
    yield IP(src=CLIENT4, dst="10.200.1.1", proto=47) / Raw(bytes(30))
    yield IPv6(src=CLIENT6, dst="2001:db8:99::1") / UDP(sport=5, dport=80)
    for size in (1420, 1444, 1452, 1453, 1472, 1473, 4000, 8900):
        yield four / TCP(sport=6, dport=80, flags="A") / Raw(bytes(range(256)) * (size // 256) + bytes(size % 256))
    for size in (1400, 1412, 1413, 1452, 8800):
        yield six / TCP(sport=6, dport=80, flags="A") / Raw(bytes(range(256)) * (size // 256) + bytes(size % 256))


def seeds() -> list[bytes]:
    """The frames: every packet untagged, some with one or two VLAN tags, some padded as Ethernet pads. All checksums are right."""
    frames = []
    for number, packet in enumerate((*_services(), *_around())):
        link = Ether(src=ROUTER, dst=OURS)
        frames.append(bytes(link / packet).ljust(60, b"\0"))
        if number % 3 == 0:
            frames.append(bytes(link / Dot1Q(vlan=5, prio=3) / packet))
        if number % 7 == 0:
            frames.append(bytes(link / Dot1AD(vlan=6) / Dot1Q(vlan=7) / packet))
    return [_mended(frame) for frame in frames]


def _mended(frame: bytes) -> bytes:
    """For what scapy computes otherwise: a UDP datagram that is shorter than its IP packet."""
    at, ethertype = link_of(frame)
    if error_of(frame[at : at + bytes_of(frame, at, ethertype)])[1]:
        return frame
    right = bytearray(frame)
    mend(right)
    return bytes(right)
