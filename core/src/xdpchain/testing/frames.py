# SPDX-License-Identifier: Apache-2.0
"""Where the headers of a frame are and what its checksums add up to, for millions of frames: plain integers, no objects."""

from __future__ import annotations

IPV4, IPV6 = 0x0800, 0x86DD
TCP, UDP, ICMP, ICMP6, FRAGMENT = 6, 17, 1, 58, 44
_TAGS = {0x8100, 0x88A8}
_CHECKSUM_AT = {TCP: 16, UDP: 6, ICMP: 2, ICMP6: 2}
_LEAST = {TCP: 20, UDP: 8, ICMP: 8, ICMP6: 8}


def word(data: bytes | bytearray, at: int) -> int:
    """16 bits in network byte order."""
    return data[at] << 8 | data[at + 1]


def sum_of(data: bytes | bytearray) -> int:
    """The one's complement sum, with 0 for both zeros: a number is congruent to the sum of its digits modulo the base less one."""
    number = int.from_bytes(data, "big")
    return (number << 8 if len(data) & 1 else number) % 65535


def link_of(frame: bytes | bytearray) -> tuple[int, int]:
    """The offset of what is behind the Ethernet header and up to two VLAN tags, and its ethertype; 0 where a tag is cut short."""
    at, ethertype = 14, word(frame, 12)
    for _ in range(2):
        if ethertype not in _TAGS:
            break
        if len(frame) < at + 4:
            return at, 0
        ethertype = word(frame, at + 2)
        at += 4
    return at, ethertype


def bytes_of(frame: bytes | bytearray, at: int, ethertype: int) -> int:
    """How long the IP packet says that it is."""
    return word(frame, at + 2) if ethertype == IPV4 else 40 + word(frame, at + 4)


def transport_of(packet: bytes | bytearray) -> tuple[int, int]:
    """The offset of the transport header of an IP packet and its protocol; protocol 0 for fragments and behind extension headers."""
    if packet[0] >> 4 == 4:
        return (packet[0] & 15) * 4, 0 if word(packet, 6) & 0x3FFF else packet[9]
    return 40, packet[6] if packet[6] in _CHECKSUM_AT else 0


def pseudo_of(packet: bytes | bytearray, proto: int, length: int) -> int:
    """The sum of the pseudo header."""
    if proto == ICMP:
        return 0
    return sum_of(packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]) + proto + length


def error_of(packet: bytes | bytearray) -> tuple[int, bool]:
    """
    By how much the checksums of an IP packet are off, taken together, when the transport is as long as IP says; and whether they are right by
    what the transport itself says.
    """
    header = sum_of(packet[: (packet[0] & 15) * 4]) if packet[0] >> 4 == 4 else 0
    at, proto = transport_of(packet)
    length = len(packet) - at
    if length < _LEAST.get(proto, 1 << 16) or (proto == UDP and not word(packet, at + 6)):
        return header, not header
    off = (sum_of(packet[at:]) + pseudo_of(packet, proto, length)) % 65535
    own = off
    if proto == UDP and (inside := word(packet, at + 4)) != length:
        own = (sum_of(packet[at : at + inside]) + pseudo_of(packet, proto, inside)) % 65535 if 8 <= inside <= length else 1
    return (header + off) % 65535, not header and not own


def mend(frame: bytearray) -> None:
    """Make the checksums right, as far as the headers can be made out."""
    at, ethertype = link_of(frame)
    least, version = (20, 4) if ethertype == IPV4 else (40, 6)
    if ethertype not in {IPV4, IPV6} or len(frame) < at + least:
        return
    packet = frame[at : at + bytes_of(frame, at, ethertype)]
    if len(packet) < least or packet[0] >> 4 != version:
        return
    if ethertype == IPV4:
        end = (packet[0] & 15) * 4
        packet[10:12] = b"\0\0"
        packet[10:12] = (65535 - sum_of(packet[:end])).to_bytes(2, "big")
    start, proto = transport_of(packet)
    length = len(packet) - start
    if length >= _LEAST.get(proto, 1 << 16):
        if proto == UDP and 8 <= word(packet, start + 4) <= length:
            length = word(packet, start + 4)
        check = start + _CHECKSUM_AT[proto]
        packet[check : check + 2] = b"\0\0"
        right = 65535 - (sum_of(packet[start : start + length]) + pseudo_of(packet, proto, length)) % 65535
        packet[check : check + 2] = right.to_bytes(2, "big")
    frame[at : at + len(packet)] = packet
