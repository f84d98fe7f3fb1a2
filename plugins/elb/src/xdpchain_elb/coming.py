# SPDX-License-Identifier: Apache-2.0
"""What comes: some VIPs, led to what the config says, each table in turn."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from xdpchain import Delete, Move, NextHop, Put, PutMany, Run, Write

from xdpchain_elb.change import Change, Seating, Step
from xdpchain_elb.had import MARK, Source, directory_key
from xdpchain_elb.hops import hop_of
from xdpchain_elb.ring import BUILD_RUNS, plan
from xdpchain_elb.shape import ANY_ID, GONE, SECOND_CHANCE, Pool, Shape, ticks

_WORD = struct.Struct("=I").pack
_VIP = struct.Struct("=4I").pack
_POOL = struct.Struct("=3Q").pack
_NOTHING: tuple[()] = ()
"""the content of a new ring: zeros"""


def in_order(change: Change) -> tuple[list[Shape], list[Shape]]:
    """VIPs that are there, by how much they grow, and those that are not."""
    had = change.had
    there: list[tuple[int, Shape]] = []
    fresh: list[Shape] = []
    for shape in change.coming:
        numbers = [had.numbers[pool.name] for pool in shape.pools if pool.name in had.numbers]
        if shape.service not in had.services and not numbers:
            fresh.append(shape)
        else:
            members = sum(len(had.members.get(number, ())) for number in numbers)
            there.append((sum(len(pool.seats) for pool in shape.pools) - members, shape))
    return [shape for _, shape in sorted(there, key=lambda one: one[0])], fresh


def lead(change: Change, shapes: Iterable[Shape]) -> Iterator[Write]:
    """Pools and members are complete, then rings name them, then services lead there, then the rest goes."""
    steps = [_step(change, shape) for shape in shapes]
    seatings = [(step, seating) for step in steps for seating in step.seatings]
    for step, seating in seatings:
        yield from _begin(change, step, seating)
    for step in steps:
        yield from _enter_backends(change, step.shape)
    yield from _enter_members(seatings)
    for _, seating in seatings:
        # whoever had the number before has left counts behind
        yield from (Delete("elb_stats", member) for _, member in seating.arrivals if change.had.states[member])
    for step in steps:
        yield from change.delete_ids(step.entry[1], _lasting_ids(change, step))
    yield from _write_headers(change, seatings)
    yield from change.set_states((member, seat.state) for _, seating in seatings for seat, member in seating.arrivals)
    for _, seating in seatings:
        if seating.is_new:
            yield Put("elb_rings", seating.number, _NOTHING)
    for step, seating in seatings:
        yield from _change_ring(change, step, seating)
    for step in steps:
        yield from change.put_ids(_ids(step))
    for step in steps:
        # a route that goes leads to members who have no headers on the other side: it goes before the VIP changes sides
        yield from change.put_sources(_sources(step))
        yield from change.delete_sources(step.entry[1], _sources(step))
    yield from _open(change, steps)
    for _, seating in seatings:
        yield from change.free_members(seating.number, seating.removed)


def _step(change: Change, shape: Shape) -> Step:
    seatings = [_seat(change, shape, pool) for pool in shape.pools]
    number = change.had.services.get(shape.service)
    side = change.had.vips[number][2] if number else 0
    other_side = number is not None and _has_other_headers(change, shape, seatings, side)
    options = shape.options | (SECOND_CHANCE if change.config.has_second_chance(shape.vip) else 0)
    entry = (options, seatings[0].number, side ^ other_side, ticks(change.config.hold_of(shape.vip)))
    return Step(shape, seatings, entry, other_side)


def _seat(change: Change, shape: Shape, pool: Pool) -> Seating:
    had = change.had
    number = had.numbers.get(pool.name)
    is_new = number is None
    if number is None:
        number = change.pools.take()
    there = had.members.get(number, {})
    members = [there[seat.packed] if seat.packed in there else change.members.take() for seat in pool.seats]
    known = set(there.values())
    left = set(there).difference(seat.packed for seat in pool.seats)
    content = pool.content(members, change.version, track=shape.track)
    build = is_new or had.pools[number][1] != content
    new = {member for member in members if member not in known}
    return Seating(pool, number, is_new, members, new, {packed: there[packed] for packed in sorted(left)}, content, build)


def _has_other_headers(change: Change, shape: Shape, seatings: Iterable[Seating], side: int) -> bool:
    """Whether members of a VIP that are in use need other outer headers than they have."""
    encapsulation = change.config.encapsulation_of(shape.vip)
    if change.before is not None:
        return change.config.encapsulation_of(change.before[shape.service].vip) != encapsulation
    had, record = change.had, change.headers.record
    for seating in seatings:
        for seat, member in seating.seats:
            if member in seating.new or had.states[member] & 3 == GONE:
                continue
            if had.header(2 * member + side) != record(encapsulation, seat.packed, had.backends.get(seat.packed, 0), seating.number):
                return True
    return False


def _begin(change: Change, step: Step, seating: Seating) -> Iterator[Write]:
    """The pool's name, and that its ring is not what its name says any more."""
    had = (0, 0, 0) if seating.is_new else change.had.pools[seating.number]
    moves = had[2] or (step.shape.track and not seating.is_new)
    entry = (seating.pool.name, 0, int(moves))
    if seating.build and had != entry:
        yield Put("elb_pools", seating.number, _POOL(*entry))


def _enter_backends(change: Change, shape: Shape) -> Iterator[Write]:
    had = change.had
    addresses = {seat.packed: seat.address for pool in shape.pools for seat in pool.seats if seat.packed not in had.backends}
    numbers = {packed: change.backends.take() for packed in sorted(addresses)}
    had.backends |= numbers
    highest = max(numbers.values(), default=0)
    if highest > had.mark:
        had.mark = highest
        yield Put("elb_directory", MARK, highest)
    for packed, number in numbers.items():
        hop = hop_of(change.config, change.hops.get(addresses[packed], NextHop()))
        if hop:
            yield Put("elb_hops", number, hop)
    yield from (Put("elb_directory", directory_key(0, packed), number) for packed, number in numbers.items())


def _enter_members(seatings: Iterable[tuple[Step, Seating]]) -> Iterator[Write]:
    entries = [(seating.number, seat.packed, member) for _, seating in seatings for seat, member in seating.arrivals]
    if entries:
        keys = [directory_key(pool, packed) for pool, packed, _ in entries]
        yield PutMany("elb_directory", keys, [_WORD(member) for *_, member in entries])


def _write_headers(change: Change, seatings: Iterable[tuple[Step, Seating]]) -> Iterator[Write]:
    headers = [one for step, seating in seatings for one in _headers(change, step, seating)]
    if headers:
        yield PutMany("elb_members", [_WORD(at) for at, _ in headers], [header for _, header in headers])


def _headers(change: Change, step: Step, seating: Seating) -> Iterator[tuple[int, bytes]]:
    """The outer headers of a pool that are not what they shall be, with where they stand."""
    had, record = change.had, change.headers.record
    encapsulation, side = change.config.encapsulation_of(step.shape.vip), step.entry[2]
    changing = seating.seats if had.headers is not None or step.other_side else seating.arrivals
    for seat, member in changing:
        header = record(encapsulation, seat.packed, had.backends[seat.packed], seating.number)
        # the ring names a new member while the service still leads to the VIP on the other side
        unused = step.other_side and (member in seating.new or had.states[member] & 3 == GONE)
        for at in (2 * member + side, 2 * member + 1 - side) if unused else (2 * member + side,):
            if had.header(at) != header:
                yield at, header


def _change_ring(change: Change, step: Step, seating: Seating) -> Iterator[Write]:
    """The states of a pool's members as they shall be, and a ring that is made of them."""
    number = seating.number
    if not seating.is_new:
        yield from change.set_states((member, seat.state) for seat, member in seating.seats)
        yield from change.set_states((member, GONE) for member in seating.removed.values())
    if not seating.build:
        return
    moves = step.shape.track and not seating.is_new
    if not seating.is_new:
        # what it is: the routine changes it, and so an undo brings it back
        yield Put("elb_progress", number, change.maps["elb_progress"].get(number))
    if moves:
        yield Put("elb_moves", number, _NOTHING, keep=True)
    into = number if seating.is_new else 0
    backends = ((member, seat.address, seat.share) for seat, member in seating.seats)
    if not into and not change.has_clean_ring:
        yield Put("elb_rings", 0, _NOTHING)
    yield Put("elb_plan", 0, plan(number, backends, version=change.version, track=moves, hold=step.entry[3], into=into))
    yield Run("elb_build", most=BUILD_RUNS)
    if not into:
        # together they make the kernel wait once, and the next change finds a ring to fill
        yield Move("elb_rings", 0, number)
        yield Put("elb_rings", 0, _NOTHING)
        change.has_clean_ring = True
    if not moves and not seating.is_new and change.had.pools[number][2]:
        yield Delete("elb_moves", number)
    yield Put("elb_pools", number, _POOL(seating.pool.name, seating.content, int(moves)))


def _open(change: Change, steps: Iterable[Step]) -> Iterator[Write]:
    """Services lead to VIPs that are as they shall be: to the same number, or to a new one."""
    services, vips = change.had.services, change.had.vips
    differing = [step for step in steps if step.shape.service not in services or vips[services[step.shape.service]] != step.entry]
    moved = [(step, change.vips.take()) for step in differing]
    for step, number in moved:
        yield Put("elb_vips", number, _VIP(*step.entry))
    for name in ("elb_services", "elb_prefixes"):
        for step, number in moved:
            if step.shape.service[0] == name:
                yield Put(name, step.shape.service[1], number)
        for step in steps:
            marker = step.shape.marker
            if marker[0] == name and marker not in services:
                services[marker] = 0
                yield Put(name, marker[1], 0)


def _ids(step: Step) -> dict[tuple[int, int], int]:
    """The server ids of a VIP, those of its own backends first."""
    ids: dict[tuple[int, int], int] = {}
    if not step.shape.options & ANY_ID:
        return ids
    for seating in step.seatings:
        for seat, member in seating.seats:
            if seat.server_id is not None and seat.state != GONE:
                ids.setdefault((step.entry[1], seat.server_id), member)
    return ids


def _lasting_ids(change: Change, step: Step) -> Iterator[tuple[int, int]]:
    """Ids that are wanted, and do not lead to members that go."""
    ids = _ids(step)
    if not ids:
        return iter(())
    leaving = {member for seating in step.seatings for member in seating.removed.values()}
    leaving |= {member for seating in step.seatings for seat, member in seating.seats if seat.state == GONE}
    return (id_ for id_ in ids if change.had.ids.get(id_) not in leaving)


def _sources(step: Step) -> dict[Source, int]:
    return {(step.entry[1], bits, packed): step.seatings[at].number for bits, packed, at in step.shape.sources}
