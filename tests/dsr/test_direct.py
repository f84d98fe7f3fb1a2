# SPDX-License-Identifier: Apache-2.0
"""What comes to a workload's own address is the workload's own, whatever serves whom beside it."""

from __future__ import annotations

import pytest

from lab.capture import Capture
from lab.site import OWN_PORT, WEB, Site
from lab.site_client import Client
from tests.dsr.test_traffic import FAMILIES, WORKLOADS
from tests.dsr.witness import echoes

PORTS = 200
MANY = 5000


@WORKLOADS
@FAMILIES
def test_direct_traffic_is_untouched(site: Site, client: Client, number: int, family: int) -> None:
    workload = site.workloads[number]
    address = workload.address(family)

    with Capture(site.router_end(site.client), [site.vip(workload, family)]) as answers:
        assert echoes(site.client, address)
        assert {"ok": 50} == client.run("short", address, port=OWN_PORT, number=50).counts
        assert {"ok": 1} == client.run("transfer", address, port=OWN_PORT, up=1_000_000, down=1_000_000).counts
        assert {"ok": 10} == client.run("datagrams", address, port=OWN_PORT, number=10, up=9000, down=9000).counts
        assert 0 == answers.seen()


def reuse(site: Site, client: Client, workload: int, family: int, number: int) -> None:
    one = site.workloads[workload]
    addresses = site.vip(one, family), one.address(family)

    assert {"ok": 2 * number} == client.run("reuse", *addresses, port=WEB, direct_port=OWN_PORT, number=number).counts


@WORKLOADS
@FAMILIES
def test_a_source_port_is_used_towards_the_vip_and_then_towards_the_workload(site: Site, client: Client, number: int, family: int) -> None:
    reuse(site, client, number, family, PORTS)


@pytest.mark.soak
@WORKLOADS
@FAMILIES
def test_five_thousand_source_ports_are_used_so(site: Site, client: Client, number: int, family: int) -> None:
    reuse(site, client, number, family, MANY)
