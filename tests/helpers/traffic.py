# SPDX-License-Identifier: Apache-2.0
"""Test traffic at millions of frames a second, and the account of it: what was sent, what arrived, what each frame passed."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

from xdpchain.bpf import libbpf
from xdpchain.bpf.handle import Handle

_RETURN_PASS = bytes.fromhex("b7000000020000009500000000000000")
"""`r0 = XDP_PASS; exit`"""
_XDP, _BPF_XDP, _NATIVE = 6, 37, 4
_ETHERNET = bytes.fromhex("020000000001 020000000002")


def signature(numbers: Iterable[int]) -> int:
    """The key under which `judge` counts a frame that carries these numbers."""
    path = bytes(numbers)
    return int.from_bytes(bytes([len(path)]) + path, "little")


def numbers_of(key: int) -> tuple[int, ...]:
    """The numbers in a key of `judge`."""
    count, *path = key.to_bytes(8, "little")
    return tuple(path[:count])


class Generator:
    """A process that makes the other end of `interface`'s cable receive frames as fast as one CPU can; `sent` is known when it has ended."""

    def __init__(self, interface: str, cpu: int = 0) -> None:
        # nobody shall wait for it: what is tested needs the CPU more
        command = ["nice", "-n", "15", sys.executable, "-m", "core.tests.chain.generator", interface, str(cpu)]
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self.sent = 0

    def stop(self) -> int:
        """End it; how many frames it sent."""
        sent, _ = self._process.communicate("stop\n", timeout=60)
        self.sent = int(sent)
        return self.sent

    def close(self) -> None:
        """End it whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


@contextlib.contextmanager
def generator(interface: str) -> Iterator[Generator]:
    """A generator; frames reach the other end natively, because an XDP program sits on this one."""
    program = Handle(libbpf.prog_load(_XDP, "accept", _RETURN_PASS, attach_type=_BPF_XDP))
    link = Handle(libbpf.check(libbpf.link_create(program.fd, socket.if_nametoindex(interface), _BPF_XDP, flags=_NATIVE), "link"))
    one = Generator(interface)
    try:
        yield one
    finally:
        one.close()
        libbpf.link_detach(link.fd)


def received(name: str) -> tuple[int, int]:
    """What a device got, and what it dropped by itself."""
    base = Path(f"/sys/class/net/{name}/statistics")
    return int((base / "rx_packets").read_text()), int((base / "rx_dropped").read_text())


def own_names(names: Iterable[str]) -> dict[str, str]:
    """Names of instances that no other test process uses at the same time."""
    return {name: f"{name}{os.getpid():x}" for name in names}


def marked_frame() -> bytes:
    """A frame in which `trail` leaves its number and which `judge` counts."""
    return _ETHERNET + bytes.fromhex("88b5") + bytes(50)


def syn_frame(port: int) -> bytes:
    """A TCP SYN over IPv4, from 192.0.2.1 to 192.0.2.2."""
    tcp = struct.pack(">HHIIBBHHH", 40000, port, 1, 0, 5 << 4, 2, 65535, 0, 0)
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0, bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2)))
    return _ETHERNET + bytes.fromhex("0800") + ip + tcp


class Sender:
    """Sends frames in turn, some hundreds in a second, and counts them."""

    def __init__(self, interface: str, frames: Sequence[bytes], pause_s: float = 0.002) -> None:
        self.rounds = 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.bind((interface, 0))
        self._frames, self._pause_s = frames, pause_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        while not self._ended.wait(self._pause_s):
            for frame in self._frames:
                self._socket.send(frame)
            self.rounds += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """Send no more; how often each frame was sent."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()
        return self.rounds
