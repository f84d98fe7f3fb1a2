# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of the node file, for editors and other programs that write it; functions' tables included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from xdpchain.config.instances import Functions
from xdpchain.config.kinds import Items, Keyed, Kind, Shape, Table
from xdpchain.config.model import MAX_CHAIN, InterfaceTable, NodeSettings
from xdpchain.config.names import INSTANCE_PATTERN
from xdpchain.config.option import Key, keys_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(functions: Functions) -> dict[str, Any]:
    """
    The schema (2020-12) of a node file on a machine with these functions.

    It knows types, bounds, names and required keys. What concerns several keys, files or the network (a name that no table has, host bits
    of a prefix) is for `xdpchain check`.
    """
    interface = _table(InterfaceTable)
    interface["properties"]["chain"] |= {
        "items": {"type": "string", "pattern": f"^{INSTANCE_PATTERN}$"},
        "minItems": 1,
        "maxItems": MAX_CHAIN,
        "uniqueItems": True,
    }
    return {
        "$schema": DIALECT,
        "title": "xdpchain node file",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "node": _table(NodeSettings) | {"description": "What holds for the whole node."},
            "interface": {
                "type": "object",
                "description": 'Interfaces by name or pattern ("tap*"), each with its chain.',
                "propertyNames": {"pattern": r"^[^\s/:]+$"},
                "additionalProperties": interface,
            },
            "function": {
                "type": "object",
                "description": "Instances by name; an instance has its function's name, or says plugin = NAME.",
                "propertyNames": {"pattern": f"^{INSTANCE_PATTERN}$"},
                "properties": {name: _named_like_its_function(name) for name in functions},
                "additionalProperties": {"$ref": "#/$defs/instance"},
            },
        },
        "$defs": {"instance": _instance(functions)} | {f"function.{name}": _function(name, functions) for name in functions},
    }


def _named_like_its_function(name: str) -> dict[str, Any]:
    return {"if": {"required": ["plugin"]}, "then": {"$ref": "#/$defs/instance"}, "else": {"$ref": f"#/$defs/function.{name}"}}


def _instance(functions: Functions) -> dict[str, Any]:
    """An instance that names its function: `plugin` decides what else the table may hold."""
    instance: dict[str, Any] = {"type": "object", "required": ["plugin"], "properties": {"plugin": {"enum": list(functions)}}}
    cases = [
        {"if": {"properties": {"plugin": {"const": name}}, "required": ["plugin"]}, "then": {"$ref": f"#/$defs/function.{name}"}}
        for name in functions
    ]
    return instance | ({"allOf": cases} if cases else {})


def _function(name: str, functions: Functions) -> dict[str, Any]:
    table = _table(functions[name].config)
    table["description"] = functions[name].summary
    table["properties"]["plugin"] = {"const": name, "description": "The function, where the table's name is not its name."}
    return table


def _table(cls: type[attrs.AttrsInstance]) -> dict[str, Any]:
    keys = list(keys_of(cls))
    table: dict[str, Any] = {"type": "object", "properties": {key.name: _key(key) for key in keys}, "additionalProperties": False}
    required = [key.name for key in keys if key.required]
    return table | ({"required": required} if required else {})


def _key(key: Key) -> dict[str, Any]:
    schema = _shape(key.shape) | _bounds(key)
    if key.help:
        schema["description"] = key.help
    if key.default is not None:
        schema["default"] = key.default
    return schema


def _shape(shape: Shape) -> dict[str, Any]:
    match shape:
        case Kind():
            return dict(shape.schema)
        case Items():
            return {"type": "array", "items": _shape(shape.item)}
        case Keyed():
            return {"type": "object", "additionalProperties": _shape(shape.item)}
        case Table():
            return _table(shape.cls)


def _bounds(key: Key) -> dict[str, Any]:
    """Bounds of numbers, lists and strings; those of a duration cannot be said of its text."""
    words: Mapping[str, tuple[str, str]] = {
        "integer": ("minimum", "maximum"),
        "number": ("minimum", "maximum"),
        "array": ("minItems", "maxItems"),
        "string": ("minLength", "maxLength"),
    }
    kind = _shape(key.shape).get("type", "")
    if kind not in words or "pattern" in _shape(key.shape):
        return {}
    return {word: limit for word, limit in zip(words[kind], (key.bounds.min, key.bounds.max), strict=True) if limit is not None}
