# SPDX-License-Identifier: Apache-2.0
"""What `xdpchain show dsr_agent` prints, the metrics, and the warnings."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

import attrs
from xdpchain import Maps, Metric, Table

from xdpchain_dsr_agent import flows
from xdpchain_dsr_agent.config import DsrAgentConfig, Service
from xdpchain_dsr_agent.handler import places
from xdpchain_dsr_agent.shape import shape_of
from xdpchain_dsr_agent.tables import STATS_FIELDS

FULL = 0.9
"""the share of a table that is worth a warning"""


@attrs.frozen
class Served:
    """A service with its live flows, those that call its workload's port directly, and its counts in the order of `struct dsr_stats`."""

    service: Service
    flows: int
    direct: int
    counts: Sequence[int]

    def count(self, name: str) -> int:
        """One of the counts."""
        return self.counts[STATS_FIELDS.index(name)]


def served(config: DsrAgentConfig, maps: Maps, counted: flows.Counted) -> Iterator[Served]:
    """All services in the order of the config."""
    place_of, stats = places(maps), maps["dsr_stats"]
    words = array("Q")
    words.frombytes(stats.blob())
    width = len(STATS_FIELDS)
    per_place = len(words) // stats.schema.capacity
    for service in config.all_services:
        place = place_of.get(shape_of(service).id, 0)
        its = words[place * per_place : (place + 1) * per_place]
        counts = [sum(its[at::width]) for at in range(width)]
        yield Served(service, counted.through[place], counted.direct[place], counts)


def tables(config: DsrAgentConfig, maps: Maps) -> Sequence[Table]:
    """Services with what they count, and how full the tables of flows are."""
    counted = flows.count(maps)
    columns = (
        "service",
        "workload",
        "flows",
        "direct",
        "new flows",
        "in packets",
        "in bytes",
        "out packets",
        "out bytes",
        "guessed",
        "conflicts",
    )
    counters = ("new flows", "in packets", "in bytes", "out packets", "out bytes")
    names = ("flows", "in_packets", "in_bytes", "out_packets", "out_bytes", "guessed", "conflicts")
    rows = [(str(one.service), one.service.back, one.flows, one.direct, *map(one.count, names)) for one in served(config, maps, counted)]
    standing = [
        (what, counted.tables[name], len(maps[name]), maps[name].schema.capacity)
        for what, name in (("both sides have spoken", "dsr_flows"), ("one side has spoken", "dsr_opening"))
    ]
    return (
        Table(columns, rows, "services", counters=counters, key=2),
        Table(("flows", "live", "entries", "of"), standing, "tables of flows"),
    )


def metrics(config: DsrAgentConfig, maps: Maps) -> Iterator[Metric]:
    """What is counted by service, and the flows that live."""
    counted = flows.count(maps)
    each = [({"vip": str(one.service), "workload": one.service.back}, one) for one in served(config, maps, counted)]
    for name, what in (("packets", "Packets of a service"), ("bytes", "Bytes of IP packets of a service, without what was around them")):
        samples = [({**labels, "direction": way}, float(one.count(f"{way}_{name}"))) for labels, one in each for way in ("in", "out")]
        yield Metric(f"xdpchain_dsr_{name}_total", "counter", f"{what}, from clients (in) and to them (out).", samples)
    live = [
        ({**labels, "kind": kind}, float(getattr(one, field)))
        for labels, one in each
        for kind, field in (("vip", "flows"), ("direct", "direct"))
    ]
    yield Metric("xdpchain_dsr_flows", "gauge", "Live flows through the VIP, and to the workload's own address (direct).", live)
    for name, field, what in (
        ("new_flows", "flows", "Flows that began, or were met in the middle."),
        ("guessed", "guessed", "Packets of no known flow that left with the VIP by rule."),
        ("conflicts", "conflicts", "Packets of a flow whose place another live one has."),
    ):
        yield Metric(f"xdpchain_dsr_{name}_total", "counter", what, [(labels, float(one.count(field))) for labels, one in each])
    standing = [({"table": name.removeprefix("dsr_")}, float(alive)) for name, alive in counted.tables.items()]
    yield Metric("xdpchain_dsr_table_flows", "gauge", "Live flows by table: both sides have spoken (flows), or one (opening).", standing)


def warnings(maps: Maps) -> Iterator[str]:
    """What will soon be forgotten. Entries of flows that are over are in the tables, too: only when these are full are those that live counted."""
    if not any(len(maps[name]) > FULL * maps[name].schema.capacity for name in flows.TABLES):
        return
    alive = flows.count(maps).tables
    room = maps["dsr_flows"].schema.capacity
    if alive["dsr_flows"] > FULL * room:
        yield f"the flow table holds {alive['dsr_flows']} live flows of {room}: beyond that the least recently used are forgotten; raise flow_table"
    room = maps["dsr_opening"].schema.capacity
    if alive["dsr_opening"] > FULL * room:
        yield (
            f"in {alive['dsr_opening']} flows (of {room} that there is room for) only one side has spoken: a flood, or answers that take another way; "
            "beyond that the oldest of these are forgotten, established ones are not"
        )
