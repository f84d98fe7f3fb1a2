# SPDX-License-Identifier: Apache-2.0
"""
Errors and fragments between real kernels: what the network says of answers reaches the workload, and what the workload says reaches the client.

::

    client eth0 ---- narrow router eth0 ---- eth0 node veth0 ---- eth0 workload
                     tun0 (VIPs) -> GUE by a thread

The router's way to the client takes shorter packets than all others, and nobody else knows. With the agent on the network's side the node itself
is the workload.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import time
from collections.abc import Iterator

import attrs
import pytest
from xdpchain.testing import End, Namespace, Netns, Node, RunNode
from xdpchain_dsr_agent import DsrAgent

from plugins.dsr_agent.tests.kernels import FAMILIES, KINDS, PATIENCE_S, VIPS, balancer, beside, document, setting, wrong_checksums
from plugins.dsr_agent.tests.packets import PORT, WORKLOAD_PORT

NARROW = 1300
"""bytes of IP packets that the way to the client takes"""
TOWARDS_VIP = 1400
"""and the way to the VIP, by the client's own route: with what is put around them they fit into 1500"""


@attrs.frozen
class Road:
    """The network, with the agent in it."""

    node: Node
    workload: Namespace
    server: End
    client: Namespace
    home: End

    def open(self, where: Namespace, family: int, kind: socket.SocketKind) -> socket.socket:
        """A socket in a namespace that does not wait for ever."""
        with where.entered():
            one = socket.socket(KINDS[family], kind)
        one.settimeout(PATIENCE_S)
        return one

    def pair(self, family: int, kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
        """The workload's socket at the service's port, and the client's."""
        server, client = self.open(self.workload, family, kind), self.open(self.client, family, kind)
        server.bind((self.server.ipv4 if family == 4 else self.server.ipv6, WORKLOAD_PORT))
        return server, client

    def path_mtu(self, family: int) -> int | None:
        """What the workload's kernel has learnt of the way to the client; None: nothing."""
        route = self.workload.run("ip", f"-{family}", "route", "get", self.home.ipv4 if family == 4 else self.home.ipv6).stdout
        learnt = re.search(r"\bexpires .*\bmtu (\d+)", route)
        return int(learnt[1]) if learnt else None

    def reasons(self) -> dict[str, int]:
        """How many frames the agent has decided on, by reason."""
        found: dict[str, int] = {}
        for place in self.node.snapshot().places:
            for hop in place.hops:
                for count in hop.counts:
                    found[count.reason] = found.get(count.reason, 0) + count.packets
        return found


@contextlib.contextmanager
def build(node: RunNode, netns: Netns, side: str) -> Iterator[Road]:
    nothing = {**document(), "interface": {"veth0" if side == "workload" else "eth0": {"chain": ["dsr_agent"], "side": side}}}
    running, client = node(nothing, [DsrAgent()]), netns("home")
    router = running.client_namespace
    narrow, home = router.connect(client, "narrow", "eth0")
    workload, server = running.namespace, running.end
    port = None
    if side == "workload":
        workload = netns("workload")
        port, server = running.namespace.connect(workload, "veth0", "eth0")
    for one in {running.namespace, router, client, workload}:
        one.run("sh", "-c", "for one in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $one; done")
    for one in (running.namespace, router):
        setting(one, "ipv4/ip_forward", 1)
        setting(one, "ipv6/conf/all/forwarding", 1)
    for family, address in ((4, home.ipv4), (6, home.ipv6)):
        router.run("ip", f"-{family}", "route", "add", address, "dev", "narrow", "mtu", "lock", str(NARROW))
    for family, gateway in ((4, narrow.ipv4), (6, narrow.ipv6)):
        client.run("ip", f"-{family}", "route", "add", "default", "via", gateway)
        client.run("ip", f"-{family}", "route", "add", VIPS[family], "via", gateway, "mtu", str(TOWARDS_VIP))
    for family, gateway in ((4, running.client.ipv4), (6, running.client.ipv6)):
        running.namespace.run("ip", f"-{family}", "route", "add", "default", "via", gateway)
    if port:
        for family, gateway, address in ((4, port.ipv4, server.ipv4), (6, port.ipv6, server.ipv6)):
            workload.run("ip", f"-{family}", "route", "add", "default", "via", gateway)
            router.run("ip", f"-{family}", "route", "add", address, "via", running.end.ipv4 if family == 4 else running.end.ipv6)
    running.apply({**document(server, running.client), "interface": nothing["interface"]})
    with balancer(router, server):
        for family, vip in VIPS.items():
            router.run("ip", f"-{family}", "route", "add", vip, "dev", "tun0")
        yield Road(running, workload, server, client, home)


@pytest.fixture(params=["network", "workload"])
def road(request: pytest.FixtureRequest, node: RunNode, netns: Netns) -> Iterator[Road]:
    with build(node, netns, request.param) as one:
        yield one


@FAMILIES
def test_the_workloads_kernel_learns_how_narrow_the_way_to_the_client_is(road: Road, family: int) -> None:
    data = os.urandom(300_000)
    server, client = road.pair(family, socket.SOCK_STREAM)
    with server, client:
        server.listen()
        assert road.path_mtu(family) is None

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(PATIENCE_S)
                connection.sendall(data)
                connection.recv(1)

        with beside(serve):
            client.connect((VIPS[family], PORT))
            got = b""
            while len(got) < len(data):
                got += client.recv(1 << 16)
            sockets = road.workload.run("ss", "-tin", "sport", "=", f":{WORKLOAD_PORT}").stdout
            client.close()

    assert hashlib.sha256(data).digest() == hashlib.sha256(got).digest()
    assert f"pmtu:{NARROW}" in sockets
    assert road.path_mtu(family) == NARROW


def ask(client: socket.socket, question: bytes, longest: int) -> bytes:
    """Ask until there is an answer: datagrams get lost while the way is found out."""
    client.settimeout(0.5)
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        client.send(question)
        with contextlib.suppress(TimeoutError):
            return client.recv(longest)
    raise TimeoutError


@FAMILIES
def test_long_datagrams_go_both_ways_in_fragments(road: Road, family: int) -> None:
    question, answer = os.urandom(3000), os.urandom(1400)
    server, client = road.pair(family, socket.SOCK_DGRAM)
    asked = []

    def serve() -> None:
        while True:
            data, address = server.recvfrom(10_000)
            if not data:
                return
            asked.append(data)
            server.sendto(answer, address)

    with server, client:
        client.connect((VIPS[family], PORT))
        with beside(serve):
            try:
                assert answer == ask(client, question, 10_000)
            finally:
                client.send(b"")

    assert {question} == set(asked)
    assert len(asked) > 1, "the first answer, in one piece, is too long for the way"
    assert road.path_mtu(family) == NARROW
    assert {} == wrong_checksums(road.client)
    assert {} == wrong_checksums(road.workload)


@FAMILIES
def test_the_client_hears_that_nobody_listens(road: Road, family: int) -> None:
    server, client = road.pair(family, socket.SOCK_DGRAM)
    server.close()
    with client:
        client.connect((VIPS[family], PORT))
        with pytest.raises(ConnectionRefusedError):
            ask(client, b"anybody?", 100)
