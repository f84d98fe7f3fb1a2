# SPDX-License-Identifier: Apache-2.0
"""TCP sockets as the kernel has them."""

from __future__ import annotations

import socket
import time
from ipaddress import ip_address

from xdpchain.sockets import TCP_ESTABLISHED, TCP_LISTEN, netns_cookie, tcp_sockets
from xdpchain.testing import Netns

MAPPED = bytes(10) + b"\xff\xff"


def test_both_ends_of_a_connection_are_told_with_addresses_of_16_bytes() -> None:
    for family, host, told in (
        (socket.AF_INET, "127.0.0.1", MAPPED + ip_address("127.0.0.1").packed),
        (socket.AF_INET6, "::1", ip_address("::1").packed),
        (socket.AF_INET6, "::ffff:127.0.0.1", MAPPED + ip_address("127.0.0.1").packed),
    ):
        dual = family == socket.AF_INET6
        with (
            socket.create_server((host, 0), family=family, dualstack_ipv6=dual) as server,
            socket.create_connection(server.getsockname()[:2]) as client,
        ):
            before = time.monotonic_ns()
            seen = tcp_sockets()
            port, back = server.getsockname()[1], client.getsockname()[1]
            mine = {one for one in seen.tcp if port in {one.local_port, one.remote_port}}

            assert seen.at_ns >= before
            assert {(TCP_LISTEN, port, 0), (TCP_ESTABLISHED, port, back), (TCP_ESTABLISHED, back, port)} == {
                (one.state, one.local_port, one.remote_port) for one in mine
            }
            assert {told} == {one.local for one in mine}


def test_what_time_wait_leaves_is_no_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        back = client.getsockname()[1]
        accepted, _ = server.accept()
        # the side that closes first waits: in FIN_WAIT2 at first, which its substitute says of itself, too
        client.close()
        time.sleep(0.05)
        assert [] == [one for one in tcp_sockets().tcp if one.local_port == back]
        accepted.close()


def test_a_thousand_sockets_are_told_each_once(netns: Netns) -> None:
    here = netns("here")
    with here.entered():
        server = socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=1100)
        clients = [socket.create_connection(server.getsockname()[:2]) for _ in range(1000)]
        found = tcp_sockets().tcp
        cookie = netns_cookie()

    assert (2001, 2001) == (len(found), len(set(found)))
    assert cookie != netns_cookie()
    for one in (server, *clients):
        one.close()
