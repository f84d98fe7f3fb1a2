# SPDX-License-Identifier: Apache-2.0
"""The real daemon: it is killed, and counting goes on; the first sweep of the next one settles the rest."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from xdpchain import XdpchainError
from xdpchain.cli.client import call
from xdpchain.testing import Namespace, Netns

from plugins.maxconn.tests.helpers import PORT, Churn, Server, until

MOST = 50
SCRIPTS = Path(sys.executable).parent
FILE = f"""
[node]
metrics = "off"

[interface.eth0]
chain = ["maxconn"]

[[function.maxconn.limit]]
ports = [{PORT}]
max = {MOST}
action = "reset"
"""


class Daemon:
    """`xdpchaind` with everything of its own below one directory."""

    def __init__(self, base: Path, bpffs: Path) -> None:
        self._log, self._socket, self._root = base / "log", base / "control.sock", bpffs / "xdpchain"
        file, plugins = base / "node.toml", base / "plugins"
        file.write_text(FILE)
        if not entry_points(group="xdpchain", name="maxconn"):
            _install(plugins)
        paths = {"CONFIG": file, "ROOT": self._root, "STATE": base / "state", "CACHE": base / "cache", "SOCKET": self._socket}
        path = os.pathsep.join(filter(None, (str(plugins), os.environ.get("PYTHONPATH"))))
        self._environment = {**os.environ, **{f"XDPCHAIN_{name}": str(one) for name, one in paths.items()}, "PYTHONPATH": path}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, namespace: Namespace) -> None:
        """Start it and wait until it answers."""
        with namespace.entered(), self._log.open("wb") as log:
            self._process = subprocess.Popen([SCRIPTS / "xdpchaind"], env=self._environment, stderr=log, stdin=subprocess.DEVNULL)
        until(self._answers, self._log.read_text)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            return bool(call("status", socket=self._socket)["daemon"]["pid"] == self._process.pid)
        except XdpchainError:
            return False

    def kill(self) -> None:
        """End it without a chance to do anything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def row(self) -> dict[str, Any]:
        """The first row of its table."""
        (table,) = call("show", socket=self._socket, instance="maxconn", seconds=0)["tables"]
        return dict(zip(table["columns"], table["rows"][0], strict=True))

    def command(self, *arguments: str) -> str:
        """What `xdpchain` prints, whatever its exit code."""
        words = [str(SCRIPTS / "xdpchain"), *arguments]
        return subprocess.run(words, env=self._environment, capture_output=True, text=True, check=False).stdout

    def close(self) -> None:
        """End it, and take the datapath away."""
        self.kill()
        if self._root.is_dir():
            self.command("unload", "--yes")


def _install(folder: Path) -> None:
    """Make the plugin one that is installed: its entry point in a directory that is on the import path."""
    info = folder / "maxconn-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: maxconn\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[xdpchain]\nmaxconn = xdpchain_maxconn\n")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon, not started yet."""
    bpffs = tmp_path / "bpffs"
    bpffs.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(bpffs)], check=True)
    one = Daemon(tmp_path, bpffs)
    try:
        yield one
    finally:
        one.close()
        subprocess.run(["umount", str(bpffs)], check=True)


def test_counting_goes_on_while_the_daemon_is_dead_and_the_limit_holds(daemon: Daemon, netns: Netns) -> None:
    here, there = netns("node"), netns("client")
    end, _ = here.connect(there)
    there.accept_xdp_tx("eth0")
    daemon.start(here)
    server = Server(here)
    held = []
    with there.entered():
        held = [socket.create_connection((end.ipv4, PORT)) for _ in range(30)]
    until(lambda: daemon.row()["open"] == 30, daemon.row)

    daemon.kill()
    for one in held[:10]:
        one.close()
    churn = Churn(there, [(socket.AF_INET, end.ipv4)], 200, seed=1)
    try:
        until(lambda: churn.opened >= 300 and churn.refused >= 300, lambda: (churn.opened, churn.refused))
        daemon.start(here)
        churned = churn.opened
        until(lambda: churn.opened >= churned + 300, lambda: churn.opened)
        assert daemon.row()["open"] <= MOST
    finally:
        churn.stop()
    until(lambda: daemon.row()["open"] == 20, daemon.row)
    assert len(server.open) == 20
    # the kernel keeps an event from a program now and then; had nobody counted meanwhile, it would be hundreds
    assert daemon.row()["drift"] < 30

    for one in held:
        one.close()
    until(lambda: daemon.row()["open"] == 0, daemon.row)
    server.close()


def test_connections_that_were_open_before_the_daemon_came_are_counted_at_once(daemon: Daemon, netns: Netns) -> None:
    here, there = netns("node"), netns("client")
    end, _ = here.connect(there)
    server = Server(here)
    with there.entered():
        held = [socket.create_connection((end.ipv6, PORT)) for _ in range(MOST)]
    until(lambda: len(server.open) == MOST)
    daemon.start(here)
    there.accept_xdp_tx("eth0")
    until(lambda: daemon.row()["open"] == MOST, daemon.row)

    with there.entered(), pytest.raises(ConnectionRefusedError):
        socket.create_connection((end.ipv6, PORT), timeout=10)
    assert f"port {PORT}" in daemon.command("show", "maxconn")
    for one in held:
        one.close()
    server.close()


def test_doctor_asks_the_plugin(daemon: Daemon) -> None:
    (line,) = (line for line in daemon.command("doctor").splitlines() if "the kernel tells of TCP connections" in line)
    assert line.split()[:2] == ["ok", "maxconn"]
