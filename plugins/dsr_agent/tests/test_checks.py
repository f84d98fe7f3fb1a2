# SPDX-License-Identifier: Apache-2.0
"""What the doctor says about an agent's machine."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from xdpchain.config import loads
from xdpchain.hookspecs import Finding, State
from xdpchain.testing import Netns
from xdpchain.testing.namespace import Namespace
from xdpchain_dsr_agent import DsrAgent, checks, ethtool, xdpchain_doctor
from xdpchain_dsr_agent.checks import GRO_LISTS

from plugins.dsr_agent.tests.documents import service

_SFEATURES = 0x3B


@pytest.fixture
def node(netns: Netns) -> Namespace:
    """A machine with a workload behind the veth `tap0`, and a NIC `eth0`: a veth, too."""
    one, workload, router = netns("node"), netns("workload"), netns("router")
    one.connect(workload, "tap0", "eth0")
    one.connect(router, "eth0", "eth0")
    return one


def found(node: Namespace, *services: dict[str, Any], side: str = "workload", interface: str = "tap0", **keys: Any) -> list[Finding]:
    table = {"accept_from": ["10.0.13.0/24"], "service": list(services), **keys}
    document = {"interface": {interface: {"chain": ["dsr_agent"], "side": side}}, "function": {"dsr_agent": table}}
    with node.entered():
        return list(xdpchain_doctor(loads(document, {"dsr_agent": DsrAgent()})))


def set_feature(interface: str, name: str, *, on: bool) -> None:
    names = ethtool.names(interface)
    blocks, at = (len(names) + 31) // 32, names.index(name)
    words = [[0, 0] for _ in range(blocks)]
    words[at // 32] = [1 << at % 32, on << at % 32]
    ethtool.ask(interface, struct.pack("=II", _SFEATURES, blocks) + b"".join(struct.pack("=II", *pair) for pair in words))


def set_(name: str, value: int) -> None:
    Path(f"/proc/sys/net/{name}").write_text(str(value))


def bad(findings: list[Finding]) -> list[tuple[str, State]]:
    assert all(one.hint for one in findings if one.state is not State.OK)
    return [(one.subject, one.state) for one in findings if one.state is not State.OK]


@pytest.fixture
def forwarding(node: Namespace) -> None:
    """It forwards."""
    with node.entered():
        set_("ipv4/ip_forward", 1)
        set_("ipv6/conf/all/forwarding", 1)


def test_a_machine_that_is_as_it_should_be_is_fine(node: Namespace, forwarding: None) -> None:
    findings = found(node, service())

    assert [] == bad(findings)
    assert [("tap0", "GRO does not merge encapsulated packets")] == [(one.subject, one.text) for one in findings]


def test_a_node_without_an_agent_is_not_looked_at() -> None:
    assert [] == list(xdpchain_doctor(None))
    assert [] == list(xdpchain_doctor(loads({}, {})))


@pytest.mark.parametrize("feature", GRO_LISTS)
def test_merging_of_encapsulated_packets_is_found(node: Namespace, forwarding: None, feature: str) -> None:
    with node.entered():
        set_feature("eth0", feature, on=True)
    (one,) = [finding for finding in found(node, service(), side="network", interface="eth0") if finding.state is not State.OK]

    assert ("eth0", State.FAIL, f"ethtool -K eth0 {feature} off") == (one.subject, one.state, one.hint)
    assert f"{feature} is on" in one.text
    assert [("eth0", State.WARN)] == bad(found(node, service())), "packets for tap0 may come in by it"
    with node.entered():
        set_feature("eth0", feature, on=False)
    assert [] == bad(found(node, service(), side="network", interface="eth0"))


def test_both_ways_of_merging_are_told_at_once(node: Namespace, forwarding: None) -> None:
    with node.entered():
        for feature in GRO_LISTS:
            set_feature("tap0", feature, on=True)
    (one,) = [finding for finding in found(node, service()) if finding.state is not State.OK]

    assert "rx-gro-list and rx-udp-gro-forwarding are on" in one.text
    assert "ethtool -K tap0 rx-gro-list off rx-udp-gro-forwarding off" == one.hint


@pytest.mark.parametrize("where", ["all", "tap0"])
def test_a_strict_reverse_path_filter_is_found_where_answers_meet_it(node: Namespace, forwarding: None, where: str) -> None:
    with node.entered():
        set_("ipv4/conf/all/rp_filter", 0)
        set_("ipv4/conf/tap0/rp_filter", 0)
        set_(f"ipv4/conf/{where}/rp_filter", 1)

    assert [("tap0", State.FAIL)] == bad(found(node, service(), answers="stack"))
    assert [] == bad(found(node, service(), answers="direct"))
    assert [] == bad(found(node, service(), answers="stack", side="network"))
    with node.entered():
        set_("ipv4/conf/tap0/rp_filter", 2)
    assert [] == bad(found(node, service(), answers="stack")), "loose wins"


def test_a_host_that_does_not_forward_is_found(node: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with node.entered():
        set_("ipv4/ip_forward", 0)
        set_("ipv6/conf/all/forwarding", 0)

    four, six = service(), service("fd00::1", workload="fd01::5")
    assert ["sysctl net.ipv4.ip_forward=1"] == [one.hint for one in found(node, four) if one.hint]
    assert ["sysctl net.ipv6.conf.all.forwarding=1"] == [one.hint for one in found(node, six) if one.hint]
    assert 2 == len(bad(found(node)))
    assert [] == bad(found(node, four, six, side="network", interface="eth0"))
    # sysfs shows the network in which it was mounted, not the test's
    monkeypatch.setattr(checks, "_CLASS", tmp_path)
    assert 2 == len(bad(found(node, four, six)))
    (tmp_path / "tap0" / "brport").mkdir(parents=True)
    assert [] == bad(found(node, four, six)), "a bridge carries them"
