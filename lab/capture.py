# SPDX-License-Identifier: Apache-2.0
"""What is seen on the cables of the lab."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from xdpchain.testing.namespace import End, Namespace

_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_LOAD_HALF, _LOAD_WORD, _JUMP_EQUAL, _RETURN = 0x28, 0x20, 0x15, 0x06
_WHOLE = 0xFFFFF
"""bytes: more than there are in any frame"""


class Capture:
    """Packets from some source addresses that come in or go out at one end of a cable, from now on."""

    def __init__(self, end: End, sources: Sequence[str]) -> None:
        with end.namespace.entered():
            self._sockets = [_filtered(end.interface, source) for source in sources]

    def seen(self) -> int:
        """How many there were."""
        return sum(1 for one in self._sockets for _ in _lengths(one))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for one in self._sockets:
            one.close()


@contextlib.contextmanager
def largest_frame(namespace: Namespace, interface: str) -> Iterator[Callable[[], int]]:
    """What gives the length of the longest frame that an interface has seen from now on."""
    with namespace.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as one:
        one.bind((interface, _ETH_P_ALL))
        one.settimeout(0)
        yield lambda: max(_lengths(one), default=0)


def _filtered(interface: str, source: str) -> socket.socket:
    """A socket that keeps the first bytes of each frame with that source address, by a classic BPF program."""
    address = ip_address(source)
    words = struct.unpack(f"!{len(address.packed) // 4}I", address.packed)
    offset, ethertype = (26, 0x0800) if address.version == 4 else (22, 0x86DD)
    tests = [(_LOAD_HALF, 12, ethertype), *((_LOAD_WORD, offset + 4 * number, word) for number, word in enumerate(words))]
    program = b""
    for number, (load, at, value) in enumerate(tests):
        refuse = 2 * (len(tests) - number) - 1
        program += struct.pack("=HBBI", load, 0, 0, at) + struct.pack("=HBBI", _JUMP_EQUAL, 0, refuse, value)
    program += struct.pack("=HBBI", _RETURN, 0, 0, _WHOLE) + struct.pack("=HBBI", _RETURN, 0, 0, 0)
    buffer = ctypes.create_string_buffer(program)
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(program) // 8, ctypes.addressof(buffer)))
    one.bind((interface, _ETH_P_ALL))
    one.settimeout(0)
    return one


def _lengths(one: socket.socket) -> Iterator[int]:
    """The lengths of the frames that wait to be read."""
    while True:
        try:
            yield len(one.recv(_WHOLE))
        except BlockingIOError:
            return
