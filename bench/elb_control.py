# SPDX-License-Identifier: Apache-2.0
"""
elb's control plane with 512 VIPs of 100 backends each: the time until all of them, or one changed backend, are in the kernel; the daemon's memory.

A real daemon, next hops by the kernel's routes, artifacts cached. A change is timed from the request for a reload until the VIP has its new
ring; the file was written before, and the command line's own start is not in it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from xdpchain.bpf import libbpf
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.bpf.handle import Handle
from xdpchain.chain.engine import unload
from xdpchain.cli.client import call

from bench.measure import Result
from bench.node import Daemon, Node, bpffs, own_namespaces, running

VIPS, BACKENDS, ADDRESSES = 512, 100, 4000
"""Backends of a VIP, and how many servers there are in all: each serves several VIPs."""
REACH_COLD_S, REACH_CHANGE_MS, REACH_MEMORY_MB = 3.0, 50.0, 200.0
ROUNDS, CHANGES = 5, 21
_TIMEOUT_S = 60.0
_CHANGED = 100
"""The VIP that changes, by its number."""

_NODE = """
[node]
metrics = "off"

[interface.near]
chain = ["elb"]

[function.elb]
source = ["192.0.2.1"]
vips = "vips"
"""


def measure(_: Compiler, rounds: int) -> Iterator[Result]:
    """In namespaces of its own, which end with the process."""
    own_namespaces()
    for command in ("addr add 192.0.2.1/24 dev near", "route add default via 192.0.2.2"):
        subprocess.run(["ip", *command.split()], check=True)
    subprocess.run(["ip", "neigh", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:03", "dev", "near", "nud", "permanent"], check=True)
    with tempfile.TemporaryDirectory(prefix="xdpchain-bench-") as folder, bpffs(Path(folder)) as pins:
        node = Node(Path(folder), pins / "elb")
        node.config.write_text(_NODE)
        _start(node, "")  # compiles
        rounds = min(rounds, ROUNDS)
        yield _seconds("cold start of a node with 512 VIPs x 100", [_start(node, _vips(0)) for _ in range(rounds)], REACH_COLD_S)
        yield _seconds("512 VIPs x 100 put into a running node", [_filled(node) for _ in range(rounds)], REACH_COLD_S)
        yield from _changing(node)
        yield _seconds("restart of that node", [_start(node, None) for _ in range(rounds)], None)
        unload(node.root)


def _vips(turn: int) -> str:
    """The file of the VIPs. The turn tells the weight of one backend of one VIP."""
    lines = []
    for vip in range(VIPS):
        lines.append(f"vip 10.200.{vip >> 8}.{vip & 255}:443 tcp")
        for backend in range(BACKENDS):
            server = (vip * BACKENDS + backend) % ADDRESSES
            weight = 100 + (turn if (vip, backend) == (_CHANGED, 50) else 0)
            lines.append(f"    10.64.{server >> 8}.{server & 255} weight={weight}")
    return "\n".join(lines) + "\n"


def _seconds(case: str, times: list[float], reach: float | None) -> Result:
    return Result("elb-control", case, statistics.median(times), "s", reach, f"slowest {max(times):.2f} s")


def _start(node: Node, vips: str | None) -> float:
    """Seconds of one start: with nothing in the kernel and these VIPs, or (None) with all that the daemon before left."""
    if vips is not None:
        unload(node.root)
        (node.folder / "vips").write_text(vips)
    with running(node) as daemon:
        return daemon.seconds


def _filled(node: Node) -> float:
    unload(node.root)
    (node.folder / "vips").write_text("")
    with running(node):
        (node.folder / "vips").write_text(_vips(0))
        begin = time.perf_counter()
        call("reload", socket=node.socket)
        return time.perf_counter() - begin


def _changing(node: Node) -> Iterator[Result]:
    with running(node) as daemon:
        rings = Handle(libbpf.obj_get(str(next(node.root.rglob("elb_rings*")))))
        before = _ids(rings)
        _change(node, 1)
        changed = [pool for pool, (old, new) in enumerate(zip(before, _ids(rings), strict=True)) if pool and old != new]
        if len(changed) != 1:
            sys.exit(f"of one VIP a backend has changed, and the rings of {len(changed)} pools")
        times = [_until_changed(node, rings, changed[0], turn) for turn in range(2, CHANGES + 2)]
        kernel, returned = (sorted(column) for column in zip(*times, strict=True))
        detail = f"slowest {kernel[-1]:.0f} ms; reload returns after {statistics.median(returned):.0f} ms"
        yield Result("elb-control", "one backend of one VIP changed", statistics.median(kernel), "ms", REACH_CHANGE_MS, detail)
        yield _memory(daemon)


def _memory(daemon: Daemon) -> Result:
    detail = "/proc/PID/status, VmRSS, after the changes"
    return Result("elb-control", "resident memory of that daemon", daemon.megabytes(), "MB", REACH_MEMORY_MB, detail)


def _change(node: Node, turn: int) -> None:
    (node.folder / "vips").write_text(_vips(turn))
    call("reload", socket=node.socket)


def _ids(rings: Handle) -> list[int]:
    """The ring of each pool, as the number that the kernel gives each map. Pool 0 is where rings are built."""
    return [_id(rings, pool) for pool in range(libbpf.map_info(rings.fd).max_entries)]


def _id(rings: Handle, pool: int) -> int:
    return int.from_bytes(libbpf.map_lookup(rings.fd, pool.to_bytes(4, "little"), 4) or b"", "little")


def _until_changed(node: Node, rings: Handle, pool: int, turn: int) -> tuple[float, float]:
    """Milliseconds from the request until the pool has another ring, and until it is answered."""
    (node.folder / "vips").write_text(_vips(turn))
    old = _id(rings, pool)
    answered: list[float] = []
    begin = time.perf_counter()

    def ask() -> None:
        call("reload", socket=node.socket)
        answered.append(time.perf_counter())

    asking = threading.Thread(target=ask)
    asking.start()
    while _id(rings, pool) == old:
        if time.perf_counter() - begin > _TIMEOUT_S:
            sys.exit("a change of one backend did not get into the kernel")
        time.sleep(0.0001)
    changed = time.perf_counter()
    asking.join()
    return 1000 * (changed - begin), 1000 * (answered[0] - begin)
