# SPDX-License-Identifier: Apache-2.0
"""A change of the tables in the making: what they hold, what the config wants, and the numbers that are free."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs
from xdpchain import Delete, MapReader, Maps, NextHops, Put, PutMany, Write

from xdpchain_elb.config import ElbConfig
from xdpchain_elb.had import Source, directory_key, everything, find, some
from xdpchain_elb.headers import Headers
from xdpchain_elb.numbers import Numbers, unused, unused_above
from xdpchain_elb.shape import GONE, Key, Pool, Seat, Shape

_WORD = struct.Struct("=I").pack
_ID = struct.Struct("=II").pack
_MANY_SEATS = 1000
"""of which the states are read all at once"""
_SOURCE = struct.Struct("=II16s").pack


@attrs.define
class Seating:
    """A pool with its numbers. `members` are in the order of its seats; `new` are those that had no number before, `removed` those that go."""

    pool: Pool
    number: int
    is_new: bool
    members: Sequence[int]
    new: set[int]
    removed: dict[bytes, int]
    content: int
    build: bool

    @property
    def seats(self) -> Iterator[tuple[Seat, int]]:
        """Its backends with their numbers."""
        return zip(self.pool.seats, self.members, strict=True)

    @property
    def arrivals(self) -> Iterator[tuple[Seat, int]]:
        """Those of them that had no number before."""
        return self.seats if self.is_new else ((seat, member) for seat, member in self.seats if member in self.new)


@attrs.define
class Step:
    """A VIP on its way. `entry` is what `elb_vips` shall hold for it, `other_side` whether its members change sides."""

    shape: Shape
    seatings: Sequence[Seating]
    entry: tuple[int, ...]
    other_side: bool


class Change:
    """
    One change.

    Args:
        config: the config that it leads to.
        shapes: all of its VIPs.
        coming: those of them that may differ from what the tables hold.
        maps: the tables.
        before: the VIPs of the config before by their services; None: nobody knows what the tables hold.
        hops: the next hops that are known.
    """

    def __init__(
        self,
        config: ElbConfig,
        shapes: Sequence[Shape],
        coming: Sequence[Shape],
        maps: Maps,
        before: Mapping[Key, Shape] | None,
        hops: NextHops,
    ) -> None:
        self.config, self.shapes, self.coming, self.maps, self.before, self.hops = config, shapes, coming, maps, before, hops
        if before is None:
            self.had = everything(maps)
        else:
            after = {shape.service: shape for shape in shapes}
            leaving = [shape for service, shape in before.items() if after.get(service) is not shape]
            self.had = some(maps, [*leaving, *coming])
            if sum(len(pool.seats) for shape in coming for pool in shape.pools) >= _MANY_SEATS:
                self.had.states.read_all()
        self.has_clean_ring = _is_clean(maps["elb_rings"].inner(0))
        self.version = 1 if config.ring == "maglev" else 2
        self.headers = Headers(config)
        had = self.had
        self.vips = Numbers(unused(self._used_vips, len(had.vips)), "VIP", "max_vips")
        self.pools = Numbers(unused(self._used_pools, len(had.pools)), "VIP or source route", "max_vips")
        self.members = Numbers(had.states.unused(self._kept_members), "backend of a VIP", "max_members")
        end = maps["elb_hops"].schema.capacity
        self.backends = Numbers(unused_above(had.mark, self._used_backends, end), "backend", "max_backends")

    def mentioned_pools(self) -> set[int]:
        """Pools under whose number anything is kept."""
        return {*self.had.members, *(pool for pool, _ in self.had.ids), *(pool for pool, *_ in self.had.sources)}

    def set_states(self, states: Iterable[tuple[int, int]]) -> Iterator[Write]:
        """
        Bring members into states.

        One that goes takes its incarnation with it: no flow that it is remembered for finds whoever comes back under its number.
        """
        had = self.had.states
        changed = list[tuple[int, int]]()
        for member, state in states:
            word = had[member]
            if word & 3 == state and (word or state != GONE):
                continue
            word = (word >> 2) + (state == GONE) << 2 | state
            had[member] = word
            changed.append((member, word))
        return put_words("elb_states", changed)

    def free_members(self, pool: int, members: Mapping[bytes, int]) -> Iterator[Write]:
        """Members that nothing leads to."""
        for packed, member in members.items():
            yield Delete("elb_directory", directory_key(pool, packed))
            self.members.give_back(member)

    def put_ids(self, ids: Mapping[tuple[int, int], int]) -> Iterator[Write]:
        """Ids that lead elsewhere, or nowhere yet."""
        for id_, member in ids.items():
            if self.had.ids.get(id_) != member:
                yield Put("elb_ids", _ID(*id_), member)

    def put_sources(self, sources: Mapping[Source, int]) -> Iterator[Write]:
        """Source routes that lead elsewhere, or nowhere yet."""
        for source, pool in sources.items():
            if self.had.sources.get(source) != pool:
                yield Put("elb_sources", _source_key(source), pool)

    def delete_ids(self, pool: int, keep: Iterable[tuple[int, int]] = ()) -> Iterator[Write]:
        """The ids of a pool, but for some."""
        for id_ in {id_ for id_ in self.had.ids if id_[0] == pool}.difference(keep):
            del self.had.ids[id_]
            yield Delete("elb_ids", _ID(*id_))

    def delete_sources(self, pool: int, keep: Iterable[Source] = ()) -> Iterator[Write]:
        """The source routes of a pool, but for some."""
        for source in {source for source in self.had.sources if source[0] == pool}.difference(keep):
            del self.had.sources[source]
            yield Delete("elb_sources", _source_key(source))

    def _used_vips(self) -> set[int]:
        if self.before is None:
            return set(self.had.services.values())
        return {number for name in ("elb_services", "elb_prefixes") for _, number in self.maps[name].items()}

    def _used_pools(self) -> set[int]:
        return {*self.had.numbers.values(), *self.mentioned_pools()}

    def _kept_members(self) -> set[int]:
        if self.before is None:
            return {number for members in self.had.members.values() for number in members.values()}
        pools = (pool for shape in self.before.values() for pool in shape.pools if pool.name in self.had.numbers and pool.has_gone)
        gone = [(self.had.numbers[pool.name], seat.packed) for pool in pools for seat in pool.seats if seat.state == GONE]
        return set(find(self.maps, gone).values())

    def _used_backends(self) -> set[int]:
        if self.before is None:
            return set(self.had.backends.values())
        addresses = set[bytes]().union(*(shape.addresses for shape in self.before.values()))
        return set(find(self.maps, ((0, packed) for packed in addresses)).values())


def put_words(map: str, elements: Sequence[tuple[int, int]]) -> Iterator[Write]:
    """Write words of 32 bits to an array, if there are any."""
    if elements:
        yield PutMany(map, [_WORD(key) for key, _ in elements], [_WORD(word) for _, word in elements])


def _is_clean(ring: MapReader | None) -> bool:
    """Whether there is a ring, and no attempt has left anything in it."""
    if ring is None:
        return False
    content = ring.blob()
    return content == bytes(len(content))  # a look at each byte takes a hundred times as long


def _source_key(source: Source) -> bytes:
    pool, bits, packed = source
    return _SOURCE(32 + bits, pool, packed)
