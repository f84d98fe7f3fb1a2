# SPDX-License-Identifier: Apache-2.0
"""Packets that load balancers encapsulate reach the workload as if clients had sent them to it."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Dot1Q
from scapy.packet import Packet, Raw
from xdpchain import Side
from xdpchain.testing import LoadedChain, Verdict

from plugins.dsr_agent.tests.arriving import SIDES, arrive, at_workload
from plugins.dsr_agent.tests.conftest import LoadAgent
from plugins.dsr_agent.tests.packets import (
    CLIENT_PORT,
    ETHER,
    LINKS,
    OUTERS,
    PORT,
    SERVICES,
    TO_VIP,
    assert_valid,
)

SYN = TCP(sport=CLIENT_PORT, dport=PORT, flags="S", seq=1, options=[("MSS", 1460)])
REQUEST = TCP(sport=CLIENT_PORT, dport=PORT, flags="PA", seq=2, ack=9) / Raw(b"GET / HTTP/1.1\r\n\r\n")
QUESTION = UDP(sport=CLIENT_PORT, dport=PORT) / Raw(b"who?")


@pytest.fixture(params=SIDES)
def chain(agent: LoadAgent, request: pytest.FixtureRequest) -> LoadedChain:
    """An agent of either side with a service of each family and protocol."""
    return agent(request.param, *SERVICES)


def without_first_tag(chain: LoadedChain, link: Packet) -> Packet:
    """The link headers as they are in the frame: at TC, the first tag is beside it from then on."""
    if Dot1Q not in link or chain.config.interfaces[0].side_of("") is Side.NETWORK:
        return link
    inner = link.payload.payload.copy()
    return ETHER / inner if inner else ETHER


@pytest.mark.parametrize("link", LINKS, ids=["untagged", "802.1Q", "802.1ad"])
@pytest.mark.parametrize("transport", [SYN, REQUEST, QUESTION], ids=["syn", "tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6])
def test_a_packet_is_taken_out_and_addressed_to_the_workload(chain: LoadedChain, family: int, transport: Packet, link: Packet) -> None:
    inner = TO_VIP[family] / transport
    for outer in OUTERS:
        result = arrive(chain, link / outer.around(inner))

        assert (result.verdict, result.reason) == (Verdict.NEXT, "delivered")
        assert_valid(result.frame)
        assert bytes(without_first_tag(chain, link) / at_workload(inner)) == result.frame
