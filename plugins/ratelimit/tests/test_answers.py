# SPDX-License-Identifier: Apache-2.0
"""The answers: a RST that a client takes, and SYN cookies that the kernel takes, in both families and behind VLAN tags."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, PadN
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from xdpchain.testing import Node, RunNode, Verdict
from xdpchain_ratelimit import Ratelimit

from plugins.ratelimit.tests.conftest import Limiter

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
IP4, IP6 = IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")
SYN = TCP(sport=1024, dport=80, flags="S", seq=0xFFFFFFF0, options=[("MSS", 1400), ("WScale", 7)])
NETWORKS: dict[str, Packet] = {
    "IPv4": IP4,
    "IPv6": IP6,
    "VLAN": Dot1Q(vlan=5) / IP4,
    "two VLANs, IPv6": Dot1AD(vlan=5) / Dot1Q(vlan=6) / IP6,
    "IPv4 options": IP(src="192.0.2.1", dst="192.0.2.2", options=[IPOption_Router_Alert()]),
    "IPv6 options": IP6 / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)]),
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
@pytest.mark.parametrize("data", [b"", b"x" * 100])
def test_a_reset_acknowledges_all_of_the_syn_and_goes_back_where_it_came_from(
    limiter: Limiter, long_window: str, network: Packet, data: bytes
) -> None:
    chain = limiter({"ports": [80], "rate": 1, "action": "reset"}, window=long_window)
    chain.send(ETHER / network / SYN)

    result = chain.send(ETHER / network / SYN / Raw(data))

    assert (result.verdict, result.reason) == (Verdict.TX, "rate_exceeded")
    answer, asked = Ether(result.packet), Ether(result.sent)
    assert (answer.src, answer.dst) == (asked.dst, asked.src)
    assert [tag.vlan for tag in answer.iterpayloads() if isinstance(tag, Dot1Q)] == [
        tag.vlan for tag in asked.iterpayloads() if isinstance(tag, Dot1Q)
    ]
    inner, came = (one[IPv6] if IPv6 in one else one[IP] for one in (answer, asked))
    assert (inner.src, inner.dst) == (came.dst, came.src)
    tcp = answer[TCP]
    assert (tcp.sport, tcp.dport, str(tcp.flags), tcp.seq, tcp.dataofs) == (80, 1024, "RA", 0, 5)
    assert tcp.ack == (SYN.seq + 1 + len(data)) % 2**32
    assert_right(inner)


def assert_right(packet: Packet) -> None:
    """Lengths and checksums are those that scapy computes."""
    plain = packet.copy()
    plain[TCP].remove_payload()
    size = bytes(plain)
    fresh = plain.copy()
    for layer, fields in ((IP, ("len", "chksum")), (IPv6, ("plen",)), (TCP, ("chksum",))):
        if layer in fresh:
            for field in fields:
                delattr(fresh[layer], field)
    assert size == bytes(fresh)


def test_nothing_is_answered_to_a_group(limiter: Limiter, long_window: str) -> None:
    chain = limiter({"ports": [80], "rate": 1, "action": "reset"}, window=long_window)
    chain.send(ETHER / IP4 / SYN)

    assert chain.send(Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff") / IP4 / SYN).verdict is Verdict.DROP


def test_without_a_listener_there_is_no_cookie_and_a_warning(limiter: Limiter, long_window: str) -> None:
    chain = limiter({"ports": [80], "rate": 1, "action": "syn-cookie"}, window=long_window)

    assert [chain.send(ETHER / IP4 / SYN).reason for _ in range(2)] == ["end_of_chain", "no_cookie"]
    (warning,) = chain.warnings("ratelimit")
    assert warning.startswith("1 SYNs to any port 80 got no cookie")


def running(node: RunNode, **rule: Any) -> Node:
    document = {
        "interface": {"eth0": {"chain": ["ratelimit"]}},
        "function": {"ratelimit": {"window": "24h", "rule": [{"ports": [8080], "rate": 1, **rule}]}},
    }
    return node(document, [Ratelimit()])


@contextlib.contextmanager
def served(one: Node, family: socket.AddressFamily) -> Iterator[None]:
    """A server on the node that sends back what it gets."""
    with one.namespace.entered():
        server = socket.create_server(("", 8080), family=family, backlog=512)

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])


@FAMILIES
def test_a_client_over_the_limit_is_refused_at_once(node: RunNode, family: socket.AddressFamily) -> None:
    one = running(node, action="reset")
    address = one.end.ipv4 if family == socket.AF_INET else one.end.ipv6
    with served(one, family), one.client_namespace.entered():
        socket.create_connection((address, 8080), timeout=5).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, 8080), timeout=5)


@FAMILIES
def test_real_clients_get_in_with_cookies_during_a_spoofed_flood(node: RunNode, family: socket.AddressFamily) -> None:
    one = running(node, action="syn-cookie")
    one.namespace.run("sh", "-c", "echo 2 > /proc/sys/net/ipv4/tcp_syncookies")
    address = one.end.ipv4 if family == socket.AF_INET else one.end.ipv6
    content = bytes(range(256)) * 400
    with served(one, family):
        with one.client_namespace.entered():
            flood = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            flood.bind((one.client.interface, 0))
        with flood:
            for number in range(2000):
                flood.send(spoofed(one, family, number))
            with one.client_namespace.entered():
                for _ in range(20):
                    with socket.create_connection((address, 8080), timeout=5) as client:
                        client.sendall(content)
                        client.shutdown(socket.SHUT_WR)
                        got = b"".join(iter(lambda: client.recv(65536), b""))
                        assert content == got
                    for number in range(50):
                        flood.send(spoofed(one, family, 5000 + number))
    counts = [count for _, cpus in one.maps("ratelimit")["rl_stats"].items() for count in cpus]
    assert sum(count["admitted"] for count in counts) == 1
    assert sum(count["answered"] for count in counts) >= 2000


def spoofed(one: Node, family: socket.AddressFamily, number: int) -> bytes:
    """A SYN of somebody who is not there."""
    ether = Ether(src=one.client.mac, dst=one.end.mac)
    tcp = TCP(sport=1024 + number, dport=8080, flags="S", seq=number)
    if family == socket.AF_INET6:
        return bytes(ether / IPv6(src=f"2001:db8::{number + 1:x}", dst=one.end.ipv6) / tcp)
    source = socket.inet_ntoa(struct.pack(">I", 0xC6120000 + number))
    return bytes(ether / IP(src=source, dst=one.end.ipv4) / tcp)
