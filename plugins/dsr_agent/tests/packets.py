# SPDX-License-Identifier: Apache-2.0
"""What the tests send: packets in all encapsulations; and a judge of what comes out: lengths and checksums of all headers, outer, inner and quoted."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import ip_address

import attrs
from scapy.layers.inet import IP, UDP, in4_chksum
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    in6_chksum,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import checksum

NEIGHBOUR_MAC, NODE_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
CLIENT4, CLIENT6 = "192.0.2.7", "2001:db8:c::7"
VIP4, VIP6 = "10.200.1.1", "fd00::1"
WORKLOAD4, WORKLOAD6 = "10.1.0.5", "fd01::5"
BALANCER4, BALANCER6 = "10.0.13.4", "fc00:2307::4"
"""in accept_from, as conftest has it"""
STRANGER4, STRANGER6 = "10.0.14.4", "fc00:2308::4"
"""not in it"""
PORT, WORKLOAD_PORT, CLIENT_PORT = 443, 8443, 40000
GUE_PORT = 6080
OUTER_PORT = 31000

ETHER = Ether(src=NEIGHBOUR_MAC, dst=NODE_MAC)
LINKS = [ETHER, ETHER / Dot1Q(vlan=5, prio=3), ETHER / Dot1AD(vlan=5) / Dot1Q(vlan=6)]
TO_VIP = {4: IP(src=CLIENT4, dst=VIP4), 6: IPv6(src=CLIENT6, dst=VIP6)}
TO_WORKLOAD = {4: IP(src=CLIENT4, dst=WORKLOAD4), 6: IPv6(src=CLIENT6, dst=WORKLOAD6)}
FROM_VIP = {4: IP(src=VIP4, dst=CLIENT4), 6: IPv6(src=VIP6, dst=CLIENT6)}
FROM_WORKLOAD = {4: IP(src=WORKLOAD4, dst=CLIENT4), 6: IPv6(src=WORKLOAD6, dst=CLIENT6)}
"""all by family"""
SERVICES = [
    {
        "vip": vip,
        "port": PORT,
        "protocol": protocol,
        "workload": workload,
        "backend_port": WORKLOAD_PORT,
        "endpoint": [WORKLOAD4, WORKLOAD6],
    }
    for vip, workload in ((VIP4, WORKLOAD4), (VIP6, WORKLOAD6))
    for protocol in ("tcp", "udp")
]
"""one of each family and protocol; each is reached by outer headers of both families"""

_ICMP, _IPIP, _TCP, _UDP, _IPV6, _ICMPV6 = 1, 4, 6, 17, 41, 58
_EXTENSIONS = (IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting)
_ICMP_ERRORS = {3, 11, 12}
_ICMPV6_INFORMATION = 128
"""ICMPv6 types below are errors"""


@attrs.frozen
class Outer:
    """
    An encapsulation: `Outer("gue", 4)` is GUE, variant 1, over IPv4.

    Args:
        form: "gue", "gue0" (variant 0) or "ipip" (any family in any).
        family: of the outer header.
        hops: alternate backends, addresses of that family; variant 0 only.
        next_hop: the index of the one that is to come.
        source: a load balancer's address when empty.
        destination: the workload's own address when empty.
        tos: or traffic class.
        ttl: or hop limit.
        check: whether the outer UDP header has a checksum.
        port: of GUE.
    """

    form: str = "gue"
    family: int = 4
    hops: Sequence[str] = ()
    next_hop: int = 0
    source: str = ""
    destination: str = ""
    tos: int = 0
    ttl: int = 64
    check: bool = True
    port: int = GUE_PORT

    def __str__(self) -> str:
        """What pytest calls it."""
        return f"{self.form} over IPv{self.family}" + (f" with {len(self.hops)} hops" if self.hops else "")

    @property
    def overhead(self) -> int:
        """Bytes around the packet."""
        ip = 20 if self.family == 4 else 40
        return ip + (0 if self.form == "ipip" else 8 + len(self._gue(b"\x45")))

    def around(self, inner: Packet | bytes) -> Packet:
        """The packet with the outer headers in front."""
        data = bytes(inner)
        if self.form == "ipip":
            return self._ip({4: _IPIP, 6: _IPV6}[data[0] >> 4]) / Raw(data)
        udp = UDP(sport=OUTER_PORT, dport=self.port)
        if not self.check:
            udp.chksum = 0
        return self._ip(_UDP) / udp / Raw(self._gue(data) + data)

    def _gue(self, inner: bytes) -> bytes:
        if self.form == "gue":
            return b""
        private = struct.pack("!HBB", 0, self.next_hop, len(self.hops)) if self.hops else b""
        private += b"".join(ip_address(hop).packed for hop in self.hops)
        return struct.pack("!BBH", len(private) // 4, {4: _IPIP, 6: _IPV6}[inner[0] >> 4], 0) + private

    def _ip(self, proto: int) -> Packet:
        if self.family == 4:
            return IP(
                src=self.source or BALANCER4, dst=self.destination or WORKLOAD4, tos=self.tos, ttl=self.ttl, id=0, flags="DF", proto=proto
            )
        return IPv6(src=self.source or BALANCER6, dst=self.destination or WORKLOAD6, tc=self.tos, hlim=self.ttl, nh=proto)


HOPS = {4: ("10.1.0.6", "10.1.0.7"), 6: ("fd01::6", "fd01::7")}
"""alternate backends by the outer family"""
OUTERS = [
    *(Outer(form, family) for form in ("gue", "gue0", "ipip") for family in (4, 6)),
    *(Outer("gue0", family, hops=hops, next_hop=len(hops)) for family, hops in HOPS.items()),
]
"""all encapsulations that are taken off at once"""


def assert_valid(frame: bytes, *, padding: int = 0, gue_port: int = GUE_PORT) -> None:
    """
    A receiver would take this frame, what it carries and what it quotes for whole: scapy computes the same lengths and checksums.

    Args:
        frame: from the Ethernet header on.
        padding: bytes behind the IP packet that are meant to be there.
        gue_port: UDP packets to it carry an IP packet.
    """
    link: Packet = Ether(frame)
    at = 14
    while isinstance(link.payload, (Dot1Q, Dot1AD)):
        link, at = link.payload, at + 4

    packet = frame[at : len(frame) - padding]

    assert {0x0800: 4, 0x86DD: 6}[link.type] == packet[0] >> 4
    _check_ip(packet, gue_port)


def _check_ip(packet: bytes, gue_port: int | None, *, quoted: bool = False) -> None:
    """A quote may end anywhere; what is behind its IP headers is looked at where it is whole."""
    if packet[0] >> 4 == 4:
        ip: Packet = IP(packet)
        header = ip.ihl * 4

        assert header >= 20
        assert checksum(packet[:header]) == 0
        assert ip.ttl > 0
        assert ip.len == len(packet) or (quoted and ip.len > len(packet))

        if ip.len == len(packet) and not (ip.flags.MF or ip.frag):
            _check_transport(ip.proto, ip, packet[header:], gue_port)
        return
    ip = IPv6(packet)
    length = 40 + ip.plen

    assert ip.version == 6
    assert ip.hlim > 0
    assert length == len(packet) or (quoted and length > len(packet))

    last: Packet = ip
    at = 40
    while isinstance(last.payload, _EXTENSIONS):
        last = last.payload
        at += 8 if isinstance(last, IPv6ExtHdrFragment) else 8 * (last.len + 1)
        if isinstance(last, IPv6ExtHdrFragment) and (last.m or last.offset):
            return
    if length == len(packet):
        _check_transport(last.nh, last, packet[at:], gue_port)


def _sum(proto: int, ip: Packet, segment: bytes) -> int:
    """The checksum with a pseudo header; 0 over a segment whose checksum is right. `ip` is the header in front."""
    return in4_chksum(proto, ip, segment) if isinstance(ip, IP) else in6_chksum(proto, ip, segment)


def _check_transport(proto: int, ip: Packet, segment: bytes, gue_port: int | None) -> None:
    if proto in {_IPIP, _IPV6}:
        assert {_IPIP: 4, _IPV6: 6}[proto] == segment[0] >> 4
        _check_ip(segment, None)
    elif proto == _TCP:
        assert 20 <= (segment[12] >> 4) * 4 <= len(segment)
        assert _sum(proto, ip, segment) == 0
    elif proto == _UDP:
        _, port, length, check = struct.unpack_from("!HHHH", segment)

        assert length == len(segment)
        assert check or isinstance(ip, IP) or port == gue_port
        assert not check or _sum(proto, ip, segment) == 0

        if port == gue_port:
            _check_gue(segment[8:])
    elif proto == _ICMP:
        assert checksum(segment) == 0
        if segment[0] in _ICMP_ERRORS:
            _check_quote(segment, 4)
    elif proto == _ICMPV6:
        assert _sum(proto, ip, segment) == 0
        if segment[0] < _ICMPV6_INFORMATION:
            _check_quote(segment, 6)
    else:
        raise AssertionError(f"nobody looks into protocol {proto}")


def _check_gue(packet: bytes) -> None:
    """Variant 1 has no header of its own; variant 0 has."""
    if packet[0] >> 6 == 0:
        packet = packet[4 + 4 * (packet[0] & 31) :]
    _check_ip(packet, None)


def _check_quote(message: bytes, version: int) -> None:
    """RFC 4884: the first of the otherwise unused bytes may say how long the quote is; then extensions follow."""
    words = message[5] if version == 4 else message[4]
    unit = {4: 4, 6: 8}[version]
    has_length = (version, message[0]) in {(4, 3), (4, 11), (4, 12), (6, 1), (6, 3)}
    quote = message[8 : 8 + words * unit] if has_length and words else message[8:]

    assert version == quote[0] >> 4
    assert len(quote) >= {4: 28, 6: 48}[version]
    _check_ip(quote, None, quoted=True)
