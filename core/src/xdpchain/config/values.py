# SPDX-License-Identifier: Apache-2.0
"""The value types of config classes, and how each is read from what TOML holds and written back."""

from __future__ import annotations

import re
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, NewType, TypeAlias

import attrs

from xdpchain.config.misfit import MisfitError, given, quoted

Duration = NewType("Duration", int)
"""A span of time in nanoseconds; `"100ms"`, `"1.5m"` in TOML."""
Port = NewType("Port", int)
"""A TCP or UDP port, 0 to 65535."""
Percent = NewType("Percent", float)
"""A share from 0 to 100."""
MACAddress = NewType("MACAddress", bytes)
"""Six bytes; `"02:00:00:00:00:01"` in TOML."""
IPAddress: TypeAlias = IPv4Address | IPv6Address
"""An address of either family."""
IPNetwork: TypeAlias = IPv4Network | IPv6Network
"""A prefix of either family without host bits; an address alone is the prefix of its full length."""

UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000}
DURATION_PATTERN = r"[0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h)"
MAC_PATTERN = r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}"
PORT_RANGE_PATTERN = r"[0-9]{1,5}-[0-9]{1,5}"
MAX_DURATION_NS = 2**63 - 1
MAX_PORT = 65535


@attrs.frozen(order=True)
class PortRange:
    """Ports from `first` to `last`, both included; `443` or `"8000-8099"` in TOML."""

    first: Port
    last: Port

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def duration(text: str) -> Duration:
    """
    `"100ms"` in nanoseconds; also for the default values of config classes.

    Raises:
        ValueError: it is not a number with one of the units ns, us, ms, s, m, h.
    """
    match = re.fullmatch(DURATION_PATTERN, text)
    if match is None:
        raise MisfitError(f"{quoted(text)} is not a duration", hint=_duration_hint(text))
    unit = match[2]
    nanoseconds = Fraction(text.removesuffix(unit)) * UNITS_NS[unit]
    if nanoseconds.denominator != 1:
        raise MisfitError(f"{quoted(text)} is finer than a nanosecond", hint="round it to whole nanoseconds")
    if nanoseconds > MAX_DURATION_NS:
        raise MisfitError(f"{quoted(text)} is too long", hint="the longest duration is 292 years")
    return Duration(int(nanoseconds))


def _duration_hint(text: str) -> str:
    joined = re.sub(r"\s+", "", text.strip().lower())
    if re.fullmatch(DURATION_PATTERN, joined):
        return f"write {quoted(joined)}"
    return 'a number and one unit of ns, us, ms, s, m, h: for example "100ms", "1.5m"'


def show_duration(nanoseconds: int) -> str:
    """Nanoseconds in the largest unit that keeps them whole: `1500000000` is `"1500ms"`."""
    if nanoseconds == 0:
        return "0s"
    unit = next(unit for unit in reversed(UNITS_NS) if nanoseconds % UNITS_NS[unit] == 0)
    return f"{nanoseconds // UNITS_NS[unit]}{unit}"


def parse_duration(value: Any) -> Duration:
    """Reads a number and its unit in one string."""
    if isinstance(value, str):
        return duration(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        hint = f'write the unit: "{value}s" or "{value}ms"' if value > 0 else 'a positive number and its unit: "100ms"'
        raise MisfitError(f"must be a duration with its unit, not {value}", hint=hint)
    raise MisfitError(f"must be a duration, not {given(value)}", example='"100ms"')


def parse_port(value: Any) -> Port:
    """Reads an integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        hint = f"write it without quotes: {value}" if isinstance(value, str) and value.isdecimal() else ""
        raise MisfitError(f"must be a port, not {given(value)}", hint=hint, example="443")
    return _port(value)


def _port(number: int) -> Port:
    if not 0 <= number <= MAX_PORT:
        raise MisfitError(f"must be a port, not {number}", hint=f"ports go from 0 to {MAX_PORT}")
    return Port(number)


def parse_port_range(value: Any) -> PortRange:
    """Reads an integer, or `"first-last"`."""
    if isinstance(value, str) and re.fullmatch(PORT_RANGE_PATTERN, value):
        first, last = (_port(int(number)) for number in value.split("-"))
        if first > last:
            raise MisfitError(f"{quoted(value)} ends before it begins", hint=f'write "{last}-{first}"')
        return PortRange(first, last)
    if isinstance(value, bool) or not isinstance(value, int):
        hint = f"write it without quotes: {value}" if isinstance(value, str) and value.isdecimal() else ""
        raise MisfitError(f"must be a port or a range of ports, not {given(value)}", hint=hint, example='443 or "8000-8099"')
    return PortRange(_port(value), _port(value))


def parse_percent(value: Any) -> Percent:
    """Reads a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = value.rstrip("% ") if isinstance(value, str) else ""
        hint = f"write the number alone: {text}" if re.fullmatch(r"\d+(\.\d+)?", text) else ""
        raise MisfitError(f"must be a percentage, not {given(value)}", hint=hint, example="50")
    if not 0 <= value <= 100:
        raise MisfitError(f"must be from 0 to 100 percent, not {value}", example="50")
    return Percent(float(value))


def parse_mac(value: Any) -> MACAddress:
    """Reads six bytes in hexadecimal, with colons."""
    if not isinstance(value, str):
        raise MisfitError(f"must be a MAC address, not {given(value)}", example='"02:00:00:00:00:01"')
    if not re.fullmatch(MAC_PATTERN, value):
        raise MisfitError(f"{quoted(value)} is not a MAC address", example='"02:00:00:00:00:01"')
    return MACAddress(bytes.fromhex(value.replace(":", "")))


def parse_address(value: Any) -> IPAddress:
    """Reads an address of either family; no prefix, no zone."""
    if not isinstance(value, str):
        raise MisfitError(f"must be an IP address, not {given(value)}", example='"10.0.0.1" or "2001:db8::1"')
    if "/" in value:
        raise MisfitError(f"{quoted(value)} is a prefix, not an address", hint=f"write {quoted(value.partition('/')[0])}")
    try:
        address = IPv6Address(value) if ":" in value else IPv4Address(value)
    except ValueError as error:
        raise MisfitError(f"{quoted(value)} is not an IP address", hint=_address_hint(error, '"10.0.0.1" and "2001:db8::1"')) from error
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise MisfitError(
            f"{quoted(value)} names an interface", hint=f"write {quoted(value.partition('%')[0])}: packets carry no interface"
        )
    return address


def parse_network(value: Any) -> IPNetwork:
    """Reads a prefix, or an address as the prefix of its full length."""
    if not isinstance(value, str):
        raise MisfitError(f"must be a prefix or an IP address, not {given(value)}", example='"10.0.0.0/24" or "2001:db8::/32"')
    if "%" in value:
        raise MisfitError(f"{quoted(value)} names an interface", hint="packets carry no interface: leave out what follows the %")
    try:
        network = IPv6Network(value, strict=False) if ":" in value else IPv4Network(value, strict=False)
    except ValueError as error:
        raise MisfitError(f"{quoted(value)} is not a prefix", hint=_address_hint(error, '"10.0.0.0/24" and "2001:db8::/32"')) from error
    address, _, length = value.partition("/")
    if length and not length.isdecimal():
        raise MisfitError(f"{quoted(value)} has a mask, not a length", hint=f"write {quoted(str(network))}")
    if parse_address(address) != network.network_address:
        alone = f"{address}/{network.max_prefixlen}"
        hint = f"write {quoted(str(network))} for the network, or {quoted(alone)} for the one address"
        raise MisfitError(f"{quoted(value)} has bits set beyond its length", hint=hint)
    return network


def _address_hint(error: ValueError, examples: str) -> str:
    """The reason of the ipaddress module, as a hint, with examples of what would do."""
    reason = str(error)
    return f"{reason[:1].lower()}{reason[1:]}; right are {examples}"
