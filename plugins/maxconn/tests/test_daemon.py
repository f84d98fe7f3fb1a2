# SPDX-License-Identifier: Apache-2.0
"""The real daemon: it is killed, and counting goes on; the first sweep of the next one settles the rest."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from xdpchain.testing import Netns
from xdpchain.testing.namespace import Namespace

from plugins.maxconn.tests.helpers import PORT, Churn, Server, until
from tests.helpers.distribution import install
from tests.helpers.node import Node

MOST = 50
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


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Node]:
    """A daemon, not started yet; the plugin is on its path as an installed one."""
    bpffs, plugins = tmp_path / "bpffs", tmp_path / "plugins"
    bpffs.mkdir()
    if not entry_points(group="xdpchain", name="maxconn"):
        install(plugins, "maxconn", {}, entry="xdpchain_maxconn")
    subprocess.run(["mount", "-t", "bpf", "bpf", str(bpffs)], check=True)
    one = Node(tmp_path, bpffs, plugins, tmp_path / "cache")
    one.configure(FILE)
    try:
        yield one
    finally:
        one.close()
        subprocess.run(["umount", str(bpffs)], check=True)


def row(daemon: Node) -> dict[str, Any]:
    (table,) = daemon.ask("show", instance="maxconn", seconds=0)["tables"]
    return dict(zip(table["columns"], table["rows"][0], strict=True))


def start(daemon: Node, namespace: Namespace) -> None:
    with namespace.entered():
        daemon.start()


def test_counting_goes_on_while_the_daemon_is_dead_and_the_limit_holds(daemon: Node, netns: Netns) -> None:
    here, there = netns("node"), netns("client")
    end, _ = here.connect(there)
    there.accept_xdp_tx("eth0")
    start(daemon, here)
    server = Server(here)
    held = []
    with there.entered():
        held = [socket.create_connection((end.ipv4, PORT)) for _ in range(30)]
    until(lambda: row(daemon)["open"] == 30, lambda: row(daemon))

    daemon.end(signal.SIGKILL)
    for one in held[:10]:
        one.close()
    churn = Churn(there, [(socket.AF_INET, end.ipv4)], 200, seed=1)
    try:
        until(lambda: churn.opened >= 300 and churn.refused >= 300, lambda: (churn.opened, churn.refused))
        start(daemon, here)
        churned = churn.opened
        until(lambda: churn.opened >= churned + 300, lambda: churn.opened)
        assert row(daemon)["open"] <= MOST
    finally:
        churn.stop()
    until(lambda: row(daemon)["open"] == 20, lambda: row(daemon))
    assert len(server.open) == 20
    assert row(daemon)["drift"] == 0

    for one in held:
        one.close()
    until(lambda: row(daemon)["open"] == 0, lambda: row(daemon))
    server.close()


def test_connections_that_were_open_before_the_daemon_came_are_counted_at_once(daemon: Node, netns: Netns) -> None:
    here, there = netns("node"), netns("client")
    end, _ = here.connect(there)
    server = Server(here)
    with there.entered():
        held = [socket.create_connection((end.ipv6, PORT)) for _ in range(MOST)]
    until(lambda: len(server.open) == MOST)
    start(daemon, here)
    there.accept_xdp_tx("eth0")
    until(lambda: row(daemon)["open"] == MOST, lambda: row(daemon))

    with there.entered(), pytest.raises(ConnectionRefusedError):
        socket.create_connection((end.ipv6, PORT), timeout=10)
    assert f"port {PORT}" in daemon.command("show", "maxconn")
    for one in held:
        one.close()
    server.close()
