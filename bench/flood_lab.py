# SPDX-License-Identifier: Apache-2.0
"""
The network of the flood: a node with a server, and at the other end of its one cable the clients and the flood.

The flood is made by live frames (BPF_PROG_TEST_RUN) which leave the clients' end of the cable by XDP_TX, 64 at a time; the node takes them in the same
softirq on the same CPU, before the next ones are made. So none is lost on the way while everything stays on one CPU. A single packet that somebody
sends from another CPU leads the node's softirq there, where it stays and cannot keep up; so the kernel is given no cause to send one of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gzip
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attrs
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from xdpchain.bpf.artifact import Artifact
from xdpchain.bpf.attach import Link, attach_xdp
from xdpchain.bpf.compiler.compile import Compiler, Unit
from xdpchain.bpf.compiler.splice import splice
from xdpchain.bpf.handle import Handle
from xdpchain.bpf.libbpf import map_create, map_update, test_run
from xdpchain.bpf.loader import load_program
from xdpchain.bpf.unit import INCLUDE
from xdpchain.function import Hook
from xdpchain.testing.namespace import Namespace, Netns

PORT = 80
CLIENTS = tuple(f"172.16.0.{number}" for number in range(1, 101))
PERIOD_S = 7.0
"""Between two connections of a client."""
WHOLE = 60
"""The shortest frame that Ethernet has, without its checksum."""
_REPOSITORY = Path(__file__).resolve().parent.parent
_SOURCE = Path(__file__).with_name("functions") / "flood.bpf.c"
_PROGRAMS = ("flood", "flood_sink", "flood_drop")
_LIVE_FRAMES, _BATCH = 1 << 1, 64
_SIOCETHTOOL, _ETHTOOL_SGRO = 0x8946, 0x2C


class Programs:
    """The programs of `flood.bpf.c`, compiled once."""

    def __init__(self, compiler: Compiler) -> None:
        self._artifact: Artifact = compiler.compile(Unit("bench", splice(_SOURCE, (INCLUDE,)), dict.fromkeys(_PROGRAMS, Hook.XDP)))

    def load(self, name: str, model: bytes | None = None) -> Handle:
        """One of them, with a model of its own."""
        layout = self._artifact.maps["flood_model"]
        model_map = Handle(map_create(layout.kind, "flood_model", layout.key_size, layout.value_size, 1))
        if model:
            map_update(model_map.fd, bytes(4), model)
        return load_program(self._artifact, name, Hook.XDP, {"flood_model": model_map.fd}, {}, name=name)


@attrs.frozen
class Sent:
    """Frames of the flood: how many were made, how many came to the node's device, and how long one CPU worked for them."""

    frames: int
    arrived: int
    seconds: float

    @property
    def lost(self) -> int:
        return max(0, self.frames - self.arrived)  # others send a frame now and then, too


@attrs.frozen
class Seen:
    """What became of the clients' connections; `again` needed more than one SYN."""

    opened: int
    failed: int
    again: int


class Lab:
    """
    One node, with nothing on its interface `eth0` yet.

    Args:
        netns: makes the namespaces.
        programs: the flood's.
        hosts: the bits of a forged source that are by chance.
    """

    def __init__(self, netns: Netns, programs: Programs, hosts: int) -> None:
        self.node, self.outside = netns("node"), netns("outside")
        self.near, self.far = self.node.connect(self.outside)
        self._programs = programs
        self._links: list[Link] = [attach(programs.load("flood_sink"), self.outside, "eth0")]
        for namespace in (self.node, self.outside):
            namespace.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6")
        for here, there in ((self.near, self.far), (self.far, self.near)):
            here.namespace.run("ip", "neighbour", "replace", there.ipv4, "lladdr", there.mac, "dev", here.interface, "nud", "permanent")
        self.node.run("ip", "route", "add", "default", "via", self.far.ipv4)
        lines = "".join(f"address add {address}/32 dev eth0\n" for address in CLIENTS)
        self.outside.run("ip", "-batch", "-", input=lines)
        self._frame = self._model()
        self._flood = programs.load("flood", self._frame[:56] + struct.pack("<Q", hosts))
        with self.outside.entered():
            self._context = struct.pack("=6I", 0, WHOLE, 0, socket.if_nametoindex("eth0"), 0, 0)

    def _model(self) -> bytes:
        """A SYN from nobody: what stands for the source, and what balances it."""
        ip = IP(src="0.0.0.0", dst=self.near.ipv4, id=0xFFFF)
        tcp = TCP(sport=0, dport=PORT, flags="S", seq=0xFFFFFFFF, urgptr=0xFFFF)
        return bytes(Ether(src=self.far.mac, dst=self.near.mac) / ip / tcp).ljust(WHOLE, b"\0")

    def drop_all(self) -> None:
        """Put the cheapest program on the node's interface: what is left is the flood's own cost."""
        self._links.append(attach(self._programs.load("flood_drop"), self.node, "eth0"))

    def poll(self) -> None:
        """Have the node take frames as a network card would hand them over, by NAPI; without that a veth takes none from XDP."""
        with self.node.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            value = bytearray(struct.pack("=II", _ETHTOOL_SGRO, 1))
            address = (ctypes.c_char * len(value)).from_buffer(value)
            fcntl.ioctl(any_socket, _SIOCETHTOOL, struct.pack("=16sQ16x", b"eth0", ctypes.addressof(address)))

    def send(self, frames: int) -> Sent:
        """Have the flood come, as fast as it can."""
        arrived = self._received()
        with self.outside.entered():
            begin = CLOCK()
            test_run(self._flood.fd, self._frame, context=self._context, repeat=frames, flags=_LIVE_FRAMES, batch=_BATCH)
            seconds = CLOCK() - begin
        return Sent(frames, self._received() - arrived, seconds)

    def _received(self) -> int:
        link, *_ = json.loads(self.node.run("ip", "-json", "-statistics", "link", "show", "dev", "eth0").stdout)
        return int(link["stats64"]["rx"]["packets"])

    def tcp(self, counter: str) -> int:
        """A counter of the node's TCP, as netstat names it: of segments that came so far."""
        names, numbers = (line.split() for line in self.node.run("cat", "/proc/net/snmp").stdout.splitlines() if line.startswith("Tcp:"))
        return int(dict(zip(names, numbers, strict=True))[counter])

    def serve(self) -> None:
        """Start the server."""
        self._start(self.node, "lab.web", "serve", str(PORT))
        with self.outside.entered():
            end = time.monotonic() + 30
            while time.monotonic() < end:
                with contextlib.suppress(OSError):
                    socket.create_connection((self.near.ipv4, PORT), timeout=1).close()
                    return
                time.sleep(0.05)
        raise TimeoutError("the server does not answer")

    def visit(self, seconds: float, beside: Callable[[], object]) -> Seen:
        """Have the clients open connections for so long, and do something again and again beside it."""
        arguments = [self.near.ipv4, str(PORT), str(seconds), str(PERIOD_S), *CLIENTS]
        clients = self._start(self.outside, "bench.flood_clients", *arguments)
        while clients.poll() is None:
            beside()
        said, _ = clients.communicate()
        return Seen(**json.loads(said))

    def _start(self, namespace: Namespace, module: str, *arguments: str) -> subprocess.Popen[str]:
        return namespace.start(sys.executable, "-m", module, *arguments, cwd=_REPOSITORY, stdout=subprocess.PIPE)


def _clock() -> Callable[[], float]:
    """
    The time that this thread's CPU works for it, packets that it sends included; so neighbours on the same CPU do not show.

    Most kernels count a softirq as time of whom it interrupts. One that counts softirqs apart, or does not say, leaves only the time of day.
    """
    here = Path("/proc/config.gz")
    with contextlib.suppress(OSError):
        text = gzip.decompress(here.read_bytes()) if here.exists() else Path(f"/boot/config-{os.uname().release}").read_bytes()
        return time.monotonic if b"\nCONFIG_IRQ_TIME_ACCOUNTING=y\n" in text else time.thread_time
    return time.monotonic


CLOCK = _clock()


def attach(program: Handle, namespace: Namespace, interface: str) -> Link:
    """Attach a program to an interface of a namespace, for as long as the link is held."""
    with namespace.entered():
        link, _ = attach_xdp(program, socket.if_nametoindex(interface), interface, "native")
    return link
