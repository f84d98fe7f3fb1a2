# SPDX-License-Identifier: Apache-2.0
"""Services in the kernel's tables."""

from __future__ import annotations

import pytest

from plugins.dsr_agent.tests.conftest import LoadAgent

WEB = {"vip": "10.200.1.1", "port": 443, "workload": "10.1.0.5", "backend_port": 8443}
DNS = {"vip": "fd00::53", "port": 53, "protocol": "udp", "workload": "fd01::5"}


@pytest.mark.parametrize("side", ["network", "workload"])
def test_a_service_keeps_its_place_when_others_come_and_go(agent: LoadAgent, side: str) -> None:
    chain = agent(side, WEB, DNS)
    services = chain.maps["dsr_agent"]["dsr_services"]
    before = {service["id"]: place for place, service in services.items() if service["id"]}
    assert len(before) == 2
    chain.configure("dsr_agent", {"accept_from": ["10.0.13.0/24"], "service": [DNS, {**WEB, "port": 80, "backend_port": 8080}]})
    after = {service["id"]: place for place, service in services.items() if service["id"]}
    assert len(after) == 2
    assert {id_: before[id_] for id_ in before.keys() & after.keys()} == {id_: after[id_] for id_ in before.keys() & after.keys()}
    assert len(before.keys() & after.keys()) == 1
    assert len(chain.maps["dsr_agent"]["dsr_targets"]) == len(chain.maps["dsr_agent"]["dsr_ports"]) == 2
