# SPDX-License-Identifier: Apache-2.0
"""Functions as plugins would define them; nothing here is ever compiled."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
from xdpchain.config import Duration, IPAddress, IPNetwork, MACAddress, Percent, Port, PortRange, duration, option
from xdpchain.errors import Problem
from xdpchain.function import API_VERSION, Hook, KernelFunction, Program


class Action(enum.StrEnum):
    DROP = "drop"
    RESET = "reset"
    COUNT = "count"


@attrs.frozen(kw_only=True)
class Rule:
    ports: tuple[PortRange, ...] = option(min=1, help="Destination ports.")
    rate: int = option(min=1, max=10_000_000, help="Connections in one window.")
    addresses: tuple[IPNetwork, ...] = option(default=(), help="Destinations; none: all.")
    action: Action = option(default=Action.DROP, help="What happens to the rest.")
    enforce: Percent = option(default=Percent(100), help="Share of the rest that the action is applied to.")
    ban: Duration | None = option(default=None, help="How long a source is shut out.")


@attrs.frozen(kw_only=True)
class LimitConfig:
    window: Duration = option(default=duration("1s"), min=duration("1ms"), max=duration("1h"), help="The window of all rules.")
    sources: int = option(default=65536, min=1, help="Sources remembered.")
    rule: tuple[Rule, ...] = option(default=(), help="The rules.")


class Limit(KernelFunction[LimitConfig]):
    api = API_VERSION
    name = "limit"
    summary = "Limits connections."
    source = Path("limit.bpf.c")
    config = LimitConfig
    programs = (Program(Hook.XDP, "limit"),)

    def check(self, config: LimitConfig) -> Iterable[Problem]:
        taken: dict[PortRange, int] = {}
        for index, rule in enumerate(config.rule):
            for ports in rule.ports:
                if ports in taken:
                    yield Problem(("rule", index, "ports"), f"port {ports} is in rule[{taken[ports]}] already", "put both in one rule")
                taken[ports] = index


def _even(_: Any, attribute: attrs.Attribute[Any], value: int) -> None:
    if value % 2:
        raise ValueError(f"must be even, not {value}")


@attrs.frozen(kw_only=True)
class MarkConfig:
    level: int = option(default=2, min=0, max=6, validator=_even, help="The mark.")
    quiet: bool = option(default=False, help="Do not count.")
    ratio: float = option(default=0.5, help="A share.")
    title: str = option(default="", max=8, help="A label.")
    next_hop: MACAddress | Literal["auto"] = option(default="auto", help="Where packets go | who takes them.")
    weights: Mapping[str, int] = option(default=attrs.Factory(dict), help="Weights by name.")


class Mark(KernelFunction[MarkConfig]):
    api = API_VERSION
    name = "mark"
    summary = "Marks packets."
    source = Path("mark.bpf.c")
    config = MarkConfig
    programs = (Program(Hook.TC_EGRESS, "mark"),)


@attrs.frozen(kw_only=True)
class Server:
    address: IPAddress = option(help="Where it is.")
    weight: int = option(default=100, min=0, help="Its share.")


@attrs.frozen(kw_only=True)
class Service:
    address: IPAddress = option(help="What clients connect to.")
    port: Port = option(default=Port(0), help="0: all.")
    protocol: Literal["tcp", "udp"] = option(default="tcp", help="Its protocol.")
    server: tuple[Server, ...] = option(default=(), help="Who serves it.")


@attrs.frozen(kw_only=True)
class SpreadConfig:
    source: IPAddress = option(help="Outer source.")
    service: tuple[Service, ...] = option(default=(), help="The services.")


class Spread(KernelFunction[SpreadConfig]):
    api = API_VERSION
    name = "spread"
    summary = "Spreads connections over servers."
    source = Path("spread.bpf.c")
    config = SpreadConfig
    programs = (Program(Hook.XDP, "spread"),)


FUNCTIONS: Mapping[str, KernelFunction[Any]] = {function.name: function for function in (Limit(), Mark(), Spread())}
