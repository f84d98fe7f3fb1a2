# SPDX-License-Identifier: Apache-2.0
"""
The next hops on the way to addresses, as the kernel's own routes and neighbours have them, and a stream that wakes when they may have changed.

Thousands of addresses are asked about at once. That is why the few messages are made and taken apart by struct here, on plain sockets.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import TracebackType
from typing import Self

import attrs

from xdpchain.errors import KernelError
from xdpchain.function import NextHop

Address = IPv4Address | IPv6Address

DEBOUNCE_S = 0.02
"""changes come in bursts (an interface that goes down takes its routes and neighbours along): wait for the end of one"""

_ERROR = 2  # NLMSG_ERROR
_NEWLINK, _GETLINK, _GETROUTE, _NEWNEIGH, _DELNEIGH, _GETNEIGH = 16, 18, 26, 28, 29, 30
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400
_NETLINK, _ADD_MEMBERSHIP = 270, 1  # SOL_NETLINK
_GROUPS = (1, 3, 5, 7, 8, 9, 11, 19, 32)
"""RTNLGRP_: LINK, NEIGH, and for both families IFADDR, ROUTE, RULE; NEXTHOP"""

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ROUTE = struct.Struct("=8BI")  # struct rtmsg: family, destination's bits, ..., type, flags
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, index, state, flags, type
_ATTRIBUTE = struct.Struct("=HH")
_INT, _ADDRESS_AFTER_FAMILY = struct.Struct("=I"), 2
_NESTED = 0x3FFF  # without the flags of an attribute's type
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_METRICS, _RTA_VIA, _RTAX_MTU = 1, 4, 5, 8, 18, 2
_IFLA_IFNAME, _IFLA_MTU, _IFLA_EXT_MASK, _SKIP_STATS = 3, 4, 29, 8
_NDA_DST, _NDA_LLADDR, _NTF_USE = 1, 2, 1
_REACHABLE, _NOARP, _PERMANENT, _VALID = 0x02, 0x40, 0x80, 0xDE  # NUD_*
_ETHERNET, _UNICAST = 1, 1  # ARPHRD_ETHER, RTN_UNICAST
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

_BATCH = 32
"""requests in one message; so many answers fit into the buffer of a socket as it is"""
_RECEIVE_BYTES, _PATIENCE_S = 1 << 16, 5

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
    with _Kernel() as kernel:
        ways = [_way(address.packed, answer) for address, answer in zip(wanted, kernel.ask(_GETROUTE, map(_route_to, wanted)), strict=True)]
        used = set(ways)
        interfaces = _interfaces(kernel, sorted({way.interface for way in used if way.interface}))
        neighbours = _neighbours(kernel, [way for way in used if way.interface in interfaces and interfaces[way.interface].ethernet])
    hops = {way: _hop(way, interfaces.get(way.interface), *neighbours.get((way.interface, way.gateway), (None, ""))) for way in used}
    return {address: hops[way] for address, way in zip(wanted, ways, strict=True)}


async def watch_next_hops(debounce_s: float = DEBOUNCE_S) -> AsyncGenerator[None, None]:
    """
    Yield at once, and again whenever a next hop may have changed: a link, an address, a route, a rule, or a neighbour's hardware address.

    Nothing is missed: where the kernel had more to say than there was room for, that counts as a change.
    """
    macs: dict[tuple[int, bytes], bytes | None] = {}
    loop, news = asyncio.get_running_loop(), asyncio.Event()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE) as listener:
        # a number of its own: who has none is taken for the kernel itself, and told nothing
        listener.bind((0, 0))
        for group in _GROUPS:
            listener.setsockopt(_NETLINK, _ADD_MEMBERSHIP, group)

        def take() -> None:
            if _changes(listener, macs):
                news.set()

        loop.add_reader(listener.fileno(), take)
        try:
            yield
            while True:
                await news.wait()
                await asyncio.sleep(debounce_s)
                news.clear()
                yield
        finally:
            loop.remove_reader(listener.fileno())


def _changes(listener: socket.socket, macs: dict[tuple[int, bytes], bytes | None]) -> bool:
    """Take in all that waits: whether it may change a next hop. A neighbour that is only confirmed, or grows old, changes none."""
    changed = False
    while True:
        try:
            data = listener.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return changed
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            changed = True
            continue
        for kind, _, body in _messages(data):
            changed |= kind not in {_NEWNEIGH, _DELNEIGH} or _another_mac(kind, body, macs)


def _another_mac(kind: int, body: bytes, macs: dict[tuple[int, bytes], bytes | None]) -> bool:
    family, index, state, *_ = _NEIGHBOUR.unpack_from(body)
    if family not in {socket.AF_INET, socket.AF_INET6}:
        # what a bridge has learned
        return False
    told = _attributes(body, _NEIGHBOUR.size)
    key, mac = (index, told.get(_NDA_DST, b"")), told.get(_NDA_LLADDR) if kind == _NEWNEIGH and state & _VALID else None
    before = macs.get(key)
    if mac is None:
        macs.pop(key, None)
    else:
        macs[key] = mac
    return mac != before


class _Kernel:
    """A socket for questions to rtnetlink that have one answer each."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _PATIENCE_S, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def ask(self, kind: int, bodies: Iterable[bytes], flags: int = 0) -> list[bytes | int]:
        """The answer to each question: its body, or the number of an error (0 where the kernel only says that it is done)."""
        questions = list(bodies)
        answers: list[bytes | int] = []
        try:
            for first in range(0, len(questions), _BATCH):
                answers += self._batch(kind, questions[first : first + _BATCH], flags | _REQUEST)
        except OSError as error:
            raise KernelError("the kernel does not tell its routes", errno=error.errno or 0, hint="see `xdpchain doctor`") from error
        return answers

    def _batch(self, kind: int, bodies: Sequence[bytes], flags: int) -> list[bytes | int]:
        self._socket.send(
            b"".join(_HEADER.pack(_HEADER.size + len(body), kind, flags, number, 0) + body for number, body in enumerate(bodies))
        )
        answers: dict[int, bytes | int] = {}
        while len(answers) < len(bodies):
            for answered, number, body in _messages(self._socket.recv(_RECEIVE_BYTES)):
                answers[number] = -int.from_bytes(body[:4], "little", signed=True) if answered == _ERROR else body
        return [answers[number] for number in range(len(bodies))]


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The messages of a datagram: type, sequence number, body."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, number, _ = _HEADER.unpack_from(data, at)
        yield kind, number, data[at + _HEADER.size : at + length]
        at += length + 3 & ~3


def _attributes(body: bytes, at: int) -> dict[int, bytes]:
    found = {}
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        found[kind & _NESTED] = body[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    return found


def _attribute(kind: int, value: bytes) -> bytes:
    """One attribute; all that are sent here are of 4 or 16 bytes, so nothing is padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value


def _route_to(address: Address) -> bytes:
    return _ROUTE.pack(_FAMILIES[address.version], address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + _attribute(_RTA_DST, address.packed)


def _way(destination: bytes, answer: bytes | int) -> _Way:
    if isinstance(answer, int):
        return _Way(problem=_ERRORS.get(answer) or os.strerror(answer))
    kind = answer[7]
    if kind != _UNICAST:
        return _Way(problem=_KINDS.get(kind, "its route leads nowhere"))
    route = _attributes(answer, _ROUTE.size)
    via = route.get(_RTA_VIA, b"")[_ADDRESS_AFTER_FAMILY:]
    metrics = _attributes(route[_RTA_METRICS], 0) if _RTA_METRICS in route else {}
    mtu = _INT.unpack(metrics[_RTAX_MTU])[0] if _RTAX_MTU in metrics else 0
    return _Way(_INT.unpack(route[_RTA_OIF])[0], via or route.get(_RTA_GATEWAY, destination), mtu)


def _interfaces(kernel: _Kernel, indexes: Sequence[int]) -> Mapping[int, _Interface]:
    """The interfaces that are still there, by index."""
    skip = _attribute(_IFLA_EXT_MASK, _INT.pack(_SKIP_STATS))
    found = {}
    for index, answer in zip(indexes, kernel.ask(_GETLINK, [_LINK.pack(0, 0, index, 0, 0) + skip for index in indexes]), strict=True):
        if not isinstance(answer, int):
            told = _attributes(answer, _LINK.size)
            name = os.fsdecode(told[_IFLA_IFNAME].rstrip(b"\0"))
            found[index] = _Interface(name, _INT.unpack(told[_IFLA_MTU])[0], _LINK.unpack_from(answer)[1] == _ETHERNET)
    return found


def _neighbours(kernel: _Kernel, ways: Iterable[_Way]) -> Mapping[tuple[int, bytes], tuple[bytes | None, str]]:
    """Hardware addresses by interface and gateway; where there is none, why the kernel cannot find it out."""
    asked = sorted({(way.interface, way.gateway) for way in ways})
    found: dict[tuple[int, bytes], tuple[bytes | None, str]] = {}
    unsure = []
    for one, answer in zip(asked, kernel.ask(_GETNEIGH, [_neighbour(*one) for one in asked]), strict=True):
        mac, state = (None, 0) if isinstance(answer, int) else _mac(answer)
        found[one] = mac, ""
        if not state & (_REACHABLE | _NOARP | _PERMANENT):
            unsure.append(one)
    # "use" is what a packet of the kernel's own would do: an unknown neighbour is asked for, an old one confirmed and kept
    questions = [_neighbour(*one, flags=_NTF_USE) for one in unsure]
    for one, code in zip(unsure, kernel.ask(_NEWNEIGH, questions, _ACK | _CREATE), strict=True):
        if isinstance(code, int) and code and found[one][0] is None:
            found[one] = None, _unasked(code)
    return found


def _unasked(code: int) -> str:
    if code == errno.ENOBUFS:
        return "the kernel's table of neighbours is full (net.ipv4.neigh.default.gc_thresh3, the same for ipv6)"
    return f"the kernel cannot be asked for its hardware address: {os.strerror(code)}"


def _neighbour(interface: int, gateway: bytes, flags: int = 0) -> bytes:
    family = socket.AF_INET if len(gateway) == 4 else socket.AF_INET6
    return _NEIGHBOUR.pack(family, interface, 0, flags, 0) + _attribute(_NDA_DST, gateway)


def _mac(answer: bytes) -> tuple[bytes | None, int]:
    """The hardware address of a neighbour, if it is one that may be used, and the neighbour's state."""
    state = _NEIGHBOUR.unpack_from(answer)[2]
    mac = _attributes(answer, _NEIGHBOUR.size).get(_NDA_LLADDR, b"") if state & _VALID else b""
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
