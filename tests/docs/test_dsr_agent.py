# SPDX-License-Identifier: Apache-2.0
"""The page about the agent names all its reasons, policies and metrics, and what it shows as config and as a file of services is read as it says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from xdpchain.config import load
from xdpchain.plugins import load_plugins
from xdpchain.testing import LoadChain
from xdpchain_dsr_agent import DsrAgent
from xdpchain_dsr_agent.config import MAX_SERVICES, DsrAgentConfig
from xdpchain_dsr_agent.service import Unknown
from xdpchain_dsr_agent.tables import IDLE_TICKS

from tests.docs.markdown import ROOT, blocks, table

PAGE = ROOT / "docs" / "dsr_agent.md"
EXAMPLE, SERVICES = (block.text for block in blocks(PAGE))


def words(cells: Iterable[str]) -> list[str]:
    return sorted(word for cell in cells for word in re.findall(r"`([\w-]+)`", cell))


def test_all_reasons_are_on_the_page() -> None:
    assert sorted(reason.name for reason in DsrAgent.reasons) == words(row[1] for row in table(PAGE, "What it counts"))


def test_all_policies_are_on_the_page() -> None:
    assert sorted(get_args(Unknown)) == words(row[0] for row in table(PAGE, "When the flow is not known"))


def test_idle_times_are_those_of_the_page() -> None:
    seconds = {"s": 1, "h": 3600}
    spans = [row[1].split() for row in table(PAGE, "Flows")]
    told = [int(number) * seconds[unit] for number, unit in spans]

    # a tick is a little more than a second
    ticks = [IDLE_TICKS[name] for name in ("syn", "established", "fin", "closed")]
    assert all(abs(second - tick * (1 << 30) / 1e9) < 2 for second, tick in zip(told, ticks, strict=True))
    assert IDLE_TICKS["udp"] == IDLE_TICKS["fin"]


def test_all_metrics_are_on_the_page_with_their_labels(load_chain: LoadChain) -> None:
    service = {"vip": "10.200.1.1", "port": 443, "workload": "10.1.0.5"}
    keys = {"accept_from": ["10.0.13.0/24"], "service": [service], "flow_table": 1024}
    chain = load_chain({"interface": {"eth0": {"chain": ["dsr_agent"]}}, "function": {"dsr_agent": keys}}, functions=[DsrAgent()])
    metrics = chain.metrics("dsr_agent")
    on_page: dict[str, list[str]] = {}
    for names, labels in re.findall(r"^\| (`xdpchain_dsr_.*?) \| (.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE):
        on_page |= dict.fromkeys(words([names]), words([labels]))

    assert {metric.name: sorted(metric.samples[0][0]) for metric in metrics} == on_page


def test_the_config_and_the_file_of_services_on_the_page_are_read_as_they_say(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(EXAMPLE.replace("[[", 'services = "dsr.services"\n\n[[', 1))
    (tmp_path / "dsr.services").write_text(SERVICES)

    config = load(tmp_path / "node.toml", load_plugins().functions).instances["dsr_agent"].config

    assert isinstance(config, DsrAgentConfig)
    assert [
        ("10.200.1.1:443 tcp", "10.1.0.5:8443", ["10.1.0.5"], "snat"),
        ("[2001:db8::53]:53 udp", "[2001:db8:1::5]:53", ["10.1.0.5"], "snat"),
        ("10.200.1.2:443 tcp", "10.1.0.7:8443", ["10.1.0.7"], "snat"),
        ("10.200.1.2:0 udp", "10.1.0.6:0", ["10.1.0.6"], "snat"),
        ("[2001:db8::1]:443 tcp", "[2001:db8:1::5]:443", ["10.1.0.5", "10.1.0.6"], "learn"),
    ] == [(str(one), one.back, [str(endpoint) for endpoint in one.endpoints], one.unknown) for one in config.all_services]


def test_the_most_services_are_as_many_as_the_page_says() -> None:
    assert f"{MAX_SERVICES:,}" in PAGE.read_text(encoding="utf-8")
