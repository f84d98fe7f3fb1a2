# SPDX-License-Identifier: Apache-2.0
"""The page about the load balancer names all its options, reasons and metrics, and what it shows as a file of VIPs is one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from xdpchain.config import load
from xdpchain.plugins import load_plugins
from xdpchain.testing import LoadChain
from xdpchain_elb import Elb
from xdpchain_elb.config import Option

from tests.docs.markdown import ROOT, blocks, table

PAGE = ROOT / "docs" / "elb.md"
EXAMPLE, VIPS = (block.text for block in blocks(PAGE))


def words(cells: Iterable[str]) -> list[str]:
    return sorted(word for cell in cells for word in re.findall(r"`([\w-]+)`", cell))


def test_all_options_of_a_vip_are_on_the_page() -> None:
    assert sorted(get_args(Option)) == words(row[0] for row in table(PAGE, "Which VIP, which backend"))


def test_all_reasons_are_on_the_page() -> None:
    assert sorted(reason.name for reason in Elb.reasons) == words(row[1] for row in table(PAGE, "What it counts"))


def test_all_metrics_are_on_the_page_with_their_labels(load_chain: LoadChain) -> None:
    vip = {"address": "10.200.1.1", "port": 443, "protocol": "tcp", "backend": [{"address": "10.0.0.1"}]}
    elb = {"source": ["10.0.13.37"], "next_hop": "02:00:00:00:00:01", "vip": [vip]}
    chain = load_chain({"interface": {"eth0": {"chain": ["elb"]}}, "function": {"elb": elb}}, functions=[Elb()])
    metrics = Elb().metrics(chain.config.instances["elb"].config, chain.maps["elb"])
    on_page: dict[str, list[str]] = {}
    for names, labels in re.findall(r"^\| (`xdpchain_elb_.*?) \| (.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE):
        on_page |= dict.fromkeys(words([names]), words([labels]))

    assert {metric.name: sorted(metric.samples[0][0]) for metric in metrics} == on_page


def test_the_file_of_vips_on_the_page_is_read_as_it_says(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(EXAMPLE.split("[[")[0] + 'vips = "elb.vips"\n')
    (tmp_path / "elb.vips").write_text(VIPS)

    node = load(tmp_path / "node.toml", load_plugins().functions)

    web, other = node.instances["elb"].config.all_vips
    assert ["10.200.1.1:443 tcp", "[2001:db8::1]:443 udp"] == [str(web), str(other)]
    assert [("10.0.0.1", 100, None, False), ("10.0.0.2", 50, 17, False), ("10.0.0.3", 1, None, True)] == [
        (str(one.address), one.weight, one.server_id, one.drain) for one in web.backend
    ]
    assert [("eu", ["10.0.1.1"])] == [(route.name, [str(one.address) for one in route.backend]) for route in web.source]
    assert ("ipip", [4711]) == (other.encapsulation, [one.server_id for one in other.backend])
