# SPDX-License-Identifier: Apache-2.0
"""What a config may say, what it is told otherwise, and what a change of it writes."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from xdpchain import ConfigError, Hook, Problem, Program
from xdpchain.config import loads
from xdpchain.errors import KernelError
from xdpchain.hookspecs import Finding, State
from xdpchain.testing import Verdict
from xdpchain_maxconn import Maxconn, xdpchain_doctor
from xdpchain_maxconn.limits import places

from plugins.maxconn.tests.conftest import Limiter


def refused(*limits: dict[str, Any], **keys: Any) -> Problem:
    document = {"interface": {"eth0": {"chain": ["maxconn"]}}, "function": {"maxconn": {**keys, "limit": list(limits)}}}
    with pytest.raises(ConfigError) as caught:
        loads(document, {"maxconn": Maxconn()})
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ([{"ports": [80]}], "neither max nor source_max"),
        ([{"ports": [80], "max": 5, "source_max": 6}], "6 for one source is more than 5 for all"),
        ([{"max": 1}, {"max": 2}], "the node is in limit[0] already"),
        ([{"ports": ["80-90"], "max": 1}, {"ports": [85], "max": 2}], "port 85 of any address is in limit[0] already"),
        ([{"address": "192.0.2.1", "max": 1}, {"address": "192.0.2.1", "max": 2}], "192.0.2.1 is in limit[0] already"),
        ([{"address": "::ffff:192.0.2.1", "max": 1}], "is an IPv4 address"),
        ([{"max": 200_000}], "there is room for 131072 connections only"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: list[dict[str, Any]], message: str) -> None:
    assert message in refused(*limits).message


@pytest.mark.parametrize(
    ("limit", "where"),
    [
        ({"max": 0}, "max"),
        ({"max": -1}, "max"),
        ({"max": 1, "action": "reject"}, "action"),
        ({"max": 1, "enforce": 101}, "enforce"),
        ({"max": 5, "source_max": 1, "source_ipv4": 33}, "source_ipv4"),
        ({"max": 5, "source_max": 1, "source_ipv4": 7}, "source_ipv4"),
        ({"max": 5, "source_max": 1, "source_ipv6": 129}, "source_ipv6"),
        ({"max": 5, "ports": [0x10000]}, "ports"),
        ({"max": 5, "rate": 1}, "rate"),
    ],
)
def test_values_out_of_bounds_are_refused_at_their_key(limit: dict[str, Any], where: str) -> None:
    problem = refused(limit)
    assert where in problem.path or where in problem.message


def test_the_same_port_at_two_addresses_and_at_any_is_no_mistake(limiter: Limiter) -> None:
    limiter({"address": "192.0.2.1", "ports": [80], "max": 1}, {"address": "192.0.2.2", "ports": [80], "max": 1}, {"ports": [80], "max": 1})


def syn(port: int, to: int = 80) -> Any:
    return IP(src="192.0.2.1") / TCP(sport=port, dport=to, flags="S")


def test_a_limit_keeps_its_count_when_its_numbers_and_its_place_in_the_file_change(limiter: Limiter) -> None:
    chain = limiter({"ports": [80], "max": 2})
    assert [chain.send(syn(port)).verdict for port in (1, 2, 3)] == [Verdict.PASS, Verdict.PASS, Verdict.DROP]
    chain.configure("maxconn", {"limit": [{"ports": [81], "max": 5}, {"ports": [80], "max": 3}]})

    assert [chain.send(syn(port)).verdict for port in (3, 4)] == [Verdict.PASS, Verdict.DROP]


def test_a_limit_that_is_gone_leaves_nothing_behind(limiter: Limiter) -> None:
    chain = limiter({"ports": [80], "max": 1}, {"address": "192.0.2.9", "max": 1}, {"max": 1}, allow=["198.51.100.0/24"])
    chain.send(syn(1))
    chain.configure("maxconn", {"limit": [{"ports": [81], "max": 1}]})
    maps = chain.maps["maxconn"]

    assert (1, 0, 0) == (len(places(maps)), len(dict(maps["mc_services"].items())), len(dict(maps["mc_allow"].items())))
    assert [port for port, place in maps["mc_ports"].items() if place] == [81]
    assert len([place for place, rule in maps["mc_rules"].items() if rule["id"]]) == 1
    assert chain.send(syn(2)).verdict is Verdict.PASS


NO_EVENT = Program(Hook.TRACEPOINT, "mc_state", event="sock:no_such_event", fields=("skaddr",))
MISSING = [
    ("offsets", {"MC_SOCK_NET": "sock.nowhere", "MC_NET_COOKIE": "net.net_cookie"}, "the kernel's struct sock has no nowhere"),
    ("programs", (Maxconn.programs[0], NO_EVENT, Maxconn.programs[2]), "tracepoint sock:no_such_event is not to be found"),
]


@pytest.mark.parametrize(("what", "value", "message"), MISSING)
def test_a_kernel_without_the_tracepoint_or_the_members_is_refused_by_name(
    limiter: Limiter, monkeypatch: pytest.MonkeyPatch, what: str, value: Any, message: str
) -> None:
    monkeypatch.setattr(Maxconn, what, value)
    with pytest.raises(KernelError, match=f"maxconn cannot work with this kernel: {message}"):
        limiter({"max": 1})


def doctor(*, used: bool) -> Finding:
    chains = {"interface": {"eth0": {"chain": ["maxconn"]}}, "function": {"maxconn": {"limit": [{"max": 1}]}}} if used else {}
    (finding,) = xdpchain_doctor(loads(chains, {"maxconn": Maxconn()}))
    return finding


@pytest.mark.usefixtures("compiler")
def test_doctor_finds_nothing_wrong_with_this_kernel() -> None:
    assert (doctor(used=True).state, *(one.state for one in xdpchain_doctor(None))) == (State.OK, State.OK)


@pytest.mark.parametrize(("what", "value", "message"), MISSING)
def test_doctor_says_what_is_missing_and_it_is_an_error_where_maxconn_is_used(
    monkeypatch: pytest.MonkeyPatch, what: str, value: Any, message: str
) -> None:
    monkeypatch.setattr(Maxconn, what, value)

    for used, state in ((True, State.FAIL), (False, State.WARN)):
        finding = doctor(used=used)
        assert (finding.subject, finding.state) == ("maxconn", state)
        assert message in finding.text
        assert finding.hint
