# SPDX-License-Identifier: Apache-2.0
"""A balancer that has lost its memory while half of its slots were moving: flows that it sends astray find their workload all the same."""

from __future__ import annotations

import attrs
import pytest

from lab.balance_driver import Driver
from lab.site import SHARED, TALK, Choice, Site
from tests.dsr.witness import counts, forwarded

NUMBER, MANY = 200, 1000
BEFORE = frozenset({"app"})
FORGETFUL = 4096
"""another capacity of the table of flows: it begins anew, and is empty"""


def lose_memory(site: Site, driver: Driver, number: int, *, second_chance: bool) -> dict[str, int]:
    """Half of the slots move from one workload to another, flows begin there, and then the balancer forgets them; which broke."""
    choice = Choice(elb={"second_chance": second_chance}, absent=BEFORE)
    site.choose(choice)
    driver.open(number // 2, SHARED, port=TALK)
    choice = attrs.evolve(choice, absent=frozenset(), drained=frozenset({"veth-box"}))
    site.choose(choice)
    began = driver.open(number // 2, SHARED, port=TALK)
    assert {"tap-vm", "app"} == {*began}

    site.choose(attrs.evolve(choice, elb={**choice.elb, "flow_table": FORGETFUL}))

    report = driver.report()
    assert number == sum(report.holds.values()) + sum(report.broken.values())
    return report.broken


def chances(site: Site) -> int:
    return counts(site, site.balancer).get(("eth0", "elb", "TX", "second_chance"), 0)


def test_without_a_second_chance_they_break(the_site: Site, driver: Driver) -> None:
    broken = lose_memory(the_site, driver, NUMBER, second_chance=False)

    assert broken
    assert {"reset"} == {what.split()[1] for what in broken}


@pytest.mark.parametrize("number", [NUMBER, pytest.param(MANY, marks=pytest.mark.soak)])
def test_with_a_second_chance_none_breaks(site: Site, driver: Driver, number: int) -> None:
    named, sent_on = chances(site), forwarded(site)

    assert {} == lose_memory(site, driver, number, second_chance=True)
    assert chances(site) > named
    assert forwarded(site) > sent_on
