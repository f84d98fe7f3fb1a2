# SPDX-License-Identifier: Apache-2.0
"""A node with a real daemon for the benchmarks of the control plane: namespaces, a bpffs, and the daemon from start to end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
from xdpchain.testing.namespace import enter_new_namespaces

START_TIMEOUT_S = 60.0
_FUNCTIONS = Path(__file__).with_name("functions")


def own_namespaces() -> None:
    """Move the process into namespaces of its own, which end with it, with the two ends of a cable: `near` and `far`. All CPUs may be used."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    enter_new_namespaces()
    subprocess.run(["ip", "link", "add", "near", "type", "veth", "peer", "name", "far"], check=True)
    for end in ("near", "far"):
        subprocess.run(["ip", "link", "set", end, "up"], check=True)


@contextlib.contextmanager
def bpffs(folder: Path) -> Iterator[Path]:
    """A bpffs of its own below `folder`."""
    path = folder / "bpffs"
    path.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@attrs.frozen
class Node:
    """Where a daemon keeps what it has: everything but the pins is below `folder`."""

    folder: Path
    root: Path

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "control.sock"

    def environment(self) -> Mapping[str, str]:
        """The daemon's: its places, and the functions of the benchmarks beside those that are installed."""
        places = {
            "CONFIG": self.config,
            "ROOT": self.root,
            "STATE": self.folder / "state",
            "CACHE": self.folder / "cache",
            "SOCKET": self.socket,
        }
        path = os.pathsep.join(filter(None, (str(_FUNCTIONS), os.environ.get("PYTHONPATH"))))
        return {**os.environ, **{f"XDPCHAIN_{name}": str(place) for name, place in places.items()}, "PYTHONPATH": path}


@attrs.frozen
class Daemon:
    """A daemon that runs; `seconds` from exec to READY=1: the chain runs then, and clients are answered."""

    seconds: float
    pid: int

    def megabytes(self) -> float:
        """Its resident memory."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) / 1000 if found else 0.0


@contextlib.contextmanager
def running(node: Node) -> Iterator[Daemon]:
    """A daemon until the end of the block, where it is asked to stop."""
    command = [sys.executable, "-c", "from xdpchain.daemon.main import main; main()"]
    notify = node.folder / "notify"
    with _listening(notify) as answers, (node.folder / "log").open("wb") as log:
        begin = time.perf_counter()
        daemon = subprocess.Popen(command, env={**node.environment(), "NOTIFY_SOCKET": str(notify)}, stderr=log)
        _await_ready(answers, daemon, node)
        seconds = time.perf_counter() - begin
    try:
        yield Daemon(seconds, daemon.pid)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(START_TIMEOUT_S)


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A socket for what the daemon tells its service manager. It is gone afterwards: one that nobody reads would make the daemon wait."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as answers:
        answers.settimeout(1)
        answers.bind(str(path))
        try:
            yield answers
        finally:
            path.unlink()


def _await_ready(answers: socket.socket, daemon: subprocess.Popen[bytes], node: Node) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while daemon.poll() is None and time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            if b"READY=1" in answers.recv(4096):
                return
    daemon.kill()
    daemon.wait()
    sys.exit(f"the daemon did not start:\n{(node.folder / 'log').read_text()}")
