# SPDX-License-Identifier: Apache-2.0
"""A workload that calls its own service hears the VIP, and serves somebody else."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadedChain, Verdict

from plugins.dsr_agent.tests.arriving import SIDES, arrive
from plugins.dsr_agent.tests.conftest import LoadAgent
from plugins.dsr_agent.tests.leaving import leave, only_flow
from plugins.dsr_agent.tests.packets import (
    ETHER,
    FROM_WORKLOAD,
    NEIGHBOUR_MAC,
    NODE_MAC,
    PORT,
    SERVICES,
    TO_VIP,
    WORKLOAD_PORT,
    Outer,
    assert_valid,
)

OWN_PORT = 50_000
HAIRPIN = {4: "169.254.64.1", 6: "fd64:7372::1"}
CALLS = {
    "tcp": (TCP(sport=OWN_PORT, dport=PORT, flags="S"), TCP(sport=WORKLOAD_PORT, dport=OWN_PORT, flags="SA", options=[("MSS", 65_495)])),
    "udp": (UDP(sport=OWN_PORT, dport=PORT) / Raw(b"who?"), UDP(sport=WORKLOAD_PORT, dport=OWN_PORT) / Raw(b"me")),
}


@pytest.fixture(params=SIDES)
def chain(agent: LoadAgent, request: pytest.FixtureRequest) -> LoadedChain:
    """An agent of either side with a service of each family and protocol."""
    return agent(request.param, *SERVICES)


def packet(family: int, source: str, destination: str, transport: Packet) -> Packet:
    ip: Any = IP if family == 4 else IPv6
    whole: Packet = ip(src=source, dst=destination) / transport
    return whole


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_the_answer_turns_round_and_comes_from_the_vip(chain: LoadedChain, protocol: str, family: int) -> None:
    call, answer = CALLS[protocol]
    own, vip = FROM_WORKLOAD[family].src, TO_VIP[family].dst
    asked = arrive(chain, ETHER / Outer("gue", family).around(packet(family, own, vip, call)))

    assert asked.reason == "delivered"
    assert Ether(asked.frame).payload.src == HAIRPIN[family]

    result = leave(chain, ETHER / packet(family, own, HAIRPIN[family], answer))
    got = Ether(result.frame)
    ip, transport = got.payload, got.payload.payload

    assert (result.verdict, result.reason) == (Verdict.REDIRECT, "hairpinned")
    assert_valid(result.frame)
    assert (ip.src, ip.dst, transport.sport, transport.dport) == (vip, own, PORT, OWN_PORT)
    assert (got.src, got.dst) == (NODE_MAC, NEIGHBOUR_MAC)
    assert only_flow(chain)["marks"] == {"answered", "hairpin"}


def test_its_own_segments_are_encapsulated_too(chain: LoadedChain) -> None:
    call, answer = CALLS["tcp"]
    own, vip = FROM_WORKLOAD[4].src, TO_VIP[4].dst
    arrive(chain, ETHER / Outer("ipip").around(packet(4, own, vip, call)))
    result = leave(chain, ETHER / packet(4, own, HAIRPIN[4], answer))

    assert dict(Ether(result.frame)[TCP].options)["MSS"] == 65_536 - 20 - 40


@pytest.mark.parametrize("family", [4, 6])
def test_its_call_leaves_as_it_is(chain: LoadedChain, family: int) -> None:
    frame = bytes(ETHER / packet(family, FROM_WORKLOAD[family].src, TO_VIP[family].dst, CALLS["tcp"][0]))
    result = leave(chain, frame)

    assert (result.verdict, result.reason) == (Verdict.NEXT, "")
    assert frame == result.frame
