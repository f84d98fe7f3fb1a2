# SPDX-License-Identifier: Apache-2.0
"""The bytes that a hop counts are the frame's, whatever its headers say and in however many buffers it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadChain

from core.tests.chain.functions import Mark

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
IP4, IP6 = IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")
JUMBO = Raw(b"x" * 6000)  # more than a page: a second buffer

FRAMES = {
    "IPv4": ETHER / IP4 / UDP(),
    "IPv4 with padding": ETHER / IP4 / UDP() / Raw(b"") / Raw(b"x" * 100),
    "IPv6": ETHER / IP6 / UDP(),
    "no IP": ETHER / Raw(b"x" * 60),
    "IPv4 jumbo": ETHER / IP4 / UDP() / JUMBO,
    "IPv6 jumbo": ETHER / IP6 / UDP() / JUMBO,
    "IPv4 jumbo in a VLAN": ETHER / Dot1Q(vlan=5) / IP4 / UDP() / JUMBO,
    "IPv6 jumbo in a VLAN": ETHER / Dot1Q(vlan=5) / IP6 / UDP() / JUMBO,
    "jumbo without IP": ETHER / JUMBO,
    "IPv4 jumbo whose length is 0": ETHER / IP(src="192.0.2.1", dst="192.0.2.2", len=0) / UDP() / JUMBO,
    "IPv6 jumbo whose length is 0": ETHER / IPv6(src="2001:db8::1", dst="2001:db8::2", plen=0) / UDP() / JUMBO,
    "IPv4 that says more than there is": ETHER / IP(src="192.0.2.1", dst="192.0.2.2", len=9000) / UDP(),
}
AROUND_A_BUFFER = range(3200, 4096, 8)
"""Lengths of a frame around what the first buffer holds: a page without headroom and the kernel's own part, which depends on its version."""


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_a_frame_counts_with_all_of_its_bytes(load_chain: LoadChain, tmp_path: Path, frame: Packet) -> None:
    chain = load_chain({"interface": {"eth0": {"chain": ["mark"]}}}, functions=[Mark(tmp_path)])

    chain.send(frame)

    (count,) = chain._chain.counts("mark")
    assert (count.packets, count.bytes) == (1, len(bytes(frame)))


@pytest.mark.parametrize("network", [IP4, IP6], ids=["IPv4", "IPv6"])
def test_a_frame_counts_with_all_of_its_bytes_where_the_second_buffer_has_few(
    load_chain: LoadChain, tmp_path: Path, network: Packet
) -> None:
    chain = load_chain({"interface": {"eth0": {"chain": ["mark"]}}}, functions=[Mark(tmp_path)])
    headers = len(bytes(ETHER / network / UDP()))
    counted, before = [], 0
    for length in AROUND_A_BUFFER:
        chain.send(ETHER / network / UDP() / Raw(bytes(length - headers)))
        (count,) = chain._chain.counts("mark")
        counted.append(count.bytes - before)
        before = count.bytes

    assert list(AROUND_A_BUFFER) == counted
