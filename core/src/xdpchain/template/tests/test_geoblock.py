# SPDX-License-Identifier: Apache-2.0
"""geoblock in the kernel, with real packets."""

import contextlib
import socket
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet
from xdpchain import ConfigError
from xdpchain.testing import LoadChain, LoadedChain, RunNode, Verdict

PREFIXES = ["198.51.100.0/24", "2001:db8:bad::/48"]
PORT = 8080
BLOCKED_4, BLOCKED_6 = "198.51.100.7", "2001:db8:bad::7"


def document(*prefixes: str) -> dict[str, Any]:
    return {
        "interface": {"eth0": {"chain": ["geoblock"]}},
        "function": {"geoblock": {"prefixes": list(prefixes)}},
    }


@pytest.fixture
def chain(load_chain: LoadChain) -> LoadedChain:
    return load_chain(document(*PREFIXES))


@pytest.mark.parametrize(
    "packet",
    [
        Ether() / IP(src=BLOCKED_4) / TCP(),
        Ether() / IPv6(src=BLOCKED_6) / UDP(),
        Ether() / Dot1Q(vlan=7) / IP(src=BLOCKED_4) / UDP(),
        Ether() / Dot1AD(vlan=7) / Dot1Q(vlan=8) / IPv6(src=BLOCKED_6) / TCP(),
        Ether() / IPv6(src=BLOCKED_6) / IPv6ExtHdrDestOpt() / TCP(),
    ],
    ids=Packet.summary,
)
def test_what_comes_from_a_listed_prefix_is_dropped(chain: LoadedChain, packet: Packet) -> None:
    result = chain.send(packet)

    assert (result.verdict, result.reason, result.function) == (Verdict.DROP, "blocked", "geoblock")


@pytest.mark.parametrize(
    "packet",
    [
        Ether() / IP(src="198.51.101.7", dst=BLOCKED_4) / TCP(),
        Ether() / IPv6(src="2001:db8:bae::7", dst=BLOCKED_6) / TCP(),
        Ether() / IPv6(src="::198.51.100.7") / TCP(),
        Ether() / ARP(psrc=BLOCKED_4),
    ],
    ids=Packet.summary,
)
def test_everything_else_goes_on_unchanged(chain: LoadedChain, packet: Packet) -> None:
    result = chain.send(packet)

    assert (result.verdict, result.reason) == (Verdict.PASS, "end_of_chain")
    assert result.packet == result.sent


def test_drops_are_counted_by_reason_and_by_prefix(chain: LoadedChain) -> None:
    for _ in range(3):
        chain.send(Ether() / IP(src=BLOCKED_4))
    chain.send(Ether() / IPv6(src=BLOCKED_6))

    (table,) = chain.status("geoblock")

    assert chain.counts("geoblock") == {(Verdict.DROP, "blocked"): 4}
    assert table.rows == [(PREFIXES[0], 3), (PREFIXES[1], 1)]


def test_a_change_keeps_the_counts_of_the_prefixes_that_stay(chain: LoadedChain) -> None:
    chain.send(Ether() / IP(src=BLOCKED_4))

    chain.configure("geoblock", {"prefixes": [PREFIXES[0], "203.0.113.0/24"]})

    (table,) = chain.status("geoblock")
    assert table.rows == [(PREFIXES[0], 1), ("203.0.113.0/24", 0)]
    assert chain.send(Ether() / IP(src="203.0.113.1")).verdict is Verdict.DROP
    assert chain.send(Ether() / IPv6(src=BLOCKED_6)).verdict is Verdict.PASS


def test_a_prefix_that_is_listed_twice_is_an_error(load_chain: LoadChain) -> None:
    with pytest.raises(ConfigError) as caught:
        load_chain(document("10.0.0.0/8", "2001:db8::/32", "10.0.0.0/8"))

    (problem,) = caught.value.problems
    assert problem.path == ("function", "geoblock", "prefixes", 2)


def test_real_connections_stop_and_come_back(node: RunNode) -> None:
    running = node(document())
    with running.namespace.entered():
        server = socket.create_server(("", PORT), family=socket.AF_INET6, dualstack_ipv6=True)

    def connects(address: str) -> bool:
        with running.client_namespace.entered(), contextlib.suppress(TimeoutError):
            socket.create_connection((address, PORT), timeout=0.5).close()
            return True
        return False

    with server:
        assert connects(running.end.ipv4)
        running.apply(document(running.client.ipv4))
        assert not connects(running.end.ipv4)
        assert connects(running.end.ipv6)
        running.apply(document())
        assert connects(running.end.ipv4)
