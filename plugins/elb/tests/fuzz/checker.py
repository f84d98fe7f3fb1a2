# SPDX-License-Identifier: Apache-2.0
"""
What must be true of every frame that leaves, whatever came in.

It does not ask which backend a packet goes to: other tests do. It asks whether what leaves is what came in behind an outer header of which every
bit is as it must be, or a right answer to it, and whether it should have left at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address

import attrs
from xdpchain.testing.frames import (
    ICMP,
    ICMP6,
    IPV4,
    IPV6,
    UDP,
    bytes_of,
    error_of,
    link_of,
    pseudo_of,
    sum_of,
    transport_of,
    word,
)

DROP, PASS, TX = 1, 2, 3
ENCAPSULATED, ANSWERED = "encapsulated", "answered"
_IPIP, _IPIP6 = 4, 41
_QUOTE = 512
_ERROR = 8
_ECHO = {IPV4: (8, 0), IPV6: (128, 129)}
_TOO_BIG = {IPV4: (3, 4), IPV6: (2, 0)}


class WrongError(Exception):
    """A frame that must not be."""


def _must(condition: object, what: str) -> None:
    if not condition:
        raise WrongError(what)


@attrs.frozen
class Checker:
    """
    What is known of the balancer.

    `backends` and `sources` are packed addresses, `next_hop` a MAC address, `mtu` that of the way to the backends in bytes.
    """

    networks: Iterable[IPv4Network | IPv6Network]
    backends: frozenset[bytes]
    sources: frozenset[bytes]
    next_hop: bytes
    gue_port: int
    mtu: int
    _known: dict[bytes, bool] = attrs.field(factory=dict, init=False)

    def check(self, sent: bytes, verdict: int, got: bytes) -> str:
        """
        Judge a frame.

        Returns:
            What was sent for a verdict of TX, `ENCAPSULATED` or `ANSWERED`; else nothing.

        Raises:
            WrongError: a frame or a verdict must not be.
        """
        if verdict == PASS:
            _must(got == sent, "passed, but changed")
            return ""
        if verdict == DROP:
            return ""
        _must(verdict == TX, f"the verdict {verdict}")
        at, ethertype = link_of(sent)
        _must(ethertype in {IPV4, IPV6}, "sent, but neither IPv4 nor IPv6")
        _must(got[12 : at - 2] == sent[12 : at - 2], "other VLAN tags")
        length = bytes_of(sent, at, ethertype)
        _must(at + length <= len(sent), "sent, but cut short")
        _must(length >= (20 if ethertype == IPV4 else 40), "sent, but shorter than an IP header")
        packet = sent[at : at + length]
        _must(self._for_a_vip(packet), "sent, but for no VIP")
        if got[:6] == sent[6:12]:
            _must(
                got[6:12] + got[at - 2 : at] == sent[:6] + sent[at - 2 : at], "an answer from another MAC address or of another ethertype"
            )
            self._answer(packet, sent[at + length :], got[at:], ethertype)
            return ANSWERED
        _must(got[:12] == self.next_hop + sent[:6], "wrong MAC addresses")
        self._encapsulated(packet, sent[at:], got[at:], word(got, at - 2))
        return ENCAPSULATED

    def _for_a_vip(self, packet: bytes) -> bool:
        destination = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
        if destination not in self._known:
            address = ip_address(destination)
            self._known[destination] = any(address in network for network in self.networks)
        return self._known[destination]

    def _encapsulated(self, packet: bytes, sent: bytes, got: bytes, ethertype: int) -> None:
        tos = packet[1] if packet[0] >> 4 == 4 else (packet[0] << 4 | packet[1] >> 4) & 255
        if ethertype == IPV4:
            outer, proto, source, destination = 20, got[9], got[12:16], got[16:20]
            _must(got[0] == 0x45 and got[1] == tos, "the outer header's version, length or TOS")
            _must(got[4:9] == b"\0\0\0\0\x40", "the outer header's id, fragment offset or TTL")
            _must(sum_of(got[:20]) == 0 and got[10:12] != b"\xff\xff", "the outer IPv4 checksum")
            _must(proto in {_IPIP, UDP}, "the outer protocol")
            ipip = source[:2] == b"\xac\x10"
            _must(proto == UDP or packet[0] >> 4 == 4, "IPv6 in IPv4 without GUE")
        else:
            _must(ethertype == IPV6, "the outer ethertype")
            outer, proto, source, destination = 40, got[6], got[8:24], got[24:40]
            _must(got[:4] == (0x60000000 | tos << 20).to_bytes(4, "big") and got[7] == 64, "the outer header's first word or hop limit")
            _must(proto in {_IPIP6 if packet[0] >> 4 == 6 else _IPIP, UDP}, "the outer protocol")
            ipip = source[:12] == b"\x01" + bytes(11)
        _must(destination in self.backends, "not to a backend")
        _must(ipip if proto != UDP else source in self.sources, "the outer source address")
        overhead = outer + 8 * (proto == UDP)
        _must(bytes_of(got, 0, ethertype) == len(packet) + overhead, "the outer length")
        _must(len(packet) + overhead <= self.mtu, "longer than the way to the backend allows")
        _must(got[overhead:] == sent, "the inner packet was changed")
        if proto == UDP:
            self._gue(packet, got[: outer + 8 + len(packet)], outer)

    def _gue(self, packet: bytes, got: bytes, outer: int) -> None:
        length = len(got) - outer
        _must(word(got, outer + 2) == self.gue_port, "the outer UDP port")
        _must(word(got, outer + 4) == length, "the outer UDP length")
        _must(got[outer + 6 : outer + 8] != b"\0\0", "no outer UDP checksum")
        off = (sum_of(got[outer:]) + pseudo_of(got[:outer], UDP, length)) % 65535
        if off:
            inner_off, right = error_of(packet)
            _must(not right, f"the outer UDP checksum, of a packet whose own is right, is off by {off:#x}")
            _must(off == inner_off, f"the outer UDP checksum is off by {off:#x}, the packet's own by {inner_off:#x}")

    def _answer(self, packet: bytes, padding: bytes, got: bytes, ethertype: int) -> None:
        start, proto = transport_of(packet)
        source, destination = (slice(12, 16), slice(16, 20)) if ethertype == IPV4 else (slice(8, 24), slice(24, 40))
        _must(got[source] == packet[destination] and got[destination] == packet[source], "an answer between other addresses")
        request, reply = _ECHO[ethertype]
        if proto != (ICMP if ethertype == IPV4 else ICMP6) or packet[start] != request:
            self._too_big(packet, got, ethertype)
            return
        expected = bytearray(packet)
        expected[source], expected[destination], expected[start] = packet[destination], packet[source], reply
        expected[8 if ethertype == IPV4 else 7] = 64
        for check in (*((10, 11) if ethertype == IPV4 else ()), start + 2, start + 3):
            expected[check] = got[check]
        _must(got == expected + padding, "an echo reply that is not the request's")
        _must(error_of(got[: len(packet)]) == error_of(packet), "an echo reply's checksums")

    def _too_big(self, packet: bytes, got: bytes, ethertype: int) -> None:
        header = 20 if ethertype == IPV4 else 40
        quoted = min(len(packet), _QUOTE)
        _must(len(packet) + 48 > self.mtu, "called too big, but is not")
        _must(bytes_of(got, 0, ethertype) == len(got) == header + _ERROR + quoted, "an error's length")
        first = b"\x45\0" if ethertype == IPV4 else b"\x60\0\0\0"
        _must(got.startswith(first) and got[8 if ethertype == IPV4 else 7] == 64, "an error's IP header")
        _must(got[4:8] == b"\0\0\x40\0" if ethertype == IPV4 else True, "an error's id or fragment offset")
        _must(got[9 if ethertype == IPV4 else 6] == (ICMP if ethertype == IPV4 else ICMP6), "an error's protocol")
        _must(tuple(got[header : header + 2]) == _TOO_BIG[ethertype], "an error's type or code")
        said = int.from_bytes(got[header + 4 : header + 8], "big")
        least = 1280 if ethertype == IPV6 else 0
        _must(any(said == max(self.mtu - overhead, least) for overhead in (20, 28, 40, 48)), "an error's MTU")
        _must(got[header + _ERROR :] == packet[:quoted], "an error that quotes something else")
        _must(ethertype == IPV6 or sum_of(got[:20]) == 0, "an error's IP checksum")
        proto = ICMP if ethertype == IPV4 else ICMP6
        _must((sum_of(got[header:]) + pseudo_of(got, proto, quoted + _ERROR)) % 65535 == 0, "an error's checksum")


__all__ = ["ANSWERED", "DROP", "ENCAPSULATED", "PASS", "TX", "Checker", "WrongError"]
