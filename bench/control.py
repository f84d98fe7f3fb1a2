# SPDX-License-Identifier: Apache-2.0
"""The control plane: an instance added to a running chain, and the start of a daemon with a node of three functions; all artifacts cached."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.chain.engine import Engine, unload
from xdpchain.config import NodeConfig, loads
from xdpchain.function import KernelFunction
from xdpchain.netlink import list_interfaces
from xdpchain_ratelimit import Ratelimit

from bench.functions.xdpchain_bench import Noop
from bench.measure import Result
from bench.node import Node, bpffs, own_namespaces, running

REACH_ADD_MS, REACH_START_S, REACH_MEMORY_MB = 100.0, 0.7, 60.0
ROUNDS = 9

_RULE = """
[[function.ratelimit.rule]]
ports = [80, 443]
rate = 1000
"""


def measure(_: Compiler, rounds: int) -> Iterator[Result]:
    """In namespaces of its own, which end with the process."""
    own_namespaces()
    rounds = min(rounds, ROUNDS)
    with tempfile.TemporaryDirectory(prefix="xdpchain-bench-") as folder, bpffs(Path(folder)) as pins:
        yield _adding(Engine(pins / "adding", Compiler(Path(folder) / "cache")), rounds)
        unload(pins / "adding")
        yield from _starting(Path(folder), pins / "starting", rounds)
        unload(pins / "starting")


def _node(chain: list[str]) -> str:
    return f'[node]\nmetrics = "off"\n[interface.near]\nchain = {chain}\n{_RULE}'


def _adding(engine: Engine, rounds: int) -> Result:
    """`ratelimit` put at the head of a running chain, from the call of apply until it returns: the flip is done then, and the old chain gone."""
    functions: dict[str, KernelFunction[Any]] = {"noop": Noop("noop"), "ratelimit": Ratelimit()}
    without, with_it = (loads(_node(chain), functions) for chain in (["noop"], ["ratelimit", "noop"]))
    times = []
    for _ in range(rounds + 1):
        _apply(engine, without)
        times.append(_apply(engine, with_it))
    milliseconds = 1000 * statistics.median(times[1:])  # the first one compiled
    return Result(
        "control", "instance added to a running chain", milliseconds, "ms", REACH_ADD_MS, f"slowest {1000 * max(times[1:]):.0f} ms"
    )


def _apply(engine: Engine, config: NodeConfig) -> float:
    present = list_interfaces()
    begin = time.perf_counter()
    engine.apply(config, present)
    return time.perf_counter() - begin


def _starting(folder: Path, root: Path, rounds: int) -> Iterator[Result]:
    """A daemon with ratelimit and two no-op functions: the first start compiles, later ones adopt the chain that the one before left."""
    node = Node(folder, root)
    node.config.write_text(_node(["ratelimit", "noop", "another_noop"]))
    starts = [_start(node) for _ in range(rounds + 1)][1:]
    seconds = [start for start, _ in starts]
    yield Result(
        "control", "start of a node with 3 functions", statistics.median(seconds), "s", REACH_START_S, f"slowest {max(seconds):.2f} s"
    )
    memory = statistics.median(megabytes for _, megabytes in starts)
    yield Result("control", "resident memory of that daemon", memory, "MB", REACH_MEMORY_MB, "/proc/PID/status, VmRSS")


def _start(node: Node) -> tuple[float, float]:
    with running(node) as daemon:
        return daemon.seconds, daemon.megabytes()
