# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema and the reference say what the reader of files does."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import attrs
import jsonschema  # type: ignore[import-untyped]
import pytest
from xdpchain.config import json_schema, loads, reference
from xdpchain.config.model import InterfaceTable, NodeSettings

from core.tests.config.example import FUNCTIONS, LimitConfig, MarkConfig, Rule, Server, Service, SpreadConfig
from core.tests.config.test_node import NODE

BROKEN = {file.stem: file.read_text() for file in (Path(__file__).parent / "broken").glob("*.toml") if not file.stem.startswith("syntax_")}
# what concerns several keys, or the meaning of a text, is beyond a schema
BEYOND_A_SCHEMA = {
    "address_octet",
    "address_is_a_prefix",
    "address_zone",
    "chain_needs_a_table",
    "chain_unknown_function",
    "chain_unknown_instance",
    "check_overlap",
    "duration_too_fine",
    "duration_too_long",
    "duration_too_short",
    "duration_zero",
    "float_nan",
    "integer_is_a_float",
    "interface_name_too_long",
    "interface_pattern_too_long",
    "interface_pattern_unclosed",
    "metrics_no_port",
    "metrics_port_range",
    "offload_of_a_tc_function",
    "offload_of_two",
    "own_validator",
    "port_range_backwards",
    "port_range_too_high",
    "prefix_host_bits",
    "prefix_host_bits_v6",
    "prefix_length",
}


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json_schema(FUNCTIONS)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_takes_a_right_node(validator: Any) -> None:
    assert list(validator.iter_errors(tomllib.loads(NODE))) == []


@pytest.mark.parametrize("name", sorted(BROKEN.keys() - BEYOND_A_SCHEMA))
def test_the_schema_refuses_what_the_reader_refuses(name: str, validator: Any) -> None:
    assert list(validator.iter_errors(tomllib.loads(BROKEN[name])))


@pytest.mark.parametrize("name", sorted(BEYOND_A_SCHEMA))
def test_what_is_beyond_the_schema_is_known(name: str, validator: Any) -> None:
    assert not list(validator.iter_errors(tomllib.loads(BROKEN[name])))


@pytest.mark.parametrize(
    ("table", "right"),
    [
        ({"mark": {}}, True),
        ({"mark": {"plugin": "mark", "level": 2}}, True),
        ({"mark": {"plugin": "limit", "sources": 2}}, True),
        ({"mark": {"plugin": "limit", "level": 2}}, False),
        ({"other": {"plugin": "mark", "level": 2}}, True),
        ({"other": {"plugin": "mark", "sources": 2}}, False),
        ({"other": {"level": 2}}, False),
        ({"other": {"plugin": "nosuch"}}, False),
    ],
)
def test_the_schema_knows_which_function_an_instance_means(table: dict[str, Any], right: bool, validator: Any) -> None:
    assert validator.is_valid({"function": table}) is right


def test_the_schema_has_defaults_bounds_and_help() -> None:
    limit = json_schema(FUNCTIONS)["$defs"]["function.limit"]

    assert limit["properties"]["window"]["default"] == "1s"
    rule = limit["properties"]["rule"]["items"]
    assert rule["properties"]["rate"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 10_000_000,
        "description": "Connections in one window.",
    }
    assert rule["properties"]["ports"]["minItems"] == 1
    assert rule["properties"]["action"] == {
        "enum": ["drop", "reset", "count"],
        "description": "What happens to the rest.",
        "default": "drop",
    }
    assert rule["required"] == ["ports", "rate"]


def test_the_defaults_of_the_schema_are_what_the_reader_takes() -> None:
    """Every default, written out in a file, gives the config that an empty table gives."""
    properties = json_schema(FUNCTIONS)["$defs"]["function.mark"]["properties"]
    written = {name: key["default"] for name, key in properties.items() if "default" in key}

    assert loads({"function": {"mark": written}}, FUNCTIONS).instances["mark"].config == MarkConfig()


def test_a_schema_without_functions_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema({}))


@pytest.mark.parametrize("cls", [NodeSettings, InterfaceTable, LimitConfig, Rule, MarkConfig, SpreadConfig, Service, Server])
def test_the_reference_has_every_key(cls: type[Any]) -> None:
    text = reference(FUNCTIONS)

    for field in attrs.fields(cls):
        assert f"| `{field.name}` |" in text


def test_the_reference_shows_values_defaults_and_bounds() -> None:
    lines = reference(FUNCTIONS).splitlines()

    assert '| `window` | a duration, from 1ms to 1h | `"1s"` | The window of all rules. |' in lines
    assert "| `rate` | an integer, from 1 to 10000000 | required | Connections in one window. |" in lines
    assert '| `action` | "drop", "reset" or "count" | `"drop"` | What happens to the rest. |' in lines
    assert "| `ban` | a duration | not set | How long a source is shut out. |" in lines
    assert "| `ports` | a list, each a port or a range of ports, at least 1 of them | required | Destination ports. |" in lines
    assert '| `next_hop` | a MAC address or "auto" | `"auto"` | Where packets go &#124; who takes them. |' in lines
    assert "#### `[[function.spread.service.server]]`" in lines
