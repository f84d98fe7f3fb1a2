# SPDX-License-Identifier: Apache-2.0
"""The real daemon: services come and go while it runs, by file and by `xdpchain put`; a bad one changes nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from xdpchain.errors import ExitCode
from xdpchain.testing import Netns

from tests.helpers.distribution import install
from tests.helpers.node import Node
from tests.helpers.standstill import standing

HEAD = """
[node]
metrics = "off"

[interface."tap*"]
chain = ["dsr_agent"]

[function.dsr_agent]
accept_from = ["10.0.13.0/24"]
flow_table = 1024
services = "dsr.services"
"""
WEB = "vip 10.200.1.1:443 tcp 10.1.0.5:8443"
DNS = "vip [fd00::53]:53 udp fd01::5"
MANY = 2000


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of the compiled function for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def daemon(tmp_path: Path, cache: Path, netns: Netns) -> Iterator[Node]:
    """A daemon with an agent at `tap0`, whose services are in a file of their own; the plugin is on its path as an installed one."""
    bpffs, plugins = tmp_path / "bpffs", tmp_path / "plugins"
    bpffs.mkdir()
    if not entry_points(group="xdpchain", name="dsr_agent"):
        install(plugins, "dsr_agent", {}, entry="xdpchain_dsr_agent")
    subprocess.run(["mount", "-t", "bpf", "bpf", str(bpffs)], check=True)
    one = Node(tmp_path, bpffs, plugins, cache)
    one.configure(HEAD)
    (one.file.parent / "dsr.services").write_text(f"{WEB}\n")
    here, workload = netns("node"), netns("workload")
    here.connect(workload, "tap0", "eth0")
    try:
        with here.entered():
            one.start()
        yield one
    finally:
        one.close()
        subprocess.run(["umount", str(bpffs)], check=True)


def rows(daemon: Node) -> dict[str, Mapping[str, Any]]:
    """What `show` says of each service."""
    table = daemon.ask("show", instance="dsr_agent", seconds=0)["tables"][0]
    return {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}


def put(daemon: Node, *lines: str, code: int = 0) -> str:
    new = daemon.base / "new"
    new.write_text("".join(f"{line}\n" for line in lines))
    return daemon.command("put", "dsr_agent", "services", str(new), code=code)


def places(daemon: Node) -> dict[str, int]:
    elements = daemon.ask("show", instance="dsr_agent", map="dsr_services", limit=100_000)["elements"]
    return {one["value"]["vip"]: one["key"] for one in elements if one["value"]["id"]}


def test_services_come_and_go_without_a_structural_change(daemon: Node) -> None:
    before = standing(daemon)
    many = [f"vip 10.201.{at >> 8}.{at & 255}:443 tcp 10.2.{at >> 8}.{at & 255}" for at in range(MANY)]

    assert {"10.200.1.1:443 tcp"} == rows(daemon).keys()
    assert put(daemon, WEB, DNS).splitlines() == ["configure dsr_agent  (its config changed)", "applied"]
    assert {"10.200.1.1:443 tcp", "[fd00::53]:53 udp"} == rows(daemon).keys()
    place = places(daemon)
    put(daemon, DNS, *many)
    assert MANY + 1 == len(rows(daemon))
    assert place["fd00::53"] == places(daemon)["fd00::53"]
    put(daemon, DNS, *many[1:])
    assert MANY == len(rows(daemon))
    daemon.configure(HEAD.replace('services = "dsr.services"', ""))
    daemon.command("apply")
    assert {} == rows(daemon)
    assert "" == before.changes(standing(daemon))
    daemon.command("rollback")
    assert MANY == len(rows(daemon))


BAD: Mapping[str, tuple[str, str]] = {
    "two services that cannot be told apart": (
        f"{WEB}\nvip 10.200.1.2:443 tcp 10.1.0.5:8443",
        "dsr.services:2: function.dsr_agent.services: an answer from port 8443 of 10.1.0.5 (tcp) may be that of 10.200.1.2:443 tcp or of 10.200.1.1",
    ),
    "a VIP of another family": (
        "vip [fd00::1]:443 tcp 10.1.0.5",
        "dsr.services:1: function.dsr_agent.services: 10.1.0.5 is of another family",
    ),
    "one packet for two workloads": (
        f"{WEB} endpoint=10.0.7.1\nvip 10.200.1.1:443 tcp 10.1.0.6 endpoint=10.0.7.1",
        "dsr.services:2: function.dsr_agent.services: 10.200.1.1:443 tcp at 10.0.7.1 is in",
    ),
    "an unknown word": (f"{WEB} policy=learn", 'dsr.services:1: function.dsr_agent.services: "policy=learn" is no known word'),
    "one port and all ports": (
        "vip 10.200.1.2:0 tcp 10.1.0.5\n" + WEB,
        "dsr.services:2: function.dsr_agent.services: an answer from 10.1.0.5:8443 may be that of",
    ),
}


def test_bad_services_are_refused_in_plain_words_and_nothing_changes(daemon: Node) -> None:
    before, ran, file = standing(daemon), rows(daemon), daemon.file.parent / "dsr.services"

    for what, (text, says) in BAD.items():
        refusals = [put(daemon, text, code=ExitCode.CONFIG)]
        assert f"{WEB}\n" == file.read_text(), what
        file.write_text(text)
        refusals.append(daemon.command("apply", code=ExitCode.CONFIG))
        file.write_text(f"{WEB}\n")
        for refusal in refusals:
            assert says in refusal
            assert "hint: " in refusal

    assert (ran, "") == (rows(daemon), before.changes(standing(daemon)))


def test_commands_and_status_know_the_agent(daemon: Node) -> None:
    assert "0 of 0 flows" in daemon.command("dsr", "flows", "--vip", "10.200.1.1:443")
    assert {"flows": [], "total": 0} == daemon.data("dsr", "flows", "--client", "192.0.2.7")
    shown = daemon.command("show", "dsr_agent", "--no-rates")
    assert "SERVICE             WORKLOAD       FLOWS" in shown
    assert "both sides have spoken" in shown
    assert [[]] == [one["warnings"] for one in daemon.status()["instances"]]
    assert 'xdpchain_dsr_new_flows_total{instance="dsr_agent"' in daemon.command("metrics")
