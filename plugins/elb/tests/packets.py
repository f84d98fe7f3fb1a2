# SPDX-License-Identifier: Apache-2.0
"""What the tests send, and a strict look at what comes out: lengths and checksums of all headers, the outer ones and the inner ones."""

from __future__ import annotations

import struct

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether

CLIENT_MAC, NODE_MAC, NEXT_HOP = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:99"
CLIENT4, CLIENT6 = "192.0.2.7", "2001:db8:c::7"
VIP4, VIP6 = "10.200.1.1", "fc00:1::1"
GUE_PORT = 6080

ETHER = Ether(src=CLIENT_MAC, dst=NODE_MAC)
BACK = Ether(src=NODE_MAC, dst=CLIENT_MAC)
TO4, TO6 = IP(src=CLIENT4, dst=VIP4), IPv6(src=CLIENT6, dst=VIP6)
"""from the client to the VIP"""

VLAN = Dot1Q(vlan=5, prio=3)
QINQ = Dot1AD(vlan=5) / Dot1Q(vlan=6)
LINKS = [(ETHER, BACK), (ETHER / VLAN, BACK / VLAN), (ETHER / QINQ, BACK / QINQ)]
"""there and back"""

_ICMP, _IPIP, _TCP, _UDP, _IPV6, _ICMPV6 = 1, 4, 6, 17, 41, 58
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AH, _OPTIONS = 0, 43, 44, 51, 60
_EXTENSIONS = {_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AH, _OPTIONS}
_ECHOS_AND_DISCOVERY = 128
_ICMP_ERRORS = {3, 11, 12}


def checksum(data: bytes) -> int:
    """RFC 1071; 0 over data whose checksum is right."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total: int = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def pseudo_header(source: bytes, destination: bytes, proto: int, length: int) -> bytes:
    """What the checksum of a transport header covers besides its segment."""
    return source + destination + struct.pack("!II", length, proto)


def assert_valid(frame: bytes, *, padding: int = 0, gue_port: int = GUE_PORT) -> None:
    """
    A receiver would take this frame, and what it carries, for whole.

    Args:
        frame: from the Ethernet header on.
        padding: bytes behind the IP packet that are meant to be there.
        gue_port: UDP packets to it carry an IP packet (GUE).
    """
    at, ethertype = 14, struct.unpack_from("!H", frame, 12)[0]
    while ethertype in {0x8100, 0x88A8}:
        ethertype = struct.unpack_from("!H", frame, at + 2)[0]
        at += 4

    packet = frame[at : len(frame) - padding]

    assert {0x0800: 4, 0x86DD: 6}[ethertype] == packet[0] >> 4
    _check_ip(packet, gue_port)


def _check_ip(packet: bytes, gue_port: int | None) -> None:
    if packet[0] >> 4 == 4:
        header = (packet[0] & 15) * 4
        (length,) = struct.unpack_from("!H", packet, 2)
        (fragment,) = struct.unpack_from("!H", packet, 6)

        assert header >= 20
        assert length == len(packet)
        assert checksum(packet[:header]) == 0
        assert packet[8] > 0

        if not fragment & 0x3FFF:
            _check_transport(packet[9], packet[12:16], packet[16:20], packet[header:], gue_port)
        return
    (length,) = struct.unpack_from("!H", packet, 4)

    assert packet[0] >> 4 == 6
    assert length == len(packet) - 40
    assert packet[7] > 0

    proto, at = packet[6], 40
    while proto in _EXTENSIONS:
        if proto == _FRAGMENT and struct.unpack_from("!H", packet, at + 2)[0] & 0xFFF9:
            return
        size = {_FRAGMENT: 8, _AH: packet[at + 1] * 4 + 8}.get(proto, packet[at + 1] * 8 + 8)
        proto, at = packet[at], at + size
    _check_transport(proto, packet[8:24], packet[24:40], packet[at:], gue_port)


def _check_gue(content: bytes) -> None:
    """Variant 1 is the packet itself; variant 0 has a header with the packet's protocol and words of private data."""
    if content[0] >> 6:
        _check_ip(content, None)
        return
    inner = content[4 + 4 * (content[0] & 31) :]
    assert {4: 4, 41: 6}[content[1]] == inner[0] >> 4
    assert content[2:4] == bytes(2)
    _check_ip(inner, None)


def _check_transport(proto: int, source: bytes, destination: bytes, segment: bytes, gue_port: int | None) -> None:
    pseudo = pseudo_header(source, destination, proto, len(segment))
    if proto in {_IPIP, _IPV6}:
        assert {_IPIP: 4, _IPV6: 6}[proto] == segment[0] >> 4
        _check_ip(segment, None)
    elif proto == _TCP:
        assert 20 <= (segment[12] >> 4) * 4 <= len(segment)
        assert checksum(pseudo + segment) == 0
    elif proto == _UDP:
        _, port, length, check = struct.unpack_from("!HHHH", segment)

        assert length == len(segment)
        assert check or len(source) == 4
        assert not check or checksum(pseudo + segment) == 0

        if port == gue_port:
            _check_gue(segment[8:])
    elif proto == _ICMP:
        assert checksum(segment) == 0
        if segment[0] in _ICMP_ERRORS:
            _check_quote(segment[8:], 4)
    elif proto == _ICMPV6:
        assert checksum(pseudo + segment) == 0
        if segment[0] < _ECHOS_AND_DISCOVERY:
            _check_quote(segment[8:], 6)
    else:
        raise AssertionError(f"nobody looks into protocol {proto}")


def _check_quote(quote: bytes, version: int) -> None:
    """A quote may end anywhere behind the IP header and 8 bytes."""
    assert version == quote[0] >> 4
    assert len(quote) >= {4: 28, 6: 48}[version]
