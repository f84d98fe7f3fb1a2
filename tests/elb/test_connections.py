# SPDX-License-Identifier: Apache-2.0
"""Thousands of real connections through the balancer, while its backends and its daemon come and go: none breaks whose backend lives."""

from __future__ import annotations

import signal

import pytest

from lab.balance import VIPS
from lab.balance_driver import Driver
from tests.elb.conftest import MakeSite
from tests.elb.site import UP, Site, State
from tests.helpers.standstill import counts

NUMBER = 2000
FRESH = 240
"""connections that are opened, asked once and closed"""
BIG = 200_000
"""bytes: many packets as large as they may be"""


def expect_all_hold(site: Site, driver: Driver, before: dict[str, int]) -> None:
    report = driver.report()

    assert {} == report.broken
    assert before == report.holds
    assert {} == site.wrong_packets()


@pytest.mark.parametrize("encapsulation", ["gue", "ipip"])
def test_connections_hold_while_backends_and_the_daemon_come_and_go(site: MakeSite, driver: Driver, encapsulation: str) -> None:
    here = site(encapsulation, {"b1": UP, "b2": UP, "b3": UP})
    held = driver.open(NUMBER, VIPS)
    assert {"b1", "b2", "b3"} == set(held)
    assert NUMBER == sum(held.values())

    here.apply({"b1": UP, "b2": UP, "b3": UP, "b4": UP})

    expect_all_hold(here, driver, held)
    assert {"b1", "b2", "b3", "b4"} == set(driver.probe(FRESH, VIPS))

    here.apply({"b1": State(weight=1000), "b2": State(drain=True), "b3": State(weight=0), "b4": UP})

    expect_all_hold(here, driver, held)
    assert {"b1", "b4"} == set(driver.probe(FRESH, VIPS))

    held = {name: held.get(name, 0) + number for name, number in {"b2": 0, "b3": 0, **driver.open(NUMBER // 4, VIPS)}.items()}
    here.restart(signal.SIGTERM)

    expect_all_hold(here, driver, held)
    assert {"b1", "b4"} == set(driver.probe(FRESH, VIPS))

    here.write({"b1": UP, "b2": UP, "b3": State(drain=True), "b4": UP})
    here.restart(signal.SIGKILL)

    expect_all_hold(here, driver, held)
    assert {"b1", "b2", "b4"} == set(driver.probe(FRESH, VIPS))

    here.apply({"b1": State(drain=True), "b2": UP, "b4": UP})
    report = driver.report()
    del held["b3"]

    assert held == report.holds, "those of the backend that was removed break, and no others"
    assert {"b3"} == {what.split()[0] for what in report.broken}
    assert {"b2", "b4"} == set(driver.probe(FRESH, VIPS))
    assert {} == here.wrong_packets()


@pytest.mark.parametrize("encapsulation", ["gue", "ipip"])
def test_large_packets_find_their_size(site: MakeSite, driver: Driver, encapsulation: str) -> None:
    here = site(encapsulation, {"b1": UP, "b2": UP, "b3": UP})

    assert 40 == sum(driver.open(40, VIPS, up=BIG, down=BIG).values())

    report = driver.report()
    assert {} == report.broken
    assert counts(here.node)["eth0", "elb", "TX", "too_big"] > 0
    assert {} == here.wrong_packets()


def test_packets_of_one_family_travel_in_the_other(site: MakeSite, driver: Driver) -> None:
    here = site("gue", {"b1": UP, "b2": UP, "b3": UP}, crossed=True)
    held = driver.open(200, VIPS, up=BIG // 10)

    here.apply({"b1": UP, "b2": State(drain=True), "b3": UP, "b4": UP})

    expect_all_hold(here, driver, held)
    assert {"b1", "b3", "b4"} == set(driver.probe(FRESH, VIPS))


def test_a_router_with_another_mac_address_is_followed(site: MakeSite, driver: Driver) -> None:
    here = site("gue", {"b1": UP, "b2": UP})
    held = driver.open(100, VIPS)
    router = here.balance.router

    router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/balancer/arp_notify; echo 1 > /proc/sys/net/ipv6/conf/balancer/ndisc_notify")
    router.run("ip", "link", "set", "balancer", "address", "02:00:00:00:be:ef")
    here.balance.balancer.run("ip", "neigh", "flush", "dev", "eth0")

    expect_all_hold(here, driver, held)
