# SPDX-License-Identifier: Apache-2.0
"""The function: its programs, reasons and maps, its config handler, its sweep, and what it shows of itself."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
from xdpchain import Hook, KernelFunction, Map, Maps, Metric, Problem, Program, Reason, Sockets, Table, Write

from xdpchain_maxconn import limits, sweep, tables
from xdpchain_maxconn.config import Limit, MaxconnConfig, problems
from xdpchain_maxconn.tables import STATS_FIELDS, established, reserved

_NEARLY_FULL = 0.9


@attrs.frozen
class State:
    """One limit as it is now; `stats` by the names of `STATS_FIELDS`."""

    limit: Limit
    open: int
    half_open: int
    stats: Mapping[str, int]


class Maxconn(KernelFunction[MaxconnConfig]):
    """Limits how many TCP connections are open at a time."""

    api = 1
    name = "maxconn"
    summary = "limits how many TCP connections are open at a time, by destination, source and node"
    source = Path(__file__).parent / "bpf" / "maxconn.bpf.c"
    config = MaxconnConfig
    programs = (
        Program(Hook.XDP, "maxconn"),
        Program(
            Hook.TRACEPOINT,
            "mc_state",
            event="sock:inet_sock_set_state",
            fields=("skaddr", "oldstate", "newstate", "sport", "dport", "protocol", "saddr_v6", "daddr_v6"),
        ),
        Program(Hook.ROUTINE, "mc_repair"),
    )
    offsets = {"MC_SOCK_NET": "sock.__sk_common.skc_net", "MC_NET_COOKIE": "net.net_cookie"}  # noqa: RUF012 - as the base class has it
    reasons = (
        Reason("admitted", "a new connection within its limits"),
        Reason("sent_again", "a SYN of a connection that has its reservation already"),
        Reason("would_refuse", "a new connection over a limit that lets it in all the same: action count, enforce, allow"),
        Reason("limit_reached", "a new connection to where as many are open as may be"),
        Reason("source_limit_reached", "a new connection of a source that has as many open as it may"),
        Reason("no_room", "a new connection that other CPUs kept from making a reservation; taken for one over the limit"),
        Reason("unreadable", "what could hide a new connection: a fragment without its TCP header, more IPv6 headers than are read"),
    )

    def maps(self, config: MaxconnConfig) -> Sequence[Map]:
        return tables.maps(config)

    def check(self, config: MaxconnConfig) -> Iterable[Problem]:
        return problems(config)

    def configure(self, old: MaxconnConfig | None, new: MaxconnConfig, maps: Maps) -> Iterable[Write]:
        return limits.writes(old, new, maps)

    def sweep(self, config: MaxconnConfig, sockets: Sockets, maps: Maps) -> Iterable[Write]:
        return sweep.writes(config, sockets, maps)

    def warnings(self, config: MaxconnConfig, maps: Maps) -> Iterable[str]:
        states = list(_states(config, maps))
        if len(maps["mc_flows"]) >= _NEARLY_FULL * config.connections or any(state.stats["full"] for state in states):
            yield f"there is room for {config.connections} connections (connections), and it is full or was: what is beyond is not counted"
        if any(limit.source_max for limit in config.limit) and len(maps["mc_sources"]) >= _NEARLY_FULL * config.sources:
            yield f"there is room for {config.sources} sources (sources), nearly all taken: others are limited by `max` only"

    def metrics(self, config: MaxconnConfig, maps: Maps) -> Iterable[Metric]:
        states = [({"limit": state.limit.show()}, state) for state in _states(config, maps)]
        now = [({**label, "state": "open"}, state.open) for label, state in states]
        now += [({**label, "state": "half_open"}, state.half_open) for label, state in states]
        yield Metric("xdpchain_maxconn_connections", "gauge", "TCP connections that there are now.", now)
        most = [(label, state.limit.max) for label, state in states if state.limit.max is not None]
        yield Metric("xdpchain_maxconn_max", "gauge", "How many there may be.", most)
        for name, text, fields in _COUNTERS:
            samples = [({**label, "kind": field}, state.stats[field]) for label, state in states for field in fields]
            yield Metric(name, "counter", text, samples)

    def status(self, config: MaxconnConfig, maps: Maps) -> Sequence[Table]:
        rows = [
            (
                state.limit.show(),
                state.open,
                state.half_open,
                state.limit.max,
                state.limit.source_max,
                *(state.stats[name] for name in ("admitted", "refused", "source_refused", "excused")),
                state.stats["found"] + state.stats["lost"] + state.stats["corrected"],
            )
            for state in _states(config, maps)
        ]
        columns = ("limit", "open", "half-open", "max", "source max", "admitted", "refused", "by source", "excused", "drift")
        return (Table(columns, rows, "TCP connections", counters=("admitted", "refused", "by source", "excused", "drift")),)


_COUNTERS = (
    ("xdpchain_maxconn_syns_total", "New TCP connections by what became of them.", ("admitted", "refused", "source_refused", "excused")),
    ("xdpchain_maxconn_drift_total", "Differences between counts and sockets that sweeps have repaired.", ("found", "lost", "corrected")),
    ("xdpchain_maxconn_uncounted_total", "Connections that are not counted, for there is no room.", ("full",)),
)


def _states(config: MaxconnConfig, maps: Maps) -> Iterator[State]:
    # the clock of the epochs: bpf_ktime_get_ns() is CLOCK_MONOTONIC
    now_ns = time.monotonic_ns()
    places = limits.places(maps)
    for limit in config.limit:
        place = places[limits.limit_id(limit)]
        entry, stats = maps["mc_limits"].get(place), maps["mc_stats"].get(place)
        if entry is None or stats is None:
            raise LookupError(f"place {place} is missing")
        total = {name: sum(one[name] for one in stats) for name in STATS_FIELDS}
        yield State(limit, established(entry["count"]), reserved(entry["count"], now_ns), total)
