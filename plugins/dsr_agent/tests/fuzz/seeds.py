# SPDX-License-Identifier: Apache-2.0
"""Where mutations begin: packets for a service in all encapsulations, what its workload answers, and what has nothing to do with it."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from xdpchain.testing.frames import bytes_of, link_of, mend
from xdpchain.testing.mutate import Mutator

from plugins.dsr_agent.tests.packets import (
    BALANCER4,
    BALANCER6,
    CLIENT4,
    CLIENT6,
    CLIENT_PORT,
    GUE_PORT,
    NEIGHBOUR_MAC,
    NODE_MAC,
    PORT,
    VIP4,
    VIP6,
    WORKLOAD4,
    WORKLOAD6,
    WORKLOAD_PORT,
)

_CLIENT, _VIP, _WORKLOAD, _BALANCER = (CLIENT4, CLIENT6), (VIP4, VIP6), (WORKLOAD4, WORKLOAD6), (BALANCER4, BALANCER6)
_SYN = [("MSS", 1460), ("SAckOK", b""), ("NOP", None), ("WScale", 7)]


def _ip(six: int, source: Sequence[str], destination: Sequence[str]) -> Packet:
    return (IPv6 if six else IP)(src=source[six], dst=destination[six])


def _exchange(six: int, here: Sequence[str], port: int, *, inward: bool) -> Iterator[Packet]:
    """Packets of clients to an address and port, or what comes back from there."""
    ends = (_CLIENT, here) if inward else (here, _CLIENT)
    for number in range(3):
        sport, dport = (CLIENT_PORT + number, port) if inward else (port, CLIENT_PORT + number)
        ip = _ip(six, *ends)
        yield ip / TCP(sport=sport, dport=dport, flags="S" if inward else "SA", options=_SYN)
        yield ip / TCP(sport=sport, dport=dport, flags="A") / Raw(b"some data" * 9)
        yield ip / TCP(sport=sport, dport=dport, flags=("FA", "R", "PA")[number]) / Raw(b"odd")
        yield ip / UDP(sport=sport, dport=dport) / Raw(b"datagram")
        yield ip / UDP(sport=sport, dport=dport, chksum=0) / Raw(b"no sum, odd")


def _around(six: int, here: Sequence[str], port: int, *, inward: bool) -> Iterator[Packet]:
    """ICMP errors, echo, fragments, extension headers."""
    ends = (_CLIENT, here) if inward else (here, _CLIENT)
    ip = _ip(six, *ends)
    if inward:
        quoted = bytes(_ip(six, here, _CLIENT) / TCP(sport=port, dport=CLIENT_PORT, flags="A") / Raw(bytes(40)))
    else:
        quoted = bytes(_ip(six, _CLIENT, here) / UDP(sport=CLIENT_PORT, dport=port) / Raw(bytes(40)))
    if six:
        yield ip / ICMPv6PacketTooBig(mtu=1300) / Raw(quoted)
        yield ip / ICMPv6DestUnreach() / Raw(quoted[:56])
        yield ip / ICMPv6EchoRequest(id=1)
        yield ip / IPv6ExtHdrFragment(m=1, id=5, nh=17) / Raw(struct.pack("!HHHH", CLIENT_PORT, port, 200, 0) + bytes(40))
        yield ip / IPv6ExtHdrFragment(offset=6, id=5, nh=17) / Raw(b"the rest")
        yield ip / IPv6ExtHdrDestOpt() / TCP(sport=CLIENT_PORT if inward else port, dport=port if inward else CLIENT_PORT, flags="A")
    else:
        yield ip / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(quoted)
        yield ip / ICMP(type=11) / Raw(quoted[:28])
        yield ip / ICMP(id=1)
        first = IP(src=ip.src, dst=ip.dst, id=7, flags="MF", proto=17)
        ports = (CLIENT_PORT, port) if inward else (port, CLIENT_PORT)
        yield first / Raw(struct.pack("!HHHH", *ports, 200, 0) + bytes(40))
        yield IP(src=ip.src, dst=ip.dst, id=7, frag=6, proto=17) / Raw(b"the rest")


def packets(*, inward: bool) -> list[bytes]:
    """IP packets: towards VIPs and workloads, or from workloads."""
    here = [(_VIP, PORT), (_WORKLOAD, WORKLOAD_PORT)] if inward else [(_WORKLOAD, WORKLOAD_PORT)]
    found = []
    for six in (0, 1):
        for place, port in here:
            found += [*_exchange(six, place, port, inward=inward), *_around(six, place, port, inward=inward)]
            found.append(_ip(six, _WORKLOAD, place) / TCP(sport=5, dport=port, flags="S"))
            found.append(_ip(six, place, _WORKLOAD) / UDP(sport=port, dport=22))
    return [bytes(one) for one in found]


class Frames:
    """
    An endless source of frames.

    Two kinds in turns for what arrives: mutated packets, whole again and encapsulated as they should be; and mutated frames, outer headers and
    all. What leaves is of the second kind only.
    """

    def __init__(self, seed: int, *, inward: bool) -> None:
        self._random = random.Random(seed)
        self._inward = inward
        plain = [_framed(packet, number) for number, packet in enumerate(packets(inward=inward))]
        self._plain = Mutator(plain, seed)
        wrapped = [_framed(self._wrap(packet), number) for number, packet in enumerate(packets(inward=True))]
        self._whole = Mutator([*wrapped, *plain], seed + 1)

    def next(self) -> bytes:
        """One frame."""
        if not self._inward or self._random.random() < 0.5:
            return self._whole.next()
        frame = self._plain.next()
        at, ethertype = link_of(frame)
        if ethertype not in {0x0800, 0x86DD} or len(frame) < at + 40:
            return frame
        packet = frame[at : at + min(bytes_of(frame, at, ethertype), len(frame) - at)]
        if len(packet) < 20:
            return frame
        return _framed(self._wrap(packet), self._random.getrandbits(3))

    def _wrap(self, inner: bytes) -> bytes:
        """Put something right around a packet."""
        six = self._random.getrandbits(1)
        tos = self._random.choice((0, 0, 1, 2, 3, 0x58))
        proto = 41 if inner[:1] and inner[0] >> 4 == 6 else 4
        form = self._random.randrange(4)
        content = inner
        if form == 1:
            content = bytes((0, proto, 0, 0)) + inner
        elif form == 2:
            hop = ip_address(_WORKLOAD[six]).packed
            content = bytes((1 + len(hop) // 4, proto, 0, 0, 0, 0, self._random.getrandbits(1), 1)) + hop + inner
        if form < 3:
            proto = 17
            content = struct.pack("!HHHH", 31000, GUE_PORT, len(content) + 8, 0) + content
        source, destination = (ip_address(one[six]).packed for one in (_BALANCER, _WORKLOAD))
        if six:
            return struct.pack("!IHBB", 6 << 28 | tos << 20, len(content) & 0xFFFF, proto, 64) + source + destination + content
        header = struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(content) & 0xFFFF, 0, 0, 64, proto, 0) + source + destination
        frame = bytearray(bytes(12) + b"\x08\0" + header)
        mend(frame)
        return bytes(frame[14:]) + content


def _framed(packet: bytes, number: int) -> bytes:
    """In an Ethernet frame, now and then with one or two VLAN tags."""
    link = Ether(src=NEIGHBOUR_MAC, dst=NODE_MAC)
    if number % 8 == 3:
        link = link / Dot1Q(vlan=5)
    elif number % 8 == 6:
        link = link / Dot1AD(vlan=5) / Dot1Q(vlan=6)
    link.lastlayer().type = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    return (bytes(link) + packet).ljust(60, b"\0")
