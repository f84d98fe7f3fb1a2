# SPDX-License-Identifier: Apache-2.0
"""The control plane: an instance added to a running chain, and the start of a daemon with a node of three functions; all artifacts cached."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.chain.engine import Engine, unload
from xdpchain.config import NodeConfig, loads
from xdpchain.function import KernelFunction
from xdpchain.netlink import list_interfaces
from xdpchain.testing.namespace import enter_new_namespaces
from xdpchain_ratelimit import Ratelimit

from bench.functions.xdpchain_bench import Noop
from bench.measure import Result

REACH_ADD_MS, REACH_START_S, REACH_MEMORY_MB = 100.0, 0.7, 60.0
ROUNDS = 9
START_TIMEOUT_S = 30.0

_FUNCTIONS = Path(__file__).with_name("functions")
_RULE = """
[[function.ratelimit.rule]]
ports = [80, 443]
rate = 1000
"""


def measure(_: Compiler, rounds: int) -> Iterator[Result]:
    """In namespaces of its own, which end with the process."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    _own_namespaces()
    rounds = min(rounds, ROUNDS)
    with tempfile.TemporaryDirectory(prefix="xdpchain-bench-") as folder, _bpffs(Path(folder)) as bpffs:
        yield _adding(Engine(bpffs / "adding", Compiler(Path(folder) / "cache")), rounds)
        unload(bpffs / "adding")
        yield from _starting(Path(folder), bpffs / "starting", rounds)
        unload(bpffs / "starting")


def _own_namespaces() -> None:
    enter_new_namespaces()
    subprocess.run(["ip", "link", "add", "near", "type", "veth", "peer", "name", "far"], check=True)
    for end in ("near", "far"):
        subprocess.run(["ip", "link", "set", end, "up"], check=True)


@contextlib.contextmanager
def _bpffs(folder: Path) -> Iterator[Path]:
    path = folder / "bpffs"
    path.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


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


@attrs.frozen
class Start:
    """One start: seconds from exec to READY=1 (the chain runs and clients are answered), and resident memory then."""

    seconds: float
    megabytes: float


def _starting(folder: Path, root: Path, rounds: int) -> Iterator[Result]:
    """A daemon with ratelimit and two no-op functions: the first start compiles, later ones adopt the chain that the one before left."""
    file = folder / "node.toml"
    file.write_text(_node(["ratelimit", "noop", "another_noop"]))
    places = {"CONFIG": file, "ROOT": root, "STATE": folder / "state", "CACHE": folder / "cache", "SOCKET": folder / "run" / "control.sock"}
    environment = {**os.environ, **{f"XDPCHAIN_{name}": str(path) for name, path in places.items()}}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_FUNCTIONS), os.environ.get("PYTHONPATH"))))
    starts = [_start(environment, folder / "notify") for _ in range(rounds + 1)][1:]
    seconds = [start.seconds for start in starts]
    yield Result(
        "control", "start of a node with 3 functions", statistics.median(seconds), "s", REACH_START_S, f"slowest {max(seconds):.2f} s"
    )
    memory = statistics.median(start.megabytes for start in starts)
    yield Result("control", "resident memory of that daemon", memory, "MB", REACH_MEMORY_MB, "/proc/PID/status, VmRSS")


def _start(environment: Mapping[str, str], notify: Path) -> Start:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as answers:
        answers.bind(str(notify))
        answers.settimeout(START_TIMEOUT_S)
        begin = time.perf_counter()
        command = [sys.executable, "-c", "from xdpchain.daemon.main import main; main()"]
        daemon = subprocess.Popen(command, env={**environment, "NOTIFY_SOCKET": str(notify)}, stderr=subprocess.PIPE)
        try:
            while b"READY=1" not in answers.recv(4096):
                pass
            seconds = time.perf_counter() - begin
            found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{daemon.pid}/status").read_text())
        except TimeoutError:
            daemon.kill()
            sys.exit(f"the daemon did not start:\n{daemon.communicate()[1].decode()}")
        finally:
            notify.unlink()
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate()
    return Start(seconds, int(found[1]) / 1000 if found else 0.0)
