# SPDX-License-Identifier: Apache-2.0
"""A workload that calls a virtual address which it serves itself."""

from __future__ import annotations

from lab.site import WEB, Site
from lab.site_client import Client
from tests.dsr.test_traffic import FAMILIES, WORKLOADS


@WORKLOADS
@FAMILIES
def test_a_workload_calls_its_own_service(site: Site, number: int, family: int) -> None:
    workload = site.workloads[number]
    client = Client(workload.namespace)
    vip = site.vip(workload, family)

    assert {"ok": 20} == client.run("short", vip, port=WEB, number=20).counts
    assert {"ok": 1} == client.run("transfer", vip, port=WEB, up=1_000_000, down=1_000_000).counts


@FAMILIES
def test_workloads_of_one_hypervisor_call_each_other(site: Site, family: int) -> None:
    for one, other in ((site.vm, site.box), (site.box, site.vm), (site.vm, site.application)):
        client = Client(one.namespace)

        assert {"ok": 1} == client.run("transfer", site.vip(other, family), port=WEB, up=1_000_000, down=1_000_000).counts
