# SPDX-License-Identifier: Apache-2.0
"""
The next hops on the way to addresses, as the kernel's own routes and neighbours have them, and a stream that wakes when they may have changed.

Thousands of addresses are asked about at once, so the kernel's messages are used as they are (`rtnetlink`).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import attrs

from xdpchain import rtnetlink
from xdpchain.function import NextHop
from xdpchain.nlmsg import messages
from xdpchain.rtnetlink import (
    ACK,
    CREATE,
    DELNEIGH,
    GETLINK,
    GETNEIGH,
    GETROUTE,
    NEWNEIGH,
    RECEIVE_BYTES,
    Kernel,
    attribute,
    attributes,
)

Address = IPv4Address | IPv6Address

DEBOUNCE_S = 0.02
"""changes come in bursts (an interface that goes down takes its routes and neighbours along): wait for the end of one"""

_GROUPS = (1, 3, 7, 8, 11, 19, 32)
"""RTNLGRP_: LINK, NEIGH, for both families ROUTE and RULE, and NEXTHOP; an address comes and goes with routes"""

_ROUTE = struct.Struct("=8BI")  # struct rtmsg: family, destination's bits, ..., type, flags
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, index, state, flags, type
_INT, _ADDRESS_AFTER_FAMILY = struct.Struct("=I"), 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_METRICS, _RTA_VIA, _RTAX_MTU = 1, 4, 5, 8, 18, 2
_IFLA_IFNAME, _IFLA_MTU, _IFLA_EXT_MASK, _SKIP_STATS = 3, 4, 29, 8
_NDA_DST, _NDA_LLADDR, _NTF_USE = 1, 2, 1
_REACHABLE, _NOARP, _PERMANENT, _VALID = 0x02, 0x40, 0x80, 0xDE  # NUD_*
_ETHERNET, _UNICAST = 1, 1  # ARPHRD_ETHER, RTN_UNICAST
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

_KINDS = {
    2: "it is an address of this node",
    3: "it is a broadcast address",
    4: "it is an anycast address of this node",
    5: "it is a multicast address",
    6: "its route is a blackhole",
    7: "its route says unreachable",
    8: "its route prohibits it",
}
_ERRORS = {
    errno.ENETUNREACH: "there is no route to it",
    errno.EHOSTUNREACH: _KINDS[7],
    errno.EACCES: _KINDS[8],
    errno.EINVAL: _KINDS[6],
}


@attrs.frozen
class _Way:
    """What a route says: the index of the interface, the gateway's bytes, the MTU (0: the interface's), or why there is none."""

    interface: int = 0
    gateway: bytes = b""
    mtu: int = 0
    problem: str = ""


@attrs.frozen
class _Interface:
    name: str
    mtu: int
    ethernet: bool


def next_hops(addresses: Iterable[Address]) -> dict[Address, NextHop]:
    """
    The next hop of each address, `here` left open.

    The kernel is asked to find out the hardware addresses that it does not know, and to confirm those that it has not heard of for a while;
    the answer does not wait for that.

    Raises:
        KernelError: the kernel does not answer.
    """
    wanted = list(dict.fromkeys(addresses))
    with Kernel() as kernel:
        ways = [_way(address.packed, answer) for address, answer in zip(wanted, kernel.ask(GETROUTE, map(_route_to, wanted)), strict=True)]
        used = set(ways)
        interfaces = _interfaces(kernel, sorted({way.interface for way in used if way.interface}))
        neighbours = _neighbours(kernel, [way for way in used if way.interface in interfaces and interfaces[way.interface].ethernet])
    hops = {way: _hop(way, interfaces.get(way.interface), *neighbours.get((way.interface, way.gateway), (None, ""))) for way in used}
    return {address: hops[way] for address, way in zip(wanted, ways, strict=True)}


@attrs.define
class News:
    """
    What a watch has heard. While `listening`, whatever was looked up under the number that `heard` has now is still so.

    A change that somebody made before he asked the same event loop for anything is counted by then: the kernel tells of it at once.
    """

    listening: bool = False
    heard: int = 0


async def watch_next_hops(debounce_s: float = DEBOUNCE_S, news: News | None = None) -> AsyncGenerator[None, None]:
    """
    Yield at once, and again whenever a next hop may have changed: a link, a route, a rule, or a neighbour's hardware address.

    Nothing is missed: where the kernel had more to say than there was room for, that counts as a change. `news` knows of it before it is told.
    """
    macs: dict[tuple[int, bytes], bytes | None] = {}
    loop, changed, news = asyncio.get_running_loop(), asyncio.Event(), news or News()
    with rtnetlink.listen(_GROUPS) as listener:

        def take() -> None:
            if _changes(listener, macs):
                news.heard += 1
                changed.set()

        loop.add_reader(listener.fileno(), take)
        news.heard += 1
        news.listening = True
        try:
            yield
            while True:
                await changed.wait()
                await asyncio.sleep(debounce_s)
                changed.clear()
                yield
        finally:
            news.listening = False
            loop.remove_reader(listener.fileno())


def _changes(listener: socket.socket, macs: dict[tuple[int, bytes], bytes | None]) -> bool:
    """Take in all that waits: whether it may change a next hop. A neighbour that is only confirmed, or grows old, changes none."""
    changed = False
    while True:
        try:
            data = listener.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return changed
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            changed = True
            continue
        for kind, _, body in messages(data):
            changed |= kind not in {NEWNEIGH, DELNEIGH} or _another_mac(kind, body, macs)


def _another_mac(kind: int, body: bytes, macs: dict[tuple[int, bytes], bytes | None]) -> bool:
    family, index, state, *_ = _NEIGHBOUR.unpack_from(body)
    if family not in {socket.AF_INET, socket.AF_INET6}:
        # what a bridge has learned
        return False
    told = attributes(body, _NEIGHBOUR.size)
    key, mac = (index, told.get(_NDA_DST, b"")), told.get(_NDA_LLADDR) if kind == NEWNEIGH and state & _VALID else None
    # of one that was not heard of before nobody knows what it had
    before = macs.pop(key, b"")
    if kind == NEWNEIGH:
        macs[key] = mac
    return mac != before


def _route_to(address: Address) -> bytes:
    return _ROUTE.pack(_FAMILIES[address.version], address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + attribute(_RTA_DST, address.packed)


def _way(destination: bytes, answer: bytes | int) -> _Way:
    if isinstance(answer, int):
        return _Way(problem=_ERRORS.get(answer) or os.strerror(answer))
    kind = answer[7]
    if kind != _UNICAST:
        return _Way(problem=_KINDS.get(kind, "its route leads nowhere"))
    route = attributes(answer, _ROUTE.size)
    via = route.get(_RTA_VIA, b"")[_ADDRESS_AFTER_FAMILY:]
    metrics = attributes(route[_RTA_METRICS], 0) if _RTA_METRICS in route else {}
    mtu = _INT.unpack(metrics[_RTAX_MTU])[0] if _RTAX_MTU in metrics else 0
    return _Way(_INT.unpack(route[_RTA_OIF])[0], via or route.get(_RTA_GATEWAY, destination), mtu)


def _interfaces(kernel: Kernel, indexes: Sequence[int]) -> Mapping[int, _Interface]:
    """The interfaces that are still there, by index."""
    skip = attribute(_IFLA_EXT_MASK, _INT.pack(_SKIP_STATS))
    found = {}
    for index, answer in zip(indexes, kernel.ask(GETLINK, [_LINK.pack(0, 0, index, 0, 0) + skip for index in indexes]), strict=True):
        if not isinstance(answer, int):
            told = attributes(answer, _LINK.size)
            name = os.fsdecode(told[_IFLA_IFNAME].rstrip(b"\0"))
            found[index] = _Interface(name, _INT.unpack(told[_IFLA_MTU])[0], _LINK.unpack_from(answer)[1] == _ETHERNET)
    return found


def _neighbours(kernel: Kernel, ways: Iterable[_Way]) -> Mapping[tuple[int, bytes], tuple[bytes | None, str]]:
    """Hardware addresses by interface and gateway; where there is none, why the kernel cannot find it out."""
    asked = sorted({(way.interface, way.gateway) for way in ways})
    found: dict[tuple[int, bytes], tuple[bytes | None, str]] = {}
    unsure = []
    for one, answer in zip(asked, kernel.ask(GETNEIGH, [_neighbour(*one) for one in asked]), strict=True):
        mac, state = (None, 0) if isinstance(answer, int) else _mac(answer)
        found[one] = mac, ""
        if not state & (_REACHABLE | _NOARP | _PERMANENT):
            unsure.append(one)
    # "use" is what a packet of the kernel's own would do: an unknown neighbour is asked for, an old one confirmed and kept
    questions = [_neighbour(*one, flags=_NTF_USE) for one in unsure]
    for one, code in zip(unsure, kernel.ask(NEWNEIGH, questions, ACK | CREATE), strict=True):
        if isinstance(code, int) and code and found[one][0] is None:
            found[one] = None, _unasked(code)
    return found


def _unasked(code: int) -> str:
    if code == errno.ENOBUFS:
        return "the kernel's table of neighbours is full (net.ipv4.neigh.default.gc_thresh3, the same for ipv6)"
    needs = " (that takes CAP_NET_ADMIN)" if code == errno.EPERM else ""
    return f"the kernel cannot be asked for its hardware address: {os.strerror(code)}{needs}"


def _neighbour(interface: int, gateway: bytes, flags: int = 0) -> bytes:
    family = socket.AF_INET if len(gateway) == 4 else socket.AF_INET6
    return _NEIGHBOUR.pack(family, interface, 0, flags, 0) + attribute(_NDA_DST, gateway)


def _mac(answer: bytes) -> tuple[bytes | None, int]:
    """The hardware address of a neighbour, if it is one that may be used, and the neighbour's state."""
    state = _NEIGHBOUR.unpack_from(answer)[2]
    mac = attributes(answer, _NEIGHBOUR.size).get(_NDA_LLADDR, b"") if state & _VALID else b""
    return (mac if len(mac) == 6 else None), state


def _hop(way: _Way, interface: _Interface | None, mac: bytes | None, problem: str) -> NextHop:
    if way.problem or interface is None:
        return NextHop(problem=way.problem or "its interface has just gone")
    gateway = ip_address(way.gateway)
    if not interface.ethernet:
        problem = f"{interface.name} is no Ethernet interface"
    elif mac is None and not problem:
        problem = f"{gateway} on {interface.name} has not told its hardware address"
    return NextHop(interface.name, gateway, mac, way.mtu or interface.mtu, problem="" if mac else problem)
