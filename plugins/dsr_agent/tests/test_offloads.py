# SPDX-License-Identifier: Apache-2.0
"""
Real connections through an agent in front of a container whose interface is as the kernel makes it: with segments of 64 KB and partial checksums.

::

    client tun0 (VIPs) -> GUE by a thread
    client eth0 ---- eth0 node veth0 ---- eth0 workload

What reaches the client has been through an interface that computes every checksum, so the client's kernel sees those that are wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from xdpchain.testing import End, Namespace, Netns, Node, RunNode, Verdict
from xdpchain_dsr_agent import DsrAgent

from plugins.dsr_agent.tests.kernels import FAMILIES, KINDS, PATIENCE_S, VIPS, balancer, beside, document, setting, wrong_checksums
from plugins.dsr_agent.tests.packets import PORT, VIP4, VIP6, WORKLOAD_PORT

_SOL_UDP, _UDP_SEGMENT = 17, 103
_NO_CHECK = 11
"""SO_NO_CHECK: no checksum in UDP over IPv4"""
_HOPS = {4: (socket.IPPROTO_IP, 2, 12, 11), 6: (socket.IPPROTO_IPV6, 16, 51, 25)}
"""the level, and the options IP_TTL, IP_RECVTTL, IP_RECVERR and IPV6_UNICAST_HOPS, IPV6_RECVHOPLIMIT, IPV6_RECVERR"""
SOME_MB = 6_000_000


@attrs.frozen
class Way:
    """The network, with the agent in it."""

    node: Node
    workload: Namespace
    end: End
    too_long: list[int]
    """lengths of packets that did not fit when they were encapsulated"""

    def address(self, family: int) -> str:
        """Of the workload."""
        return self.end.ipv4 if family == 4 else self.end.ipv6

    def socket(self, where: Namespace, family: int, kind: socket.SocketKind) -> socket.socket:
        """A socket in a namespace that does not wait for ever."""
        with where.entered():
            one = socket.socket(KINDS[family], kind)
        one.settimeout(PATIENCE_S)
        return one

    def segments(self) -> int:
        """How many packets have left by the agent's own count, many segments in one counted one by one."""
        maps = self.node.maps("dsr_agent")
        return sum(cpu["out_packets"] for _, cpus in maps["dsr_stats"].items() for cpu in cpus)

    def counted(self) -> dict[tuple[Verdict, str], int]:
        """How many frames the agent has decided on, by verdict and reason."""
        counts = [count for place in self.node.snapshot().places for hop in place.hops for count in hop.counts]
        return {(count.verdict, count.reason): count.packets for count in counts if count.packets}


LetIn = Callable[..., contextlib.AbstractContextManager[Way]]


@pytest.fixture
def way(node: RunNode, netns: Netns) -> LetIn:
    """Build the network: `with way(answers="stack") as way`."""

    @contextlib.contextmanager
    def build(**keys: Any) -> Iterator[Way]:
        running, workload = node(document(), [DsrAgent()]), netns("workload")
        port, end = running.namespace.connect(workload, "veth0", "eth0", checksum_offload=True)
        client = running.client_namespace
        for one in (running.namespace, client, workload):
            for name in ("all", "default", "eth0"):
                setting(one, f"ipv4/conf/{name}/rp_filter", 0)
        setting(running.namespace, "ipv4/ip_forward", 1)
        setting(running.namespace, "ipv6/conf/all/forwarding", 1)
        for inside, gateway in ((workload, port), (client, running.end)):
            inside.run("ip", "route", "add", "default", "via", gateway.ipv4)
            inside.run("ip", "-6", "route", "add", "default", "via", gateway.ipv6)
        running.apply(document(end, running.client, **keys))
        with balancer(client, end) as too_long:
            client.run("ip", "route", "add", VIP4, "dev", "tun0", "src", running.client.ipv4)
            client.run("ip", "-6", "route", "add", VIP6, "dev", "tun0", "src", running.client.ipv6)
            yield Way(running, workload, end, too_long)

    return build


def receive(connection: socket.socket) -> str:
    """The hash of all that comes until the other end closes."""
    hashed = hashlib.sha256()
    while data := connection.recv(1 << 18):
        hashed.update(data)
    return hashed.hexdigest()


def transfer(way: Way, family: int, up: bytes, down: bytes) -> tuple[str, str]:
    """Send data to the workload, and from it at the same time; gives the hashes of what both have got."""
    client = way.node.client_namespace
    hashes: dict[str, str] = {}
    with way.socket(way.workload, family, socket.SOCK_STREAM) as listener, way.socket(client, family, socket.SOCK_STREAM) as caller:
        listener.bind((way.address(family), WORKLOAD_PORT))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(PATIENCE_S)

                def answer() -> None:
                    connection.sendall(down)
                    connection.shutdown(socket.SHUT_WR)

                with beside(answer):
                    hashes["up"] = receive(connection)

        def call() -> None:
            caller.sendall(up)
            caller.shutdown(socket.SHUT_WR)

        with beside(serve):
            caller.connect((VIPS[family], PORT))
            with beside(call):
                hashes["down"] = receive(caller)
    return hashes["up"], hashes["down"]


@pytest.mark.parametrize("answers", ["direct", "stack"])
@FAMILIES
def test_a_transfer_both_ways_arrives_whole(way: LetIn, family: int, answers: str) -> None:
    data = os.urandom(SOME_MB)
    digest = hashlib.sha256(data).hexdigest()
    with way(answers=answers) as there:
        assert (digest, digest) == transfer(there, family, data, data)
        assert {} == wrong_checksums(there.node.client_namespace)
        assert {} == wrong_checksums(there.workload)
        assert [] == there.too_long

        counted = there.counted()
        answered = {"direct": Verdict.REDIRECT, "stack": Verdict.NEXT}[answers]

        assert counted[answered, "answered"] < there.segments(), "the workload's segments of 64 KB stay what they are"
        assert {(answered, "answered"), (Verdict.NEXT, "delivered"), (Verdict.NEXT, "")} >= counted.keys()


@FAMILIES
def test_datagrams_small_and_in_segments_are_answered(way: LetIn, family: int) -> None:
    with way() as there:
        client, vip = there.node.client_namespace, VIPS[family]
        with there.socket(there.workload, family, socket.SOCK_DGRAM) as server, there.socket(client, family, socket.SOCK_DGRAM) as caller:
            server.bind((there.address(family), WORKLOAD_PORT))
            caller.connect((vip, PORT))
            address = caller.getsockname()
            for length in (0, 1, 100, 1400):
                caller.send(bytes(length))
                got = server.recv(2000)
                server.sendto(got + b"!", address)

                assert caller.recv(2000) == bytes(length) + b"!"

            server.setsockopt(_SOL_UDP, _UDP_SEGMENT, 1000)
            server.sendto(b"".join(bytes([number]) * 1000 for number in range(20)), address)

            assert [bytes([number]) * 1000 for number in range(20)] == [caller.recv(2000) for _ in range(20)]

            if family == 4:
                server.setsockopt(_SOL_UDP, _UDP_SEGMENT, 0)
                server.setsockopt(socket.SOL_SOCKET, _NO_CHECK, 1)
                server.sendto(b"unchecked", address)

                assert caller.recv(2000) == b"unchecked"

        assert {} == wrong_checksums(client)
        assert there.counted()[Verdict.REDIRECT, "answered"] == 5 + (family == 4)
        assert there.segments() == 4 + 20 + (family == 4)


@FAMILIES
def test_a_workload_hears_of_a_way_that_is_narrower_than_its_own(way: LetIn, family: int) -> None:
    data = os.urandom(SOME_MB)
    with way() as there:
        there.node.namespace.run("ip", "link", "set", "eth0", "mtu", "1400")
        there.node.client_namespace.run("ip", "link", "set", "eth0", "mtu", "1400")
        got = transfer(there, family, b"", data)
        client = there.node.client.ipv4 if family == 4 else there.node.client.ipv6

        assert got == (hashlib.sha256(b"").hexdigest(), hashlib.sha256(data).hexdigest())
        assert "mtu 1400" in there.workload.run("ip", "route", "get", client).stdout
        assert {} == wrong_checksums(there.node.client_namespace)


@pytest.mark.parametrize("answers", ["direct", "stack"])
@FAMILIES
def test_an_answer_has_one_hop_less_to_live(way: LetIn, family: int, answers: str) -> None:
    level, limit, receive_limit, receive_errors = _HOPS[family]
    with way(answers=answers) as there:
        client = there.node.client_namespace
        with there.socket(there.workload, family, socket.SOCK_DGRAM) as server, there.socket(client, family, socket.SOCK_DGRAM) as caller:
            caller.setsockopt(level, receive_limit, 1)
            server.setsockopt(level, receive_errors, 1)
            server.bind((there.address(family), WORKLOAD_PORT))
            caller.connect((VIPS[family], PORT))
            caller.send(b"who?")
            _, address = server.recvfrom(2000)
            server.connect(address)
            server.setsockopt(level, limit, 17)
            server.send(b"me")
            got, control, _, _ = caller.recvmsg(2000, 64)

            assert (got, 16) == (b"me", struct.unpack("=i", control[0][2])[0])

            if answers == "direct":
                server.setsockopt(level, limit, 1)
                server.send(b"me again")
                with pytest.raises(OSError, match="No route to host"):
                    server.recv(2000)
