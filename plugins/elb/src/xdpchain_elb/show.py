# SPDX-License-Identifier: Apache-2.0
"""What `xdpchain show elb` prints, the metrics, and the warnings: the VIPs of a config with what the tables say about them."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence

import attrs
from xdpchain import IPAddress, Maps, Metric, Table

from xdpchain_elb.config import ElbConfig, Vip
from xdpchain_elb.had import find
from xdpchain_elb.hops import destinations, hops_of
from xdpchain_elb.shape import DRAINING, GONE, UP, shape_of

STATES = {GONE: "down", UP: "up", DRAINING: "drain"}
NAMED = 3
"""how many backends a warning names"""
FULL = 0.9
"""the share of the flow table that is worth a warning"""

_NO_COUNTS = (0, 0, 0)


@attrs.frozen
class Served:
    """One backend of a VIP. `route` is the source route whose it is, if any; `counts` are packets, bytes and new flows."""

    address: IPAddress
    route: str
    weight: int
    state: str
    has_hop: bool
    counts: tuple[int, int, int]

    @property
    def name(self) -> str:
        """Its address, and the source route."""
        return f"{self.address} ({self.route})" if self.route else str(self.address)


@attrs.frozen
class Service:
    """One VIP. `moving` and `holding` count slots of all of its pools."""

    vip: Vip
    served: Sequence[Served]
    moving: int
    holding: int

    @property
    def name(self) -> str:
        """`"10.200.1.1:443 tcp"`."""
        return str(self.vip)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Packets, bytes and new flows of all of its backends."""
        packets, bytes_, flows = (sum(column) for column in zip(_NO_COUNTS, *(one.counts for one in self.served), strict=True))
        return packets, bytes_, flows


def services(config: ElbConfig, maps: Maps) -> Iterator[Service]:
    """All VIPs in the order of the config."""
    numbers = {name: number for number, (name, *_) in enumerate(struct.iter_unpack("=3Q", maps["elb_pools"].blob())) if name}
    progress = list(struct.iter_unpack("=2I", maps["elb_progress"].blob()))
    shapes = [shape_of(vip) for vip in config.all_vips]
    pools = [(numbers[pool.name], pool) for shape in shapes for pool in shape.pools if pool.name in numbers]
    members = find(maps, ((number, seat.packed) for number, pool in pools for seat in pool.seats))
    known = known_hops(config, maps)
    states, stats = maps["elb_states"].blob(), _Stats(maps)
    for shape in shapes:
        served: list[Served] = []
        moving = holding = 0
        for pool, (_, backends) in zip(shape.pools, shape.vip.pools, strict=True):
            number = numbers.get(pool.name, 0)
            moving += progress[number][0]
            holding += progress[number][1]
            for seat, backend in zip(pool.seats, backends, strict=True):
                member = members.get((number, seat.packed), 0)
                state = STATES.get(states[4 * member] & 3, "?")
                served.append(Served(seat.address, pool.route, backend.weight, state, seat.packed in known, stats.of(member)))
        yield Service(shape.vip, served, moving, holding)


def known_hops(config: ElbConfig, maps: Maps) -> set[bytes]:
    """The backends whose next hop is known, by their 16 bytes."""
    there = hops_of(maps)
    return {packed for (_, packed), number in find(maps, ((0, packed) for packed in destinations(config))).items() if there[number]}


def tables(config: ElbConfig, maps: Maps) -> Sequence[Table]:
    """VIPs with their backends below, and how the tables stand."""
    rows: list[tuple[object, ...]] = []
    with_hop: dict[IPAddress, bool] = {}
    moving = holding = 0
    for service in services(config, maps):
        forward = config.encapsulation_of(service.vip)
        name = service.name
        rows.append((name, None, " ".join((config.ring, *service.vip.options)), None, None, None, *service.counts))
        rows += [
            (name, one.name, forward, one.weight, one.state, "ok" if one.has_hop else "unknown", *one.counts) for one in service.served
        ]
        with_hop |= {one.address: one.has_hop for one in service.served}
        moving += service.moving
        holding += service.holding
    columns = ("service", "backend", "forward", "weight", "state", "next hop", "packets", "bytes", "new flows")
    flows = maps["elb_flows"]
    standing = [
        ("moving slots", moving, None),
        ("of these holding", holding, None),
        ("remembered flows", len(flows), flows.schema.capacity),
        ("backends with a known next hop", sum(with_hop.values()), len(with_hop)),
    ]
    return (
        Table(columns, rows, "services", counters=("packets", "bytes", "new flows"), key=2),
        Table(("what", "now", "of"), standing, "tracking and next hops"),
    )


def metrics(config: ElbConfig, maps: Maps) -> Iterator[Metric]:
    """What is counted by VIP and backend, and how the slots and the flow table stand."""
    all_services = list(services(config, maps))
    each = [({"vip": name, "backend": one.name}, one) for service in all_services for name in (service.name,) for one in service.served]
    for at, (name, what) in enumerate((("packets", "Packets"), ("bytes", "Bytes of frames"), ("new_flows", "SYNs"))):
        samples = [(labels, float(one.counts[at])) for labels, one in each]
        yield Metric(f"xdpchain_elb_{name}_total", "counter", f"{what} that were sent to a backend.", samples)
    weights = [(labels, float(one.weight)) for labels, one in each]
    yield Metric("xdpchain_elb_backend_weight", "gauge", "The weight of a backend as it is configured.", weights)
    states = [({**labels, "state": one.state}, 1.0) for labels, one in each]
    yield Metric("xdpchain_elb_backend_state", "gauge", "1 for the state that a backend is in: up, drain or down.", states)
    moving = [({"vip": service.name}, float(service.moving)) for service in all_services]
    yield Metric("xdpchain_elb_moving_slots", "gauge", "Slots in which flows may have been remembered after a change.", moving)
    holding = [({"vip": service.name}, float(service.holding)) for service in all_services]
    yield Metric("xdpchain_elb_holding_slots", "gauge", "Moving slots whose flows of before the change are still followed.", holding)
    yield Metric("xdpchain_elb_remembered_flows", "gauge", "Flows in the flow table.", [({}, float(len(maps["elb_flows"])))])


def warnings(config: ElbConfig, maps: Maps) -> Iterator[str]:
    """What keeps packets from their backends, or soon will."""
    known = known_hops(config, maps)
    lost = [address for packed, address in destinations(config).items() if packed not in known]
    if lost:
        names = ", ".join(map(str, lost[:NAMED])) + (", ..." if len(lost) > NAMED else "")
        count = "one backend" if len(lost) == 1 else f"{len(lost)} backends"
        yield f"the next hop of {count} is not known: packets for {names} are dropped"
    entries, capacity = len(maps["elb_flows"]), maps["elb_flows"].schema.capacity
    if entries > FULL * capacity:
        yield f"the flow table holds {entries} of {capacity} flows: beyond that the oldest are forgotten; raise flow_table"
    empty = [str(vip) for vip in config.all_vips if not any(seat.state == UP for pool in shape_of(vip).pools for seat in pool.seats)]
    if empty:
        names = ", ".join(empty[:NAMED]) + (", ..." if len(empty) > NAMED else "")
        yield f"no backend takes new flows of {names}"


class _Stats:
    """The counts of all members, in one read."""

    def __init__(self, maps: Maps) -> None:
        stats = maps["elb_stats"]
        self._words = array("Q")
        self._words.frombytes(stats.blob())
        self._per_member = len(self._words) // stats.schema.capacity

    def of(self, member: int) -> tuple[int, int, int]:
        """Packets, bytes and new flows on all CPUs."""
        words = self._words[member * self._per_member : (member + 1) * self._per_member]
        return sum(words[::3]), sum(words[1::3]), sum(words[2::3])
