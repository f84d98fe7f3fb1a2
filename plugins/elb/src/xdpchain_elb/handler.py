# SPDX-License-Identifier: Apache-2.0
"""
The config handler: the writes that lead the tables from whatever they hold to a config.

Packets may see any prefix of the writes, and a daemon may be killed between any two of them. So what is pointed to is complete before something
points there, and goes after nothing does; a number is in the directory before anything is kept under it; and the hash of a ring's content is taken away
before anything of its pool changes, and comes back when the ring is the new one. What a killed predecessor left half done then looks like any other
difference.

VIPs that are gone go first, then those that change one after the other, those that shrink first, so that the numbers of old members serve new ones. New
VIPs come last, all at once, table by table.
"""

from __future__ import annotations

from collections.abc import Iterator

from xdpchain import Maps, NextHops, Put, Write

from xdpchain_elb.change import Change
from xdpchain_elb.coming import in_order, lead
from xdpchain_elb.config import ElbConfig
from xdpchain_elb.gates import numbered
from xdpchain_elb.going import free_backends, free_pool, remove_services, stale_pools
from xdpchain_elb.hops import hops_to_correct
from xdpchain_elb.shape import shape_of


def writes(old: ElbConfig | None, new: ElbConfig, maps: Maps, hops: NextHops) -> Iterator[Write]:
    """
    The writes from `old` to `new`; with None from whatever the tables hold.

    Between two configs only VIPs that differ are looked at, unless something differs that holds for all.
    """
    yield from numbered(_writes(old, new, maps, hops), maps["elb_gates"].get(0) or 0)


def _writes(old: ElbConfig | None, new: ElbConfig, maps: Maps, hops: NextHops) -> Iterator[Write]:
    shapes = [shape_of(vip) for vip in new.all_vips]
    if old is None or _common(old) != _common(new):
        yield from _carried_out(Change(new, shapes, shapes, maps, None, hops))
        return
    before = {shape.service: shape for shape in map(shape_of, old.all_vips)}
    coming = [shape for shape in shapes if before.get(shape.service) is not shape]
    if coming or len(before) != len(shapes):
        yield from _carried_out(Change(new, shapes, coming, maps, before, hops))


def _common(config: ElbConfig) -> tuple[object, ...]:
    """What all VIPs depend on."""
    return (
        (config.encapsulation, config.gue_port, config.source, config.next_hop, config.mtu),
        (config.ring, config.hold_tcp, config.hold_udp, config.second_chance),
    )


def _carried_out(change: Change) -> Iterator[Write]:
    gates = 0
    for shape in change.shapes:
        gates |= shape.gates
    if gates & ~change.had.gates:
        yield Put("elb_gates", 0, gates | change.had.gates)
    if change.before is None:
        yield from hops_to_correct(change.config, change.had.backends.values(), change.maps)
    stale, reached = stale_pools(change)
    changing, fresh = in_order(change)
    yield from remove_services(change)
    for number in stale:
        yield from free_pool(change, number)
    for shape in changing:
        yield from lead(change, [shape])
    yield from lead(change, fresh)
    for number in reached:
        yield from free_pool(change, number)
    yield from free_backends(change)
    if change.had.gates & ~gates:
        yield Put("elb_gates", 0, gates)
