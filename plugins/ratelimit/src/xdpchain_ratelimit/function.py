# SPDX-License-Identifier: Apache-2.0
"""The function: its programs, reasons and maps, its config handler, and what it shows of itself."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs
from xdpchain import (
    Hook,
    KernelFunction,
    Map,
    MapKind,
    Maps,
    Metric,
    Problem,
    Program,
    Reason,
    Role,
    Struct,
    Table,
    Write,
    u32,
    u64,
)
from xdpchain.config import show_duration
from xdpchain.schema import Type

from xdpchain_ratelimit import ports
from xdpchain_ratelimit.config import RatelimitConfig, problems
from xdpchain_ratelimit.limits import PLACES, window_id, windows, writes
from xdpchain_ratelimit.window import Window

RULE = Struct("rl_rule", {"window": u64, "rate": u64, "window_ns": u64})
WINDOW = Struct("rl_window", {"id": u64, "word": u64})
STATS = Struct("rl_stats", {"admitted": u64, "limited": u64})


@attrs.frozen
class State:
    """One limit as it is now. `used` is how much of its rate the last window took, `admitted` and `limited` the SYNs so far."""

    ports: str
    rate: int
    window_ns: int
    used: float
    admitted: int
    limited: int


class Ratelimit(KernelFunction[RatelimitConfig]):
    """Limits new TCP connections by destination port."""

    api = 1
    name = "ratelimit"
    summary = "limits new TCP connections by port, in a sliding window that is exact across CPUs"
    source = Path(__file__).with_name("ratelimit.bpf.c")
    config = RatelimitConfig
    programs = (Program(Hook.XDP, "ratelimit"),)
    reasons = (
        Reason("admitted", "a new connection within the limit of its port"),
        Reason("rate_exceeded", "a new connection over the limit of its port"),
        Reason("contended", "a new connection that other CPUs overtook too often to count it; taken for one over the limit"),
        Reason("unreadable", "what could hide a new connection: an IPv4 fragment without its TCP header, more IPv6 headers than are read"),
        Reason("no_window", "a new connection to a port whose window is missing: never, unless somebody writes to the maps"),
    )

    def maps(self, config: RatelimitConfig) -> Sequence[Map]:
        def array(name: str, value: Type, capacity: int, role: Role, help: str, kind: MapKind = MapKind.ARRAY) -> Map:
            return Map(name=name, kind=kind, key=u32, value=value, capacity=capacity, role=role, help=help)

        return (
            # 32 bits, since the kernel may copy fewer byte by byte
            array("rl_ports", u32, 65536, Role.CONFIG, "from each port to its limit"),
            array("rl_rules", RULE, PLACES, Role.CONFIG, "the limits"),
            array("rl_windows", WINDOW, PLACES, Role.STATE, "the window of each limit: number, previous and current count in one word"),
            # kept like `stats`, but counted by `metrics`: with the ports for a label, not the place
            array("rl_stats", STATS, PLACES, Role.STATE, "new connections of each limit", MapKind.PERCPU_ARRAY),
        )

    def check(self, config: RatelimitConfig) -> Iterable[Problem]:
        return problems(config)

    def configure(self, old: RatelimitConfig | None, new: RatelimitConfig, maps: Maps) -> Iterable[Write]:
        return writes(old, new, maps)

    def metrics(self, config: RatelimitConfig, maps: Maps) -> Iterable[Metric]:
        states = [(_labels(state), state) for state in _states(config, maps)]
        syns = [({**labels, "result": "admitted"}, state.admitted) for labels, state in states]
        syns += [({**labels, "result": "limited"}, state.limited) for labels, state in states]
        yield Metric("xdpchain_ratelimit_connections_total", "counter", "New TCP connections by what the limit of their port said.", syns)
        used = [(labels, state.used / state.rate) for labels, state in states]
        yield Metric("xdpchain_ratelimit_used_ratio", "gauge", "How much of a limit is used now.", used)

    def status(self, config: RatelimitConfig, maps: Maps) -> Sequence[Table]:
        rows = [
            (state.ports, state.rate, show_duration(state.window_ns), round(state.used, 1), state.admitted, state.limited)
            for state in _states(config, maps)
        ]
        return (Table(("ports", "rate", "window", "used now", "admitted", "limited"), rows, "new TCP connections"),)


def _states(config: RatelimitConfig, maps: Maps) -> Iterator[State]:
    # the clock of the windows: bpf_ktime_get_ns() is CLOCK_MONOTONIC
    now_ns = time.monotonic_ns()
    places = windows(maps)
    for rule in config.rule:
        place, window_ns = places[window_id(config, rule)], config.window_of(rule)
        window, counts = maps["rl_windows"].get(place), maps["rl_stats"].get(place)
        if window is None or counts is None:
            raise LookupError(f"place {place} is missing")
        yield State(
            ports.show(ports.each(rule.ports)),
            rule.rate,
            window_ns,
            Window.from_word(window["word"]).used(window_ns, now_ns),
            sum(count["admitted"] for count in counts),
            sum(count["limited"] for count in counts),
        )


def _labels(state: State) -> dict[str, str]:
    return {"ports": state.ports, "window": show_duration(state.window_ns)}
