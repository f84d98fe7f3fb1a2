# SPDX-License-Identifier: Apache-2.0
"""What is to be seen in the site's kernels: wrong checksums, counters, answers to an echo request."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence

from xdpchain.testing import Namespace

from lab.site import Site
from tests.helpers.standstill import Counts, counts_of

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


def counts(site: Site, namespace: Namespace) -> Counts:
    """Packets of a node by interface, instance, verdict and reason."""
    return counts_of(site.nodes[namespace.name].ask("status"))


def reasons(site: Site, namespace: Namespace, interface: str) -> dict[str, int]:
    """Packets of an agent by reason."""
    return {reason: number for (name, _, _, reason), number in counts(site, namespace).items() if name == interface and reason}


def forwarded(site: Site) -> int:
    """Packets that agents have sent on to the alternate backend."""
    agents = (site.hv1, site.hv2, site.host)
    return sum(number for one in agents for (*_, reason), number in counts(site, one).items() if reason == "forwarded")


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
