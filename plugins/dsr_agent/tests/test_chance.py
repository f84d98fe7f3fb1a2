# SPDX-License-Identifier: Apache-2.0
"""The second chance: a connection that is not known here goes on to the next backend of its list of hops, once for each of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadedChain, Node, RunNode, Verdict
from xdpchain_dsr_agent import DsrAgent

from plugins.dsr_agent.tests.arriving import arrive, at_workload, flows
from plugins.dsr_agent.tests.conftest import BALANCERS
from plugins.dsr_agent.tests.packets import (
    CLIENT_PORT,
    ETHER,
    GUE_PORT,
    HOPS,
    PORT,
    SERVICES,
    TO_VIP,
    Outer,
    assert_valid,
)

REQUEST = TCP(sport=CLIENT_PORT, dport=PORT, flags="PA") / Raw(b"GET / HTTP/1.1\r\n\r\n")
SYN = TCP(sport=CLIENT_PORT, dport=PORT, flags="S")
QUESTION = UDP(sport=CLIENT_PORT, dport=PORT) / Raw(b"who?")
DELIVERED = (Verdict.NEXT, "delivered")
FAMILIES = [4, 6]
_ALL, _LONGEST, _TIMEOUT_S = 3, 2048, 30.0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("transport", [SYN, QUESTION], ids=["SYN", "UDP"])
def test_what_begins_a_flow_is_delivered(chain: LoadedChain, transport: Packet, family: int) -> None:
    inner = TO_VIP[4] / transport
    result = arrive(chain, ETHER / Outer("gue0", family, hops=HOPS[family]).around(inner))

    assert (result.verdict, result.reason) == DELIVERED
    assert bytes(ETHER / at_workload(inner)) == result.frame


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_of_a_known_flow_is_delivered(chain: LoadedChain, family: int) -> None:
    inner = TO_VIP[4] / REQUEST
    arrive(chain, ETHER / Outer().around(TO_VIP[4] / SYN))
    result = arrive(chain, ETHER / Outer("gue0", family, hops=HOPS[family]).around(inner))

    assert (result.verdict, result.reason) == DELIVERED
    assert bytes(ETHER / at_workload(inner)) == result.frame


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("next_hop", [2, 3, 255])
def test_where_no_hop_is_left_it_is_delivered(chain: LoadedChain, family: int, next_hop: int) -> None:
    inner = TO_VIP[6] / REQUEST
    result = arrive(chain, ETHER / Outer("gue0", family, hops=HOPS[family], next_hop=next_hop).around(inner))

    assert (result.verdict, result.reason) == DELIVERED
    assert bytes(ETHER / at_workload(inner)) == result.frame
    assert len(flows(chain)) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_route_it_is_dropped_and_not_remembered(chain: LoadedChain, family: int) -> None:
    result = arrive(chain, ETHER / Outer("gue0", family, hops=HOPS[family]).around(TO_VIP[4] / REQUEST))

    assert (result.verdict, result.reason) == (Verdict.DROP, "no_room")
    assert flows(chain) == []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ttl", [0, 1])
def test_it_does_not_outlive_its_time(chain: LoadedChain, family: int, ttl: int) -> None:
    result = arrive(chain, ETHER / Outer("gue0", family, hops=HOPS[family], ttl=ttl).around(TO_VIP[4] / REQUEST))

    assert (result.verdict, result.reason) == (Verdict.DROP, "expired")


def test_a_tagged_frame_has_no_second_chance(chain: LoadedChain) -> None:
    result = arrive(chain, ETHER / Dot1Q(vlan=5) / Outer("gue0", hops=HOPS[4]).around(TO_VIP[4] / REQUEST))

    assert (result.verdict, result.reason) == (Verdict.DROP, "no_room")


@pytest.fixture
def routing(node: RunNode) -> Node:
    """A node with an agent on the network's side that routes; all but itself is behind the client."""
    table = {"accept_from": BALANCERS, "service": SERVICES}
    one = node({"interface": {"eth0": {"chain": ["dsr_agent"], "side": "network"}}, "function": {"dsr_agent": table}}, [DsrAgent()])
    inside = one.namespace
    # a bare system has no sysctl
    for setting, value in (("ipv4/conf/all/forwarding", 1), ("ipv6/conf/all/forwarding", 1), ("ipv4/conf/all/rp_filter", 0)):
        inside.run("sh", "-c", f"echo {value} > /proc/sys/net/{setting}")
    inside.run("ip", "route", "add", "default", "via", one.client.ipv4)
    inside.run("ip", "-6", "route", "add", "default", "via", one.client.ipv6)
    inside.run("ip", "neigh", "replace", one.client.ipv4, "lladdr", one.client.mac, "dev", "eth0", "nud", "permanent")
    inside.run("ip", "neigh", "replace", one.client.ipv6, "lladdr", one.client.mac, "dev", "eth0", "nud", "permanent")
    return one


class Balancer:
    """Sends frames to a node from the client's end of the cable, and takes what comes back."""

    def __init__(self, node: Node) -> None:
        self._node = node
        with node.client_namespace.entered():
            self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        self._wire.bind((node.client.interface, 0))
        self._wire.settimeout(_TIMEOUT_S)

    def close(self) -> None:
        """Let go of the cable."""
        self._wire.close()

    def exchange(self, packet: Packet) -> bytes:
        """Send an encapsulated packet; the next frame that is one from the node."""
        self._wire.send(bytes(Ether(src=self._node.client.mac, dst=self._node.end.mac) / packet))
        while True:
            frame = self._wire.recv(_LONGEST)
            if frame[6:12] == bytes.fromhex(self._node.end.mac.replace(":", "")) and GUE_PORT.to_bytes(2, "big") in frame[36:60]:
                return frame


@pytest.fixture
def balancer(routing: Node) -> Iterator[Balancer]:
    """One beside the node that routes."""
    one = Balancer(routing)
    yield one
    one.close()


def sent_on(node: Node, packet: Packet, hop: str, next_hop: int) -> bytes:
    """What goes to a hop: the packet with another destination, index and time to live."""
    outer = packet.copy()
    outer.dst = hop
    if outer.version == 4:
        outer.ttl -= 1
    else:
        outer.hlim -= 1
    data = bytearray(outer[Raw].load)
    data[6] = next_hop
    outer[Raw].load = bytes(data)
    return bytes(Ether(src=node.end.mac, dst=node.client.mac) / outer)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("next_hop", [0, 1])
def test_an_unknown_connection_goes_on_to_the_next_hop(routing: Node, balancer: Balancer, family: int, next_hop: int) -> None:
    for check in (True, False):
        packet = Outer("gue0", family, hops=HOPS[family], next_hop=next_hop, check=check).around(TO_VIP[4] / REQUEST)
        frame = balancer.exchange(packet)

        assert_valid(frame)
        assert sent_on(routing, packet, HOPS[family][next_hop], next_hop + 1) == frame

    assert not list(routing.maps("dsr_agent")["dsr_opening"].items())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stack_finds_a_neighbour_that_is_not_known(routing: Node, balancer: Balancer, family: int) -> None:
    """The client's kernel answers who it is."""
    routing.namespace.run("ip", "neigh", "del", routing.client.ipv4 if family == 4 else routing.client.ipv6, "dev", "eth0")
    packet = Outer("gue0", family, hops=HOPS[family]).around(TO_VIP[6] / REQUEST)
    frame = balancer.exchange(packet)

    assert_valid(frame)
    assert sent_on(routing, packet, HOPS[family][0], 1) == frame
