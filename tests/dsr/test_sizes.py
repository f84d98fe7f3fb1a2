# SPDX-License-Identifier: Apache-2.0
"""Packets as large as a network of 1500 bytes takes them, which is less than clients and servers believe."""

from __future__ import annotations

import socket

from lab.site import WEB, Site
from lab.site_client import Client
from tests.dsr.test_traffic import BIG, FAMILIES, WORKLOADS
from tests.dsr.witness import counts

NARROW = 1300
OVERHEAD = {4: 28, 6: 48}


def forget_sizes(site: Site) -> None:
    """Have the client forget what it was told of paths in other tests."""
    for version in ("-4", "-6"):
        site.client.run("ip", version, "route", "flush", "cache")


def too_big(site: Site) -> int:
    """How often the balancer told a client that its packets are too large."""
    return counts(site, site.balancer).get(("eth0", "elb", "TX", "too_big"), 0)


@WORKLOADS
@FAMILIES
def test_full_sized_uploads_fit_into_the_encapsulation(site: Site, client: Client, number: int, family: int) -> None:
    vip = site.vip(site.workloads[number], family)
    forget_sizes(site)
    before = too_big(site)

    assert {"ok": 1} == client.run("transfer", vip, port=WEB, up=BIG).counts
    assert before == too_big(site), "the client has heard in the handshake how large its segments may be"


@WORKLOADS
@FAMILIES
def test_the_client_is_told_segments_that_fit(site: Site, number: int, family: int) -> None:
    vip = site.vip(site.workloads[number], family)
    forget_sizes(site)
    with site.client.entered():
        connection = socket.create_connection((vip, WEB), timeout=30)
    with connection:
        size = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)  # without the option for timestamps, 12 bytes

    headers = 40 if family == 4 else 60
    assert 1400 - headers - 12 <= size <= 1500 - OVERHEAD[family] - headers - 12


@WORKLOADS
@FAMILIES
def test_a_narrower_path_to_the_client_is_heard_of_by_the_workload(site: Site, client: Client, number: int, family: int) -> None:
    workload = site.workloads[number]
    ends = site.router_end(site.client), site.end(site.client)
    address = ends[1].ipv4 if family == 4 else ends[1].ipv6
    version, length = ("-4", 32) if family == 4 else ("-6", 128)
    site.router.run("ip", version, "route", "add", f"{address}/{length}", "dev", ends[0].interface, "mtu", str(NARROW))
    try:
        assert {"ok": 1} == client.run("transfer", site.vip(workload, family), port=WEB, down=BIG).counts
        route = workload.namespace.run("ip", version, "route", "get", address).stdout
        assert f"mtu {NARROW}" in route
    finally:
        site.router.run("ip", version, "route", "del", f"{address}/{length}", "dev", ends[0].interface)
        workload.namespace.run("ip", version, "route", "flush", "cache")
