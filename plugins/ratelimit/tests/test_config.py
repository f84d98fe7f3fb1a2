# SPDX-License-Identifier: Apache-2.0
"""What a config may say, and what it is told otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from xdpchain.config import loads
from xdpchain.errors import ConfigError, Problem
from xdpchain_ratelimit import Ratelimit, RatelimitConfig
from xdpchain_ratelimit.config import MAX_RULES
from xdpchain_ratelimit.ports import each, show

SECOND = 1_000_000_000


def read(**table: Any) -> RatelimitConfig:
    document = {"interface": {"eth0": {"chain": ["ratelimit"]}}, "function": {"ratelimit": table}}
    config = loads(document, {"ratelimit": Ratelimit()}).instances["ratelimit"].config
    assert isinstance(config, RatelimitConfig)
    return config


def refused(**table: Any) -> Problem:
    with pytest.raises(ConfigError) as caught:
        read(**table)
    (problem,) = caught.value.problems
    return problem


def test_the_window_is_a_second_unless_the_instance_or_the_rule_says_otherwise() -> None:
    config = read(rule=[{"ports": [80], "rate": 5}])
    assert config.window_of(config.rule[0]) == SECOND

    config = read(window="10s", rule=[{"ports": [80], "rate": 5}, {"ports": ["1-2"], "rate": 5, "window": "100ms"}])
    assert [config.window_of(rule) for rule in config.rule] == [10 * SECOND, SECOND // 10]


def test_a_port_in_two_rules_is_refused_and_both_are_named() -> None:
    rules = [{"ports": [80], "rate": 5}, {"ports": [443], "rate": 5}, {"ports": ["440-450", 80], "rate": 5}]
    with pytest.raises(ConfigError) as caught:
        read(rule=rules)

    assert [(problem.path[2:], problem.message) for problem in caught.value.problems] == [
        (("rule", 2, "ports"), "port 80 is in rule[0] already"),
        (("rule", 2, "ports"), "port 443 is in rule[1] already"),
    ]
    assert "rule[0] and rule[2]" in caught.value.problems[0].hint


def test_ports_that_two_rules_share_are_told_as_ranges() -> None:
    problem = refused(rule=[{"ports": ["1-100"], "rate": 5}, {"ports": ["90-120", 7], "rate": 5}])

    assert problem.message == "ports 7,90-100 are in rule[0] already"


def test_a_port_twice_in_one_rule_is_no_mistake() -> None:
    config = read(rule=[{"ports": [80, "70-90"], "rate": 5}])

    assert show(each(config.rule[0].ports)) == "70-90"


def test_a_rate_too_high_for_its_window_is_refused_with_the_highest_that_fits() -> None:
    problem = refused(window="1h", rule=[{"ports": [80], "rate": 2_000_000}])

    assert problem.path == ("function", "ratelimit", "rule", 0, "rate")
    assert problem.message == "2000000 is too many for a window of 1h"
    assert problem.hint.startswith("at most 1281023 ")
    assert read(window="1h", rule=[{"ports": [80], "rate": 1_281_023}]).rule[0].rate == 1_281_023


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ({"rule": [{"ports": [80], "rate": 0}]}, "rate"),
        ({"rule": [{"ports": [80], "rate": 4_194_304}]}, "rate"),
        ({"rule": [{"ports": [], "rate": 1}]}, "ports"),
        ({"rule": [{"ports": [65536], "rate": 1}]}, "ports"),
        ({"rule": [{"ports": [80], "rate": 1, "window": "999us"}]}, "window"),
        ({"rule": [{"ports": [80], "rate": 1, "window": "25h"}]}, "window"),
        ({"rule": [{"ports": [80], "rate": 1, "burst": 1}]}, "burst"),
        ({"rule": []}, "rule"),
        ({"rule": [{"ports": [port], "rate": 1} for port in range(MAX_RULES + 1)]}, "rule"),
        ({}, "rule"),
    ],
)
def test_values_out_of_bounds_are_refused_at_their_key(table: dict[str, Any], where: str) -> None:
    assert where in refused(**table).path or where in refused(**table).message
