# SPDX-License-Identifier: Apache-2.0
"""What a config key can hold: each annotation of a config class as a shape that can be read, described and documented."""

from __future__ import annotations

import enum
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import attrs

from xdpchain.config import values
from xdpchain.config.misfit import MisfitError, given, nearest, one_of
from xdpchain.config.textfile import TextFile, parse_text_file


def _same(value: Any) -> Any:
    return value


@attrs.frozen
class Kind:
    """A single value. `noun` names it in messages, `show` turns a value into what TOML would hold."""

    noun: str
    schema: Mapping[str, Any]
    parse: Callable[[Any], Any]
    show: Callable[[Any], Any] = _same


@attrs.frozen
class Items:
    """A list; a tuple in Python. `annotation` is the type of its items."""

    item: Shape
    annotation: Any


@attrs.frozen
class Keyed:
    """A table whose keys the user chooses; a dict in Python. `annotation` is the type of its values."""

    item: Shape
    annotation: Any


@attrs.frozen
class Table:
    """A table with known keys; an attrs class in Python."""

    cls: type[attrs.AttrsInstance]


Shape = Kind | Items | Keyed | Table


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        hint = f"write it without quotes: {value.lower()}" if isinstance(value, str) and value.lower() in {"true", "false"} else ""
        raise MisfitError(f"must be true or false, not {given(value)}", hint=hint, example="true")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        hint = f"write it without quotes: {value}" if isinstance(value, str) and value.lstrip("-").isdecimal() else ""
        raise MisfitError(f"must be an integer, not {given(value)}", hint=hint, example="1000")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise MisfitError(f"must be a number, not {given(value)}", example="0.5")
    return float(value)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise MisfitError(
            f"must be a string, not {given(value)}", hint="write it in quotes" if isinstance(value, int) else "", example='"text"'
        )
    return value


ADDRESS = Kind("an IP address", {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}, values.parse_address, str)
NETWORK = Kind(
    "a prefix or an IP address",
    {"type": "string", "pattern": r"^([0-9.]+(/[0-9]{1,2})?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(/[0-9]{1,3})?)$"},
    values.parse_network,
    str,
)
_PORT_SCHEMA = {"type": "integer", "minimum": 0, "maximum": values.MAX_PORT}
_KINDS: Mapping[Any, Kind] = {
    bool: Kind("true or false", {"type": "boolean"}, _boolean),
    int: Kind("an integer", {"type": "integer"}, _integer),
    float: Kind("a number", {"type": "number"}, _number),
    str: Kind("a string", {"type": "string"}, _string),
    values.Duration: Kind(
        "a duration", {"type": "string", "pattern": f"^{values.DURATION_PATTERN}$"}, values.parse_duration, values.show_duration
    ),
    values.Port: Kind("a port", _PORT_SCHEMA, values.parse_port),
    values.PortRange: Kind(
        "a port or a range of ports",
        {"anyOf": [_PORT_SCHEMA, {"type": "string", "pattern": f"^{values.PORT_RANGE_PATTERN}$"}]},
        values.parse_port_range,
        lambda ports: ports.first if ports.first == ports.last else str(ports),
    ),
    values.Percent: Kind("a percentage", {"type": "number", "minimum": 0, "maximum": 100}, values.parse_percent),
    values.MACAddress: Kind(
        "a MAC address", {"type": "string", "pattern": f"^{values.MAC_PATTERN}$"}, values.parse_mac, lambda mac: mac.hex(":")
    ),
    TextFile: Kind("the path of a file", {"type": "string", "minLength": 1}, parse_text_file, lambda file: file.path),
}


def shape_of(annotation: Any) -> Shape:
    """
    The shape behind a (resolved) annotation. `X | None` is X: TOML has no null, a key that may be absent is None then.

    Raises:
        TypeError: the type is none that a node file can hold.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _KINDS:
        return _KINDS[annotation]
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _choice({member.value: member for member in annotation})
    if attrs.has(annotation):
        return Table(annotation)
    if origin is typing.Literal:
        return _choice({word: word for word in arguments})
    if origin in {typing.Union, types.UnionType}:
        return _union([argument for argument in arguments if argument is not type(None)])
    if origin is tuple and arguments[1:] == (...,):
        return Items(shape_of(arguments[0]), arguments[0])
    if origin is not None and isinstance(origin, type) and issubclass(dict, origin) and arguments[:1] == (str,):
        return Keyed(shape_of(arguments[1]), arguments[1])
    raise TypeError(f"a config class cannot hold {annotation!r}: use the value types of xdpchain, tuple[X, ...] or Mapping[str, X]")


def _choice(members: Mapping[str, Any]) -> Kind:
    words = list(members)
    noun = one_of(words)

    def parse(value: Any) -> Any:
        if not isinstance(value, str) or value not in members:
            hint = nearest(value, words) if isinstance(value, str) else ""
            raise MisfitError(f"must be {noun}, not {given(value)}", hint=hint, example=one_of(words[:1]))
        return members[value]

    return Kind(noun, {"enum": words}, parse, lambda member: member.value if isinstance(member, enum.Enum) else member)


def _union(arms: Sequence[Any]) -> Shape:
    """Addresses and prefixes are unions by nature; any other union must be of single values, and takes the first that fits."""
    shapes: list[Shape] = []
    for pair, kind in (((IPv4Address, IPv6Address), ADDRESS), ((IPv4Network, IPv6Network), NETWORK)):
        if set(pair) <= set(arms):
            shapes.append(kind)
            arms = [arm for arm in arms if arm not in pair]
    shapes += [shape_of(arm) for arm in arms]
    if len(shapes) == 1:
        return shapes[0]
    kinds = [shape for shape in shapes if isinstance(shape, Kind)]
    if len(kinds) != len(shapes):
        raise TypeError("a config class cannot hold either a table or something else")
    return _either(kinds)


def _either(kinds: Sequence[Kind]) -> Kind:
    noun = " or ".join(kind.noun for kind in kinds)

    def parse(value: Any) -> Any:
        misfits = []
        for kind in kinds:
            try:
                return kind.parse(value)
            except MisfitError as misfit:
                misfits.append(misfit)
        hint = next((misfit.hint for misfit in misfits if misfit.hint), "")
        raise MisfitError(f"must be {noun}, not {given(value)}", hint=hint, example=misfits[0].example)

    def show(value: Any) -> Any:
        for kind in kinds:
            try:
                shown = kind.show(value)
                if kind.parse(shown) == value:
                    return shown
            except (MisfitError, AttributeError, TypeError):
                continue
        return str(value)

    return Kind(noun, {"anyOf": [kind.schema for kind in kinds]}, parse, show)
