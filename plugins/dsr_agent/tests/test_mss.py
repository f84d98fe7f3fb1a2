# SPDX-License-Identifier: Apache-2.0
"""A client is told to send segments that still fit when a load balancer has encapsulated them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadedChain

from plugins.dsr_agent.tests.conftest import LoadAgent
from plugins.dsr_agent.tests.leaving import hear, leave
from plugins.dsr_agent.tests.packets import (
    CLIENT4,
    CLIENT_PORT,
    ETHER,
    FROM_WORKLOAD,
    OUTERS,
    PORT,
    SERVICES,
    TO_VIP,
    WORKLOAD4,
    WORKLOAD_PORT,
    Outer,
    assert_valid,
)

MTU = 65_536
"""of the loopback interface, on which the kernel runs test packets"""
SYN = TCP(sport=CLIENT_PORT, dport=PORT, flags="S")
HEADERS = {4: 40, 6: 60}
ROOM_OF_A_HOP_LIST = {4: 12, 6: 24}


def syn_ack(family: int, options: Any, flags: str = "SA") -> Packet:
    packet: Packet = FROM_WORKLOAD[family] / TCP(sport=WORKLOAD_PORT, dport=CLIENT_PORT, flags=flags, seq=8, ack=2, options=options)
    return packet


def mss_of(frame: bytes) -> int:
    """What a client reads in a SYN/ACK."""
    return int(dict(Ether(frame)[TCP].options)["MSS"])


@pytest.mark.parametrize("outer", OUTERS, ids=str)
@pytest.mark.parametrize("family", [4, 6])
def test_the_mss_leaves_room_for_what_was_around_the_clients_syn(chain: LoadedChain, family: int, outer: Outer) -> None:
    hear(chain, outer.around(TO_VIP[family] / SYN))
    result = leave(chain, ETHER / syn_ack(family, [("MSS", 65_495), ("SAckOK", b""), ("WScale", 7)]))
    around = (
        Outer("gue0", outer.family, hops=["::" if outer.family == 6 else "0.0.0.0"]).overhead if outer.form != "ipip" else outer.overhead
    )

    assert result.reason == "answered"
    assert_valid(result.frame)
    assert mss_of(result.frame) == MTU - max(around, outer.overhead) - HEADERS[family]


@pytest.mark.parametrize(
    "before",
    [[], [("NOP", None)], [("NOP", None)] * 3, [("SAckOK", b"")], [("WScale", 7)], [("Timestamp", (1, 2))], [("NOP", None)] * 36],
    ids=lambda options: " ".join(name for name, _ in options) or "nothing",
)
@pytest.mark.parametrize("family", [4, 6])
def test_the_option_is_found_wherever_it_stands(chain: LoadedChain, family: int, before: list[Any]) -> None:
    hear(chain, Outer("ipip").around(TO_VIP[family] / SYN))
    for mss in (65_500, 65_534, 65_535):
        result = leave(chain, ETHER / syn_ack(family, [*before, ("MSS", mss)]))

        assert_valid(result.frame)
        assert mss_of(result.frame) == MTU - 20 - HEADERS[family]


@pytest.mark.parametrize("family", [4, 6])
def test_a_segment_that_fits_stays(chain: LoadedChain, family: int) -> None:
    hear(chain, Outer().around(TO_VIP[family] / SYN))
    result = leave(chain, ETHER / syn_ack(family, [("MSS", 1400)]))

    assert_valid(result.frame)
    assert mss_of(result.frame) == 1400


@pytest.mark.parametrize(
    "options",
    [
        b"",
        bytes([0, 0, 0, 0, 2, 4, 255, 255]),
        bytes([1, 1, 1, 2]),
        bytes([8, 0, 2, 4, 255, 255, 1, 1]),
        bytes([8, 255, 2, 4, 255, 255, 1, 1]),
        bytes([2, 3, 255, 255]),
        bytes([2, 5, 255, 255, 1, 0, 0, 0]),
        bytes([1] * 40),
    ],
    ids=["none", "behind the end", "cut short", "length 0", "length beyond", "length 3", "length 5", "nothing but NOP"],
)
def test_options_that_cannot_be_read_stay(chain: LoadedChain, options: bytes) -> None:
    hear(chain, Outer().around(TO_VIP[4] / SYN))
    header = struct.pack("!HHIIBBHHH", WORKLOAD_PORT, CLIENT_PORT, 8, 2, (20 + len(options)) // 4 << 4, 0x12, 8192, 0, 0)
    result = leave(chain, ETHER / IP(src=WORKLOAD4, dst=CLIENT4, proto=6) / Raw(header + options))

    assert result.reason == "answered"
    assert options == result.frame[14 + 20 + 20 :]


def test_only_a_syn_is_looked_into(chain: LoadedChain) -> None:
    hear(chain, Outer().around(TO_VIP[4] / SYN))
    result = leave(chain, ETHER / syn_ack(4, [("MSS", 65_535)], flags="A"))

    assert result.reason == "answered"
    assert mss_of(result.frame) == 65_535


@pytest.mark.parametrize(("encapsulation", "around"), [(["gue", "ipip"], 72), (["ipip"], 40)], ids=["GUE", "IPIP"])
def test_of_an_unknown_flow_the_most_is_assumed(agent: LoadAgent, encapsulation: list[str], around: int) -> None:
    chain = agent("workload", *SERVICES, encapsulation=encapsulation)
    result = leave(chain, ETHER / syn_ack(4, [("MSS", 65_535)]))

    assert result.reason == "guessed"
    assert mss_of(result.frame) == MTU - around - HEADERS[4]
