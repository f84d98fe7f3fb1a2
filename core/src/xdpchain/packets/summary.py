# SPDX-License-Identifier: Apache-2.0
"""One line about a frame: who to whom, which protocol, how long. Never fails: what is cut short is told as far as it goes."""

from __future__ import annotations

import ipaddress
import struct

_VLAN = {0x8100, 0x88A8}
_ETHERTYPES = {0x0806: "ARP", 0x8847: "MPLS", 0x8863: "PPPoE", 0x8864: "PPPoE", 0x88CC: "LLDP"}
_PROTOCOLS = {1: "ICMP", 4: "IPv4 inside", 6: "TCP", 17: "UDP", 41: "IPv6 inside", 47: "GRE", 50: "ESP", 58: "ICMPv6", 132: "SCTP"}
_WITH_PORTS = {6, 17, 132}
_EXTENSIONS = {0, 43, 60, 135}
"""IPv6 extension headers that count their length in 8 bytes, without the first 8"""
_FRAGMENT = 44
_TCP_FLAGS = "FSRPAUEC"
"""from the lowest bit on, as tcpdump and scapy write them"""


def summary(frame: bytes) -> str:
    """For example `10.0.0.1:40000 > 10.0.0.2:80 TCP S, 54 bytes`."""
    size = f"{len(frame)} bytes"
    if len(frame) < 14:
        return size
    (ethertype,), at, tags = struct.unpack_from(">H", frame, 12), 14, ""
    while ethertype in _VLAN and len(frame) >= at + 4:
        tci, ethertype = struct.unpack_from(">HH", frame, at)
        at, tags = at + 4, f"{tags}VLAN {tci & 0xFFF}, "
    if ethertype == 0x0800 and len(frame) >= at + 20:
        return f"{tags}{_ip4(frame, at)}, {size}"
    if ethertype == 0x86DD and len(frame) >= at + 40:
        return f"{tags}{_ip6(frame, at)}, {size}"
    source, target = frame[6:12].hex(":"), frame[:6].hex(":")
    return f"{tags}{source} > {target} {_ETHERTYPES.get(ethertype, f'ethertype {ethertype:#06x}')}, {size}"


def _ip4(frame: bytes, at: int) -> str:
    header, protocol = (frame[at] & 0xF) * 4, frame[at + 9]
    (fragment,) = struct.unpack_from(">H", frame, at + 6)
    source, target = (str(ipaddress.IPv4Address(frame[at + n : at + n + 4])) for n in (12, 16))
    return _ip(frame, at + header, protocol, source, target, (fragment & 0x1FFF) * 8, more=bool(fragment & 0x2000))


def _ip6(frame: bytes, at: int) -> str:
    source, target = (str(ipaddress.IPv6Address(frame[at + n : at + n + 16])) for n in (8, 24))
    protocol, offset, more = frame[at + 6], 0, False
    at += 40
    while len(frame) >= at + 8 and protocol in {*_EXTENSIONS, _FRAGMENT} and not offset:
        size = (frame[at + 1] + 1) * 8
        if protocol == _FRAGMENT:
            (word,) = struct.unpack_from(">H", frame, at + 2)
            size, offset, more = 8, word & 0xFFF8, bool(word & 1)
        protocol, at = frame[at], at + size
    return _ip(frame, at, protocol, source, target, offset, more=more)


def _ip(frame: bytes, at: int, protocol: int, source: str, target: str, offset: int, *, more: bool) -> str:
    """The line of an IP packet whose transport header is at `at`, if this is the packet's first or only part."""
    name = _PROTOCOLS.get(protocol, f"protocol {protocol}")
    if offset:
        return f"{source} > {target} {name}, part from byte {offset}"
    rest = frame[at:]
    if protocol in _WITH_PORTS and len(rest) >= 4:
        ports = struct.unpack_from(">HH", rest)
        bracketed = (f"[{source}]", f"[{target}]") if ":" in source else (source, target)
        source, target = (f"{address}:{port}" for address, port in zip(bracketed, ports, strict=True))
    if protocol == 6 and len(rest) >= 14:
        name += " " + ("".join(flag for bit, flag in enumerate(_TCP_FLAGS) if rest[13] >> bit & 1) or "-")
    elif protocol in {1, 58} and len(rest) >= 2:
        name += f" type {rest[0]}"
    return f"{source} > {target} {name}{', first part' if more else ''}"
