# SPDX-License-Identifier: Apache-2.0
"""The words of one line in the file of VIPs. Each function raises `MisfitError` with what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from xdpchain.config import MisfitError, nearest, parse_address, parse_network, quoted

from xdpchain_elb.vip import ENCAPSULATIONS, MAX_SERVER_ID, MAX_WEIGHT, OPTIONS, Backend, SourceRoute

MAX_PORT = 65535
_INTEGER = re.compile(r"-?[0-9]{1,19}")


def split(line: str) -> list[str]:
    """The words of a line, without its comment."""
    return line.partition("#")[0].split()


def header(words: Sequence[str]) -> dict[str, Any]:
    """`vip ADDRESS:PORT PROTOCOL [options=A,B] [encapsulation=E]` as fields of a `Vip`."""
    if len(words) < 3:
        raise MisfitError("a VIP is cut short", hint="vip ADDRESS:PORT PROTOCOL, for example: vip 10.200.1.1:443 tcp")
    address, port = _place(words[1])
    fields: dict[str, Any] = {"address": parse_network(address), "port": number("port", port, 0, MAX_PORT)}
    fields["protocol"] = one_of("protocol", words[2], ("tcp", "udp"))
    for key, value in _settings(words[3:], ("options", "encapsulation"), ()):
        if key == "options":
            fields[key] = tuple(one_of("option", word, OPTIONS) for word in value.split(","))
        else:
            fields[key] = one_of(key, value, ENCAPSULATIONS)
    return fields


def route(words: Sequence[str]) -> SourceRoute:
    """`source NAME PREFIX,PREFIX`, without its backends."""
    if len(words) < 3:
        raise MisfitError("a source route is cut short", hint="source NAME PREFIX,PREFIX, for example: source eu 198.51.100.0/24")
    prefixes = [prefix for word in words[2:] for prefix in word.split(",")]
    return SourceRoute(name=words[1], prefixes=tuple(parse_network(prefix) for prefix in prefixes))


# the same backend, written in the same way, is in many VIPs, and so is its address
_address = lru_cache(maxsize=16384)(parse_address)


@lru_cache(maxsize=16384)
def backend(line: str) -> Backend:
    """`ADDRESS [weight=N] [drain] [down] [server-id=N]`."""
    first, *rest = split(line)
    if "." not in first and ":" not in first:
        raise MisfitError(f"{quoted(first)} begins no line", hint="a line begins with vip, source, or the address of a backend")
    fields: dict[str, Any] = {}
    for key, value in _settings(rest, ("weight", "server-id"), ("drain", "down")):
        if key == "weight":
            fields[key] = number(key, value, 0, MAX_WEIGHT)
        elif key == "server-id":
            fields["server_id"] = number(key, value, 1, MAX_SERVER_ID)
        else:
            fields[key] = True
    return Backend(address=_address(first), **fields)


def number(name: str, text: str, least: int, most: int) -> int:
    """An integer between two bounds."""
    value = int(text) if _INTEGER.fullmatch(text) else None
    if value is not None and least <= value <= most:
        return value
    wanted = "an integer" if value is None else f"at least {least}" if value < least else f"at most {most}"
    given = quoted(text) if value is None else text
    raise MisfitError(f"{name} must be {wanted}, not {given}", hint=f"from {least} to {most} is allowed")


def one_of(name: str, word: str, known: Sequence[str]) -> str:
    """A word that is known."""
    if word not in known:
        raise MisfitError(f"{quoted(word)} is no known {name}", hint=nearest(word, known, f"known: {', '.join(known)}"))
    return word


def _place(word: str) -> tuple[str, str]:
    """`ADDRESS:PORT` in two; an IPv6 address stands in brackets."""
    address, colon, port = word.rpartition(":")
    if address.startswith("[") and address.endswith("]"):
        return address[1:-1], port
    if word.startswith("["):
        raise MisfitError(
            f"{quoted(word)} has no port", hint="ADDRESS:PORT with an IPv6 address in brackets: [2001:db8::1]:443; 0 is any port"
        )
    if ":" in address:
        raise MisfitError(
            f"{quoted(word)} leaves open where the port begins", hint=f"an IPv6 address stands in brackets: [{address}]:{port}"
        )
    if not colon:
        raise MisfitError(f"{quoted(word)} has no port", hint=f"{word}:443, or {word}:0 for any port")
    return address, port


def _settings(words: Iterable[str], keys: Sequence[str], flags: Sequence[str]) -> Iterable[tuple[str, str]]:
    """`key=value` and flags, each at most once."""
    seen = set[str]()
    for word in words:
        key, equals, value = word.partition("=")
        if key not in (keys if equals else flags):
            known = [*(f"{name}=" for name in keys), *flags]
            raise MisfitError(
                f"{quoted(word)} is no known word here", hint=nearest(f"{key}{equals}", known, f"known here: {', '.join(known)}")
            )
        if key in seen:
            raise MisfitError(f"{key} stands here twice", hint="keep one of the two")
        seen.add(key)
        yield key, value
