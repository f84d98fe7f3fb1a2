# SPDX-License-Identifier: Apache-2.0
"""What `xdpchain show ratelimit` prints, the metrics, and the warnings."""

from __future__ import annotations

import heapq
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv6Address
from typing import Any

import attrs
from xdpchain import Maps, Metric, Put, Table, Write
from xdpchain.config import show_duration

from xdpchain_ratelimit.config import RatelimitConfig, Rule
from xdpchain_ratelimit.limits import windows
from xdpchain_ratelimit.shape import Limit, of_source, shared, show_destination, show_ports, source_id, window_id
from xdpchain_ratelimit.tables import OUTCOMES, WAYS

TOP = 10
"""how many sources are shown"""
LIMITED = ("denied", "banned", "source_exceeded", "rate_exceeded", "contended")
"""the outcomes that are refusals"""
_SECOND_NS = 1_000_000_000
_SET, _SENDER = struct.Struct(f"={WAYS}Q{WAYS}I4x"), struct.Struct("=Q16s2Q")


@attrs.frozen
class State:
    """One rule as it is now. `used` is how much of its rate (or burst) is used, `counts` are packets by outcome so far."""

    rule: Rule
    limit: Limit
    used: float
    counts: Mapping[str, int]

    @property
    def limited(self) -> int:
        """What was refused, whatever became of it."""
        return sum(self.counts[name] for name in LIMITED)

    @property
    def labels(self) -> dict[str, str]:
        """What the metrics of a rule are told apart by."""
        labels = {"ports": show_ports(self.rule), "window": show_duration(self.limit.window_ns)}
        if self.rule.destination:
            labels["destination"] = show_destination(self.rule)
        if self.rule.protocol != "tcp" or self.rule.unit != "packets":
            labels |= {"protocol": self.rule.protocol, "unit": self.rule.unit}
        return labels


def states(config: RatelimitConfig, maps: Maps) -> Iterator[State]:
    """All rules, in the order of the config."""
    # the clock of the windows: bpf_ktime_get_ns() is CLOCK_MONOTONIC
    now_ns = time.monotonic_ns()
    places = windows(maps)
    for rule in config.rule:
        place = places[window_id(config, rule)]
        window, counts = maps["rl_windows"].get(place), maps["rl_stats"].get(place)
        if window is None or counts is None:
            raise LookupError(f"place {place} is missing")
        limit = shared(config, rule)
        totals = {name: sum(count[name] for count in counts) for name in OUTCOMES}
        yield State(rule, limit, limit.used(window["word"], now_ns), totals)


def tables(config: RatelimitConfig, maps: Maps) -> Sequence[Table]:
    """The rules, why packets were refused where it was not the rate alone, and the sources that are refused most."""
    all_states = list(states(config, maps))
    columns = ("destination", "ports", "protocol", "rate", "window", "burst", "used now", "admitted", "limited")
    rows = [_row(state) for state in all_states]
    shown = [Table(columns, rows, "limits", counters=("admitted", "limited"), key=6)]
    others = tuple(name for name in OUTCOMES if name != "admitted")
    reasons = [
        (show_destination(state.rule), show_ports(state.rule), state.rule.protocol, name, state.counts[name])
        for state in all_states
        for name in others
        if state.counts[name]
    ]
    if reasons:
        shown.append(Table(("destination", "ports", "protocol", "why", "packets"), reasons, "why", counters=("packets",), key=4))
    if any(rule.per_source for rule in config.rule):
        shown.append(_sources(config, maps))
    return shown


def _row(state: State) -> tuple[Any, ...]:
    rule, limit = state.rule, state.limit
    protocol = rule.protocol if rule.unit == "packets" else f"{rule.protocol}, bytes"
    window = show_duration(limit.window_ns)
    counts = (state.counts["admitted"], state.limited)
    return (show_destination(rule), show_ports(rule), protocol, limit.rate, window, limit.burst, round(state.used, 2), *counts)


def _sources(config: RatelimitConfig, maps: Maps) -> Table:
    """Who is banned, then who uses most of his limit now, then who was refused most."""
    now_ns = time.monotonic_ns()
    known = {
        source_id(config, rule, rule.per_source): (rule, rule.per_source, of_source(config, rule, rule.per_source))
        for rule in config.rule
        if rule.per_source
    }
    found: list[tuple[tuple[int, float, int], int, bytes]] = []
    for word, (id_, address, banned_until, refused) in _senders(maps):
        if id_ in known:
            limit = known[id_][2]
            found.append(((max(0, banned_until - now_ns), limit.used(word, now_ns) / limit.most, refused), id_, address))
    columns = ("source", "destination", "ports", "protocol", "used now", "of", "banned for", "refused")
    rows = []
    for (banned_ns, used, refused), id_, address in heapq.nlargest(TOP, found):
        rule, source, limit = known[id_]
        name = show_source(address, source.ipv4, source.ipv6)
        where = (show_destination(rule), show_ports(rule), rule.protocol)
        rows.append(
            (name, *where, round(used * limit.most, 2), limit.most, f"{banned_ns / _SECOND_NS:.1f}s" if banned_ns else None, refused)
        )
    return Table(columns, rows, f"top sources of {len(found)}", counters=("refused",), key=4)


def _senders(maps: Maps) -> Iterator[tuple[int, tuple[int, bytes, int, int]]]:
    """The words of all sources, and who they are."""
    senders = list(_SENDER.iter_unpack(maps["rl_senders"].blob()))
    for number, columns in enumerate(_SET.iter_unpack(maps["rl_sources"].blob())):
        for way, (word, tag) in enumerate(zip(columns[:WAYS], columns[WAYS:], strict=True)):
            if tag:
                yield word, senders[WAYS * number + way]


def show_source(address: bytes, ipv4: int, ipv6: int) -> str:
    """A key of `rl_sources` as a prefix."""
    whole = IPv6Address(address)
    if whole.ipv4_mapped is not None:
        return str(whole.ipv4_mapped) if ipv4 == 32 else f"{whole.ipv4_mapped}/{ipv4}"
    return str(whole) if ipv6 == 128 else f"{whole}/{ipv6}"


def metrics(config: RatelimitConfig, maps: Maps) -> Iterator[Metric]:
    """What each rule has answered, and how much of its rate is used."""
    all_states = [(state.labels, state) for state in states(config, maps)]
    results = [({**labels, "result": "admitted"}, state.counts["admitted"]) for labels, state in all_states]
    results += [({**labels, "result": "limited"}, state.limited) for labels, state in all_states]
    yield Metric("xdpchain_ratelimit_connections_total", "counter", "New TCP connections, or packets of other rules.", results)
    why = [({**labels, "reason": name}, state.counts[name]) for labels, state in all_states for name in OUTCOMES if name != "admitted"]
    yield Metric("xdpchain_ratelimit_outcomes_total", "counter", "Packets by reason, and what became of those that were refused.", why)
    used = [(labels, state.used / state.limit.most) for labels, state in all_states]
    yield Metric("xdpchain_ratelimit_used_ratio", "gauge", "How much of the rate is used now; above 1 after it was lowered.", used)


def pressure(config: RatelimitConfig, maps: Maps) -> Iterator[Write]:
    """How fast sources lose their places, from second to second."""
    if not any(rule.per_source for rule in config.rule):
        return
    now_ns, before = time.monotonic_ns(), maps["rl_pressure"].get(0)
    evicted = sum(state.counts["evicted"] for state in states(config, maps))
    seconds = (now_ns - before["at_ns"]) / _SECOND_NS if before and before["at_ns"] else 0
    per_second = max(0, int((evicted - before["evicted"]) / seconds)) if before and seconds else 0
    yield Put("rl_pressure", 0, {"evicted": evicted, "at_ns": now_ns, "per_second": per_second})


def warnings(config: RatelimitConfig, maps: Maps) -> Iterator[str]:
    """Sources that lose their places while it matters, and answers that could not be given."""
    now = maps["rl_pressure"].get(0)
    if now and now["per_second"]:
        yield (
            f"the table of sources is full: {now['per_second']} a second are forgotten before their time, and begin anew; "
            "the limits that all share hold (see `sources`)"
        )
    for state in states(config, maps):
        if state.rule.action == "syn-cookie" and state.counts["no_answer"]:
            yield (
                f"{state.counts['no_answer']} SYNs to {show_destination(state.rule)} port {show_ports(state.rule)} got no cookie and were dropped: "
                "the connections must end on this host, with net.ipv4.tcp_syncookies = 2"
            )
