# SPDX-License-Identifier: Apache-2.0
"""
What must be true of every frame that an agent lets go on, whatever came in.

It does not ask whether a packet should have been taken: other tests do. It asks whether what goes on is what came in, or the packet that was in it
with another address, port and what follows from them; and whether its checksums are as right or as wrong as they were.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import attrs
from xdpchain.testing.frames import ICMP, ICMP6, IPV4, IPV6, TCP, UDP, bytes_of, error_of, link_of, sum_of, transport_of, word

from plugins.dsr_agent.tests.packets import BALANCER4, BALANCER6, GUE_PORT, PORT, VIP4, VIP6, WORKLOAD4, WORKLOAD6, WORKLOAD_PORT

WORKLOADS, VIPS = ({ip_address(one).packed for one in pair} for pair in ((WORKLOAD4, WORKLOAD6), (VIP4, VIP6)))
HAIRPINS = {ip_address(one).packed for one in ("169.254.64.1", "fd64:7372::1")}
_BALANCERS = (ip_address(BALANCER4).packed[:3], ip_address(BALANCER6).packed[:4])
_ERRORS = {ICMP: {3, 4, 5, 11, 12}, ICMP6: set(range(128))}
Packet = bytes | bytearray


class WrongError(Exception):
    """A frame that must not be."""


def _must(condition: object, what: str) -> None:
    if not condition:
        raise WrongError(what)


@attrs.frozen
class Ends:
    """Where the addresses of an IP packet are."""

    source: slice
    destination: slice


_ENDS = {4: Ends(slice(12, 16), slice(16, 20)), 6: Ends(slice(8, 24), slice(24, 40))}


def ends_of(packet: Packet) -> Ends:
    return _ENDS[packet[0] >> 4]


def arrived(sent: bytes, got: bytes) -> str:
    """
    Judge a frame that went on towards a workload.

    Returns:
        "delivered", or nothing if it was not touched.

    Raises:
        WrongError: it must not be.
    """
    if got == sent:
        return ""
    at, ethertype = link_of(sent)
    _must(ethertype in {IPV4, IPV6}, "changed, but neither IPv4 nor IPv6")
    outer = sent[at : at + bytes_of(sent, at, ethertype)]
    _must(at + len(outer) <= len(sent), "taken, but cut short")
    off = len(sent) - len(got)
    _must(20 <= off <= len(outer) - 20, f"{off} bytes went")
    ends = ends_of(outer)
    _must(outer[ends.source].startswith(_BALANCERS), "from nobody's balancer")
    _must(outer[ends.destination] in WORKLOADS, "to no endpoint")
    _must(_is_encapsulation(outer), "not encapsulated")
    inner = outer[off:]
    _must(inner[0] >> 4 in {4, 6}, "what was in it is no IP packet")
    family = IPV4 if inner[0] >> 4 == 4 else IPV6
    _must(got[: at - 2] == sent[: at - 2] and word(got, at - 2) == family, "another Ethernet header")
    _must(bytes_of(inner, 0, family) == len(inner), "what was in it lies about its length")
    new = got[at : at + len(inner)]
    _must(got[at + len(inner) :] == sent[at + len(outer) :], "another padding")
    ends = ends_of(inner)
    _must(inner[ends.destination] in VIPS and new[ends.destination] in WORKLOADS, "not from a VIP to a workload")
    _must(new[ends.source] in {inner[ends.source], *HAIRPINS}, "another source")
    _same(inner, new, inward=True)
    return "delivered"


def left(sent: bytes, got: bytes) -> str:
    """
    Judge a frame that went on from a workload.

    Returns:
        "answered", or nothing if it was not touched.

    Raises:
        WrongError: it must not be.
    """
    if got == sent:
        return ""
    at, ethertype = link_of(sent)
    _must(ethertype in {IPV4, IPV6}, "changed, but neither IPv4 nor IPv6")
    _must(len(got) == len(sent) and word(got, at - 2) == ethertype, "another length or ethertype")
    length = bytes_of(sent, at, ethertype)
    old, new = sent[at : at + length], got[at : at + length]
    _must(got[at + length :] == sent[at + length :], "another padding")
    ends = ends_of(old)
    if old[ends.source] in WORKLOADS:
        _must(new[ends.source] in VIPS, "not from a workload to a VIP")
    else:
        # somebody between the workload and us tells of a packet that it could not deliver
        _must(_is_error(old) and new[ends.source] == old[ends.source], "changed, but not from a workload")
    hairpin = old[ends.destination] in HAIRPINS
    _must(hairpin or new[ends.destination] == old[ends.destination], "another destination")
    _must(hairpin or got[: at - 2] == sent[: at - 2], "another Ethernet header")
    _same(old, new, inward=False)
    return "answered"


def _is_encapsulation(outer: Packet) -> bool:
    start, proto = _transport(outer)
    return proto in {4, 41} or (proto == UDP and word(outer, start + 2) == GUE_PORT)


def _transport(packet: Packet) -> tuple[int, int]:
    """As `transport_of`, also behind extension headers and for fragments."""
    if packet[0] >> 4 == 4:
        return (packet[0] & 15) * 4, packet[9]
    proto, at = packet[6], 40
    while proto in {0, 43, 44, 51, 60} and at + 8 <= len(packet):
        size = 8 if proto == 44 else packet[at + 1] * 4 + 8 if proto == 51 else packet[at + 1] * 8 + 8
        proto, at = packet[at], at + size
    return at, proto


def _is_later_fragment(packet: Packet) -> bool:
    if packet[0] >> 4 == 4:
        return bool(word(packet, 6) & 0x1FFF)
    proto, at = packet[6], 40
    while proto in {0, 43, 51, 60} and at + 8 <= len(packet):
        proto, at = packet[at], at + (packet[at + 1] * 4 + 8 if proto == 51 else packet[at + 1] * 8 + 8)
    return proto == 44 and at + 8 <= len(packet) and bool(word(packet, at + 2) & 0xFFF8)


def _is_error(packet: Packet) -> bool:
    start, proto = _transport(packet)
    return proto in _ERRORS and not _is_later_fragment(packet) and start < len(packet) and packet[start] in _ERRORS[proto]


def _same(old: Packet, new: Packet, *, inward: bool) -> None:
    """Whether nothing differs but addresses, ports, congestion marks, the time to live, the largest segment, and the sums of it all."""
    _must(new[0] >> 4 == old[0] >> 4 and len(new) == len(old), "another version or length")
    start, proto = _transport(old)
    error = _is_error(old)
    _must(_off(old, proto) == _off(new, proto), f"checksums that were off by {_off(old, proto)} are off by {_off(new, proto)}")
    if error:
        return
    one, other = bytearray(old), bytearray(new)
    ends = ends_of(old)
    for packet in (one, other):
        packet[ends.source] = packet[ends.destination] = bytes(ends.source.stop - ends.source.start)
        _blank_sums(packet)
        packet[8 if packet[0] >> 4 == 4 else 7] = 0
        if packet[0] >> 4 == 4:
            packet[1] &= 0xFC
        else:
            packet[1] &= 0xCF
    if proto in {TCP, UDP} and not _is_later_fragment(old):
        where, names = (start + 2, (PORT, WORKLOAD_PORT)) if inward else (start, (WORKLOAD_PORT, PORT))
        _must((word(old, where), word(new, where)) == names, "other ports")
        check = start + (16 if proto == TCP else 6)
        for packet in (one, other):
            packet[where : where + 2] = bytes(2)
            if len(packet) >= check + 2:
                packet[check : check + 2] = bytes(2)
        if not inward and proto == TCP and old[start + 13] & 2:
            end = start + (old[start + 12] >> 4) * 4
            del one[start + 20 : end], other[start + 20 : end]
    _must(one == other, "something else changed")


def _blank_sums(packet: bytearray) -> None:
    if packet[0] >> 4 == 4:
        packet[10:12] = bytes(2)


def _off(packet: Packet, proto: int) -> object:
    """By how much the checksums of a packet are off, as far as they can be told."""
    header = sum_of(packet[: (packet[0] & 15) * 4]) % 65535 if packet[0] >> 4 == 4 else 0
    if transport_of(packet)[1] not in {TCP, UDP, ICMP, ICMP6} or _transport(packet) != transport_of(packet):
        return header
    return header, error_of(packet)[0] if proto != UDP or _has_sum(packet) else "no sum"


def _has_sum(packet: Packet) -> bool:
    start, _ = transport_of(packet)
    return len(packet) >= start + 8 and word(packet, start + 6) != 0


Judge = Callable[[bytes, bytes], str]
