# SPDX-License-Identifier: Apache-2.0
"""What backends behind a load balancer have in the lab: an XDP program that takes the outer header off, and counts what was wrong with it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from xdpchain import Map, MapKind, Role, u32, u64
from xdpchain.bpf.attach import Link, attach_xdp
from xdpchain.bpf.compiler.compile import Compiler, Unit
from xdpchain.bpf.compiler.splice import splice
from xdpchain.bpf.loader import create_map, load_program
from xdpchain.bpf.unit import INCLUDE
from xdpchain.function import Hook
from xdpchain.testing.namespace import Namespace

SEEN = ("ipip", "gue", "bad ip", "bad udp")
"""What is counted, in the order of `enum seen`."""
_ENTRY = "decapsulate"
_PORT = Map(name="balance_port", kind=MapKind.ARRAY, key=u32, value=u32, capacity=1, role=Role.CONFIG, help="UDP port of GUE")
_SEEN = Map(
    name="balance_seen",
    kind=MapKind.PERCPU_ARRAY,
    key=u32,
    value=u64,
    capacity=len(SEEN),
    role=Role.STATS,
    help="packets by what they were",
)


class Decapsulator:
    """
    The program on one interface; it goes when this object does.

    Args:
        compiler: compiles it; one with a cache does so once for all backends.
        namespace: where the interface is.
        interface: its name.
        gue_port: the UDP port of GUE.
    """

    def __init__(self, compiler: Compiler, namespace: Namespace, interface: str, gue_port: int = 6080) -> None:
        source = Path(__file__).with_name("balance_decap.bpf.c")
        artifact = compiler.compile(Unit("balance_decap", splice(source, (INCLUDE,)), {_ENTRY: Hook.XDP}))
        port, self._seen = create_map(_PORT, artifact), create_map(_SEEN, artifact)
        port.put(0, gue_port)
        maps = {_PORT.name: port.fd, _SEEN.name: self._seen.fd}
        program = load_program(artifact, _ENTRY, Hook.XDP, maps, {}, name=_ENTRY)
        self._link: Link | None
        with namespace.entered():
            self._link, _ = attach_xdp(program, socket.if_nametoindex(interface), interface, "native")

    def seen(self) -> Mapping[str, int]:
        """How many packets were what, of those that there were any of."""
        counts = {SEEN[number]: sum(each) for number, each in self._seen.items()}
        return {what: count for what, count in counts.items() if count}

    def close(self) -> None:
        """Take the program away."""
        self._link = None
