# SPDX-License-Identifier: Apache-2.0
"""What a right node file means: defaults, instances, which interface gets which chain, and what is worth a warning."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import attrs
import pytest
from xdpchain.config import MAX_CHAIN, InterfaceConfig, MACAddress, OnError, Percent, PortRange, XdpMode, duration, key_path, loads
from xdpchain.config.misfit import MisfitError
from xdpchain.config.values import Port
from xdpchain.errors import ConfigError

from core.tests.config.example import FUNCTIONS, Action, LimitConfig, MarkConfig, Rule, SpreadConfig

NODE = """
[node]
on_error = "drop"
metrics = "[::1]:9000"

[interface.eth0]
xdp_mode = "native"
chain = ["web", "mark"]
on_error = "pass"

[interface."tap*"]
chain = ["spread"]

[function.web]
plugin = "limit"
window = "500ms"
[[function.web.rule]]
ports = [80, "8000-8099"]
addresses = ["10.0.0.0/8", "2001:db8::1"]
rate = 1000
action = "reset"
enforce = 12.5
ban = "1.5m"

[function.mark]
next_hop = "02:00:00:00:00:01"
weights = { a = 1 }

[function.spread]
source = "10.0.13.37"
service = [{ address = "10.200.1.1", server = [{ address = "10.0.0.1" }, { address = "::1", weight = 0 }] }]
"""


def test_a_whole_node_is_read_into_values() -> None:
    config = loads(NODE, FUNCTIONS)

    assert config.node.on_error is OnError.DROP
    assert config.node.metrics == "[::1]:9000"
    assert config.interfaces == (
        InterfaceConfig("eth0", ("web", "mark"), XdpMode.NATIVE, OnError.PASS),
        InterfaceConfig("tap*", ("spread",), XdpMode.AUTO, None),
    )
    assert list(config.instances) == ["web", "mark", "spread"]
    assert config.instances["web"].function is FUNCTIONS["limit"]
    rule = Rule(
        ports=(PortRange(Port(80), Port(80)), PortRange(Port(8000), Port(8099))),
        addresses=(ip_network("10.0.0.0/8"), ip_network("2001:db8::1/128")),
        rate=1000,
        action=Action.RESET,
        enforce=Percent(12.5),
        ban=duration("90s"),
    )
    assert config.instances["web"].config == LimitConfig(window=duration("500ms"), rule=(rule,))
    assert config.instances["mark"].config == MarkConfig(next_hop=MACAddress(bytes.fromhex("020000000001")), weights={"a": 1})
    spread = config.instances["spread"].config
    assert isinstance(spread, SpreadConfig)
    assert [(server.address, server.weight) for server in spread.service[0].server] == [
        (ip_address("10.0.0.1"), 100),
        (ip_address("::1"), 0),
    ]
    assert config.warnings == ()


def test_an_empty_file_is_a_node_without_interfaces() -> None:
    config = loads("", FUNCTIONS)

    assert config.node.on_error is OnError.PASS
    assert config.node.metrics == "127.0.0.1:9977"
    assert config.interfaces == ()
    assert dict(config.instances) == {}


def test_a_plain_dict_reads_like_text() -> None:
    document = {"interface": {"eth0": {"chain": ("limit",)}}, "function": {"limit": {"window": "2s"}}}

    config = loads(document, FUNCTIONS)

    assert config.interfaces[0].chain == ("limit",)
    assert config.instances["limit"].config.window == duration("2s")


def test_problems_of_a_dict_have_a_path_and_no_line() -> None:
    with pytest.raises(ConfigError) as raised:
        loads({"interface": {"eth0": {"chain": ["nothing"]}}}, FUNCTIONS)

    (problem,) = raised.value.problems
    assert key_path(problem.path) == "interface.eth0.chain[0]"
    assert (problem.file, problem.line) == ("", None)


def test_a_function_with_defaults_needs_no_table() -> None:
    config = loads({"interface": {"eth0": {"chain": ["mark"]}, "eth1": {"chain": ["mark"]}}}, FUNCTIONS)

    assert config.instances["mark"].config == MarkConfig()
    assert config.warnings == ()


def test_two_instances_of_a_function_may_share_a_chain() -> None:
    config = loads({"interface": {"eth0": {"chain": ["mark", "again"]}}, "function": {"again": {"plugin": "mark"}}}, FUNCTIONS)

    assert {name: instance.function.name for name, instance in config.instances.items()} == {"again": "mark", "mark": "mark"}


def test_a_table_may_name_the_function_that_it_is_called_after() -> None:
    assert loads({"function": {"mark": {"plugin": "mark"}}}, FUNCTIONS).instances["mark"].function.name == "mark"


def test_a_table_called_after_one_function_may_mean_another() -> None:
    assert loads({"function": {"mark": {"plugin": "limit", "sources": 5}}}, FUNCTIONS).instances["mark"].config.sources == 5


def test_an_instance_in_no_chain_is_a_warning_at_its_table() -> None:
    config = loads('[interface.eth0]\nchain = ["mark"]\n[function.limit]\n[function.mark]\n', FUNCTIONS)

    (warning,) = config.warnings
    assert (key_path(warning.path), warning.line, warning.message) == ("function.limit", 3, "is in no chain")
    assert "limit" in config.instances


def test_a_chain_of_the_greatest_length_is_taken() -> None:
    names = [f"m{index}" for index in range(MAX_CHAIN)]
    document = {"interface": {"eth0": {"chain": names}}, "function": {name: {"plugin": "mark"} for name in names}}

    assert loads(document, FUNCTIONS).interfaces[0].chain == tuple(names)


@pytest.mark.parametrize("metrics", ["off", "0.0.0.0:1", "localhost:65535", "[::]:9977", "node-1.example.net:9977"])
def test_a_listen_address_is_a_host_and_a_port(metrics: str) -> None:
    assert loads({"node": {"metrics": metrics}}, FUNCTIONS).node.metrics == metrics


@pytest.mark.parametrize(
    "metrics", ["", ":9977", "::1:9977", "127.0.0.1:0", "a b:1", "127.0.0.1:", "http://127.0.0.1:9977", "127.0.0.1:9977\n"]
)
def test_any_other_listen_address_is_refused(metrics: str) -> None:
    with pytest.raises(ConfigError):
        loads({"node": {"metrics": metrics}}, FUNCTIONS)


@pytest.mark.parametrize("name", ["eth0", "lo", "br-0123456789ab", "eth0.100", "tap*", "eth[0-3]", "*", "e?h[!a]", "é", "verylongprefix-*"])
def test_interface_names_and_patterns_that_the_kernel_could_have(name: str) -> None:
    assert loads({"interface": {name: {"chain": ["mark"]}}}, FUNCTIONS).interfaces[0].pattern == name


@pytest.mark.parametrize("name", ["", ".", "..", "a" * 16, "é" * 8, "a b", "a\t", "a/b", "a:1", "eth[", "eth[]", "?" * 16])
def test_names_that_no_interface_can_have(name: str) -> None:
    with pytest.raises(ConfigError):
        loads({"interface": {name: {"chain": ["mark"]}}}, FUNCTIONS)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("tap7", "tap7"),  # its own name, though a pattern as long stands first
        ("tap12", "tap1*"),  # the longer text before the wildcard
        ("tap2", "tap*"),
        ("tapx", "tap*"),  # as long as tap?, and first
        ("eth0", "*"),
    ],
)
def test_an_interface_gets_the_chain_that_fits_best(name: str, pattern: str) -> None:
    patterns = ["*", "tap*", "tap?", "tap1*", "tap7*", "tap7"]
    config = loads({"interface": {pattern: {"chain": ["mark"]} for pattern in patterns}}, FUNCTIONS)

    found = config.interface_for(name)

    assert found is not None
    assert found.pattern == pattern


def test_an_interface_that_nothing_names_has_no_chain() -> None:
    assert loads({"interface": {"tap*": {"chain": ["mark"]}}}, FUNCTIONS).interface_for("eth0") is None


def test_a_name_is_matched_in_its_case() -> None:
    assert not InterfaceConfig("TAP*", ("mark",)).matches("tap0")
    assert not InterfaceConfig("eth0", ("mark",)).matches("ETH0")


def test_a_config_made_in_python_is_held_to_the_same_bounds() -> None:
    with pytest.raises(MisfitError, match="must be at least 1, not 0"):
        LimitConfig(sources=0)
    with pytest.raises(ValueError, match="must be even"):
        attrs.evolve(MarkConfig(), level=1)
