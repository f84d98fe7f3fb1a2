# SPDX-License-Identifier: Apache-2.0
"""Interfaces of the test's network, and frames that show whether a chain is on them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.kernel import order
from tests.helpers.node import Node, until

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


def ip(*arguments: str, check: bool = True) -> int:
    """Run `ip`; its exit code."""
    return subprocess.run(["ip", *arguments], check=check, stderr=None if check else subprocess.DEVNULL).returncode


@contextlib.contextmanager
def cable(name: str, peer: str) -> Iterator[None]:
    """A veth pair, up, without IPv6's own packets. Each step on its own, as an administrator or a container's runtime takes them."""
    ip("link", "add", name, "type", "veth", "peer", "name", peer)
    try:
        for end in (name, peer):
            Path(f"/proc/sys/net/ipv6/conf/{end}/disable_ipv6").write_text("1")
            ip("link", "set", end, "up")
        yield
    finally:
        ip("link", "del", peer, check=False)


class Tap:
    """A tap device, as a hypervisor has it: it is there as long as it is held."""

    def __init__(self, name: str) -> None:
        self._descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(self._descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        ip("link", "set", name, "up")

    def send(self, frame: bytes) -> None:
        """What the guest sends: the node receives it."""
        os.write(self._descriptor, frame)

    def close(self) -> None:
        """The guest ends, and the device with it."""
        os.close(self._descriptor)


def send(interface: str, frame: bytes) -> None:
    """Send a frame out of an interface."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((interface, 0))
        out.send(frame)


def attached(node: Node, interface: str, chain: list[str]) -> float:
    """Wait until a chain is on an interface, as the kernel has it; how long that took."""
    return until(lambda: interface in present() and order(node.root, interface) == chain, node.last_words, patience_s=15)


def present() -> set[str]:
    """The names of all interfaces."""
    return {name for _, name in socket.if_nameindex()}
