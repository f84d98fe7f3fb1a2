# SPDX-License-Identifier: Apache-2.0
"""Clients of virtual addresses, and servers that have never heard of them: behind a tap, behind a veth, on a host."""

from __future__ import annotations

import pytest

from lab.balance_driver import Driver
from lab.capture import Capture
from lab.site import DNS, SHARED, TALK, WEB, Choice, Site
from lab.site_client import Client

NUMBER = 300
BIG = 10_000_000
DATAGRAMS = 40
WORKLOADS = pytest.mark.parametrize("number", [0, 1, 2], ids=["tap", "veth", "host"])
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])


@WORKLOADS
@FAMILIES
def test_short_connections_and_large_transfers_succeed(site: Site, client: Client, number: int, family: int) -> None:
    vip = site.vip(site.workloads[number], family)

    assert {"ok": NUMBER} == client.run("short", vip, port=WEB, number=NUMBER).counts
    assert {"ok": 1} == client.run("transfer", vip, port=WEB, up=BIG, down=BIG).counts


@WORKLOADS
@FAMILIES
def test_datagrams_small_and_in_fragments_are_answered(site: Site, client: Client, number: int, family: int) -> None:
    vip = site.vip(site.workloads[number], family)

    small = client.run("datagrams", vip, port=DNS, number=DATAGRAMS, up=64, down=512)
    large = client.run("datagrams", vip, port=DNS, number=DATAGRAMS, up=9000, down=9000)

    assert {"ok": DATAGRAMS} == small.counts
    assert 0 == small.again
    assert {"ok": DATAGRAMS} == large.counts
    assert large.again <= DATAGRAMS // 4, "once the client has been told the size, nothing is lost"


@FAMILIES
def test_requests_go_through_the_balancer_and_answers_do_not(site: Site, client: Client, family: int) -> None:
    vip = site.vip(site.vm, family)
    there, back, answers = site.bytes_to(site.balancer), site.bytes_from(site.balancer), site.bytes_from(site.hv1)

    with Capture(site.router_end(site.balancer), [vip]) as at_the_balancer, Capture(site.router_end(site.hv1), [vip]) as at_the_hypervisor:
        assert {"ok": 1} == client.run("transfer", vip, port=WEB, down=BIG).counts
        assert 0 == at_the_balancer.seen()
        assert 0 < at_the_hypervisor.seen()

    assert 0 < site.bytes_to(site.balancer) - there < BIG / 10
    assert 0 < site.bytes_from(site.balancer) - back < BIG / 10
    assert site.bytes_from(site.hv1) - answers > BIG


def test_all_workloads_serve_a_shared_address(site: Site, driver: Driver) -> None:
    served = driver.probe(90, SHARED, port=TALK)

    assert {one.name for one in site.workloads} == {*served}
    assert 90 == sum(served.values())


def test_a_packet_of_any_family_travels_in_either(site: Site, client: Client) -> None:
    site.choose(Choice(crossed=True))

    for one in site.workloads:
        for family in (4, 6):
            assert {"ok": 1} == client.run("transfer", site.vip(one, family), port=WEB, up=BIG // 10, down=BIG // 10).counts


def test_ip_in_ip_is_taken_too(site: Site, client: Client) -> None:
    site.choose(Choice(elb={"encapsulation": "ipip"}))

    for one in site.workloads:
        for family in (4, 6):
            assert {"ok": 1} == client.run("transfer", site.vip(one, family), port=WEB, up=BIG // 10, down=BIG // 10).counts
