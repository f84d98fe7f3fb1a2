# SPDX-License-Identifier: Apache-2.0
"""What authors see of a chain that is loaded for a test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import attrs
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from xdpchain import (
    ConfigError,
    Delete,
    Hook,
    KernelFunction,
    Map,
    MapKind,
    Metric,
    NextHop,
    NextHops,
    Program,
    Put,
    Reason,
    Role,
    Table,
    option,
    testing,
    u32,
    u64,
)
from xdpchain.errors import CompileError
from xdpchain.testing import LoadChain, LoadedChain, Verdict

SOURCE = """
#include "xdpchain.h"
BPF_TABLE("hash", u32, u64, gate_ports, BY_SCHEMA);

static __always_inline verdict gate(struct xdp_md *ctx, struct packet *packet)
{
	u32 port;
	u64 *seen;

	if (!packet->udp)
		return packet->tcp ? next(NOT_UDP) : pass(NO_REASON);
	port = bpf_ntohs(packet->udp->dest);
	seen = gate_ports.lookup(&port);
	if (!seen)
		return next(NO_REASON);
	(*seen)++;
	packet->eth->h_dest[5] = 0x99;
	return port == 7 ? tx(CLOSED) : drop(CLOSED);
}

static __always_inline verdict gate_out(struct __sk_buff *ctx, struct packet *packet)
{
	return packet->udp ? drop(CLOSED) : next(NO_REASON);
}
"""


@attrs.frozen(kw_only=True)
class GateConfig:
    ports: tuple[int, ...] = option(default=(), help="Closed ports.")


class Gate(KernelFunction[GateConfig]):
    api = 1
    name = "gate"
    summary = "closes ports"
    config = GateConfig
    programs = (Program(Hook.XDP, "gate"), Program(Hook.TC_EGRESS, "gate_out"))
    reasons = (Reason("closed", "the port is closed"), Reason("not_udp", "only UDP has ports here"))

    def __init__(self, source: Path) -> None:
        self.source = source  # type: ignore[misc]

    def maps(self, config: GateConfig) -> Iterable[Map]:  # type: ignore[override]
        return (Map(name="gate_ports", kind=MapKind.HASH, key=u32, value=u64, capacity=64, role=Role.CONFIG, help="uses by port"),)

    def configure(self, old: GateConfig | None, new: GateConfig, maps: Any) -> Iterable[Put | Delete]:
        before = set(old.ports) if old else set()
        yield from (Put("gate_ports", port, 0) for port in new.ports if port not in before)
        yield from (Delete("gate_ports", port) for port in before.difference(new.ports))

    def status(self, config: GateConfig, maps: Any) -> tuple[Table, ...]:
        return (Table(("port",), [(port,) for port in config.ports]),)

    def follow(self, config: GateConfig, hops: NextHops, maps: Any) -> Iterable[Put]:
        yield from (Put("gate_ports", 1000 + hop.mtu, 0) for hop in hops.values())

    def upkeep(self, config: GateConfig, maps: Any) -> Iterable[Delete]:
        yield from (Delete("gate_ports", port) for port, _ in maps["gate_ports"].items() if port not in config.ports)

    def warnings(self, config: GateConfig, maps: Any) -> Iterable[str]:
        yield from (f"port {port} is closed without config" for port, _ in maps["gate_ports"].items() if port not in config.ports)

    def answer(self, config: GateConfig, maps: Any, question: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"closed": maps["gate_ports"].get(question["port"]) is not None}

    def metrics(self, config: GateConfig, maps: Any) -> Iterable[Metric]:
        yield Metric("gate_closed", "gauge", "Closed ports.", [({}, len(config.ports))])


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """At one place for all tests: the place of a source is part of what is compiled."""
    source = tmp_path_factory.mktemp("gate") / "gate.bpf.c"
    source.write_text(SOURCE)
    return Gate(source)


@pytest.fixture
def chain(load_chain: LoadChain, gate: Gate) -> LoadedChain:
    document = {
        "interface": {"eth0": {"chain": ["first", "gate"]}},
        "function": {"first": {"plugin": "gate", "ports": [1]}, "gate": {"ports": [7, 9]}},
    }
    return load_chain(document, functions=[gate])


def test_a_result_says_what_happened_where_and_why(chain: LoadedChain) -> None:
    dropped, sent_back = chain.send(Ether() / IP() / UDP(dport=9)), chain.send(Ether() / IP() / UDP(dport=7))

    assert (dropped.verdict, dropped.reason, dropped.function, dropped.path) == (Verdict.DROP, "closed", "gate", ("first", "gate"))
    assert (sent_back.verdict, sent_back.path) == (Verdict.TX, ("first", "gate"))


def test_what_the_daemon_asks_of_a_running_function_can_be_asked_of_a_loaded_one(chain: LoadedChain) -> None:
    hops: NextHops = {IPv4Address("192.0.2.1"): NextHop("eth0", mtu=1500), IPv4Address("192.0.2.2"): NextHop("eth0", mtu=9000)}
    done = [chain.follow("gate", hops), sorted(chain.warnings("gate")), chain.answer("gate", {"port": 2500})]
    then = [chain.upkeep("gate"), list(chain.warnings("gate")), chain.answer("gate", {"port": 2500})]

    assert done == [2, ["port 10000 is closed without config", "port 2500 is closed without config"], {"closed": True}]
    assert then == [2, [], {"closed": False}]


def test_the_first_to_decide_ends_the_path(chain: LoadedChain) -> None:
    result = chain.send(Ether() / IP() / UDP(dport=1))

    assert (result.function, result.path) == ("first", ("first",))


def test_a_packet_that_nobody_decides_about_reaches_the_end_of_the_chain(chain: LoadedChain) -> None:
    result = chain.send(Ether() / IP() / TCP())

    assert (result.verdict, result.reason, result.function) == (Verdict.PASS, "end_of_chain", "")


def test_a_verdict_without_a_reason_has_none(chain: LoadedChain) -> None:
    result = chain.send(Ether() / IP(proto=99))

    assert (result.verdict, result.reason, result.function) == (Verdict.PASS, "", "first")


def test_the_packet_comes_back_as_the_chain_leaves_it(chain: LoadedChain) -> None:
    result = chain.send(Ether(dst="02:00:00:00:00:07") / Dot1Q(vlan=3) / IP() / UDP(dport=7))

    assert result.scapy.dst == "02:00:00:00:00:99"
    assert result.scapy[Dot1Q].vlan == 3
    assert result.packet[6:] == result.sent[6:]


def test_bytes_go_in_as_they_are(chain: LoadedChain) -> None:
    frame = bytes.fromhex("02000000000102000000000288b5") + b"anything"

    assert chain.send(frame).packet == frame


def test_what_a_packet_leaves_open_is_the_same_everywhere(chain: LoadedChain) -> None:
    sent = chain.send(IP(dst="10.0.0.1") / UDP(dport=9)).scapy

    assert (sent.src, sent[IP].src) == ("02:00:00:00:00:01", "192.0.2.1")


def test_egress_is_a_chain_of_its_own(chain: LoadedChain) -> None:
    result = chain.send(Ether() / IP() / UDP(dport=1000), egress=True)

    assert (result.verdict, result.reason, result.path) == (Verdict.DROP, "closed", ("first",))


def test_counts_are_those_of_all_hooks_of_an_instance(chain: LoadedChain) -> None:
    for port in (9, 9, 7):
        chain.send(Ether() / IP() / UDP(dport=port))
    chain.send(Ether() / IP() / UDP(dport=9), egress=True)

    assert chain.counts("first") == {(Verdict.NEXT, ""): 3, (Verdict.DROP, "closed"): 1}
    assert chain.counts("gate") == {(Verdict.DROP, "closed"): 2, (Verdict.TX, "closed"): 1}


def test_maps_can_be_read_and_written(chain: LoadedChain) -> None:
    chain.maps["gate"]["gate_ports"].put(9, 40)
    chain.send(Ether() / IP() / UDP(dport=9))

    assert dict(chain.maps["gate"]["gate_ports"].items()) == {7: 0, 9: 41}
    assert dict(chain.maps["first"]["gate_ports"].items()) == {1: 0}


def test_configure_writes_the_difference_only(chain: LoadedChain) -> None:
    chain.send(Ether() / IP() / UDP(dport=9))

    chain.configure("first", {"ports": [2]})
    chain.configure("gate", {"ports": [9, 11]})

    assert dict(chain.maps["gate"]["gate_ports"].items()) == {9: 1, 11: 0}
    assert dict(chain.maps["first"]["gate_ports"].items()) == {2: 0}
    assert chain.status("gate")[0].rows == [(9,), (11,)]
    assert chain.metrics("gate")[0].samples == [({}, 2)]


def test_a_config_that_is_refused_changes_nothing(chain: LoadedChain) -> None:
    with pytest.raises(ConfigError):
        chain.configure("gate", {"ports": ["x"]})

    assert dict(chain.maps["gate"]["gate_ports"].items()) == {7: 0, 9: 0}
    assert chain.config.instances["gate"].config.ports == (7, 9)


def test_a_document_may_be_toml(load_chain: LoadChain, gate: Gate) -> None:
    chain = load_chain('[interface."tap*"]\nchain = ["gate"]\n[function.gate]\nports = [5]\n', "tap3", [gate])

    assert chain.send(IP() / UDP(dport=5)).verdict is Verdict.DROP


def test_the_problems_of_a_document_are_in_the_notes_of_its_error(load_chain: LoadChain, gate: Gate) -> None:
    with pytest.raises(ConfigError) as caught:
        load_chain({"interface": {"eth0": {"chain": ["gate"]}}, "function": {"gate": {"prots": [5]}}}, functions=[gate])

    assert ['function.gate.prots: is not a known key: did you mean "ports"?'] == caught.value.__notes__


def test_an_error_in_the_source_is_raised_with_its_line(load_chain: LoadChain, tmp_path: Path) -> None:
    source = tmp_path / "gate.bpf.c"
    source.write_text(SOURCE.replace("drop(CLOSED)", "dorp(CLOSED)"))

    with pytest.raises(CompileError, match=r"gate\.bpf\.c:18") as caught:
        load_chain({"interface": {"eth0": {"chain": ["gate"]}}}, functions=[Gate(source)])

    assert "dorp" in caught.value.message


def test_a_packet_that_the_kernel_does_not_take_is_an_error(chain: LoadedChain) -> None:
    with pytest.raises(ValueError, match="shorter than an Ethernet header"):
        chain.send(b"short")


def test_installed_plugins_are_there_by_default(load_chain: LoadChain) -> None:
    with pytest.raises(ConfigError) as caught:
        load_chain({"interface": {"eth0": {"chain": ["no_such_function_is_installed"]}}})

    assert "no instance or function is called" in caught.value.problems[0].message


def test_the_pytest_plugin_imports_nothing_heavy_before_a_fixture_is_used() -> None:
    heavy = ("scapy", "pyroute2", "xdpchain.chain.engine", "xdpchain.bpf.libbpf")
    script = f"import sys, xdpchain.testing.plugin; print([name for name in {heavy} if name in sys.modules])"

    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_type_of_the_public_face_is_there() -> None:
    assert [getattr(testing, name).__name__ for name in testing.__all__] == testing.__all__
