# SPDX-License-Identifier: Apache-2.0
"""
A virtual machine's network card without the machine: two taps, and a process between them that hands frames over.

::

    workload's namespace             this process              hypervisor's namespace
    eth0 (a tap)  <-- descriptor -- frames -- descriptor -->  tap (plugged and unplugged as it is told)

Frames carry the header of virtio_net, and both taps are told what a guest's driver negotiates with its hypervisor by default: checksums are
left to whoever comes next, and segments are as large as they are made. What the hypervisor sees is what it sees of a real guest.

`python -m lab.tap NAMESPACE INTERFACE` makes the guest's card and says "ready"; then each line that it reads is done and answered with "ok":
`plug NAMESPACE INTERFACE` joins the card with a new tap, another one than before, `unplug` takes the tap away.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import selectors
import struct
import sys

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_TAP, _NO_PI, _VNET_HDR = 0x0002, 0x1000, 0x4000
_CHECKSUM, _TSO4, _TSO6, _TSO_ECN, _USO4, _USO6 = 0x01, 0x02, 0x04, 0x08, 0x20, 0x40
_TSO = _CHECKSUM | _TSO4 | _TSO6 | _TSO_ECN
_CLONE_NEWNET = 0x40000000
_LARGEST = 70_000
"""bytes: more than the largest segment with its headers"""
_AT_ONCE = 64
"""frames of one side before the other has its turn"""


def make(namespace: str, interface: str) -> int:
    """Make a tap in a namespace, down; it lives as long as the descriptor that is returned."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    inside = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(inside, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        libc.setns(before, _CLONE_NEWNET)
    finally:
        os.close(inside)
        os.close(before)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("=16sH22x", interface.encode(), _TAP | _NO_PI | _VNET_HDR))
    try:
        fcntl.ioctl(tap, _TUNSETOFFLOAD, _TSO | _USO4 | _USO6)
    except OSError:  # before Linux 6.2 there is no segmentation of UDP
        fcntl.ioctl(tap, _TUNSETOFFLOAD, _TSO)
    return tap


class Card:
    """
    The guest's card and what it is plugged into.

    Args:
        namespace: the guest's.
        interface: the card's name there.
    """

    def __init__(self, namespace: str, interface: str) -> None:
        self._guest = make(namespace, interface)
        self._host: int | None = None
        self._frame = bytearray(_LARGEST)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._guest, selectors.EVENT_READ)
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ)

    def run(self) -> None:
        """Hand frames over, and do what is read, to the end of the input."""
        words = os.fdopen(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._guest:
                    self._hand_over(self._guest, self._host)
                elif key.fd == self._host:
                    self._hand_over(self._host, self._guest)
                elif key.fd == words.fileno():
                    line = words.readline().decode().split()
                    if not line:
                        return
                    self._do(*line)
                    print("ok", flush=True)

    def _do(self, verb: str, *names: str) -> None:
        if self._host is not None:
            self._selector.unregister(self._host)
            os.close(self._host)
            self._host = None
        if verb == "plug":
            self._host = make(*names)
            self._selector.register(self._host, selectors.EVENT_READ)

    def _hand_over(self, source: int, target: int | None) -> None:
        view = memoryview(self._frame)
        for _ in range(_AT_ONCE):
            try:
                length = os.readv(source, [self._frame])
            except OSError:  # nothing more is there, or the interface is down
                return
            if target is not None:
                with contextlib.suppress(OSError):  # the other end is down, or its queue is full: a frame is lost, as on any cable
                    os.write(target, view[:length])


if __name__ == "__main__":
    card = Card(*sys.argv[1:])
    print("ready", flush=True)
    card.run()
