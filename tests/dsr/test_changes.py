# SPDX-License-Identifier: Apache-2.0
"""Transfers that go on while daemons end and workloads move; ports of workloads that come and go."""

from __future__ import annotations

import signal
import time

import pytest

from lab.balance_driver import Driver
from lab.site import SHARED, WEB, Site
from lab.site_client import Client
from lab.workload import Guest
from tests.dsr.test_traffic import FAMILIES, WORKLOADS

BYTES = 6_000_000
SECONDS = 8.0
HELD = 60


@WORKLOADS
def test_transfers_go_on_while_the_daemon_is_restarted_and_killed(site: Site, client: Client, number: int) -> None:
    workload = site.workloads[number]
    node = site.node_of(workload)
    going_on = [client.start("transfer", site.vip(workload, one), port=WEB, up=BYTES, down=BYTES, seconds=SECONDS) for one in (4, 6)]
    time.sleep(1)

    node.stop(signal.SIGTERM)
    node.start()
    node.stop(signal.SIGKILL)
    node.start()

    assert [{"ok": 1}] * 2 == [one.seen().counts for one in going_on]


@pytest.mark.parametrize("name", ["vm", "box"])
def test_transfers_and_connections_survive_the_move_of_their_workload(site: Site, client: Client, driver: Driver, name: str) -> None:
    guest: Guest = getattr(site, name)
    going_on = [client.start("transfer", site.vip(guest, one), port=WEB, up=BYTES, down=BYTES, seconds=SECONDS) for one in (4, 6)]
    held = driver.open(HELD, SHARED, port=WEB)
    assert HELD == sum(held.values())
    time.sleep(1)

    site.move(guest, site.hv2)

    report = driver.report()
    assert {} == report.broken
    assert held == report.holds
    assert [{"ok": 1}] * 2 == [one.seen().counts for one in going_on]
    assert {"ok": 50} == client.run("short", site.vip(guest, 4), site.vip(guest, 6), port=WEB, number=50).counts


@FAMILIES
def test_a_tap_that_vanishes_and_comes_back_has_its_agent_again(site: Site, client: Client, family: int) -> None:
    for _ in range(3):
        site.vm.unplug()
        site.plug_in(site.vm, site.hv1)

        assert {"ok": 10} == client.run("short", site.vip(site.vm, family), port=WEB, number=10).counts


def test_no_flow_breaks_while_backends_drain(site: Site, driver: Driver) -> None:
    held = driver.open(HELD, SHARED, port=WEB)
    site.drain("tap-vm")
    report = driver.report()

    assert {} == report.broken
    assert held == report.holds
    assert {"veth-box", "app"} == {*driver.probe(HELD, SHARED, port=WEB)}
