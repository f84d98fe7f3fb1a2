# SPDX-License-Identifier: Apache-2.0
"""dscp in the kernel: single packets through the TC program, and real connections for both programs."""

import socket
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet
from xdpchain import ConfigError
from xdpchain.testing import LoadChain, LoadedChain, Node, RunNode, Verdict

EXPEDITED, LOWER_EFFORT = 46, 8
ECN_CE = 3
PORT, UNMARKED_PORT = 8080, 9090
ETH_P_ALL = 3
TIMEOUT_S = 2.0


def document(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"interface": {"eth0": {"chain": ["dscp"]}}, "function": {"dscp": {"rule": list(rules)}}}


RULES = ({"ports": [53, 5060, PORT], "dscp": EXPEDITED}, {"ports": ["6881-6889"], "dscp": LOWER_EFFORT})


@pytest.fixture
def chain(load_chain: LoadChain) -> LoadedChain:
    return load_chain(document(*RULES))


def mark_and_ecn(packet: Packet) -> tuple[int, int]:
    byte = packet[IP].tos if IP in packet else packet[IPv6].tc
    return byte >> 2, byte & 3


@pytest.mark.parametrize(
    ("packet", "mark"),
    [
        (IP() / UDP(dport=53), EXPEDITED),
        (IP() / UDP(sport=53, dport=40000), EXPEDITED),
        (IP() / TCP(dport=6885), LOWER_EFFORT),
        (IPv6() / TCP(dport=5060), EXPEDITED),
        (Ether() / Dot1Q(vlan=5) / IP() / TCP(sport=6881), LOWER_EFFORT),
        (IP() / TCP(dport=22), 0),
        (IP(frag=10) / UDP(dport=53), 0),
    ],
    ids=lambda value: value.summary() if isinstance(value, Packet) else str(value),
)
def test_the_port_decides_about_the_mark(chain: LoadedChain, packet: Packet, mark: int) -> None:
    result = chain.send(packet, egress=True)

    assert (result.verdict, mark_and_ecn(result.scapy)) == (Verdict.PASS, (mark, 0))


@pytest.mark.parametrize("packet", [IP(tos=LOWER_EFFORT << 2 | ECN_CE), IPv6(tc=LOWER_EFFORT << 2 | ECN_CE, fl=0xABCDE)], ids=["v4", "v6"])
def test_a_mark_replaces_another_and_leaves_ecn_and_flow_label(chain: LoadedChain, packet: Packet) -> None:
    result = chain.send(packet / UDP(dport=53), egress=True).scapy

    assert mark_and_ecn(result) == (EXPEDITED, ECN_CE)
    assert IPv6 not in result or result[IPv6].fl == 0xABCDE


@pytest.mark.parametrize("tos", [0, 1, 0x7F, 0xB4, 0xBC, 0xFF])
@pytest.mark.parametrize("checksum", [1, 0x46, 0xB6, 0xB7, 0xB8, 0x1234, 0xFF47, 0xFFFE])
def test_the_header_checksum_is_that_of_the_new_header(chain: LoadedChain, tos: int, checksum: int) -> None:
    """The old checksums are those around which the arithmetic carries."""
    packet = IP(src="192.0.2.1", dst="192.0.2.2", tos=tos, id=0) / UDP(dport=53)
    packet.id = (IP(bytes(packet)).chksum - checksum) % 0xFFFF
    assert IP(bytes(packet)).chksum == checksum

    result = chain.send(packet, egress=True).scapy

    expected = result[IP].copy()
    del expected.chksum
    assert result[IP].chksum == IP(bytes(expected)).chksum


def test_what_happened_is_counted_by_reason(chain: LoadedChain) -> None:
    chain.send(IP() / UDP(dport=53), egress=True)
    chain.send(IP(tos=EXPEDITED << 2) / UDP(dport=53), egress=True)
    chain.send(IP() / UDP(sport=54, dport=54), egress=True)

    assert chain.counts("dscp") == {(Verdict.NEXT, "marked"): 1, (Verdict.NEXT, "kept"): 1, (Verdict.NEXT, ""): 1}


def test_a_rule_that_goes_marks_no_more(chain: LoadedChain) -> None:
    chain.configure("dscp", {"rule": [RULES[1]]})

    assert mark_and_ecn(chain.send(IP() / UDP(dport=53), egress=True).scapy) == (0, 0)
    assert mark_and_ecn(chain.send(IP() / TCP(dport=6881), egress=True).scapy) == (LOWER_EFFORT, 0)


def test_a_port_with_two_marks_is_an_error(load_chain: LoadChain) -> None:
    with pytest.raises(ConfigError) as caught:
        load_chain(document({"ports": ["50-60"], "dscp": 1}, {"ports": [53], "dscp": 2}))

    (problem,) = caught.value.problems
    assert problem.path == ("function", "dscp", "rule", 1, "ports")


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_real_connections_arrive_marked_and_are_counted(node: RunNode, family: str) -> None:
    running = node(document(*RULES))
    with running.client_namespace.entered():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        wire.bind((running.client.interface, ETH_P_ALL))

    with wire:
        wire.settimeout(TIMEOUT_S)
        converse(running, getattr(running.end, family), UNMARKED_PORT)
        assert connections(running) == {}
        converse(running, getattr(running.end, family), PORT)
        frames = [frame for frame in received(wire) if frame[TCP].sport in {PORT, UNMARKED_PORT} and len(frame[TCP].payload)]

    assert {frame[TCP].sport: mark_and_ecn(frame)[0] for frame in frames} == {UNMARKED_PORT: 0, PORT: EXPEDITED}
    # both ends of the connection are on this machine, and the tracepoint sees the whole machine
    assert connections(running) == {EXPEDITED: 2}


def converse(running: Node, address: str, port: int) -> None:
    """The node serves one connection of the client, and the client gets its answer."""
    with running.namespace.entered():
        server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    with server:
        with running.client_namespace.entered():
            client = socket.create_connection((address, port), timeout=TIMEOUT_S)
        with client:
            accepted, _ = server.accept()
            with accepted:
                accepted.sendall(b"hello")
            assert client.recv(100) == b"hello"


def connections(running: Node) -> dict[int, int]:
    counts = running.maps("dscp")["dscp_connections"].items()
    return {mark: sum(per_cpu) for mark, per_cpu in counts if sum(per_cpu)}


def received(wire: socket.socket) -> list[Packet]:
    """The TCP packets that have arrived at the client."""
    wire.setblocking(False)
    frames: list[Packet] = []
    while True:
        try:
            data, (_, _, direction, *_) = wire.recvfrom(65535)
        except BlockingIOError:
            return frames
        if direction != socket.PACKET_OUTGOING and TCP in (frame := Ether(data)):
            frames.append(frame)
