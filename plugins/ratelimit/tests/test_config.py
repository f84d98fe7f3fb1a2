# SPDX-License-Identifier: Apache-2.0
"""What a config may say, and what it is told otherwise."""

from __future__ import annotations

from pathlib import Path
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

    assert show(each(config.rule[0].ports or ())) == "70-90"


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
        ({"rule": [{"ports": [80], "rate": -1}]}, "rate"),
        ({"rule": [{"ports": [80], "rate": 1, "window": "0s"}]}, "window"),
        ({"rule": [{"ports": [80], "rate": 1, "burst": 0}]}, "burst"),
        ({"rule": [{"ports": [80], "rate": 1, "action": "refuse"}]}, "action"),
        ({"rule": [{"ports": [80], "rate": 1, "enforce": 101}]}, "enforce"),
        ({"rule": [{"ports": [80], "rate": 1, "per_source": {"rate": 1, "ipv4": 7}}]}, "ipv4"),
        ({"rule": [{"ports": [80], "rate": 1, "per_source": {"rate": 1, "ipv6": 31}}]}, "ipv6"),
        ({"rule": [{"ports": [80], "rate": 1, "per_source": {"rate": 0}}]}, "rate"),
        ({"rule": [{"ports": [80], "rate": 1, "destination": ["192.0.2.1/24"]}]}, "destination"),
        ({"rule": [{"ports": [80], "rate": 1, "destination": ["192.0.2.0/33"]}]}, "destination"),
        ({"rule": []}, "rule"),
        ({"rule": [{"ports": [port], "rate": 1} for port in range(MAX_RULES + 1)]}, "rule"),
        ({}, "rule"),
    ],
)
def test_values_out_of_bounds_are_refused_at_their_key(table: dict[str, Any], where: str) -> None:
    assert where in refused(**table).path or where in refused(**table).message


@pytest.mark.parametrize(
    ("rule", "where", "what"),
    [
        ({"protocol": "udp", "action": "reset"}, ("action",), "reset answers to new TCP connections, not to UDP"),
        ({"protocol": "icmp", "action": "syn-cookie"}, ("action",), "syn-cookie answers to new TCP connections, not to ICMP"),
        ({"unit": "bytes", "rate": 9000, "action": "reset"}, ("action",), "reset answers to new TCP connections, not to TCP by bytes"),
        ({"protocol": "icmp", "ports": [80]}, ("ports",), "ICMP has no ports"),
        ({"protocol": "udp", "unit": "bytes", "rate": 1000}, ("rate",), "1000 bytes at once are no packet"),
        ({"burst": 10_000_000, "window": "1h"}, ("burst",), "a burst of 10000000 takes too long to fill up"),
        ({"ban": "1m"}, ("ban",), "nobody is over a limit of his own here"),
        ({"destination": ["::ffff:192.0.2.1"]}, ("destination", 0), "::ffff:c000:201/128 is an IPv4 address in disguise"),
        ({"allow": ["192.0.2.0/24"], "deny": ["192.0.2.0/24"]}, ("deny", 0), "192.0.2.0/24 is allowed already"),
        ({"per_source": {"rate": 5_000_000}}, ("per_source", "rate"), "5000000 is too many for a window of 1s"),
    ],
)
def test_what_does_not_fit_together_is_refused_at_its_key(rule: dict[str, Any], where: tuple[Any, ...], what: str) -> None:
    problem = refused(rule=[{"rate": 5, **rule}])

    assert problem.path[4:] == where
    assert problem.message == what


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ({}, {}, "the whole of tcp is in rule[0] already"),
        ({"destination": ["192.0.2.1"]}, {"destination": ["192.0.2.1", "192.0.2.2"]}, "the whole of 192.0.2.1/32 is in rule[0] already"),
        (
            {"destination": ["192.0.2.0/24"], "ports": ["1-9"]},
            {"destination": ["192.0.2.0/24"], "ports": ["5-20"]},
            "ports 5-9 of 192.0.2.0/24 are in rule[0] already",
        ),
    ],
)
def test_rules_for_the_same_destination_and_port_are_refused(first: dict[str, Any], second: dict[str, Any], what: str) -> None:
    assert refused(rule=[{"rate": 1, **first}, {"rate": 2, **second}]).message == what


def test_rules_that_one_packet_could_match_are_fine_if_one_is_longer_or_names_the_port() -> None:
    rules = [
        {"rate": 1},
        {"rate": 1, "ports": [80]},
        {"rate": 1, "destination": ["192.0.2.0/24"]},
        {"rate": 1, "destination": ["192.0.2.1"]},
        {"rate": 1, "protocol": "udp"},
    ]

    assert len(read(rule=rules).rule) == len(rules)


def test_too_many_destinations_times_ports_are_refused() -> None:
    problem = refused(rule=[{"rate": 1, "destination": [f"10.0.0.{n}" for n in range(200)], "ports": ["1-1000"]}])

    assert problem.message == "too many destinations times ports"


def test_lists_from_files_are_read_and_their_faults_have_a_line(tmp_path: Path) -> None:
    lines = [f"10.{n // 256}.{n % 256}.0/24" for n in range(5000)]
    (tmp_path / "deny.txt").write_text("# who is not wanted\n" + "\n".join(lines) + "\n2001:db8::/32 # a comment\n")
    (tmp_path / "allow.txt").write_text("192.0.2.1\n\n192.0.2.1/24\nnobody\n10.0.0.0/24\n")
    rule = {"rate": 1, "deny_file": str(tmp_path / "deny.txt")}
    assert len(read(rule=[rule]).rule[0].listing.prefixes) == 5001

    with pytest.raises(ConfigError) as caught:
        read(rule=[{**rule, "allow_file": str(tmp_path / "allow.txt")}])

    assert [(problem.path[4:], problem.line) for problem in caught.value.problems] == [
        (("allow_file",), 3),
        (("allow_file",), 4),
        (("deny_file",), 2),
    ]
