# SPDX-License-Identifier: Apache-2.0
"""What `xdpchain show elb`, the metrics and the warnings say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scapy.layers.inet import TCP, UDP
from xdpchain import NextHop
from xdpchain.testing import LoadChain, LoadedChain
from xdpchain_elb import Elb, ElbConfig

from plugins.elb.tests.balancer import SMALL
from plugins.elb.tests.documents import SOURCES, vip
from plugins.elb.tests.packets import ETHER, TO4

MAC = "02:00:00:00:00:99"
SERVERS = [
    {"address": "10.0.0.1", "weight": 100},
    {"address": "10.0.0.2", "weight": 50, "drain": True},
    {"address": "10.0.0.3", "down": True},
]


def table(*vips: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {**SMALL, "source": SOURCES, "next_hop": MAC, "vip": list(vips), **keys}


def load(load_chain: LoadChain, *vips: dict[str, Any], **keys: Any) -> LoadedChain:
    return load_chain({"interface": {"eth0": {"chain": ["elb"]}}, "function": {"elb": table(*vips, **keys)}}, functions=[Elb()])


def maps_of(chain: LoadedChain) -> Mapping[str, Any]:
    return chain.maps["elb"]


def moving_slots(chain: LoadedChain) -> Any:
    ((_, slots, _),) = [row for row in chain.status("elb")[1].rows if row[0] == "moving slots"]
    return slots


def config_of(chain: LoadedChain) -> ElbConfig:
    config = chain.config.instances["elb"].config
    assert isinstance(config, ElbConfig)
    return config


def test_a_service_stands_above_its_backends_and_has_their_sums(load_chain: LoadChain) -> None:
    chain = load(
        load_chain, vip(backend=SERVERS, options=["no-tracking"]), vip(port=53, protocol="udp", options=["udp-migration"], backend=SERVERS)
    )
    sent = [chain.send(ETHER / TO4 / TCP(sport=port, dport=443, flags="S")).sent for port in range(1000, 1010)]
    services, standing = chain.status("elb")
    name, counts = "10.200.1.1:443 tcp", (10, sum(map(len, sent)), 10)

    assert [
        (name, None, "maglev-v2 no-tracking", None, None, None, *counts),
        (name, "10.0.0.1", "gue", 100, "up", "ok", *counts),
        (name, "10.0.0.2", "gue", 50, "drain", "ok", 0, 0, 0),
        (name, "10.0.0.3", "gue", 1, "drain", "ok", 0, 0, 0),
    ] == services.rows[:4]
    assert "down" == services.rows[7][4], "with udp-migration"
    assert len(services.rows) == len({row[: services.key] for row in services.rows})
    assert {("moving slots", 0, None), ("backends with a known next hop", 3, 3)} <= set(standing.rows)


def test_moving_slots_are_told_until_they_rest(load_chain: LoadChain) -> None:
    chain = load(load_chain, vip(backend=SERVERS[:1]), hold_tcp="1s")
    chain.configure("elb", table(vip(backend=[*SERVERS[:1], {"address": "10.0.0.4", "weight": 100}]), hold_tcp="1s"))
    moving = moving_slots(chain)
    (metric,) = [metric for metric in chain.metrics("elb") if metric.name == "xdpchain_elb_moving_slots"]
    (pool,) = [number for number, one in maps_of(chain)["elb_pools"].items() if one["name"]]
    words = maps_of(chain)["elb_rings"].inner(pool).get(0)["word"]

    assert 0 < sum(word >> 31 for word in words) == moving
    assert [({"vip": "10.200.1.1:443 tcp"}, moving)] == metric.samples


def test_upkeep_brings_slots_to_rest_and_then_writes_nothing(load_chain: LoadChain) -> None:
    chain = load(load_chain, vip(backend=SERVERS[:1]))
    assert 0 == chain.upkeep("elb")
    chain.configure("elb", table(vip(backend=[*SERVERS[:1], {"address": "10.0.0.4", "weight": 100}])))
    (pool,) = [number for number, one in maps_of(chain)["elb_pools"].items() if one["name"]]
    ring, moves = maps_of(chain)["elb_rings"].inner(pool), maps_of(chain)["elb_moves"].inner(pool)
    # as if the hold were over
    ring.put(0, {**ring.get(0), "until": 0})
    moves.put(0, {**moves.get(0), "needed": [0] * 65537})
    while chain.upkeep("elb"):
        pass

    assert 0 == moving_slots(chain)
    assert maps_of(chain)["elb_moves"].inner(pool) is None
    assert {0} == {word >> 30 for word in ring.get(0)["word"]}


def test_counts_and_states_are_metrics_by_vip_and_backend(load_chain: LoadChain) -> None:
    chain = load(load_chain, vip(port=53, protocol="udp", backend=SERVERS[:2]))
    chain.send(ETHER / TO4 / UDP(sport=1000, dport=53))
    metrics = {metric.name: {tuple(labels.items()): value for labels, value in metric.samples} for metric in chain.metrics("elb")}
    first, second = ((("vip", "10.200.1.1:53 udp"), ("backend", address)) for address in ("10.0.0.1", "10.0.0.2"))

    assert {first: 1, second: 0} == metrics["xdpchain_elb_packets_total"]
    assert {first: 0, second: 0} == metrics["xdpchain_elb_new_flows_total"]
    assert {first: 100, second: 50} == metrics["xdpchain_elb_backend_weight"]
    assert {(*first, ("state", "up")): 1, (*second, ("state", "drain")): 1} == metrics["xdpchain_elb_backend_state"]


def test_next_hops_are_followed_by_difference(load_chain: LoadChain) -> None:
    chain = load(load_chain, vip(backend=SERVERS), next_hop="auto")
    addresses = sorted(Elb().destinations(config_of(chain)), key=str)
    hops = {address: NextHop(interface="eth0", mac=bytes.fromhex(MAC.replace(":", "")), mtu=9000, here=True) for address in addresses}

    assert ["the next hop of 3 backends is not known: packets for 10.0.0.1, 10.0.0.2, 10.0.0.3 are dropped"] == warnings(chain)
    assert "no_next_hop" == chain.send(ETHER / TO4 / TCP(sport=1000, dport=443)).reason
    assert 3 == chain.follow("elb", hops)
    assert 0 == chain.follow("elb", hops)
    assert [] == warnings(chain)
    assert MAC == chain.send(ETHER / TO4 / TCP(sport=1000, dport=443)).scapy.dst
    elsewhere = {**hops, addresses[0]: NextHop(interface="eth1", mac=bytes(6), mtu=1500, here=False)}
    assert 1 == chain.follow("elb", elsewhere)
    assert ["the next hop of one backend is not known: packets for 10.0.0.1 are dropped"] == warnings(chain)


def test_a_vip_without_anybody_for_new_flows_is_warned_of(load_chain: LoadChain) -> None:
    chain = load(load_chain, vip(backend=SERVERS[1:]), vip(port=80))

    assert ["no backend takes new flows of 10.200.1.1:443 tcp"] == warnings(chain)


def warnings(chain: LoadedChain) -> list[str]:
    return list(Elb().warnings(config_of(chain), maps_of(chain)))
