# SPDX-License-Identifier: Apache-2.0
"""When next hops are looked up, when a function is asked to follow, and what is logged about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import structlog
from xdpchain import Hook, KernelFunction, Maps, Program, Put, Write
from xdpchain.chain.engine import Engine
from xdpchain.config import InstanceConfig, InterfaceConfig, NodeConfig, NodeSettings
from xdpchain.daemon.failures import Failures
from xdpchain.daemon.found import Found
from xdpchain.daemon.hops import MAX_EVENTS, HopFollower
from xdpchain.errors import KernelError
from xdpchain.function import NextHop, NextHops

Address = IPv4Address | IPv6Address
A, B, C = (ip_address(f"10.0.0.{number}") for number in (1, 2, 3))
MAC = bytes(6)


@attrs.frozen
class SenderConfig:
    to: tuple[Address, ...]


class Sender(KernelFunction[SenderConfig]):
    api = 1
    name = "sender"
    summary = "sends"
    source = Path("sender.bpf.c")
    config = SenderConfig
    programs = (Program(Hook.XDP, "sender"),)

    def destinations(self, config: SenderConfig) -> Iterable[Address]:
        return config.to

    def follow(self, config: SenderConfig, hops: NextHops, maps: Maps) -> Iterable[Write]:
        return [Put("ways", str(address), hop) for address, hop in sorted(hops.items(), key=lambda item: str(item[0]))]


class Silent(Sender):
    """Sends nothing anywhere."""

    destinations = KernelFunction.destinations


class RecordingEngine:
    """What `HopFollower` needs of an engine: it remembers what it was to write."""

    def __init__(self) -> None:
        self.sets: dict[str, Mapping[str, Any]] = {}
        self.written: list[tuple[str, list[Write]]] = []
        self.fails = False

    def maps(self, instance: str) -> Mapping[str, Any]:
        return self.sets[instance]

    def carry_out(self, instance: str, writes: Iterable[Write], *, method: str) -> int:
        assert method == "follow"
        if self.fails:
            raise KernelError("the map is full")
        self.written.append((instance, list(writes)))
        return 1

    def asked(self) -> list[str]:
        """The instances that were asked to follow since the last time."""
        names = [name for name, _ in self.written]
        self.written.clear()
        return names


@attrs.define
class World:
    """The next hops that there are, and how often somebody looked."""

    hops: dict[Address, NextHop] = attrs.field(factory=dict)
    looks: list[list[Address]] = attrs.field(factory=list)

    def look(self, addresses: Iterable[Address]) -> NextHops:
        self.looks.append(sorted(addresses))
        return {address: self.hops.get(address, NextHop(problem="there is no route to it")) for address in self.looks[-1]}


def node(**to: tuple[Address, ...]) -> NodeConfig:
    """Instances on eth0, by what they send to."""
    instances = {name: InstanceConfig(name, Sender(), SenderConfig(addresses)) for name, addresses in to.items()}
    return NodeConfig(NodeSettings(), (InterfaceConfig("eth*", tuple(to)),), instances)


@pytest.fixture
def engine() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture
def world() -> World:
    return World({A: NextHop("eth0", A, MAC, 1500), B: NextHop("lan", B, MAC, 1500)})


@pytest.fixture
def follower(engine: RecordingEngine, world: World) -> HopFollower:
    return HopFollower(cast("Engine", engine), Failures(), world.look)


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as events:
        yield events


def follow(follower: HopFollower, config: NodeConfig, engine: RecordingEngine) -> list[str]:
    for name in config.instances:
        engine.sets.setdefault(name, {})
    follower.bring(config, follower.look(config))
    return engine.asked()


def test_each_address_is_looked_up_once_and_seen_by_each_instance_in_its_own_way(
    follower: HopFollower, engine: RecordingEngine, world: World
) -> None:
    engine.sets = {"one": {}, "two": {}}
    config = node(one=(A, B), two=(B,))

    follower.bring(config, follower.look(config))

    assert [[A, B]] == world.looks
    here = attrs.evolve(world.hops[A], here=True)
    assert [
        ("one", [Put("ways", str(A), here), Put("ways", str(B), world.hops[B])]),
        ("two", [Put("ways", str(B), world.hops[B])]),
    ] == engine.written


def test_a_function_is_asked_again_only_when_something_changed(follower: HopFollower, engine: RecordingEngine, world: World) -> None:
    config = node(one=(A,), two=(B,))
    assert ["one", "two"] == follow(follower, config, engine)

    assert [] == follow(follower, config, engine)

    world.hops[B] = NextHop("eth0", B, None, 1500)
    assert ["two"] == follow(follower, config, engine)
    assert ["one", "two"] == follow(follower, node(one=(A,), two=(B,)), engine)


def test_new_maps_are_brought_in_line_though_nothing_else_changed(follower: HopFollower, engine: RecordingEngine) -> None:
    config = node(one=(A,))
    follow(follower, config, engine)

    engine.sets["one"] = {}

    assert ["one"] == follow(follower, config, engine)


def test_an_instance_that_does_not_run_is_asked_when_it_does(follower: HopFollower, engine: RecordingEngine) -> None:
    config = node(one=(A,))
    follower.bring(config, follower.look(config))
    assert [] == engine.asked()

    assert ["one"] == follow(follower, config, engine)


def test_what_fails_is_told_once_and_tried_again(follower: HopFollower, engine: RecordingEngine, log: list[Any]) -> None:
    config = node(one=(A,))
    engine.fails = True
    follow(follower, config, engine)
    follow(follower, config, engine)

    assert follower.due
    assert ["its next hops: the map is full"] == [event["error"] for event in log if event["event"] == "plugin_failed"]

    engine.fails = False

    assert ["one"] == follow(follower, config, engine)
    assert not follower.due


def test_what_is_not_known_is_looked_at_again(follower: HopFollower, engine: RecordingEngine, world: World) -> None:
    world.hops[A] = NextHop("eth0", A, None, 1500)
    follow(follower, node(one=(A,)), engine)
    assert follower.due

    world.hops[A] = NextHop("eth0", A, MAC, 1500)
    follow(follower, node(one=(A,)), engine)
    assert not follower.due


def test_an_apply_waits_for_a_new_neighbour_to_answer_but_not_for_an_old_one(follower: HopFollower, world: World) -> None:
    answered, world.hops[A] = world.hops[A], NextHop("eth0", A, None, 1500)
    config = node(one=(A,))
    look = world.look

    def answers_at_the_third_look(addresses: Iterable[Address]) -> NextHops:
        if len(world.looks) == 2:
            world.hops[A] = answered
        return look(addresses)

    follower._look_up = answers_at_the_third_look
    found = follower.look(config, patience_s=60)

    assert (3, MAC) == (len(world.looks), found.all[A].mac)

    world.hops[A] = NextHop("eth0", A, None, 1500)
    follower.bring(config, found)
    follower.look(config, patience_s=60)

    assert 4 == len(world.looks)


def test_an_apply_looks_up_only_what_is_new_while_nothing_is_heard_of_a_change(
    follower: HopFollower, engine: RecordingEngine, world: World
) -> None:
    engine.sets = {"one": {}, "two": {}}
    follower.news.listening = True
    follower.bring(config := node(one=(A, B)), follower.look(config))
    world.hops = {address: NextHop("eth0", address, MAC, 1400) for address in (A, B, C)}

    found = follower.look(config := node(one=(B, C), two=(A, C)), trust=True)
    follower.bring(config, found)

    assert [[A, B], [C]] == world.looks
    assert {A: 1500, B: 1500, C: 1400} == {address: hop.mtu for address, hop in found.all.items()}
    assert {"one": {B: False, C: True}, "two": {A: True, C: True}} == seen_here(found)

    fewer = follower.look(node(one=(C,)), trust=True)
    assert ([], {C}, {C}) == (world.looks[-1], set(fewer.all), set(fewer.of["one"]))

    follower.news.heard += 1

    assert {1400} == {hop.mtu for hop in follower.look(config, trust=True).all.values()}
    assert [A, B, C] == world.looks[-1]


def test_what_an_apply_looks_up_while_something_is_heard_is_looked_up_again(follower: HopFollower, world: World) -> None:
    follower.news.listening = True
    follower.bring(config := node(one=(A,)), found := follower.look(config))
    look = world.look

    def hears(addresses: Iterable[Address]) -> NextHops:
        follower.news.heard += 1
        return look(addresses)

    follower._look_up = hears
    follower.bring(config := node(one=(A, B)), found := follower.look(config, trust=True))
    follower._look_up = look
    follower.look(config, trust=True)

    assert {A, B} == found.all.keys()
    assert [[A], [B], [A, B]] == world.looks


def test_an_apply_trusts_nothing_while_nobody_listens(follower: HopFollower, world: World) -> None:
    follower.bring(config := node(one=(A, B)), follower.look(config, trust=True))
    follower.look(config, trust=True)

    assert [[A, B], [A, B]] == world.looks


def test_an_apply_asks_again_for_what_was_not_known(follower: HopFollower, world: World) -> None:
    follower.news.listening = True
    world.hops[A] = NextHop("eth0", A, None, 1500)
    follower.bring(config := node(one=(A, B)), follower.look(config))

    follower.look(config, trust=True)

    assert [[A, B], [A]] == world.looks


def test_other_chains_see_the_same_next_hops_in_another_way(follower: HopFollower, engine: RecordingEngine, world: World) -> None:
    follower.news.listening = True
    follower.bring(config := node(one=(A, B)), follower.look(config))

    elsewhere = attrs.evolve(config, interfaces=(InterfaceConfig("lan", ("one",)),))

    assert {"one": {A: False, B: True}} == seen_here(follower.look(elsewhere, trust=True))


def seen_here(found: Found) -> dict[str, dict[Address, bool]]:
    return {name: {address: hop.here for address, hop in hops.items()} for name, hops in found.of.items()}


def test_where_nobody_sends_nothing_is_looked_up(follower: HopFollower, engine: RecordingEngine, world: World) -> None:
    silent = attrs.evolve(node(), instances={"one": InstanceConfig("one", Silent(), SenderConfig((A,)))})

    assert [] == follow(follower, silent, engine)
    assert [] == world.looks
    assert not follower.due


def test_events_say_what_became_of_the_next_hops(follower: HopFollower, engine: RecordingEngine, world: World, log: list[Any]) -> None:
    config = node(one=(A, B, C))
    world.hops = {A: NextHop("eth0", C, None, 1500, problem="silent"), B: NextHop("eth0", C, None, 1500, problem="silent")}
    follow(follower, config, engine)

    unknown = [(event["event"], event["problem"], event["addresses"]) for event in log]
    assert [("next_hop_unknown", "there is no route to it", 1), ("next_hop_unknown", "silent", 2)] == sorted(
        unknown, key=lambda one: one[2]
    )

    log.clear()
    follow(follower, config, engine)
    world.hops = dict.fromkeys((A, B, C), NextHop("eth0", C, MAC, 1500))
    follow(follower, config, engine)
    world.hops = dict.fromkeys((A, B, C), NextHop("eth0", C, MAC, 1400))
    follow(follower, config, engine)

    about = {"interface": "eth0", "gateway": str(C), "mac": "00:00:00:00:00:00", "addresses": 3, "log_level": "info"}
    without = [{name: value for name, value in event.items() if name != "address"} for event in log]
    assert [{"event": "next_hop_found", "mtu": 1500, **about}, {"event": "next_hop_changed", "mtu": 1400, **about}] == without


def test_thousands_that_vanish_at_once_do_not_fill_the_log(
    follower: HopFollower, engine: RecordingEngine, world: World, log: list[Any]
) -> None:
    addresses = tuple(A + number for number in range(1000))
    world.hops = {address: NextHop("eth0", address, None, 1500) for address in addresses}

    follow(follower, node(one=addresses), engine)

    assert MAX_EVENTS + 1 == len(log)
    assert 1000 - MAX_EVENTS == log[-1]["hops"]
