# SPDX-License-Identifier: Apache-2.0
"""`xdpchain elb where` says what the datapath does, and touches nothing."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from xdpchain import XdpchainError
from xdpchain.testing import LoadChain, LoadedChain, Verdict
from xdpchain_elb import Elb
from xdpchain_elb.commands import elb, told

from plugins.elb.tests.balancer import SMALL
from plugins.elb.tests.documents import SOURCES, backends, vip
from plugins.elb.tests.packets import ETHER

FOUR = [f"10.0.0.{number}" for number in range(1, 5)]
EU = {"name": "eu", "prefixes": ["198.51.100.0/24"], "backend": backends("10.0.1.1", "10.0.1.2")}


def table(*servers: str) -> dict[str, Any]:
    return {
        **SMALL,
        "source": SOURCES,
        "next_hop": "02:00:00:00:00:99",
        "vip": [
            vip(backend=backends(*servers), source=[EU]),
            vip(port=0, backend=backends(*servers)),
            vip("10.201.0.0/16", port=80, backend=backends(*servers), options=["no-source-port"]),
            vip("10.201.0.0/16", port=0, backend=backends(*servers), options=["hash-destination-port-only"]),
        ],
    }


@pytest.fixture
def chain(load_chain: LoadChain) -> LoadedChain:
    return load_chain({"interface": {"eth0": {"chain": ["elb"]}}, "function": {"elb": table(*FOUR)}}, functions=[Elb()])


def ask(chain: LoadedChain, source: str, source_port: int, address: str, port: int, **more: Any) -> dict[str, Any]:
    question = {"source": source, "source_port": source_port, "address": address, "port": port, "protocol": "tcp", **more}
    return dict(chain.answer("elb", question))


def sent(chain: LoadedChain, source: str, source_port: int, address: str, port: int, flags: str = "A") -> tuple[str | None, str]:
    result = chain.send(ETHER / IP(src=source, dst=address) / TCP(sport=source_port, dport=port, flags=flags))
    return (result.scapy[IP].dst if result.verdict is Verdict.TX else None), result.reason


FLOWS = st.tuples(
    st.sampled_from(["192.0.2.7", "198.51.100.9"]),
    st.integers(1, 65535),
    st.sampled_from(["10.200.1.1", "10.201.3.4", "10.202.0.1"]),
    st.sampled_from([443, 80, 22]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FLOWS, st.booleans(), st.booleans())
def test_the_answer_is_what_the_datapath_does_next(chain: LoadedChain, flow: tuple[str, int, str, int], syn: bool, change: bool) -> None:
    if change:
        now = [backend["address"] for backend in chain._document["function"]["elb"]["vip"][0]["backend"]]
        chain.configure("elb", table(*(FOUR[:3] if len(now) > 3 else FOUR)))
    answer = ask(chain, *flow, syn=syn)
    got = sent(chain, *flow, flags="S" if syn else "A")

    assert got == (answer["backend"], "end_of_chain" if answer["service"] is None else answer["reason"])


@pytest.mark.parametrize(
    ("address", "port", "service", "match"),
    [
        ("10.200.1.1", 443, "10.200.1.1:443 tcp", "address"),
        ("10.200.1.1", 22, "10.200.1.1:0 tcp", "address, any port"),
        ("10.201.9.9", 80, "10.201.0.0/16:80 tcp", "prefix"),
        ("10.201.9.9", 22, "10.201.0.0/16:0 tcp", "prefix, any port"),
    ],
)
def test_the_service_is_named_with_what_matched(chain: LoadedChain, address: str, port: int, service: str, match: str) -> None:
    answer = ask(chain, "192.0.2.7", 1000, address, port)

    assert (service, match) == (answer["service"], answer["match"])


def test_a_source_route_is_told(chain: LoadedChain) -> None:
    inside, outside = (ask(chain, source, 1000, "10.200.1.1", 443) for source in ("198.51.100.9", "192.0.2.7"))

    assert (True, False) == (inside["source_route"], outside["source_route"])
    assert inside["backend"] in {"10.0.1.1", "10.0.1.2"}


def test_a_flow_of_a_moving_slot_is_told_with_what_is_remembered(chain: LoadedChain) -> None:
    before = {port: sent(chain, "192.0.2.7", port, "10.200.1.1", 443)[0] for port in range(1000, 1050)}
    chain.configure("elb", table(*FOUR, "10.0.0.5"))
    port, answer = next(
        (port, answer) for port in before if (answer := ask(chain, "192.0.2.7", port, "10.200.1.1", 443))["slot_state"] == "moving"
    )

    assert (before[port], "moving") == (answer["backend"], answer["reason"])
    assert (before[port], True, "10.0.0.5") == (answer["previous"], answer["holding"], answer["slot_backend"])
    assert "remembered" not in answer
    assert "10.0.0.5" == ask(chain, "192.0.2.7", port, "10.200.1.1", 443, syn=True)["backend"]

    sent(chain, "192.0.2.7", port, "10.200.1.1", 443)
    answer = ask(chain, "192.0.2.7", port, "10.200.1.1", 443)

    assert (before[port], "tracked") == (answer["backend"], answer["reason"])
    assert (before[port], "open", True) == tuple(answer["remembered"][name] for name in ("backend", "phase", "valid"))


def test_asking_touches_nothing(chain: LoadedChain) -> None:
    chain.configure("elb", table(*FOUR, "10.0.0.5"))
    for port in range(1000, 1050):
        sent(chain, "192.0.2.7", port, "10.200.1.1", 443)
    maps = chain.maps["elb"]
    before = {name: list(maps[name].items()) for name in ("elb_flows", "elb_stats", "elb_progress")}
    for port in range(1000, 1100):
        ask(chain, "192.0.2.7", port, "10.200.1.1", 443)

    assert before == {name: list(maps[name].items()) for name in before}


def test_a_server_id_decides_where_the_service_knows_it(load_chain: LoadChain) -> None:
    servers = [{"address": address, "server_id": number} for number, address in enumerate(FOUR, 1)]
    keys = {**table(*FOUR), "vip": [vip(backend=servers, options=["server-id"])]}
    chain = load_chain({"interface": {"eth0": {"chain": ["elb"]}}, "function": {"elb": keys}}, functions=[Elb()])
    known, unknown = (ask(chain, "192.0.2.7", 1000, "10.200.1.1", 443, server_id=number) for number in (3, 77))

    assert ("10.0.0.3", "server_id", "known") == (known["backend"], known["reason"], known["server_id"])
    assert ("ring", "not known") == (unknown["reason"], unknown["server_id"])


@pytest.mark.parametrize("wrong", [{"source": "nobody"}, {"address": "fc00::1"}, {"protocol": "sctp"}, {"colour": "red"}])
def test_a_question_without_sense_is_refused(chain: LoadedChain, wrong: dict[str, Any]) -> None:
    with pytest.raises(XdpchainError) as caught:
        ask(chain, **{"source": "192.0.2.7", "source_port": 1, "address": "10.200.1.1", "port": 443, **wrong})

    assert "xdpchain elb where" in caught.value.hint


@pytest.mark.parametrize("endpoint", ["10.0.0.1", "10.0.0.1:", "10.0.0.1:65536", "fc00::1:443", "[10.0.0:443", "[fc00::1]:-1", ":443"])
def test_the_command_refuses_what_is_no_address_with_a_port(endpoint: str) -> None:
    result = CliRunner().invoke(elb, ["where", endpoint, "10.200.1.1:443"])

    assert 2 == result.exit_code
    assert "SOURCE:PORT" in result.output


def test_the_command_prints_the_backend_first_and_why_below() -> None:
    lines = told({"service": "10.200.1.1:443 tcp", "slot": 7, "previous": None, "holding": True, "backend": "10.0.0.1", "reason": "moving"})

    assert ["10.0.0.1 (moving)", "  service  10.200.1.1:443 tcp", "  slot     7", "  holding  yes"] == click.unstyle(lines).splitlines()
