# SPDX-License-Identifier: Apache-2.0
"""Questions to rtnetlink in batches, and the attributes of its messages."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from xdpchain.errors import KernelError
from xdpchain.nlmsg import ERROR, REQUEST, connect, error_of, message, messages

NEWLINK, GETLINK, GETROUTE, NEWNEIGH, DELNEIGH, GETNEIGH = 16, 18, 26, 28, 29, 30
ACK, CREATE = 0x4, 0x400
RECEIVE_BYTES = 1 << 16

_NETLINK, _ADD_MEMBERSHIP = 270, 1  # SOL_NETLINK
_ATTRIBUTE = struct.Struct("=HH")
_NESTED = 0x3FFF  # an attribute's type without its flags
_BATCH = 32
"""questions in one message; so many answers fit into the buffer of a socket as it is"""


class Kernel:
    """A socket for questions to rtnetlink that have one answer each."""

    def __init__(self) -> None:
        self._socket = connect(socket.NETLINK_ROUTE)

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
                answers += self._batch(kind, questions[first : first + _BATCH], flags | REQUEST)
        except OSError as error:
            raise KernelError("the kernel does not tell its routes", errno=error.errno or 0, hint="see `xdpchain doctor`") from error
        return answers

    def _batch(self, kind: int, bodies: Sequence[bytes], flags: int) -> list[bytes | int]:
        self._socket.send(b"".join(message(kind, flags, number, body) for number, body in enumerate(bodies)))
        answers: dict[int, bytes | int] = {}
        while len(answers) < len(bodies):
            for answered, number, body in messages(self._socket.recv(RECEIVE_BYTES)):
                answers[number] = error_of(body) if answered == ERROR else body
        return [answers[number] for number in range(len(bodies))]


def listen(groups: Iterable[int]) -> socket.socket:
    """A socket that never waits, and hears of what happens in these groups (RTNLGRP_*)."""
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    # a number of its own: who has none is taken for the kernel itself, and told nothing
    listener.bind((0, 0))
    for group in groups:
        listener.setsockopt(_NETLINK, _ADD_MEMBERSHIP, group)
    return listener


def attributes(body: bytes, at: int) -> dict[int, bytes]:
    """The attributes of a message behind its fixed part, which ends at `at`."""
    found = {}
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        found[kind & _NESTED] = body[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute; all that are sent here are of 4 or 16 bytes, so nothing is padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
