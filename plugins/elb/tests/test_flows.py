# SPDX-License-Identifier: Apache-2.0
"""A hundred thousand flows at a time: none of those whose backend lives moves, whatever becomes of the other backends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from xdpchain.testing import LoadChain
from xdpchain_elb.function import Elb

from plugins.elb.tests.shot import Flag, Shot, tcp, udp

FLOWS, NEW = 100_000, 20_000
BACKENDS = tuple(f"10.0.0.{number}" for number in range(1, 11))
VIPS: Mapping[int, IPv4Address | IPv6Address] = {4: IPv4Address("10.200.1.1"), 6: IPv6Address("2001:db8:200::1")}
CLIENTS: Mapping[int, IPv4Address | IPv6Address] = {4: IPv4Address("198.18.0.0"), 6: IPv6Address("2001:db8:c::")}


def table(family: int, protocol: str, *without: str, drain: str = "") -> dict[str, Any]:
    backends = [{"address": one, "drain": one == drain} for one in BACKENDS if one not in without]
    return {
        "source": ["10.0.13.37"],
        "next_hop": "02:00:00:00:00:ff",
        "flow_table": 500_000,
        "vip": [{"address": str(VIPS[family]), "port": 443, "protocol": protocol, "backend": backends}],
    }


def frames(family: int, protocol: str, first: int, number: int, flags: Flag) -> list[bytes]:
    """Frames of flows that are all different, by their addresses and their ports."""
    made = []
    for at in range(first, first + number):
        client, port = CLIENTS[family] + at % 50_021, 1024 + at % 60_013
        made.append(tcp(client, port, VIPS[family], 443, flags) if protocol == "tcp" else udp(client, port, VIPS[family], 443))
    return made


@pytest.mark.parametrize(("protocol", "family"), [("tcp", 4), ("tcp", 6), ("udp", 4)])
def test_of_a_hundred_thousand_flows_none_moves_whose_backend_lives(load_chain: LoadChain, protocol: str, family: int) -> None:
    document = {"interface": {"eth0": {"chain": ["elb"]}}, "function": {"elb": table(family, protocol)}}
    chain = load_chain(document, functions=[Elb()])
    backend = Shot(chain).backend
    gone, leaving = (ip_address(one).packed for one in (BACKENDS[3], BACKENDS[6]))
    flows = frames(family, protocol, 0, FLOWS, Flag.ACK)
    for syn in frames(family, protocol, 0, FLOWS, Flag.SYN):
        backend(syn)
    before = [backend(one) for one in flows]
    assert {ip_address(one).packed for one in BACKENDS} == set(before)

    chain.configure("elb", table(family, protocol, BACKENDS[3]))
    after = [backend(one) for one in flows]

    moved = Counter(was for was, now in zip(before, after, strict=True) if was != now)
    assert {gone} == set(moved), "flows of the backend that is gone move, and no others"
    assert before.count(gone) == moved[gone]

    new = frames(family, protocol, FLOWS, NEW, Flag.ACK)
    for syn in frames(family, protocol, FLOWS, NEW, Flag.SYN):
        assert backend(syn) != gone
    before_new = [backend(one) for one in new]
    chain.configure("elb", table(family, protocol))

    assert after == [backend(one) for one in flows]
    assert before_new == [backend(one) for one in new]

    chain.configure("elb", table(family, protocol, drain=BACKENDS[6]))

    assert after == [backend(one) for one in flows]
    assert before_new == [backend(one) for one in new]
    if protocol == "tcp":
        newest = [backend(one) for one in frames(family, protocol, FLOWS + NEW, NEW, Flag.SYN)]
        assert leaving not in newest
        assert newest == [backend(one) for one in frames(family, protocol, FLOWS + NEW, NEW, Flag.ACK)]
