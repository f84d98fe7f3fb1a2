# SPDX-License-Identifier: Apache-2.0
"""
Messages of netlink(7), made and taken apart by struct, whatever they are about.

For what is asked about thousands of things at once: a library's objects would take a thousand times as long.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

ERROR, DONE = 2, 3
REQUEST, DUMP = 0x1, 0x300

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ERROR_CODE = struct.Struct("=i")
_PATIENCE_S = 5


def connect(protocol: int) -> socket.socket:
    """A socket for questions to the kernel (NETLINK_*), which waits for an answer no longer than some seconds."""
    asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _PATIENCE_S, 0))
    return asking


def message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    """One message; `number` comes back with the answer."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, number, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The messages of a datagram: type, sequence number, body."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, number, _ = _HEADER.unpack_from(data, at)
        yield kind, number, data[at + _HEADER.size : at + length]
        at += length + 3 & ~3


def error_of(body: bytes) -> int:
    """The number of the error that a message of the type ERROR has; 0: the kernel only says that it is done."""
    return -int(_ERROR_CODE.unpack_from(body)[0])
