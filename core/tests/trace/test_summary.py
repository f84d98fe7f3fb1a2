# SPDX-License-Identifier: Apache-2.0
"""One line about a frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, GRE, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet
from xdpchain.packets.notation import frame_of
from xdpchain.packets.summary import summary


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (IP(dst="10.0.0.1") / TCP(sport=4000, dport=80, flags="SA"), "192.0.2.1:4000 > 10.0.0.1:80 TCP SA, 54 bytes"),
        (IP(dst="10.0.0.1", options=[b"\x01" * 8]) / UDP(sport=1, dport=2), "192.0.2.1:1 > 10.0.0.1:2 UDP, 50 bytes"),
        (Dot1AD(vlan=7) / Dot1Q(vlan=8) / IP(dst="10.0.0.1") / ICMP(), "VLAN 7, VLAN 8, 192.0.2.1 > 10.0.0.1 ICMP type 8, 50 bytes"),
        (IPv6(dst="::2") / IPv6ExtHdrHopByHop() / TCP(flags=0), "[2001:db8::1]:20 > [::2]:80 TCP -, 82 bytes"),
        (IPv6(dst="::2") / IPv6ExtHdrFragment(m=1) / UDP(sport=5, dport=6), "[2001:db8::1]:5 > [::2]:6 UDP, first part, 70 bytes"),
        (IPv6(dst="::2") / IPv6ExtHdrFragment(offset=100, nh=17) / b"abcd", "2001:db8::1 > ::2 UDP, part from byte 800, 66 bytes"),
        (IP(dst="10.0.0.1", frag=3, proto=6) / b"abcdefgh", "192.0.2.1 > 10.0.0.1 TCP, part from byte 24, 42 bytes"),
        (IP(dst="10.0.0.1") / GRE(), "192.0.2.1 > 10.0.0.1 GRE, 38 bytes"),
        (IP(dst="10.0.0.1", proto=200), "192.0.2.1 > 10.0.0.1 protocol 200, 34 bytes"),
        (ARP(), "02:00:00:00:00:01 > 02:00:00:00:00:02 ARP, 42 bytes"),
        (Ether(type=0x88B5), "02:00:00:00:00:01 > 02:00:00:00:00:02 ethertype 0x88b5, 14 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_frame_is_told_as_people_read_it(packet: Packet, text: str) -> None:
    assert summary(frame_of(packet)) == text


@given(st.binary(max_size=100), st.sampled_from([b"", b"\x81\x00", b"\x08\x00", b"\x86\xdd", b"\x08\x00\x45"]))
def test_no_frame_whatever_makes_it_fail(data: bytes, ethertype: bytes) -> None:
    frame = data[:12] + ethertype + data[12:]

    assert summary(frame).endswith(f"{len(frame)} bytes")
