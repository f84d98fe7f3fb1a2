# SPDX-License-Identifier: Apache-2.0
"""
The TCP sockets of this network namespace, as the kernel's sock_diag(7) has them.

There may be a hundred thousand of them every few seconds, so its messages are taken apart as they are.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator

from xdpchain.errors import KernelError
from xdpchain.function import Socket, Sockets
from xdpchain.nlmsg import DONE, DUMP, ERROR, REQUEST, connect, error_of, message, messages

TCP_ESTABLISHED, TCP_SYN_RECV, TCP_LISTEN = 1, 3, 10

_SOCK_DIAG, _BY_FAMILY = 4, 20  # NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY
_STATES = 0x1FFF & ~(1 << 6 | 1 << 7)
"""all but TIME_WAIT and CLOSE"""
_TIME_WAIT_TIMER = 3
"""what is left of a connection whose socket has closed first may call itself FIN_WAIT2, but has this timer"""
_REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2: family, protocol, extensions, states
_ANSWER = struct.Struct("=BBBx2s2s16s16s")  # struct inet_diag_msg: family, state, timer, ports, addresses
_MAPPED = bytes(10) + b"\xff\xff"
_RECEIVE_BYTES = 1 << 18
_SO_NETNS_COOKIE = 71


def tcp_sockets() -> Sockets:
    """
    The TCP sockets of both families, but for those in TIME_WAIT and those that are bound to nothing.

    Each socket that is there all the while is told; one that comes or goes meanwhile may be.

    Raises:
        KernelError: the kernel does not answer.
    """
    at_ns = time.monotonic_ns()
    found: list[Socket] = []
    try:
        with connect(_SOCK_DIAG) as diag:
            for family in (socket.AF_INET, socket.AF_INET6):
                found += _of_family(diag, family)
    except OSError as error:
        hint = "it needs a kernel with CONFIG_INET_DIAG (module tcp_diag)"
        raise KernelError("the kernel does not tell its sockets", errno=error.errno or 0, hint=hint) from error
    return Sockets(at_ns, found)


def netns_cookie() -> int:
    """The kernel's number of this thread's network namespace, which no other one ever has; 0 before Linux 5.14, which has none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        try:
            return int.from_bytes(any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
        except OSError:
            return 0


def _of_family(diag: socket.socket, family: int) -> Iterator[Socket]:
    diag.send(message(_BY_FAMILY, REQUEST | DUMP, 0, _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _STATES)))
    while True:
        for kind, _, body in messages(diag.recv(_RECEIVE_BYTES)):
            if kind == DONE:
                return
            if kind == ERROR:
                code = error_of(body)
                if family == socket.AF_INET6 and code == errno.ENOENT:
                    # a kernel without IPv6
                    return
                raise OSError(code, "sock_diag")
            told, state, timer, local_port, remote_port, local, remote = _ANSWER.unpack_from(body)
            if timer == _TIME_WAIT_TIMER:
                continue
            if told == socket.AF_INET:
                local, remote = _MAPPED + local[:4], _MAPPED + remote[:4]
            yield Socket(local, remote, int.from_bytes(local_port, "big"), int.from_bytes(remote_port, "big"), state)
