# SPDX-License-Identifier: Apache-2.0
"""Test traffic at millions of frames a second, and the account of it: what was sent, what arrived, what each frame passed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from xdpchain.bpf import libbpf
from xdpchain.bpf.handle import Handle

_RETURN_PASS = bytes.fromhex("b7000000020000009500000000000000")
"""`r0 = XDP_PASS; exit`"""
_XDP, _BPF_XDP, _NATIVE = 6, 37, 4


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
        command = [sys.executable, "-m", "core.tests.chain.generator", interface, str(cpu)]
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
