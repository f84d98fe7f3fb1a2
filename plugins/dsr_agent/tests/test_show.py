# SPDX-License-Identifier: Apache-2.0
"""What `xdpchain show dsr_agent`, `xdpchain dsr flows`, the metrics and the warnings say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from xdpchain import XdpchainError
from xdpchain.testing import LoadedChain
from xdpchain_dsr_agent import Service
from xdpchain_dsr_agent.commands import dsr, told
from xdpchain_dsr_agent.flows import tick
from xdpchain_dsr_agent.shape import shape_of, sixteen
from xdpchain_dsr_agent.tables import ANSWERED, DIRECT, HAIRPIN, HELD, IDLE_TICKS, STATES, STATS_FIELDS

from plugins.dsr_agent.tests.conftest import LoadAgent, forget

WEB = {"vip": "10.200.1.1", "port": 443, "workload": "10.1.0.5", "backend_port": 8443}
DNS = {"vip": "fd00::53", "port": 53, "protocol": "udp", "workload": "fd01::5"}
LARGE = 65_536
"""An LRU map holds some hundred entries less than it has room for."""
PROTOCOLS = {"tcp": 6, "udp": 17}


@pytest.fixture(scope="module")
def loaded(agent_for_all: LoadAgent) -> LoadedChain:
    return agent_for_all("workload", WEB, DNS)


@pytest.fixture
def chain(loaded: LoadedChain) -> LoadedChain:
    """An agent without a memory."""
    forget(loaded)
    return loaded


def service(keys: Mapping[str, Any]) -> Service:
    return Service(**{**keys, "vip": ip_address(keys["vip"]), "workload": ip_address(keys["workload"])})


def place(chain: LoadedChain, keys: Mapping[str, Any]) -> int:
    id_ = shape_of(service(keys)).id
    places: dict[int, int] = {one["id"]: place for place, one in chain.maps["dsr_agent"]["dsr_services"].items()}
    return places[id_]


def remember(chain: LoadedChain, keys: Mapping[str, Any], client: str, port: int, **what: Any) -> None:
    """A flow in one of the tables, as the datapath writes it."""
    one = service(keys)
    key = {
        "workload": IPv6Address(sixteen(one.workload)),
        "client": IPv6Address(sixteen(ip_address(client))),
        "port": one.workload_port,
        "client_port": port,
        "proto": PROTOCOLS[one.protocol],
        "zero": bytes(3),
    }
    marks = what.get("marks", ANSWERED)
    flow = {
        "vip": IPv6Address(0 if marks & DIRECT else sixteen(one.vip)),
        "vip_port": 0 if marks & DIRECT else one.port,
        "state": STATES.index(what.get("state", "established" if one.protocol == "tcp" else "udp")),
        "marks": marks,
        "seen": (tick() - what.get("age", 0)) % (1 << 32),
        "place": place(chain, keys),
        "around": 28,
        "id": shape_of(one).id,
    }
    chain.maps["dsr_agent"][what.get("table", "dsr_flows")].put(key, flow)


def fill(chain: LoadedChain, table: str, flow: bytes, count: int) -> int:
    """So many flows as this one; how many there are in the table then."""
    one = chain.maps["dsr_agent"][table]
    ((key, _), *_) = one.items_raw()
    keys = [key[:34] + port.to_bytes(2, "big") + key[36:] for port in range(count)]
    one.put_many_raw(keys, [flow] * count)
    return len(one)


def flows(chain: LoadedChain, **question: Any) -> list[str]:
    """The flows of an answer, by their clients."""
    return sorted(flow["client"] for flow in chain.answer("dsr_agent", question)["flows"])


def test_a_service_has_a_row_with_its_live_flows_and_counts(chain: LoadedChain) -> None:
    remember(chain, WEB, "192.0.2.7", 1000)
    remember(chain, WEB, "192.0.2.7", 1001, table="dsr_opening", state="syn", marks=0)
    remember(chain, WEB, "192.0.2.7", 1002, marks=DIRECT)
    remember(chain, WEB, "192.0.2.7", 1003, state="closed", age=IDLE_TICKS["closed"] + 2)
    remember(chain, DNS, "2001:db8::7", 1000)
    counts = dict(zip(STATS_FIELDS, range(1, 8), strict=True))
    chain.maps["dsr_agent"]["dsr_stats"].put(place(chain, WEB), counts)  # on each CPU
    cpus = len(chain.maps["dsr_agent"]["dsr_stats"].get(0) or ())

    services, tables = chain.status("dsr_agent")

    numbers = [cpus * counts[name] for name in ("flows", "in_packets", "in_bytes", "out_packets", "out_bytes", "guessed", "conflicts")]
    assert [("10.200.1.1:443 tcp", "10.1.0.5:8443", 2, 1, *numbers), ("[fd00::53]:53 udp", "[fd01::5]:53", 1, 0, *[0] * 7)] == list(
        services.rows
    )
    assert {"new flows", "in packets", "in bytes", "out packets", "out bytes"} == set(services.counters)
    assert [("both sides have spoken", 3, 4, 1024), ("one side has spoken", 1, 1, 1024)] == list(tables.rows)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("table", ["dsr_flows", "dsr_opening"])
def test_a_flow_lives_as_long_as_its_state_allows(chain: LoadedChain, state: str, table: str) -> None:
    for port, age in enumerate((-3, 0, IDLE_TICKS[state] - 2, IDLE_TICKS[state] + 2), 1000):
        remember(chain, WEB, "192.0.2.7", port, state=state, age=age, table=table)

    assert ["192.0.2.7:1000", "192.0.2.7:1001", "192.0.2.7:1002"] == flows(chain)
    assert 3 == chain.status("dsr_agent")[0].rows[0][2]


def test_states_last_as_long_as_in_the_datapath() -> None:
    import xdpchain_dsr_agent

    text = (Path(xdpchain_dsr_agent.__file__).parent / "bpf" / "flow.h").read_text()
    found = {name.lower(): int(ticks) for name, ticks in re.findall(r"case DSR_(\w+):\s*return (\d+);", text)}
    (rest,) = re.findall(r"default:\s*return (\d+);", text)

    assert {**dict.fromkeys(STATES, int(rest)), **found} == IDLE_TICKS


def test_flows_are_told_by_what_they_are(chain: LoadedChain) -> None:
    remember(chain, WEB, "192.0.2.7", 1000, age=3)
    remember(chain, WEB, "192.0.2.8", 1000, marks=DIRECT)
    remember(chain, WEB, "169.254.64.1", 1000, marks=HAIRPIN, state="syn", table="dsr_opening")
    remember(chain, DNS, "2001:db8::7", 1000, marks=HELD)

    found = {flow.pop("client"): flow for flow in chain.answer("dsr_agent", {})["flows"]}

    web = {"workload": "10.1.0.5:8443", "protocol": "tcp", "state": "established", "answered": True, "hairpin": False}
    first = found["192.0.2.7:1000"]
    assert {**web, "vip": "10.200.1.1:443", "idle_s": first["idle_s"]} == first
    assert first["idle_s"] in {3, 4, 5}
    assert (None, False) == (found["192.0.2.8:1000"]["vip"], found["192.0.2.8:1000"]["answered"])
    assert ("syn", True) == (found["169.254.64.1:1000"]["state"], found["169.254.64.1:1000"]["hairpin"])
    dns = found["[2001:db8::7]:1000"]
    assert ("[fd00::53]:53", "[fd01::5]:53", "udp", "held") == (dns["vip"], dns["workload"], dns["protocol"], dns["state"])


def test_flows_may_be_asked_for_by_client_vip_and_workload(chain: LoadedChain) -> None:
    remember(chain, WEB, "192.0.2.7", 1000)
    remember(chain, WEB, "192.0.2.7", 1001, marks=DIRECT)
    remember(chain, WEB, "192.0.2.8", 1000)
    remember(chain, DNS, "2001:db8::7", 1000)

    assert ["192.0.2.7:1000", "192.0.2.7:1001"] == flows(chain, client="192.0.2.7")
    assert ["192.0.2.7:1000", "192.0.2.8:1000"] == flows(chain, vip="10.200.1.1")
    assert ["192.0.2.7:1000", "192.0.2.8:1000"] == flows(chain, vip="10.200.1.1", port=443)
    assert [] == flows(chain, vip="10.200.1.1", port=80)
    assert ["[2001:db8::7]:1000"] == flows(chain, workload="fd01::5")
    assert ["192.0.2.7:1000"] == flows(chain, workload="10.1.0.5", vip="10.200.1.1", client="192.0.2.7")
    assert (1, 4) == (len(flows(chain, limit=1)), chain.answer("dsr_agent", {"limit": 1})["total"])


@pytest.mark.parametrize("wrong", [{"client": "nobody"}, {"port": 65536}, {"port": "x"}, {"limit": -1}, {"limit": "9"}, {"colour": "red"}])
def test_a_question_without_sense_is_refused(chain: LoadedChain, wrong: dict[str, Any]) -> None:
    with pytest.raises(XdpchainError) as caught:
        chain.answer("dsr_agent", wrong)

    assert "xdpchain dsr flows" in caught.value.hint


def test_thousands_of_flows_are_counted(agent: LoadAgent) -> None:
    chain = agent("workload", WEB, flow_table=LARGE)
    remember(chain, WEB, "192.0.2.7", 1)
    ((_, flow),) = chain.maps["dsr_agent"]["dsr_flows"].items_raw()
    fill(chain, "dsr_flows", flow, 10_000)

    assert 10_000 == chain.status("dsr_agent")[0].rows[0][2]
    assert 10_000 == chain.answer("dsr_agent", {"limit": 0})["total"]


def by_labels(samples: Iterable[tuple[Mapping[str, str], float]]) -> dict[tuple[str, ...], float]:
    return {tuple(labels.values()): value for labels, value in samples}


def test_metrics_are_those_of_services(chain: LoadedChain) -> None:
    remember(chain, WEB, "192.0.2.7", 1000)
    remember(chain, WEB, "192.0.2.7", 1001, marks=DIRECT)
    stats = chain.maps["dsr_agent"]["dsr_stats"]
    only_here = [dict.fromkeys(STATS_FIELDS, 0) for _ in stats.get(0) or ()]
    only_here[-1] = dict(zip(STATS_FIELDS, range(1, 8), strict=True))
    stats.put(place(chain, WEB), only_here)

    metrics = {metric.name: by_labels(metric.samples) for metric in chain.metrics("dsr_agent")}

    web, dns = ("10.200.1.1:443 tcp", "10.1.0.5:8443"), ("[fd00::53]:53 udp", "[fd01::5]:53")
    assert {(*web, "in"): 1, (*web, "out"): 3, (*dns, "in"): 0, (*dns, "out"): 0} == metrics["xdpchain_dsr_packets_total"]
    assert {(*web, "in"): 2, (*web, "out"): 4, (*dns, "in"): 0, (*dns, "out"): 0} == metrics["xdpchain_dsr_bytes_total"]
    assert {(*web, "vip"): 1, (*web, "direct"): 1, (*dns, "vip"): 0, (*dns, "direct"): 0} == metrics["xdpchain_dsr_flows"]
    for name, value in (("new_flows", 5), ("guessed", 6), ("conflicts", 7)):
        assert {web: value, dns: 0} == metrics[f"xdpchain_dsr_{name}_total"]
    assert {("flows",): 2, ("opening",): 0} == metrics["xdpchain_dsr_table_flows"]


@pytest.mark.parametrize(("table", "says"), [("dsr_flows", "raise flow_table"), ("dsr_opening", "only one side has spoken")])
def test_a_table_that_is_nearly_full_of_live_flows_is_warned_of(agent: LoadAgent, table: str, says: str) -> None:
    chain = agent("workload", WEB, flow_table=LARGE)
    remember(chain, WEB, "192.0.2.7", 1, table=table)
    ((_, flow),) = chain.maps["dsr_agent"][table].items_raw()
    room = chain.maps["dsr_agent"][table].schema.capacity

    assert [] == chain.warnings("dsr_agent")
    old = (tick() - IDLE_TICKS["established"] - 9) % (1 << 32)
    assert fill(chain, table, flow[:20] + old.to_bytes(4, "little") + flow[24:], room) > 0.9 * room
    assert [] == chain.warnings("dsr_agent"), "what is over makes room for what comes"
    fill(chain, table, flow, room)
    (warning,) = chain.warnings("dsr_agent")
    assert says in warning


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--client", "nobody"], "'nobody' does not appear to be an IPv4 or IPv6 address"),
        (["--vip", "10.200.1.1:x"], '"x" is not a port'),
        (["--vip", "[fd00::1"], "is not an address with a port"),
        (["--workload", "10.1.0.5:8443"], "does not appear to be"),
        (["--limit", "-1"], "-1 is not in the range"),
    ],
)
def test_the_command_refuses_what_is_no_address(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(dsr, ["flows", *arguments])

    assert 2 == result.exit_code
    assert says in result.output


def test_the_command_prints_a_flow_in_a_line() -> None:
    one = {"client": "192.0.2.7:1000", "vip": "10.200.1.1:443", "workload": "10.1.0.5:8443", "protocol": "tcp", "state": "established"}
    flows = [
        {**one, "answered": True, "hairpin": False, "idle_s": 3},
        {**one, "vip": None, "state": "syn", "answered": False, "hairpin": True, "idle_s": 70},
    ]

    lines = click.unstyle(told({"flows": flows, "total": 12})).splitlines()

    assert "CLIENT          VIP             WORKLOAD       PROTOCOL  STATE                        IDLE" == lines[0]
    assert "192.0.2.7:1000  10.200.1.1:443  10.1.0.5:8443  tcp       established                  3 s" == lines[1]
    assert "192.0.2.7:1000  direct          10.1.0.5:8443  tcp       syn (hairpin, not answered)  1 min 10 s" == lines[2]
    assert "2 of 12 flows" == lines[3]
    assert "0 of 0 flows" == told({"flows": [], "total": 0})
