# SPDX-License-Identifier: Apache-2.0
"""The same traffic in earnest: ten thousand connections and a gigabyte each way. `tox -e soak` only."""

from __future__ import annotations

import pytest

from lab.site import DNS, WEB, Site
from lab.site_client import Client
from tests.dsr.test_traffic import FAMILIES, WORKLOADS

CONNECTIONS = 10_000
GIGABYTE = 1_000_000_000
DATAGRAMS, LARGE = 10_000, 1_000

pytestmark = [pytest.mark.soak, WORKLOADS, FAMILIES]


def test_ten_thousand_short_connections(site: Site, client: Client, number: int, family: int) -> None:
    vip = site.vip(site.workloads[number], family)

    assert {"ok": CONNECTIONS} == client.run("short", vip, port=WEB, number=CONNECTIONS).counts


def test_a_gigabyte_up_and_one_down(site: Site, client: Client, number: int, family: int) -> None:
    vip = site.vip(site.workloads[number], family)

    assert {"ok": 1} == client.run("transfer", vip, port=WEB, up=GIGABYTE, down=GIGABYTE).counts


def test_ten_thousand_datagrams_and_a_thousand_in_fragments(site: Site, client: Client, number: int, family: int) -> None:
    vip = site.vip(site.workloads[number], family)

    assert {"ok": DATAGRAMS} == client.run("datagrams", vip, port=DNS, number=DATAGRAMS, up=64, down=512).counts
    assert {"ok": LARGE} == client.run("datagrams", vip, port=DNS, number=LARGE, up=60_000, down=60_000).counts
