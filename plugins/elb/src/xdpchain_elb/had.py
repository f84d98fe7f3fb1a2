# SPDX-License-Identifier: Apache-2.0
"""What the tables hold, all of it or that of some VIPs, by packed keys."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import attrs
from xdpchain import MapReader, Maps

from xdpchain_elb.gates import KINDS
from xdpchain_elb.shape import Key, Shape
from xdpchain_elb.tables import PREFIX, SERVICE

_PAIR = struct.Struct("=I16s")
MEMBER_BYTES = 52

_NOBODY = bytes(16)
MARK = _PAIR.pack(0, _NOBODY)
"""The key in `elb_directory` under which the highest number stands that a backend ever had."""

Source = tuple[int, int, bytes]
"""A source route: the pool of the VIP, bits and address of the prefix."""


class States:
    """The words of `elb_states`, each read when somebody looks at it, and then as they shall become."""

    def __init__(self, states: MapReader) -> None:
        self._map = states
        self._all: array[int] | None = None
        self._changed: dict[int, int] = {}

    def read_all(self) -> array[int]:
        """All words as they were before anything changed."""
        if self._all is None:
            self._all = array("I")
            self._all.frombytes(self._map.blob())
        return self._all

    def __getitem__(self, member: int) -> int:
        if member in self._changed:
            return self._changed[member]
        return self._all[member] if self._all is not None else self._map.get(member) or 0

    def __setitem__(self, member: int, word: int) -> None:
        self._changed[member] = word

    def unused(self, kept: Callable[[], set[int]]) -> Iterator[int]:
        """
        Numbers that no member has: first those that none ever had, then those that fewest had.

        Args:
            kept: numbers that a member has though it is gone: it may come back.
        """
        taken = kept()
        if self._all is None:
            # numbers are taken in ascending order, and a word is never 0 again
            first, end = 1, self._map.schema.capacity
            while first < end:
                middle = (first + end) // 2
                first, end = (middle + 1, end) if self._map.get(middle) else (first, middle)
            yield from (number for number in range(first, self._map.schema.capacity) if number not in taken)
        else:
            yield from (number for number in self._zeros(self._all) if number not in taken)
        words = self.read_all()
        free = [number for number, word in enumerate(words) if word and not word & 3 and number not in taken]
        yield from sorted(free, key=lambda number: words[number] >> 2)

    @staticmethod
    def _zeros(words: array[int]) -> Iterator[int]:
        at = 0
        while True:
            try:
                at = words.index(0, at + 1)
            except ValueError:
                return
            yield at


@attrs.define
class Had:
    """
    The tables by what they are asked for.

    `vips` (options, pool, side, hold) and `pools` (name, hash of the ring, whether there are moves) are by number and whole. `mark` is the highest
    number that a backend ever had. The rest may be that of some VIPs; `headers` are there only if all is.
    """

    vips: Sequence[tuple[int, ...]]
    pools: list[tuple[int, ...]]
    states: States
    gates: int
    mark: int
    headers: bytes | None = None
    services: dict[Key, int] = attrs.field(factory=dict)
    members: dict[int, dict[bytes, int]] = attrs.field(factory=dict)
    backends: dict[bytes, int] = attrs.field(factory=dict)
    ids: dict[tuple[int, int], int] = attrs.field(factory=dict)
    sources: dict[Source, int] = attrs.field(factory=dict)
    numbers: dict[int, int] = attrs.field(init=False)
    """pools by name"""

    @numbers.default
    def _by_name(self) -> dict[int, int]:
        return {name: number for number, (name, *_) in enumerate(self.pools) if name}

    def header(self, at: int) -> bytes | None:
        """A `struct elb_member`, where headers were read."""
        return self.headers[at * MEMBER_BYTES : (at + 1) * MEMBER_BYTES] if self.headers is not None else None


def everything(maps: Maps) -> Had:
    """All of it."""
    had = _arrays(maps)
    had.states.read_all()
    had.headers = maps["elb_members"].blob()
    for key, number in maps["elb_services"].items():
        had.services["elb_services", SERVICE.pack(key)] = number
    for key, number in maps["elb_prefixes"].items():
        had.services["elb_prefixes", PREFIX.pack(key)] = number
    for key, number in maps["elb_directory"].items():
        _enter(had, key["pool"], key["address"].packed, number)
    had.ids = {(key["pool"], key["id"]): member for key, member in maps["elb_ids"].items()}
    had.sources = _sources(maps)
    return had


def some(maps: Maps, shapes: Collection[Shape]) -> Had:
    """What there is of some VIPs."""
    had = _arrays(maps)
    keys = {key for shape in shapes for key in (shape.service, shape.marker)}
    exact = [key for name, key in keys if name == "elb_services"]
    numbers = zip(exact, maps["elb_services"].get_many(exact), strict=True)
    had.services = {("elb_services", key): number for key, number in numbers if number is not None}
    if any(name == "elb_prefixes" for name, _ in keys):
        # a look-up would answer with a shorter prefix
        there = {("elb_prefixes", PREFIX.pack(key)): number for key, number in maps["elb_prefixes"].items()}
        had.services.update({key: there[key] for key in keys if key in there})
    seats = {
        (had.numbers[pool.name], seat.packed) for shape in shapes for pool in shape.pools if pool.name in had.numbers for seat in pool.seats
    }
    for (pool, packed), number in find(maps, [*seats, *((0, packed) for shape in shapes for packed in shape.addresses)]).items():
        _enter(had, pool, packed, number)
    mains = {had.numbers[shape.pools[0].name] for shape in shapes if shape.pools[0].name in had.numbers}
    had.ids = _ids(maps, had, shapes)
    if any(shape.sources for shape in shapes):
        had.sources = {source: pool for source, pool in _sources(maps).items() if source[0] in mains}
    return had


def find(maps: Maps, backends: Iterable[tuple[int, bytes]]) -> dict[tuple[int, bytes], int]:
    """The numbers of backends of pools, those that there are; pool 0 for their own numbers."""
    wanted = list(dict.fromkeys(backends))
    numbers = maps["elb_directory"].get_many([directory_key(*backend) for backend in wanted])
    return {backend: number for backend, number in zip(wanted, numbers, strict=True) if number is not None}


def directory_key(pool: int, packed: bytes) -> bytes:
    """A `struct elb_backend`."""
    return _PAIR.pack(pool, packed)


def _arrays(maps: Maps) -> Had:
    return Had(
        vips=list(struct.iter_unpack("=4I", maps["elb_vips"].blob())),
        pools=list(struct.iter_unpack("=3Q", maps["elb_pools"].blob())),
        states=States(maps["elb_states"]),
        gates=(maps["elb_gates"].get(0) or 0) & KINDS,
        mark=maps["elb_directory"].get(MARK) or 0,
    )


def _enter(had: Had, pool: int, packed: bytes, number: int) -> None:
    if pool:
        had.members.setdefault(pool, {})[packed] = number
    elif packed != _NOBODY:
        had.backends[packed] = number


def _ids(maps: Maps, had: Had, shapes: Iterable[Shape]) -> dict[tuple[int, int], int]:
    wanted = list(
        {
            (had.numbers[shape.pools[0].name], seat.server_id)
            for shape in shapes
            if shape.pools[0].name in had.numbers
            for pool in shape.pools
            for seat in pool.seats
            if seat.server_id is not None
        }
    )
    members = maps["elb_ids"].get_many([struct.pack("=II", *id_) for id_ in wanted])
    return {id_: member for id_, member in zip(wanted, members, strict=True) if member is not None}


def _sources(maps: Maps) -> dict[Source, int]:
    return {(key["pool"], key["length"] - 32, key["address"].packed): pool for key, pool in maps["elb_sources"].items()}
