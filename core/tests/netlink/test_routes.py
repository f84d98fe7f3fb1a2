# SPDX-License-Identifier: Apache-2.0
"""Next hops as the kernel has them, in namespaces with real routes and neighbours."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncGenerator, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

import attrs
import pytest
from xdpchain import routes
from xdpchain.function import NextHop
from xdpchain.routes import News, next_hops, watch_next_hops
from xdpchain.rtnetlink import listen
from xdpchain.testing import Netns
from xdpchain.testing.namespace import End, Namespace

Address = IPv4Address | IPv6Address
PATIENCE_S = 10.0


@attrs.frozen
class Bed:
    """A node with a link to a neighbour, and what they have on it."""

    node: Namespace
    here: End
    there: End

    @property
    def mac(self) -> bytes:
        return bytes.fromhex(self.there.mac.replace(":", ""))

    def ip(self, *arguments: str) -> None:
        """Run `ip` on the node."""
        self.node.run("ip", *arguments)

    def look(self, *addresses: str) -> list[NextHop]:
        """The next hops that the node has now."""
        wanted = [ip_address(address) for address in addresses]
        with self.node.entered():
            found = next_hops(wanted)
        return [found[address] for address in wanted]

    def look_until(self, condition: Callable[[NextHop], object], address: str) -> NextHop:
        """Look again and again, as the daemon does."""
        until = time.monotonic() + PATIENCE_S
        while not condition(hop := self.look(address)[0]):
            assert time.monotonic() < until, hop
            time.sleep(0.02)
        return hop


@pytest.fixture
def bed(netns: Netns) -> Bed:
    node, neighbour = netns("node"), netns("neighbour")
    # without trying addresses out for a second or two: what comes of that would be news in the middle of a test
    node.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad")
    return Bed(node, *node.connect(neighbour, "eth0", "eth0"))


def test_a_neighbour_is_its_own_gateway_and_is_asked_for_its_address(bed: Bed) -> None:
    for address in (bed.there.ipv4, bed.there.ipv6):
        hop = bed.look_until(lambda hop: hop.mac, address)

        assert NextHop("eth0", ip_address(address), bed.mac, 1500) == hop


@pytest.mark.parametrize(
    ("destination", "route", "mtu"),
    [
        ("10.99.1.1", "10.99.0.0/16 via {there.ipv4}", 1500),
        ("10.99.1.1", "10.99.0.0/16 via {there.ipv4} mtu 1400", 1400),
        ("10.99.1.1", "10.99.0.0/16 via inet6 {there.ipv6}", 1500),
        ("fd99::1", "fd99::/64 via {there.ipv6} mtu 1300", 1300),
        ("10.99.1.1", "default nhid 7", 1500),
    ],
)
def test_a_route_leads_over_its_gateway(bed: Bed, destination: str, route: str, mtu: int) -> None:
    bed.ip("nexthop", "add", "id", "7", "via", bed.there.ipv4, "dev", "eth0")
    bed.ip("route", "add", *route.format(there=bed.there).split())
    gateway = bed.there.ipv6 if ":" in route or "inet6" in route else bed.there.ipv4

    assert NextHop("eth0", ip_address(gateway), bed.mac, mtu) == bed.look_until(lambda hop: hop.mac, destination)


def test_the_mtu_is_the_interface_s_where_the_route_has_none(bed: Bed) -> None:
    bed.ip("link", "set", "eth0", "mtu", "1450")

    assert 1450 == bed.look(bed.there.ipv4)[0].mtu


def test_rules_decide_which_table_is_asked(bed: Bed) -> None:
    bed.ip("route", "add", "10.99.0.0/16", "via", bed.there.ipv4)
    bed.ip("route", "add", "10.99.0.0/16", "via", f"{bed.there.ipv4[:-1]}9", "table", "100")

    assert ip_address(bed.there.ipv4) == bed.look("10.99.1.1")[0].gateway

    bed.ip("rule", "add", "to", "10.99.1.0/24", "table", "100")

    assert [f"{bed.there.ipv4[:-1]}9", bed.there.ipv4] == [str(hop.gateway) for hop in bed.look("10.99.1.1", "10.99.2.1")]


@pytest.mark.parametrize(
    ("destination", "route", "problem"),
    [
        ("10.99.1.1", "", "there is no route to it"),
        ("fd99::1", "", "there is no route to it"),
        ("10.99.1.1", "blackhole 10.99.0.0/16", "its route is a blackhole"),
        ("fd99::1", "blackhole fd99::/64", "its route is a blackhole"),
        ("10.99.1.1", "unreachable 10.99.0.0/16", "its route says unreachable"),
        ("fd99::1", "unreachable fd99::/64", "its route says unreachable"),
        ("10.99.1.1", "prohibit 10.99.0.0/16", "its route prohibits it"),
        ("127.0.0.1", "", "it is an address of this node"),
        ("::1", "", "it is an address of this node"),
        ("224.0.0.1", "224.0.0.0/4 dev eth0", "it is a multicast address"),
    ],
)
def test_where_no_way_leads_it_is_said_why(bed: Bed, destination: str, route: str, problem: str) -> None:
    if route:
        bed.ip("route", "add", *route.split())

    assert [NextHop(problem=problem)] == bed.look(destination)


def test_an_interface_without_hardware_addresses_is_no_way(bed: Bed) -> None:
    bed.ip("route", "add", "10.99.0.0/16", "dev", "lo")

    (hop,) = bed.look("10.99.1.1")

    assert ("lo", None, "lo is no Ethernet interface") == (hop.interface, hop.mac, hop.problem)


def test_a_neighbour_that_comes_later_is_found_without_a_packet_of_ours(bed: Bed) -> None:
    late = f"{bed.there.ipv4[:-1]}7"
    (hop,) = bed.look(late)
    assert (None, f"{late} on eth0 has not told its hardware address") == (hop.mac, hop.problem)

    bed.there.namespace.run("ip", "address", "add", f"{late}/24", "dev", "eth0")

    assert NextHop("eth0", ip_address(late), bed.mac, 1500) == bed.look_until(lambda hop: hop.mac, late)


def test_a_neighbour_that_changes_or_vanishes_is_seen(bed: Bed) -> None:
    bed.look_until(lambda hop: hop.mac, bed.there.ipv4)

    bed.ip("neighbor", "replace", bed.there.ipv4, "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "permanent")

    assert bytes.fromhex("020000000099") == bed.look(bed.there.ipv4)[0].mac

    bed.there.namespace.run("ip", "address", "flush", "dev", "eth0")
    bed.ip("neighbor", "del", bed.there.ipv4, "dev", "eth0")

    assert [None, None] == [hop.mac for hop in bed.look(bed.there.ipv4, bed.there.ipv4)]


def test_a_neighbour_that_grew_old_is_used_and_confirmed(bed: Bed) -> None:
    bed.ip("neighbor", "replace", bed.there.ipv4, "lladdr", bed.there.mac, "dev", "eth0", "nud", "stale")

    assert bed.mac == bed.look(bed.there.ipv4)[0].mac
    # a packet of the kernel's own would have moved it on, too
    assert "STALE" not in bed.node.run("ip", "neighbor", "show", bed.there.ipv4).stdout


def test_thousands_are_asked_for_at_once_and_each_gets_its_own_answer(bed: Bed) -> None:
    bed.ip("route", "add", "10.99.0.0/17", "via", bed.there.ipv4)
    bed.ip("route", "add", "blackhole", "10.99.0.128/25")
    wanted = [str(ip_address("10.99.0.1") + number) for number in range(4095)]

    hops = bed.look(*wanted)

    assert wanted[127:255] == [address for address, hop in zip(wanted, hops, strict=True) if hop.problem == "its route is a blackhole"]
    assert 4095 - 128 == sum(hop.interface == "eth0" for hop in hops)


def test_nothing_is_asked_where_nothing_is_wanted(bed: Bed) -> None:
    assert [] == bed.look()


class Watcher:
    """Counts how often the stream wakes."""

    def __init__(self) -> None:
        self.wakes = 0
        self.woken = asyncio.Event()

    async def run(self) -> None:
        async with contextlib.aclosing(watch_next_hops()) as changes:
            async for _ in changes:
                self.wakes += 1
                self.woken.set()

    async def quiet(self) -> int:
        """Until nothing happened for a while; the number of wakes so far."""
        before = -1
        while before != self.wakes:
            before = self.wakes
            await asyncio.sleep(0.3)
        self.woken.clear()
        return before


@contextlib.asynccontextmanager
async def watching() -> AsyncGenerator[Watcher, None]:
    async with asyncio.timeout(10):
        watcher = Watcher()
        task = asyncio.create_task(watcher.run())
        await watcher.quiet()
        yield watcher
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    "change",
    [
        "neighbor replace {there.ipv4} lladdr 02:00:00:00:00:99 dev eth0 nud reachable",
        "neighbor del {there.ipv4} dev eth0",
        "route add 10.99.0.0/16 via {there.ipv4}",
        "route add fd99::/64 via {there.ipv6}",
        "rule add to 10.99.1.0/24 table 100",
        "-6 rule add to fd99::/64 table 100",
        "address del {here.ipv4}/24 dev eth0",
        "nexthop add id 9 via {there.ipv4} dev eth0",
        "link set eth0 mtu 1400",
        "link set eth0 down",
    ],
)
def test_whatever_may_change_a_next_hop_wakes(bed: Bed, change: str) -> None:
    bed.ip("neighbor", "replace", bed.there.ipv4, "lladdr", bed.there.mac, "dev", "eth0", "nud", "stale")

    async def run() -> None:
        async with watching() as watcher:
            # the neighbour is known to it from now on
            bed.ip("neighbor", "replace", bed.there.ipv4, "lladdr", bed.there.mac, "dev", "eth0", "nud", "reachable")
            await watcher.quiet()
            bed.ip(*change.format(here=bed.here, there=bed.there).split())
            await watcher.woken.wait()

    with bed.node.entered():
        asyncio.run(run())


def test_a_neighbour_that_vanishes_wakes_though_it_was_not_heard_of_before(bed: Bed) -> None:
    bed.ip("neighbor", "replace", bed.there.ipv4, "lladdr", bed.there.mac, "dev", "eth0", "nud", "permanent")

    async def run() -> None:
        async with watching() as watcher:
            bed.ip("neighbor", "del", bed.there.ipv4, "dev", "eth0")
            await watcher.woken.wait()

    with bed.node.entered():
        asyncio.run(run())


def test_a_neighbour_that_never_answers_wakes_once(bed: Bed) -> None:
    nobody = f"{bed.there.ipv4[:-1]}9"

    async def run() -> tuple[int, int]:
        async with watching() as watcher:
            for state in ("incomplete", "failed"):
                bed.ip("neighbor", "replace", nobody, "dev", "eth0", "nud", state)
            before = await watcher.quiet()
            for state in ("incomplete", "failed"):
                bed.ip("neighbor", "replace", nobody, "dev", "eth0", "nud", state)
            bed.ip("neighbor", "del", nobody, "dev", "eth0")
            return before, await watcher.quiet()

    with bed.node.entered():
        before, after = asyncio.run(run())

    assert before == after


def test_what_is_heard_counts_before_the_stream_wakes(bed: Bed) -> None:
    async def run() -> tuple[News, News]:
        news = News()
        async with contextlib.aclosing(watch_next_hops(3600, news)) as changes:
            await anext(changes)
            before = attrs.evolve(news)
            bed.ip("route", "add", "10.99.0.0/16", "via", bed.there.ipv4)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            after = attrs.evolve(news)
        assert not news.listening
        return before, after

    with bed.node.entered():
        before, after = asyncio.run(run())

    assert (True, True) == (before.listening, after.listening)
    assert before.heard < after.heard


def test_a_neighbour_that_only_grows_old_wakes_nobody(bed: Bed) -> None:
    async def run() -> tuple[int, int]:
        async with watching() as watcher:
            bed.ip("neighbor", "replace", bed.there.ipv4, "lladdr", bed.there.mac, "dev", "eth0", "nud", "reachable")
            before = await watcher.quiet()
            bed.ip("neighbor", "replace", bed.there.ipv4, "lladdr", bed.there.mac, "dev", "eth0", "nud", "stale")
            return before, await watcher.quiet()

    with bed.node.entered():
        before, after = asyncio.run(run())

    assert before == after


def test_lost_news_count_as_a_change(bed: Bed) -> None:
    names = [f"10.98.0.{number}" for number in range(1, 200)]
    lines = [f"neighbor replace {name} lladdr 02:00:00:00:00:01 dev eth0 nud reachable\n" for name in names]
    bed.node.run("ip", "-batch", "-", input="".join(lines).replace("reachable", "stale"))
    with bed.node.entered(), listen([3]) as listener:
        index = socket.if_nametoindex("eth0")
        macs: dict[tuple[int, bytes], bytes | None] = {(index, ip_address(name).packed): bytes.fromhex("020000000001") for name in names}
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        bed.node.run("ip", "-batch", "-", input=lines.pop())
        assert not routes._changes(listener, macs)

        bed.node.run("ip", "-batch", "-", input="".join(lines))

        assert routes._changes(listener, macs)
