# SPDX-License-Identifier: Apache-2.0
"""What goes: services, pools and backends that the config does not have any more. Nothing leads there when it goes."""

from __future__ import annotations

from collections.abc import Iterator

from xdpchain import Delete, Put, Write

from xdpchain_elb.change import Change
from xdpchain_elb.had import directory_key
from xdpchain_elb.shape import GONE


def stale_pools(change: Change) -> tuple[list[int], list[int]]:
    """Pools that no VIP has any more: those that no packet can reach once the VIPs that are gone are, and those that one still can."""
    had, wanted = change.had, {pool.name for shape in change.shapes for pool in shape.pools}
    shapes = None if change.before is None else change.before.values()
    names = set(had.numbers) if shapes is None else {pool.name for shape in shapes for pool in shape.pools if pool.name in had.numbers}
    stale = {had.numbers[name] for name in names - wanted}
    if shapes is None:
        # what a predecessor was freeing when it was killed
        stale |= change.mentioned_pools() - {had.numbers[name] for name in names & wanted}
    mains = {had.vips[had.services[shape.service]][1] for shape in change.coming if shape.service in had.services}
    reached = mains | {pool for (main, *_), pool in had.sources.items() if main in mains}
    return sorted(stale - reached), sorted(stale & reached)


def remove_services(change: Change) -> Iterator[Write]:
    """Services, then the marks of addresses that have none left."""
    services, markers = {shape.service for shape in change.shapes}, {shape.marker for shape in change.shapes}
    for (name, key), number in change.had.services.items():
        if number and (name, key) not in services:
            yield Delete(name, key)
    for (name, key), number in change.had.services.items():
        if not number and (name, key) not in markers:
            yield Delete(name, key)


def free_pool(change: Change, number: int) -> Iterator[Write]:
    """Everything that is kept under the number of a pool that no packet reaches."""
    name, ring, moves = change.had.pools[number]
    if ring:
        # whoever finds it half freed, and wants it, knows that it has no ring
        yield Put("elb_pools", number, {"name": name, "ring": 0, "moves": moves})
    yield from change.delete_sources(number)
    yield from change.delete_ids(number)
    yield Delete("elb_rings", number)
    if moves:
        yield Delete("elb_moves", number)
    yield Delete("elb_progress", number)
    members = change.had.members.get(number, {})
    yield from change.set_states((member, GONE) for member in members.values())
    yield from change.free_members(number, members)
    yield Delete("elb_pools", number)
    change.pools.give_back(number)


def free_backends(change: Change) -> Iterator[Write]:
    """Backends that no pool has any more."""
    unsure = set(change.had.backends).difference(*(shape.addresses for shape in change.coming))
    if not unsure:
        return
    for packed in unsure.difference(*(shape.addresses for shape in change.shapes)):
        yield Delete("elb_hops", change.had.backends[packed])
        yield Delete("elb_directory", directory_key(0, packed))
