# SPDX-License-Identifier: Apache-2.0
"""Interfaces over netlink, in a network namespace with real links."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from xdpchain import netlink
from xdpchain.chain.model import Interface
from xdpchain.netlink import list_interfaces, watch, xdp_features

from core.tests.netlink.attach import attach_pass


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture(autouse=True)
def no_links() -> Iterator[None]:
    yield
    for interface in list_interfaces():
        if interface.kind in {"veth", "bridge"}:
            subprocess.run(["ip", "link", "del", interface.name], check=False, stderr=subprocess.DEVNULL)


def by_name(interfaces: list[Interface]) -> dict[str, Interface]:
    return {interface.name: interface for interface in interfaces}


def test_a_link_is_listed_as_it_is() -> None:
    ip("link", "add", "n0", "mtu", "9000", "type", "veth", "peer", "name", "n1")
    ip("link", "set", "n0", "up")

    found = by_name(list_interfaces())

    assert found["n0"] == Interface(socket.if_nametoindex("n0"), "n0", "veth", 9000, up=True)
    assert not found["n1"].up
    assert found["lo"].kind == ""


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_an_xdp_program_is_listed_with_its_mode(mode: str) -> None:
    ip("link", "add", "n0", "type", "veth", "peer", "name", "n1")

    with attach_pass("n0", mode) as number:
        assert by_name(list_interfaces())["n0"].xdp_programs == {mode: number}

    assert by_name(list_interfaces())["n0"].xdp_programs == {}


def test_drivers_say_what_they_can_do() -> None:
    ip("link", "add", "n0", "type", "veth", "peer", "name", "n1")

    assert "basic" in xdp_features()[socket.if_nametoindex("n0")]
    assert xdp_features()[socket.if_nametoindex("lo")] == frozenset()


async def seen(*steps: list[str]) -> list[list[str]]:
    """What the watcher tells after each step, as names."""
    told = []
    async with asyncio.timeout(10):
        changes = watch()
        told.append([one.name for one in await anext(changes)])
        for step in steps:
            await asyncio.to_thread(ip, *step)
            told.append([one.name for one in await anext(changes)])
        await changes.aclose()
    return told


def test_the_watcher_tells_of_links_that_come_are_renamed_and_go() -> None:
    add = ["link", "add", "n0", "type", "veth", "peer", "name", "n1"]

    told = asyncio.run(seen(add, ["link", "set", "n0", "name", "n9"], ["link", "del", "n9"]))

    first = told[0]
    assert told == [first, [*first, "n1", "n0"], [*first, "n1", "n9"], first]


def test_what_a_bridge_says_about_its_port_is_not_taken_for_the_port() -> None:
    ip("link", "add", "n0", "type", "veth", "peer", "name", "n1")
    ip("link", "add", "b0", "type", "bridge")
    ip("link", "set", "n0", "master", "b0")

    async def after_a_change_of_the_port() -> dict[str, Interface]:
        async with asyncio.timeout(10):
            changes = watch()
            await anext(changes)
            await asyncio.to_thread(subprocess.run, ["bridge", "link", "set", "dev", "n0", "learning", "off"], check=True)
            await asyncio.to_thread(ip, "link", "set", "n1", "mtu", "1400")
            found = by_name(await anext(changes))
            await changes.aclose()
            return found

    assert asyncio.run(after_a_change_of_the_port())["n0"].kind == "veth"


def test_an_xdp_program_set_by_netlink_wakes_the_watcher() -> None:
    ip("link", "add", "n0", "type", "veth", "peer", "name", "n1")
    ip("link", "set", "n0", "up")

    async def programs() -> list[list[str]]:
        async with asyncio.timeout(10):
            changes = watch()
            await anext(changes)
            with attach_pass("n0", "generic"):
                attached = by_name(await anext(changes))["n0"].xdp_programs
            detached = by_name(await anext(changes))["n0"].xdp_programs
            await changes.aclose()
            return [list(attached), list(detached)]

    assert asyncio.run(programs()) == [["generic"], []]


def test_lost_notifications_are_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    real, overflows = netlink._socket, []

    @contextlib.contextmanager
    def small() -> Iterator[Any]:
        with real() as route:
            route.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            yield route

    def follow(*arguments: Any) -> bool:
        overflows.append(not complete(*arguments))
        return not overflows[-1]

    complete = netlink._follow
    monkeypatch.setattr(netlink, "_socket", small)
    monkeypatch.setattr(netlink, "_follow", follow)
    batch = "".join(f"link add n{number} type veth peer name p{number}\n" for number in range(40))

    async def names() -> list[str]:
        async with asyncio.timeout(20):
            changes = watch(debounce_s=1)
            await anext(changes)
            await asyncio.to_thread(subprocess.run, ["ip", "-batch", "-"], input=batch.encode(), check=True)
            told = [one.name for one in await anext(changes)]
            await changes.aclose()
            return told

    assert {f"{side}{number}" for side in "np" for number in range(40)} <= set(asyncio.run(names()))
    assert any(overflows)
