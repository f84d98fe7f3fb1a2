# SPDX-License-Identifier: Apache-2.0
"""dscp, a function for xdpchain: marks what leaves an interface with a DSCP by port, and counts the TCP connections of each mark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from xdpchain import (
    Hook,
    KernelFunction,
    Map,
    MapKind,
    Maps,
    PortRange,
    Problem,
    Program,
    Put,
    Reason,
    Role,
    Table,
    Write,
    hookimpl,
    option,
    u8,
    u32,
    u64,
)

PORTS = 65_536
MARKS = 64
"""DSCP has six bits"""


@attrs.frozen(kw_only=True)
class Rule:
    """`[[function.dscp.rule]]`: the mark of some ports."""

    ports: tuple[PortRange, ...] = option(min=1, help="Ports of the services, whichever side of a connection they are on.")
    dscp: int = option(min=0, max=MARKS - 1, help="Their mark: 46 is expedited forwarding, 8 lower effort (CS1), 0 best effort.")


@attrs.frozen(kw_only=True)
class DscpConfig:
    """The keys of `[function.dscp]`."""

    rule: tuple[Rule, ...] = option(default=(), help="What is marked; everything else stays as it is.")


class Dscp(KernelFunction[DscpConfig]):
    """A program on the way out (TC), and one on a tracepoint, with maps in common."""

    api = 1
    name = "dscp"
    summary = "marks outgoing packets with a DSCP by port"
    source = Path(__file__).parent / "dscp.bpf.c"
    config = DscpConfig
    programs = (
        Program(Hook.TC_EGRESS, "dscp"),
        Program(Hook.TRACEPOINT, "dscp_state", event="sock:inet_sock_set_state"),
    )
    reasons = (
        Reason("marked", "the packet got the mark of its port"),
        Reason("kept", "the packet had the mark of its port already"),
    )

    def maps(self, config: DscpConfig) -> Sequence[Map]:
        """The rules, and the tracepoint's counters: a `stats` map, so the daemon exports them as metrics by itself."""
        return (
            Map(name="dscp_ports", kind=MapKind.ARRAY, key=u32, value=u8, capacity=PORTS, role=Role.CONFIG, help="DSCP + 1 by port"),
            Map(
                name="dscp_connections",
                kind=MapKind.PERCPU_ARRAY,
                key=u32,
                value=u64,
                capacity=MARKS,
                role=Role.STATS,
                help="TCP connections established, by DSCP",
            ),
        )

    def check(self, config: DscpConfig) -> Iterable[Problem]:
        """No port has two marks."""
        taken: dict[int, int] = {}
        for index, rule in enumerate(config.rule):
            for port in _ports(rule):
                first = taken.setdefault(port, index)
                if first != index:
                    yield Problem(("rule", index, "ports"), f"port {port} is in rule[{first}] already", "a port has one mark")
                    break

    def configure(self, old: DscpConfig | None, new: DscpConfig, maps: Maps) -> Iterable[Write]:
        """An array has all its keys, so a rule goes by writing 0 over it."""
        before, after = _marks(old), _marks(new)
        for port in sorted({*before, *after}):
            if before.get(port) != after.get(port):
                yield Put("dscp_ports", port, after.get(port, -1) + 1)

    def status(self, config: DscpConfig, maps: Maps) -> Sequence[Table]:
        """For `xdpchain show dscp`."""
        connections = dict(_connections(maps))
        ports = {mark: ", ".join(str(one) for rule in config.rule if rule.dscp == mark for one in rule.ports) for mark in _used(config)}
        return (Table(("DSCP", "ports", "connections"), [(mark, ports[mark], connections.get(mark, 0)) for mark in ports]),)


def _ports(rule: Rule) -> Iterable[int]:
    return (port for ports in rule.ports for port in range(ports.first, ports.last + 1))


def _marks(config: DscpConfig | None) -> Mapping[int, int]:
    return {port: rule.dscp for rule in config.rule for port in _ports(rule)} if config else {}


def _used(config: DscpConfig) -> list[int]:
    return sorted({rule.dscp for rule in config.rule})


def _connections(maps: Maps) -> list[tuple[int, int]]:
    """Marks that had a connection; a per-CPU map has one count for each CPU."""
    return [(mark, total) for mark, counts in maps["dscp_connections"].items() if (total := sum(counts))]


@hookimpl
def xdpchain_functions() -> Iterable[KernelFunction[Any]]:
    """What this plugin brings."""
    return [Dscp()]
