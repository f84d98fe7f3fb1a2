# SPDX-License-Identifier: Apache-2.0
"""What the tests of arriving packets share: how to send one on either side, and what the agent says of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
from scapy.layers.inet import TCP, UDP
from scapy.packet import Packet
from xdpchain import Side
from xdpchain.testing import LoadedChain, Verdict
from xdpchain_dsr_agent.handler import places

from plugins.dsr_agent.tests.packets import TO_WORKLOAD, WORKLOAD_PORT

SIDES = ["network", "workload"]


@attrs.frozen
class Arrival:
    """What became of a packet: `verdict` and `reason` are the agent's own, `frame` is as it leaves."""

    verdict: Verdict
    reason: str
    frame: bytes


def arrive(chain: LoadedChain, packet: Packet | bytes) -> Arrival:
    """Send a packet towards the workloads, by the hook of the side of the agent."""
    before = chain.counts("dsr_agent")
    (interface,) = chain.config.interfaces
    result = chain.send(packet, egress=interface.side_of("") is Side.WORKLOAD)
    ((verdict, reason),) = [key for key, packets in chain.counts("dsr_agent").items() if packets != before.get(key, 0)]
    return Arrival(verdict, reason, result.packet)


def at_workload(inner: Packet, port: int = WORKLOAD_PORT, **changes: Any) -> Packet:
    """What the workload gets of a packet to the VIP; `changes` are those of its IP header beside the destination."""
    got = inner.copy()
    got.dst = TO_WORKLOAD[got.version].dst
    got[TCP if TCP in got else UDP].dport = port
    for name, value in changes.items():
        setattr(got, name, value)
    return got


def flows(chain: LoadedChain, table: str = "dsr_opening") -> list[dict[str, Any]]:
    """The flows in a table, keys and values in one."""
    return [{**key, **value} for key, value in chain.maps["dsr_agent"][table].items()]


def stats(chain: LoadedChain) -> Counter[str]:
    """The numbers of all services together, of all CPUs."""
    maps = chain.maps["dsr_agent"]
    total = Counter[str]()
    for cpus in maps["dsr_stats"].get_many(list(places(maps).values())):
        for numbers in cpus or ():
            total.update(numbers)
    return total
