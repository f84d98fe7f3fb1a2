# SPDX-License-Identifier: Apache-2.0
"""
The way of a real connection: client, router, balancer, agent and server, against the same server plainly routed.

Both ways take turns on one site. Plainly routed is a second workload of the same kind on the same hypervisor, or host, without an agent and without a
balancer before it. The value is how many times as long the way through the balancer takes.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.testing.namespace import Namespace, Netns

from bench.measure import Result
from bench.node import bpffs, own_namespaces
from lab.site import OWN_PORT, WEB, Site, serving
from lab.site_traffic import QUESTION, SHORT, ask
from lab.workload import Application, Container, Workload

REACH_DOWNLOAD, REACH_SHORT = 1 / 0.9, 1 / 0.8
"""at least 0.9 of the throughput, and 0.8 of the connections in the same time"""
DOWNLOAD = 200_000_000
CONNECTIONS, AT_ONCE = 1_500, 4
_DIGEST = 32
_BUFFER = 1 << 18


@attrs.frozen
class Way:
    """A server as the client calls it, through the balancer and plainly."""

    name: str
    balanced: tuple[str, int]
    plain: tuple[str, int]


def measure(_: Compiler, rounds: int) -> Iterator[Result]:
    """Downloads and short connections, to a container and to a host's application."""
    own_namespaces()
    with tempfile.TemporaryDirectory(prefix="xdpchain-site-") as name, bpffs(Path(name)) as pins, Netns() as netns:
        site = Site(netns, Path(name), pins, Path(name) / "cache")
        box = Container("plain", site.prepare(netns("plain")), "172.20.0.21", "fd20::21")
        box.make_port(site.hv1)
        box.plug()
        site.route_to(box)
        host = Application("bare", site.join(site.prepare(netns("bare")), "bare"))
        with contextlib.closing(site), serving((*site.workloads, box, host)):
            site.start()
            for way in _ways(site, box, host):
                yield from _compare(site.client, way, rounds)


def _ways(site: Site, box: Workload, host: Workload) -> Iterator[Way]:
    for kind, behind, plain in (("container", site.box, box), ("host", site.application, host)):
        for family in (4, 6):
            yield Way(f"{kind}, IPv{family}", (site.vip(behind, family), WEB), (plain.address(family), OWN_PORT))


def _compare(client: Namespace, way: Way, rounds: int) -> Iterator[Result]:
    for what, run, reach, unit, amount in (
        ("download", _download, REACH_DOWNLOAD, "Gbit/s", DOWNLOAD * 8 / 1e9),
        ("short connections", _short, REACH_SHORT, "1/s", CONNECTIONS),
    ):
        ratios, speeds = [], []
        for _ in range(rounds):
            before, through, after = (_timed(client, run, target) for target in (way.plain, way.balanced, way.plain))
            ratios.append(2 * through / (before + after))
            speeds.append((amount / through, 2 * amount / (before + after)))
        ours, theirs = (statistics.median(speed) for speed in zip(*speeds, strict=True))
        value = statistics.median(ratios)
        detail = f"{1 / value:.2f} of plainly routed; {ours:.4g} {unit}, {theirs:.4g} {unit} plainly"
        yield Result("dsr-path", f"{what}, {way.name}", value, "x plain", reach, detail)


def _timed(client: Namespace, run: Callable[[tuple[str, int]], None], target: tuple[str, int]) -> float:
    with client.entered():
        begin = time.perf_counter()
        run(target)
        return time.perf_counter() - begin


def _download(target: tuple[str, int]) -> None:
    """Read everything and look at none of it: what is measured is the way."""
    buffer = memoryview(bytearray(_BUFFER))
    with socket.create_connection(target, timeout=60) as connection:
        connection.sendall(QUESTION.pack(0, DOWNLOAD))
        missing = DOWNLOAD + _DIGEST
        while missing:
            got = connection.recv_into(buffer, min(missing, _BUFFER))
            if not got:
                raise RuntimeError(f"{target[0]} closed the connection")
            missing -= got


def _short(target: tuple[str, int]) -> None:
    """Connections with a question and an answer each."""
    failed: list[str] = []

    def work() -> None:
        for _ in range(CONNECTIONS // AT_ONCE):
            result = ask(*target, SHORT)
            if result != "ok":
                failed.append(result)

    # threads are where the one that starts them is: in the client's namespace
    threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError(f"{len(failed)} connections to {target[0]} failed: {failed[0]}")
