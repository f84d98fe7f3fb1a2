# SPDX-License-Identifier: Apache-2.0
"""What the tests of leaving packets share: how to send one on either side, and what the agent remembers, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scapy.packet import Packet
from xdpchain import Side
from xdpchain.testing import LoadedChain

from plugins.dsr_agent.tests.arriving import Arrival, arrive, flows
from plugins.dsr_agent.tests.packets import ETHER

STATES = ("syn", "established", "fin", "closed", "udp")
MARKS = ("answered", "fin_in", "fin_out", "direct", "hairpin", "held")


def hear(chain: LoadedChain, *packets: Packet) -> None:
    """IP packets that arrive."""
    for packet in packets:
        arrive(chain, ETHER / packet)


def leave(chain: LoadedChain, frame: Packet | bytes) -> Arrival:
    """Send a frame from the workload, by the hook of the side of the agent; says what `arrive` does."""
    before = chain.counts("dsr_agent")
    (interface,) = chain.config.interfaces
    result = chain.send(frame, egress=interface.side_of("") is Side.NETWORK)
    ((verdict, reason),) = [key for key, packets in chain.counts("dsr_agent").items() if packets != before.get(key, 0)]
    return Arrival(verdict, reason, result.packet)


def only_flow(chain: LoadedChain) -> Mapping[str, Any]:
    """The one flow that an agent knows: `map` is the table that it is in."""
    ((name, flow),) = [(name, flow) for name in ("dsr_opening", "dsr_flows") for flow in flows(chain, name)]
    marks = {mark for bit, mark in enumerate(MARKS) if flow["marks"] >> bit & 1}
    addresses = {field: str(flow[field].ipv4_mapped or flow[field]) for field in ("workload", "client", "vip")}
    return {**flow, **addresses, "state": STATES[flow["state"]], "marks": marks, "map": name}
