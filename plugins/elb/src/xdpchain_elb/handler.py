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

import struct
from collections.abc import Iterable, Iterator, Sequence

import attrs
from xdpchain import Delete, Maps, Move, Put, Run, Write

from xdpchain_elb.config import ElbConfig
from xdpchain_elb.had import Had, Source, directory_key, everything, find, some
from xdpchain_elb.headers import Headers
from xdpchain_elb.hops import given_hop, hops_to_correct
from xdpchain_elb.numbers import Numbers, unused, unused_members
from xdpchain_elb.ring import BUILD_RUNS, plan
from xdpchain_elb.shape import ANY_ID, GONE, Key, Pool, Shape, shape_of, ticks

_U32 = struct.Struct("=I").pack
_VIP = struct.Struct("=4I").pack
_POOL = struct.Struct("=3Q").pack
_ID = struct.Struct("=II").pack
_SOURCE = struct.Struct("=II16s").pack
_NOTHING: tuple[()] = ()
"""the content of a new ring: zeros"""


def writes(old: ElbConfig | None, new: ElbConfig, maps: Maps) -> Iterator[Write]:
    """
    The writes from `old` to `new`; with None from whatever the tables hold.

    Between two configs only VIPs that differ are looked at, unless something differs that holds for all.
    """
    shapes = [shape_of(vip) for vip in new.all_vips]
    if old is None or _common(old) != _common(new):
        return _Change(new, shapes, shapes, everything(maps), maps, None).writes()
    before = {shape.service: shape for shape in map(shape_of, old.all_vips)}
    after = {shape.service: shape for shape in shapes}
    leaving = [shape for shape in before.values() if after.get(shape.service) is not shape]
    coming = [shape for shape in shapes if before.get(shape.service) is not shape]
    if not leaving and not coming:
        return iter(())
    return _Change(new, shapes, coming, some(maps, [*leaving, *coming]), maps, before).writes()


def _common(config: ElbConfig) -> tuple[object, ...]:
    """What all VIPs depend on."""
    return (
        (config.encapsulation, config.gue_port, config.source, config.next_hop, config.mtu),
        (config.ring, config.hold_tcp, config.hold_udp),
    )


@attrs.define
class _Seating:
    """A pool with its numbers. `members` are in the order of its seats; `new` are those that had no number before."""

    pool: Pool
    number: int
    is_new: bool
    members: Sequence[int]
    new: set[int]
    removed: dict[bytes, int]
    content: int
    build: bool


@attrs.define
class _Step:
    """A VIP on its way. `entry` is what `elb_vips` shall hold for it."""

    shape: Shape
    seatings: Sequence[_Seating]
    entry: tuple[int, ...]
    other_side: bool


class _Change:
    """
    One change.

    Args:
        config: the config that it leads to.
        shapes: all of its VIPs.
        coming: those of them that may differ from what the tables hold.
        had: what the tables hold of all VIPs in question.
        maps: the tables.
        before: the VIPs of the config before by their services, where `had` is not everything.
    """

    def __init__(
        self, config: ElbConfig, shapes: Sequence[Shape], coming: Sequence[Shape], had: Had, maps: Maps, before: dict[Key, Shape] | None
    ) -> None:
        self.config, self.shapes, self.coming, self.had, self.maps, self.before = config, shapes, coming, had, maps, before
        self.version = 1 if config.ring == "maglev" else 2
        self.headers = Headers(config)
        self.vips = Numbers(unused(self._used_vips, len(had.vips)), "VIP", "max_vips")
        self.pools = Numbers(unused(self._used_pools, len(had.pools)), "VIP or source route", "max_vips")
        self.members = Numbers(unused_members(had.states[:], self._kept_members), "backend of a VIP", "max_members")
        self.backends = Numbers(unused(self._used_backends, maps["elb_hops"].schema.capacity), "backend", "max_backends")

    def writes(self) -> Iterator[Write]:
        gates = 0
        for shape in self.shapes:
            gates |= shape.gates
        if gates & ~self.had.gates:
            yield Put("elb_gates", 0, gates | self.had.gates)
        yield from self._correct_hops()
        stale, still_used = self._stale_pools()
        yield from self._remove_services()
        for number in stale:
            yield from self._free_pool(number)
        changing, fresh = self._in_order()
        for shape in changing:
            yield from self._lead([shape])
        yield from self._lead(fresh)
        for number in still_used:
            yield from self._free_pool(number)
        yield from self._free_backends()
        if gates != gates | self.had.gates:
            yield Put("elb_gates", 0, gates)

    def _used_vips(self) -> set[int]:
        if self.before is None:
            return set(self.had.services.values())
        return {number for name in ("elb_services", "elb_prefixes") for _, number in self.maps[name].items()}

    def _used_pools(self) -> set[int]:
        return {*self.had.numbers.values(), *self._mentioned_pools()}

    def _mentioned_pools(self) -> set[int]:
        return {*self.had.members, *(pool for pool, _ in self.had.ids), *(pool for pool, *_ in self.had.sources)}

    def _kept_members(self) -> set[int]:
        if self.before is None:
            return {number for members in self.had.members.values() for number in members.values()}
        pools = (pool for shape in self.before.values() for pool in shape.pools if pool.name in self.had.numbers)
        gone = [(self.had.numbers[pool.name], seat.packed) for pool in pools for seat in pool.seats if seat.state == GONE]
        return set(find(self.maps, gone).values())

    def _used_backends(self) -> set[int]:
        if self.before is None:
            return set(self.had.backends.values())
        addresses = set[bytes]().union(*(shape.addresses for shape in self.before.values()))
        return set(find(self.maps, ((0, packed) for packed in addresses)).values())

    def _in_order(self) -> tuple[list[Shape], list[Shape]]:
        """VIPs that are there, by how much they grow, and those that are not."""
        there: list[tuple[int, Shape]] = []
        fresh: list[Shape] = []
        for shape in self.coming:
            numbers = [self.had.numbers[pool.name] for pool in shape.pools if pool.name in self.had.numbers]
            if shape.service not in self.had.services and not numbers:
                fresh.append(shape)
            else:
                had = sum(len(self.had.members.get(number, ())) for number in numbers)
                there.append((sum(len(pool.seats) for pool in shape.pools) - had, shape))
        return [shape for _, shape in sorted(there, key=lambda one: one[0])], fresh

    # what goes

    def _stale_pools(self) -> tuple[list[int], list[int]]:
        """Pools that no VIP has any more: those that no packet can reach once the VIPs that are gone are, and those that one still can."""
        had, wanted = self.had, {pool.name for shape in self.shapes for pool in shape.pools}
        if self.before is None:
            names = set(had.numbers)
        else:
            names = {pool.name for shape in self.before.values() for pool in shape.pools if pool.name in had.numbers}
        stale = {had.numbers[name] for name in names - wanted}
        if self.before is None:
            # what a predecessor was freeing when it was killed
            numbers = {had.numbers[name] for name in names & wanted}
            stale |= self._mentioned_pools() - numbers
        mains = {had.vips[had.services[shape.service]][1] for shape in self.coming if shape.service in had.services}
        reached = mains | {pool for (main, *_), pool in had.sources.items() if main in mains}
        return sorted(stale - reached), sorted(stale & reached)

    def _remove_services(self) -> Iterator[Write]:
        services, markers = {shape.service for shape in self.shapes}, {shape.marker for shape in self.shapes}
        for (name, key), number in self.had.services.items():
            if number and (name, key) not in services:
                yield Delete(name, key)
        for (name, key), number in self.had.services.items():
            if not number and (name, key) not in markers:
                yield Delete(name, key)

    def _free_pool(self, number: int) -> Iterator[Write]:
        """Everything that is kept under the number of a pool that no packet reaches."""
        had = self.had
        for source in [source for source in had.sources if source[0] == number]:
            yield self._delete_source(source)
        for id_ in [id_ for id_ in had.ids if id_[0] == number]:
            yield self._delete_id(id_)
        _, _, moves = had.pools[number]
        yield Delete("elb_rings", number)
        if moves:
            yield Delete("elb_moves", number)
        yield Delete("elb_progress", number)
        members = had.members.get(number, {})
        for member in members.values():
            yield from self._state(member, GONE)
        yield from self._free_members(number, members)
        yield Delete("elb_pools", number)
        self.pools.give_back(number)

    def _free_members(self, pool: int, members: dict[bytes, int]) -> Iterator[Write]:
        for packed, member in members.items():
            yield Delete("elb_directory", directory_key(pool, packed))
            self.members.give_back(member)

    def _free_backends(self) -> Iterator[Write]:
        unsure = set(self.had.backends).difference(*(shape.addresses for shape in self.coming))
        for packed in unsure.difference(*(shape.addresses for shape in self.shapes)) if unsure else ():
            yield Delete("elb_hops", self.had.backends[packed])
            yield Delete("elb_directory", directory_key(0, packed))

    # what comes

    def _correct_hops(self) -> Iterator[Write]:
        if self.before is None:
            yield from hops_to_correct(self.config, self.had.backends.values(), self.maps)

    def _lead(self, shapes: Iterable[Shape]) -> Iterator[Write]:
        """Some VIPs, each table in turn: pools and members are complete, then rings name them, then services lead there, then the rest goes."""
        steps = [self._step(shape) for shape in shapes]
        seatings = [(step, seating) for step in steps for seating in step.seatings]
        for step, seating in seatings:
            yield from self._begin(step, seating)
        for step in steps:
            yield from self._enter_backends(step.shape)
        for _, seating in seatings:
            for seat, member in zip(seating.pool.seats, seating.members, strict=True):
                if member in seating.new:
                    yield Put("elb_directory", directory_key(seating.number, seat.packed), _U32(member))
        for _, seating in seatings:
            # whoever had the number before has left counts behind
            yield from (Delete("elb_stats", member) for member in sorted(seating.new) if self.had.states[member])
        for step in steps:
            yield from self._remove_ids(step)
        for step, seating in seatings:
            yield from self._write_headers(step, seating)
        for _, seating in seatings:
            for seat, member in zip(seating.pool.seats, seating.members, strict=True):
                if member in seating.new:
                    yield from self._state(member, seat.state)
        for step, seating in seatings:
            yield from self._ring(step, seating)
        for step in steps:
            yield from self._add_ids(step)
        for step in steps:
            yield from self._add_sources(step)
        yield from self._open(steps)
        for step, seating in seatings:
            yield from self._remove_sources(step, seating)
            yield from self._free_members(seating.number, seating.removed)

    def _step(self, shape: Shape) -> _Step:
        seatings = [self._seat(shape, pool) for pool in shape.pools]
        number = self.had.services.get(shape.service)
        side = self.had.vips[number][2] if number else 0
        other_side = number is not None and self._has_other_headers(shape, seatings, side)
        entry = (shape.options, seatings[0].number, side ^ other_side, ticks(self.config.hold_of(shape.vip)))
        return _Step(shape, seatings, entry, other_side)

    def _seat(self, shape: Shape, pool: Pool) -> _Seating:
        had = self.had
        number = had.numbers.get(pool.name)
        is_new = number is None
        if number is None:
            number = self.pools.take()
        there = had.members.get(number, {})
        members = [there[seat.packed] if seat.packed in there else self.members.take() for seat in pool.seats]
        known = set(there.values())
        left = set(there).difference(seat.packed for seat in pool.seats)
        content = pool.content(members, self.version, track=shape.track)
        build = is_new or had.pools[number][1] != content
        new = {member for member in members if member not in known}
        return _Seating(pool, number, is_new, members, new, {packed: there[packed] for packed in sorted(left)}, content, build)

    def _has_other_headers(self, shape: Shape, seatings: Iterable[_Seating], side: int) -> bool:
        """Whether members of a VIP that are in use need other outer headers than they have."""
        encapsulation = self.config.encapsulation_of(shape.vip)
        if self.before is not None:
            return self.config.encapsulation_of(self.before[shape.service].vip) != encapsulation
        for seating in seatings:
            for seat, member in zip(seating.pool.seats, seating.members, strict=True):
                if member in seating.new or self.had.states[member] & 3 == GONE:
                    continue
                backend = self.had.backends.get(seat.packed, 0)
                if self.had.header(2 * member + side) != self.headers.record(encapsulation, seat.packed, backend, seating.number):
                    return True
        return False

    def _begin(self, step: _Step, seating: _Seating) -> Iterator[Write]:
        """The pool's name, and that its ring is not what its name says any more."""
        had = (0, 0, 0) if seating.is_new else self.had.pools[seating.number]
        moves = had[2] or (step.shape.track and not seating.is_new)
        entry = (seating.pool.name, 0, int(moves))
        if seating.build and had != entry:
            yield Put("elb_pools", seating.number, _POOL(*entry))

    def _enter_backends(self, shape: Shape) -> Iterator[Write]:
        for packed in sorted(shape.addresses - self.had.backends.keys()):
            number = self.had.backends[packed] = self.backends.take()
            hop = given_hop(self.config)
            if hop:
                yield Put("elb_hops", number, hop)
            yield Put("elb_directory", directory_key(0, packed), _U32(number))

    def _write_headers(self, step: _Step, seating: _Seating) -> Iterator[Write]:
        encapsulation, side = self.config.encapsulation_of(step.shape.vip), step.entry[2]
        for seat, member in zip(seating.pool.seats, seating.members, strict=True):
            if self.had.headers is None and not step.other_side and member not in seating.new:
                continue
            at = 2 * member + side
            record = self.headers.record(encapsulation, seat.packed, self.had.backends[seat.packed], seating.number)
            if self.had.header(at) != record:
                yield Put("elb_members", at, record)

    def _state(self, member: int, state: int) -> Iterator[Write]:
        """A member that goes takes its incarnation with it: no flow that it is remembered for finds whoever comes back under its number."""
        word = self.had.states[member]
        if word & 3 == state and (word or state != GONE):
            return
        word = (word >> 2) + (state == GONE) << 2 | state
        self.had.states[member] = word
        yield Put("elb_states", member, word)

    def _ring(self, step: _Step, seating: _Seating) -> Iterator[Write]:
        number, track = seating.number, step.shape.track
        for seat, member in zip(seating.pool.seats, seating.members, strict=True):
            yield from self._state(member, seat.state)
        for member in seating.removed.values():
            yield from self._state(member, GONE)
        if not seating.build:
            return
        if not seating.is_new:
            # what it is: the routine changes it, and so an undo brings it back
            yield Put("elb_progress", number, self.maps["elb_progress"].get(number))
        moves = track and not seating.is_new
        if moves:
            yield Put("elb_moves", number, _NOTHING, keep=True)
        backends = ((member, seat.address, seat.share) for seat, member in zip(seating.pool.seats, seating.members, strict=True))
        yield Put("elb_plan", 0, plan(number, backends, version=self.version, track=moves, hold=step.entry[3]))
        yield Put("elb_rings", 0, _NOTHING)
        yield Run("elb_build", most=BUILD_RUNS)
        yield Move("elb_rings", 0, number)
        if not moves and not seating.is_new and self.had.pools[number][2]:
            yield Delete("elb_moves", number)
        yield Put("elb_pools", number, _POOL(seating.pool.name, seating.content, int(moves)))

    def _open(self, steps: Iterable[_Step]) -> Iterator[Write]:
        """Services lead to VIPs that are as they shall be: to the same number, or to a new one."""
        moved: list[tuple[_Step, int]] = []
        for step in steps:
            number = self.had.services.get(step.shape.service)
            if number is None or self.had.vips[number] != step.entry:
                moved.append((step, self.vips.take()))
        for step, number in moved:
            yield Put("elb_vips", number, _VIP(*step.entry))
        for name in ("elb_services", "elb_prefixes"):
            for step, number in moved:
                if step.shape.service[0] == name:
                    yield Put(name, step.shape.service[1], _U32(number))
            for step in steps:
                marker = step.shape.marker
                if marker[0] == name and marker not in self.had.services:
                    self.had.services[marker] = 0
                    yield Put(name, marker[1], _U32(0))

    # ids and source routes

    def _ids(self, step: _Step) -> dict[tuple[int, int], int]:
        ids: dict[tuple[int, int], int] = {}
        if not step.shape.options & ANY_ID:
            return ids
        for seating in step.seatings:
            for seat, member in zip(seating.pool.seats, seating.members, strict=True):
                if seat.server_id is not None and seat.state != GONE:
                    ids.setdefault((step.entry[1], seat.server_id), member)
        return ids

    def _remove_ids(self, step: _Step) -> Iterator[Write]:
        wanted = self._ids(step)
        yield from (self._delete_id(id_) for id_ in list(self.had.ids) if id_[0] == step.entry[1] and id_ not in wanted)

    def _add_ids(self, step: _Step) -> Iterator[Write]:
        for id_, member in self._ids(step).items():
            if self.had.ids.get(id_) != member:
                yield Put("elb_ids", _ID(*id_), _U32(member))

    def _delete_id(self, id_: tuple[int, int]) -> Write:
        del self.had.ids[id_]
        return Delete("elb_ids", _ID(*id_))

    def _sources(self, step: _Step) -> dict[Source, int]:
        return {(step.entry[1], bits, packed): step.seatings[at].number for bits, packed, at in step.shape.sources}

    def _add_sources(self, step: _Step) -> Iterator[Write]:
        for source, pool in self._sources(step).items():
            if self.had.sources.get(source) != pool:
                yield Put("elb_sources", _source_key(source), _U32(pool))

    def _remove_sources(self, step: _Step, seating: _Seating) -> Iterator[Write]:
        wanted = self._sources(step)
        for source in [source for source in self.had.sources if source[0] == seating.number and source not in wanted]:
            yield self._delete_source(source)

    def _delete_source(self, source: Source) -> Write:
        del self.had.sources[source]
        return Delete("elb_sources", _source_key(source))


def _source_key(source: Source) -> bytes:
    pool, bits, packed = source
    return _SOURCE(32 + bits, pool, packed)
