# SPDX-License-Identifier: Apache-2.0
"""What is to be seen on the site's cables and in its kernels: wrong checksums, packets that should not be where they are, counters."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from xdpchain.testing import Namespace

from lab.site import Site
from tests.helpers.standstill import Counts, counts_of

_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_LOAD_HALF, _LOAD_WORD, _JUMP_EQUAL, _RETURN = 0x28, 0x20, 0x15, 0x06
_WHOLE = 0xFFFFF
_ECHO_ID, _ECHO_S = 4242, 10.0


class Checksums:
    """What namespaces have counted of wrong checksums since this was made."""

    def __init__(self, namespaces: Sequence[Namespace]) -> None:
        self._namespaces = namespaces
        self._before = [self._count(one) for one in namespaces]

    def wrong(self) -> Mapping[str, Mapping[str, int]]:
        """How many packets of what were wrong, by namespace; only where there were some."""
        found = {}
        for one, before in zip(self._namespaces, self._before, strict=True):
            now = self._count(one)
            if more := {name: number - before[name] for name, number in now.items() if number != before[name]}:
                found[one.name] = more
        return found

    @staticmethod
    def _count(namespace: Namespace) -> Mapping[str, int]:
        """From /proc/net/snmp (pairs of lines: names, numbers) and /proc/net/snmp6 (a name and a number)."""
        lines = namespace.run("cat", "/proc/thread-self/net/snmp").stdout.splitlines()
        pairs = zip(lines[::2], lines[1::2], strict=True)
        four = {f"{a.split()[0]}{name}": int(value) for a, b in pairs for name, value in zip(a.split()[1:], b.split()[1:], strict=True)}
        six = dict(line.split() for line in namespace.run("cat", "/proc/thread-self/net/snmp6").stdout.splitlines())
        both = {**four, **{name: int(value) for name, value in six.items()}}
        return {name: value for name, value in both.items() if "CsumErrors" in name or name == "Ip:InHdrErrors"}


class Capture:
    """Packets with one of some source addresses that the router sees on the cable to a namespace, from now on."""

    def __init__(self, site: Site, namespace: Namespace, sources: Sequence[str]) -> None:
        interface = site.router_end(namespace).interface
        with site.router.entered():
            self._sockets = [_filtered(interface, source) for source in sources]

    def seen(self) -> int:
        """How many there were."""
        return sum(1 for one in self._sockets for _ in _lengths(one))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for one in self._sockets:
            one.close()


def counts(site: Site, namespace: Namespace) -> Counts:
    """Packets of a node by interface, instance, verdict and reason."""
    return counts_of(site.nodes[namespace.name].ask("status"))


def reasons(site: Site, namespace: Namespace, interface: str) -> dict[str, int]:
    """Packets of an agent by reason."""
    return {reason: number for (name, _, _, reason), number in counts(site, namespace).items() if name == interface and reason}


@contextlib.contextmanager
def largest_frame(namespace: Namespace, interface: str) -> Iterator[Callable[[], int]]:
    """What gives the length of the longest frame that an interface has seen from now on."""
    with namespace.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as one:
        one.bind((interface, _ETH_P_ALL))
        one.setblocking(False)
        yield lambda: max(_lengths(one), default=0)


def echoes(namespace: Namespace, address: str) -> bool:
    """Whether an address answers an echo request."""
    six = ":" in address
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
    request, reply = (128, 129) if six else (8, 0)
    message = struct.pack("!BBHHH", request, 0, 0, _ECHO_ID, 1)
    with namespace.entered(), socket.socket(family, socket.SOCK_RAW, protocol) as one:
        one.settimeout(_ECHO_S)
        one.connect((address, 0))
        one.send(message if six else message[:2] + struct.pack("!H", 0xFFFF - (request << 8) - _ECHO_ID - 1) + message[4:])
        try:
            while True:
                got = one.recv(2048)[0 if six else 20 :]
                if got[0] == reply and got[4:6] == message[4:6]:
                    return True
        except TimeoutError:
            return False


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
    one.setblocking(False)
    return one


def _lengths(one: socket.socket) -> Iterator[int]:
    """The lengths of the frames that wait to be read."""
    while True:
        try:
            yield len(one.recv(_WHOLE))
        except BlockingIOError:
            return
