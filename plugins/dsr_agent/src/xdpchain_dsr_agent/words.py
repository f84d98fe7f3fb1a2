# SPDX-License-Identifier: Apache-2.0
"""The words of one line in the file of services. Each function raises `MisfitError` with what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

from xdpchain import IPAddress
from xdpchain.config import MisfitError, nearest, parse_address, quoted

from xdpchain_dsr_agent.service import MAX_ENDPOINTS, Service

MAX_PORT = 65535
_FORM = "vip ADDRESS:PORT PROTOCOL WORKLOAD[:PORT], for example: vip 10.200.1.1:443 tcp 10.1.0.5:8443"
_KEYS = ("endpoint", "unknown")
_PORT = re.compile(r"[0-9]{1,5}")


@lru_cache(maxsize=4096)  # the same VIP is in many lines
def _address(text: str) -> IPAddress:
    """An address; the C library's parser knows a right one at a tenth of the time, the other says what is wrong."""
    try:
        return IPv6Address(inet_pton(AF_INET6, text)) if ":" in text else IPv4Address(inet_pton(AF_INET, text))
    except (OSError, ValueError):
        return parse_address(text)


def service(words: Sequence[str]) -> Service:
    """`vip ADDRESS:PORT PROTOCOL WORKLOAD[:PORT] [endpoint=ADDRESS,...] [unknown=POLICY]`."""
    if words[0] != "vip":
        raise MisfitError(f"{quoted(words[0])} begins no line", hint=_FORM)
    if len(words) < 4:
        raise MisfitError("a service is cut short", hint=_FORM)
    vip, port = place(words[1])
    if port is None:
        raise MisfitError(f"{quoted(words[1])} has no port", hint=f"{_bracketed(words[1])}:443, or {_bracketed(words[1])}:0 for all ports")
    workload, backend_port = place(words[3])
    fields: dict[str, Any] = {"vip": vip, "port": port, "protocol": one_of("protocol", words[2], ("tcp", "udp")), "workload": workload}
    if backend_port == 0:
        raise MisfitError("port of the workload must be at least 1, not 0", hint="leave it out where it is the one that clients call")
    for key, value in _settings(words[4:]):
        fields[key] = _endpoints(value) if key == "endpoint" else one_of("policy", value, ("snat", "direct", "learn"))
    return Service(**fields, backend_port=backend_port)


def one_of(name: str, word: str, known: Sequence[str]) -> str:
    """A word that is known."""
    if word not in known:
        raise MisfitError(f"{quoted(word)} is no known {name}", hint=nearest(word, known, f"known: {', '.join(known)}"))
    return word


def place(word: str) -> tuple[IPAddress, int | None]:
    """An address and a port, None where it stands alone; an IPv6 address with a port stands in brackets."""
    address, colon, port = word.rpartition(":")
    if word.startswith("["):
        bare, bracket, rest = word[1:].partition("]")
        if not bracket or (rest and rest[0] != ":"):
            raise MisfitError(f"{quoted(word)} is not an address with a port", hint="for example: [2001:db8::1]:443")
        return _address(bare), _port(rest[1:]) if rest else None
    if not colon or ":" in address:
        return _address(word), None
    return _address(address), _port(port)


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > MAX_PORT:
        raise MisfitError(
            f"{quoted(text)} is not a port", hint=f"ports go from 0 to {MAX_PORT}; an IPv6 address with a port stands in brackets"
        )
    return int(text)


def _bracketed(word: str) -> str:
    return f"[{word.strip('[]')}]" if ":" in word else word


def _endpoints(value: str) -> tuple[IPAddress, ...]:
    found = tuple(_address(word) for word in value.split(","))
    if len(found) > MAX_ENDPOINTS:
        raise MisfitError(f"{len(found)} endpoints are too many", hint=f"a service has at most {MAX_ENDPOINTS}")
    return found


def _settings(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    """`key=value`, each key at most once."""
    seen = set[str]()
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in _KEYS:
            known = [f"{name}=" for name in _KEYS]
            raise MisfitError(
                f"{quoted(word)} is no known word here", hint=nearest(f"{key}{equals}", known, f"known here: {', '.join(known)}")
            )
        if key in seen:
            raise MisfitError(f"{key} stands here twice", hint="keep one of the two; several endpoints stand in a list: endpoint=A,B")
        seen.add(key)
        yield key, value
