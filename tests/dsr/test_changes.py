# SPDX-License-Identifier: Apache-2.0
"""Transfers that go on while daemons end and workloads move; ports of workloads that come and go."""

from __future__ import annotations

import signal
import time

import pytest

from lab.balance_driver import Driver
from lab.site import SHARED, TALK, WEB, Site
from lab.site_client import Client, Running
from lab.workload import Guest, Workload
from tests.dsr.test_traffic import FAMILIES

BYTES, SECONDS = 500_000, 0.5
"""of a transfer each way, which is followed by the next one"""
HELD = 60


def transfers(site: Site, client: Client, *workloads: Workload) -> list[Running]:
    """Connections that send and receive without end."""
    vips = [site.vip(one, family) for one in workloads for family in (4, 6)]
    started = [client.start("transfer", vip, port=WEB, up=BYTES, down=BYTES, seconds=SECONDS, again=True) for vip in vips]
    time.sleep(1)  # they are in the middle of it; had one not begun, nothing would be shown, but nothing would be wrong
    return started


def test_transfers_go_on_while_the_daemons_are_restarted_and_killed(site: Site, client: Client) -> None:
    going_on = transfers(site, client, *site.workloads)

    for number in (signal.SIGTERM, signal.SIGKILL):
        for one in (site.vm, site.application):
            site.node_of(one).stop(number)
        for one in (site.vm, site.application):
            site.node_of(one).start()

    assert [{"ok": 1}] * 6 == [one.seen().counts for one in going_on]


@pytest.mark.parametrize("name", ["vm", "box"])
def test_transfers_and_connections_survive_the_move_of_their_workload(site: Site, client: Client, driver: Driver, name: str) -> None:
    guest: Guest = getattr(site, name)
    going_on = transfers(site, client, guest)
    held = driver.open(HELD, SHARED, port=TALK)
    assert HELD == sum(held.values())

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
    held = driver.open(HELD, SHARED, port=TALK)
    site.drain("tap-vm")
    report = driver.report()

    assert {} == report.broken
    assert held == report.holds
    assert {"veth-box", "app"} == {*driver.probe(HELD, SHARED, port=TALK)}
