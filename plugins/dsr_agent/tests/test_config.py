# SPDX-License-Identifier: Apache-2.0
"""What a config may say, and what it is told otherwise."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from xdpchain_dsr_agent.check import MOST_PROBLEMS
from xdpchain_dsr_agent.config import Service

from plugins.dsr_agent.tests.documents import FILE, lines, place, read, refused, service

UDP: dict[str, Any] = {"protocol": "udp"}


def test_a_service_leads_to_the_port_that_clients_call_unless_it_says_otherwise() -> None:
    one, two, three = read(
        service=[service(), service(port=80, backend_port=8080), service("fd00::1", 0, "fd01::5", endpoint=["10.1.0.5"])]
    ).all_services

    assert [443, 8080, 0] == [each.workload_port for each in (one, two, three)]
    assert [(ip_address("10.1.0.5"),)] * 3 == [each.endpoints for each in (one, two, three)]
    assert ["10.200.1.1:443 tcp", "10.200.1.1:80 tcp", "[fd00::1]:0 tcp"] == [str(each) for each in (one, two, three)]
    assert ["10.1.0.5:443", "10.1.0.5:8080", "[fd01::5]:0"] == [each.back for each in (one, two, three)]


def test_services_of_the_file_follow_those_of_the_node_file() -> None:
    config = read(service=[service()], services=lines("vip 10.200.1.1:80 tcp 10.1.0.5:8080\n"))

    assert [(443, 443), (80, 8080)] == [(one.port, one.workload_port) for one in config.all_services]
    assert config.all_services[1] == Service(vip=ip_address("10.200.1.1"), port=80, workload=ip_address("10.1.0.5"), backend_port=8080)


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"service": [service(), service(workload="10.1.0.6"), service("10.200.1.2", workload="10.1.0.7")]},
        {"service": [service(), service(**UDP), service("fd00::1", workload="fd01::5")]},
        {"service": [service(backend_port=8443), service("10.200.1.2", backend_port=8444)]},
        {"service": [service(port=0), service()]},  # the one port is what it would be anyway
        {"service": [service(port=0), service("10.200.1.2", workload="10.1.0.6")]},
        {"service": [service(port=0), service("10.200.1.2", **UDP)]},
        {"service": [service(endpoint=["10.0.7.1", "fd07::1"]), service(workload="10.1.0.6", endpoint=["10.0.7.2"])]},
        {"service": [service(port=6080)]},
        {"service": [service(port=6080, **UDP)], "encapsulation": ["ipip"]},
        {"service": [service(unknown=policy) for policy in ("learn",)]},
        {"accept_from": ["0.0.0.0/0", "2000::/3"], "hairpin": []},
        {"accept_from": ["10.0.13.1", "10.0.13.0/24"], "hairpin": ["169.254.1.1"]},
        {"service": [service()], "max_services": 1},
    ],
    ids=str,
)
def test_a_good_config_has_no_problems(table: dict[str, Any]) -> None:
    read(**table)


@pytest.mark.parametrize(
    ("table", "where", "says", "hint"),
    [
        # values and keys
        ({"accept_from": []}, "accept_from", "must have at least 1 item", ""),
        ({"accept_from": ["10.0.13.7/24"]}, "accept_from[0]", "has bits set beyond its length", "10.0.13.0/24"),
        ({"accept_from": ["224.0.0.0/8"]}, "accept_from[0]", "224.0.0.0/8 is not unicast", "load balancers send from"),
        ({"accept_from": ["::ffff:10.0.0.0/104"]}, "accept_from[0]", "in the clothes of IPv6", "2000::/3"),
        ({"accept_from": ["::/0"]}, "accept_from[0]", "::/0 has IPv4 addresses in it", "2000::/3"),
        ({"encapsulation": []}, "encapsulation", "must have at least 1 item", ""),
        ({"encapsulation": ["vxlan"]}, "encapsulation[0]", 'must be "gue" or "ipip", not "vxlan"', ""),
        ({"gue_port": 0}, "gue_port", "must be at least 1, not 0", ""),
        ({"answers": "fast"}, "answers", 'must be "direct" or "stack", not "fast"', ""),
        ({"flow_table": 5}, "flow_table", "must be at least 1024, not 5", ""),
        ({"max_services": 16385}, "max_services", "must be at most 16384", ""),
        ({"colour": 1}, "colour", "is not a known key", "known here"),
        ({"service": [service(colour=1)]}, "service[0].colour", "is not a known key", "known here"),
        ({"service": [service(protocol="sctp")]}, "service[0].protocol", 'must be "tcp" or "udp", not "sctp"', ""),
        ({"service": [service(port=65536)]}, "service[0].port", "must be at most 65535, not 65536", ""),
        ({"service": [service(backend_port=0)]}, "service[0].backend_port", "must be at least 1, not 0", ""),
        ({"service": [service(unknown="drop")]}, "service[0].unknown", 'not "drop"', ""),
        ({"service": [service(endpoint=[f"10.0.7.{n}" for n in range(1, 18)])]}, "service[0].endpoint", "at most 16 items, not 17", ""),
        ({"service": [{"vip": "10.200.1.1", "port": 1}]}, "service[0].workload", "is missing", "workload's own address"),
        # addresses
        ({"service": [service("224.0.0.1")]}, "service[0].vip", "224.0.0.1 is not a unicast address", "one machine"),
        ({"service": [service(workload="0.0.0.0")]}, "service[0].workload", "0.0.0.0 is not a unicast address", "one machine"),
        ({"service": [service(workload="127.0.0.1")]}, "service[0].workload", "127.0.0.1 is not a unicast address", "one machine"),
        ({"service": [service(workload="255.255.255.255")]}, "service[0].workload", "is not a unicast address", "one machine"),
        ({"service": [service("fd00::1", workload="::1")]}, "service[0].workload", "::1 is not a unicast address", "one machine"),
        ({"service": [service("fd00::1", workload="ff02::1")]}, "service[0].workload", "ff02::1 is not a unicast", "one machine"),
        ({"service": [service("fd00::1", workload="::ffff:10.1.0.5")]}, "service[0].workload", "in the clothes", "write 10.1.0.5"),
        ({"service": [service(endpoint=["10.0.7.1", "::"])]}, "service[0].endpoint[1]", ":: is not a unicast address", "one machine"),
        ({"service": [service(endpoint=["10.0.7.1", "10.0.7.1"])]}, "service[0].endpoint[1]", "10.0.7.1 stands here twice", "keep one"),
        ({"service": [service("fd00::1")]}, "service[0].workload", "of another family than the VIP fd00::1", "each family"),
        ({"service": [service(workload="10.200.1.1")]}, "service[0].workload", "10.200.1.1 is the VIP itself", "no agent"),
        (
            {"service": [service(), service("10.200.1.2", workload="10.200.1.1")]},
            "service[1].workload",
            "10.200.1.1 is a VIP itself",
            "machine behind it",
        ),
        ({"service": [service(endpoint=["10.200.1.1"])]}, "service[0].endpoint[0]", "10.200.1.1 is a VIP itself", "machine behind it"),
        ({"service": [service(port=0, backend_port=80)]}, "service[0].backend_port", "one port, 80, cannot stand for all", "leave it out"),
        ({"service": [service(port=6080, **UDP)]}, "service[0].port", "UDP port 6080 is where GUE comes in", "another gue_port"),
        ({"service": [service(backend_port=6080, **UDP)]}, "service[0].backend_port", "UDP port 6080 is where GUE comes in", "another"),
        ({"hairpin": ["169.254.1.1", "169.254.1.2"]}, "hairpin[1]", "169.254.1.2 is the second IPv4 address", "one of each family"),
        ({"hairpin": ["::ffff:1.2.3.4"]}, "hairpin[0]", "in the clothes of IPv6", "write 1.2.3.4"),
        ({"hairpin": ["127.0.0.1"]}, "hairpin[0]", "127.0.0.1 is not a unicast address", "one machine"),
        ({"hairpin": ["10.200.1.1"], "service": [service()]}, "hairpin[0]", "is a VIP address of a service", "nothing else"),
        ({"hairpin": ["10.1.0.5"], "service": [service()]}, "hairpin[0]", "is a workload's address of a service", "nothing else"),
        # the way in: one packet, two workloads
        (
            {"service": [service(endpoint=["10.0.7.1"]), service(workload="10.1.0.6", endpoint=["10.0.7.2", "10.0.7.1"])]},
            "service[1].endpoint",
            "10.200.1.1:443 tcp at 10.0.7.1 is in service[0] already",
            "one packet has one workload",
        ),
        ({"service": [service(), service()]}, "service[1]", "10.200.1.1:443 tcp at 10.1.0.5 is in service[0] already", "keep one"),
        (
            {"service": [service(), service(backend_port=444)]},
            "service[1]",
            "10.200.1.1:443 tcp at 10.1.0.5 is in service[0] already",
            "one packet has one workload: keep one",
        ),
        (
            {"service": [service()], "services": lines("# more\nvip 10.200.1.1:443 tcp 10.1.0.5\n")},
            "line 2",
            "10.200.1.1:443 tcp at 10.1.0.5 is in service[0] already",
            "keep one",
        ),
        # the way back: one answer, two services
        (
            {"service": [service(), service("10.200.1.2")]},
            "service[1].backend_port",
            "an answer from port 443 of 10.1.0.5 (tcp) may be that of 10.200.1.2:443 tcp or of 10.200.1.1:443 tcp (service[0])",
            "a port of its own",
        ),
        (
            {"service": [service(), service(port=80, backend_port=443)]},
            "service[1].backend_port",
            "may be that of 10.200.1.1:80 tcp or of 10.200.1.1:443 tcp (service[0])",
            "a port of its own",
        ),
        (
            {"service": [service(port=0), service("10.200.1.2", 0)]},
            "service[1].workload",
            "an answer from all ports of 10.1.0.5 (tcp) may be that of",
            "an address of its own",
        ),
        (
            {"service": [service(endpoint=["10.0.7.1"]), service(endpoint=["10.0.7.2"])]},
            "service[1]",
            "10.200.1.1:443 tcp of 10.1.0.5 is in service[0] already, with other endpoints",
            "all of its endpoints",
        ),
        (
            {"service": [service("10.200.1.2", backend_port=8443), service(port=0)]},
            "service[0].backend_port",
            "an answer from 10.1.0.5:8443 may be that of 10.200.1.2:443 tcp or of 10.200.1.1:8443 tcp (service[1] has all ports)",
            "one by one",
        ),
        (
            {"service": [service(port=0), service(backend_port=8443)]},
            "service[1].backend_port",
            "may be that of 10.200.1.1:443 tcp or of 10.200.1.1:8443 tcp (service[0] has all ports)",
            "one by one",
        ),
        (
            {"services": lines("vip 10.200.1.1:0 tcp 10.1.0.5\nvip 10.200.1.2:443 tcp 10.1.0.5\n")},
            "line 2",
            f"10.200.1.1:443 tcp ({FILE}, line 1 has all ports)",
            "one by one",
        ),
        # too much
        ({"service": [service(), service(port=80)], "max_services": 1}, "max_services", "2 services are too many", "max_services to 2"),
        (
            {"service": [service(endpoint=[f"10.0.7.{n}" for n in range(1, 6)])], "max_services": 1},
            "max_services",
            "5 endpoints of all services together are too many",
            "room for 4",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_what_is_wrong_is_told_with_its_place_and_what_to_do(table: dict[str, Any], where: str, says: str, hint: str) -> None:
    (problem,) = refused(**table)

    assert where == place(problem)
    assert says in problem.message
    assert hint in problem.hint


def test_so_many_problems_that_nobody_reads_them_are_counted() -> None:
    problems = refused(services=lines("vip 224.0.0.1:1 tcp 10.1.0.5\n" * (MOST_PROBLEMS + 5)))

    assert MOST_PROBLEMS + 1 == len(problems)
    assert ["and 109 more problems"] == [problem.message for problem in problems if not problem.file]
