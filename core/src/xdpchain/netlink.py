# SPDX-License-Identifier: Apache-2.0
"""
Interfaces as the kernel tells them over netlink: a list now, a stream of lists as they change, and what drivers can do.

The only importer of pyroute2. That takes 0.1 s and 12 MB, so it happens when somebody asks for interfaces, not before.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import socket
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any

from xdpchain.chain.model import Interface
from xdpchain.errors import KernelError

DEBOUNCE_S = 0.02
"""links come in bursts (a veth pair, a bridge and its ports): wait for the end of one"""

_LINK_GROUP = 1  # RTMGRP_LINK
_IFF_UP = 1
_ERROR, _DONE, _NEWLINK, _DELLINK, _GETLINK = 2, 3, 16, 17, 18
_REQUEST, _DUMP, _INTERRUPTED = 0x1, 0x300, 0x10
_DUMP_TRIES = 5
_RECEIVE_BYTES = 1 << 16
_MODES = (("IFLA_XDP_DRV_PROG_ID", "native"), ("IFLA_XDP_SKB_PROG_ID", "generic"), ("IFLA_XDP_HW_PROG_ID", "offload"))

XDP_FEATURES = {1: "basic", 2: "redirect", 4: "ndo_xmit", 8: "xsk_zerocopy", 16: "hw_offload", 32: "rx_sg", 64: "ndo_xmit_sg"}
"""bits of `enum netdev_xdp_act` in linux/netdev.h: "basic" is native XDP, "rx_sg" packets in several buffers"""


def list_interfaces() -> list[Interface]:
    """
    All interfaces of this network namespace, by index.

    Raises:
        KernelError: the kernel refuses, or the list does not stand still.
    """
    with _socket() as route:
        return _in_order(_dump(route))


async def watch(debounce_s: float = DEBOUNCE_S) -> AsyncGenerator[list[Interface], None]:
    """
    Yield the interfaces now, and again whenever one appeared, vanished or changed (name, MTU, up, XDP programs).

    Where notifications were lost, the whole list is read again. The kernel does not announce XDP programs that are attached by a bpf_link, or to
    an interface that is down.
    """
    with _socket() as route:
        route.bind(groups=_LINK_GROUP)
        known = await asyncio.to_thread(_list_again)
        told: list[Interface] | None = None
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(route.fileno(), news.set)
        try:
            while True:
                now = _in_order(known)
                if now != told:
                    told = now
                    yield now
                await news.wait()
                await asyncio.sleep(debounce_s)
                news.clear()
                if not _follow(route, known):
                    known = await asyncio.to_thread(_list_again)
        finally:
            loop.remove_reader(route.fileno())


def xdp_features() -> Mapping[int, frozenset[str]]:
    """
    What each interface's driver says that it can do with XDP, by interface index, in the words of `XDP_FEATURES`; empty before Linux 6.3.

    Raises:
        KernelError: the kernel refuses.
    """
    from pyroute2 import GenericNetlinkSocket
    from pyroute2.netlink.exceptions import NetlinkError

    message_class = _netdev_message()
    netdev = GenericNetlinkSocket()
    try:
        netdev.bind("netdev", message_class)
        request = message_class()
        request["cmd"], request["version"] = 1, 1  # NETDEV_CMD_DEV_GET
        answers = list(netdev.nlm_request(request, msg_type=netdev.prid, msg_flags=_REQUEST | _DUMP))
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return {}
        raise KernelError("the kernel does not tell what drivers can do", errno=error.code or 0, hint="run it as root") from error
    finally:
        netdev.close()
    return {
        answer.get_attr("NETDEV_A_DEV_IFINDEX"): frozenset(
            word for bit, word in XDP_FEATURES.items() if answer.get_attr("NETDEV_A_DEV_XDP_FEATURES") & bit
        )
        for answer in answers
    }


@contextlib.contextmanager
def _socket() -> Iterator[Any]:
    from pyroute2 import IPRSocket

    route = IPRSocket()
    try:
        yield route
    finally:
        route.close()


def _in_order(known: Mapping[int, Interface]) -> list[Interface]:
    return [known[index] for index in sorted(known)]


def _list_again() -> dict[int, Interface]:
    with _socket() as route:
        return _dump(route)


def _dump(route: Any) -> dict[int, Interface]:
    """The interfaces by index; asked again where the kernel says that they changed meanwhile."""
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    for _ in range(_DUMP_TRIES):
        known: dict[int, Interface] = {}
        whole = True
        route.put(ifinfmsg(), msg_type=_GETLINK, msg_flags=_REQUEST | _DUMP)
        for message in _answers(route):
            whole = whole and not message["header"]["flags"] & _INTERRUPTED
            _note(message, known)
        if whole:
            return known
    raise KernelError("interfaces change faster than they can be listed", hint="try again when the node is calmer")


def _answers(route: Any) -> Iterator[Any]:
    while True:
        for message in route.marshal.parse(route.socket.recv(_RECEIVE_BYTES)):
            kind = message["header"]["type"]
            if kind == _ERROR:
                code = abs(message["header"]["error"].code)
                raise KernelError(f"interfaces cannot be listed: {message['header']['error']}", errno=code, hint="see `xdpchain doctor`")
            if kind == _DONE:
                return
            yield message


def _follow(route: Any, known: dict[int, Interface]) -> bool:
    """Take in all notifications that wait; False where some were lost."""
    complete = True
    while True:
        try:
            for message in route.marshal.parse(route.socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)):
                _note(message, known)
        except BlockingIOError:
            return complete
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            complete = False


def _note(message: Any, known: dict[int, Interface]) -> None:
    """One link message. A bridge's messages about its ports and wireless events have no MTU: they are about something else."""
    kind = message["header"]["type"]
    if kind not in {_NEWLINK, _DELLINK} or message["family"] != socket.AF_UNSPEC or message.get_attr("IFLA_MTU") is None:
        return
    if kind == _DELLINK:
        known.pop(message["index"], None)
        return
    link = message.get_attr("IFLA_LINKINFO")
    known[message["index"]] = Interface(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=(link.get_attr("IFLA_INFO_KIND") if link else None) or "",
        mtu=message.get_attr("IFLA_MTU"),
        up=bool(message["flags"] & _IFF_UP),
        xdp_programs=_xdp_programs(message),
    )


def _xdp_programs(message: Any) -> dict[str, int]:
    xdp = message.get_attr("IFLA_XDP")
    ids = {mode: xdp.get_attr(name) for name, mode in _MODES} if xdp else {}
    return {mode: number for mode, number in ids.items() if number}


@functools.cache
def _netdev_message() -> Any:
    """The message class of the kernel's `netdev` family (linux/netdev.h), as pyroute2 wants it."""
    from pyroute2.netlink import genlmsg

    attributes = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
    )
    return type("netdev_message", (genlmsg,), {"nla_map": attributes})
