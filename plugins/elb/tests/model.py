# SPDX-License-Identifier: Apache-2.0
"""Plain models of what the routines of ring.h do: Maglev as the format says it, and what becomes of the slots of an old ring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
from xdpchain_elb.tables import RING_SIZE

MEMBER, MOVING, HOLDING = 0x00FFFFFF, 0x80000000, 0x40000000


@attrs.define
class Turn:
    """A backend with weight: where it is in its places, of which each is `skip` behind the one before."""

    member: int
    place: int
    skip: int
    weight: int
    credit: int = 0


def maglev(turns: Sequence[Turn], version: int) -> list[int]:
    """
    The members of all slots.

    The last slot goes to whoever's turn it is. That is what the format says, except where that turn would look for it for ever: the wrap at 2^32
    makes the places of a backend with a skip of 65536 repeat before the last of them.
    """
    if len(turns) < 2:
        return [turns[0].member if turns else 0] * RING_SIZE
    ring = [0] * RING_SIZE
    left = RING_SIZE
    for turn in _order(turns, version):
        if left == 1:
            ring[ring.index(0)] = turn.member
            return ring
        while ring[turn.place % RING_SIZE]:
            turn.place = (turn.place + turn.skip) % 2**32
        ring[turn.place % RING_SIZE] = turn.member
        left -= 1
    raise AssertionError("turns never end")


def _order(turns: Sequence[Turn], version: int) -> Iterator[Turn]:
    """Who takes a slot, one after the other."""
    if version == 1:
        for turn in turns:
            for _ in range(turn.weight):
                yield turn
        while True:
            yield from turns
    heaviest = max(turn.weight for turn in turns)
    while True:
        for turn in turns:
            turn.credit += turn.weight
            if turn.credit >= heaviest:
                turn.credit -= heaviest
                yield turn


@attrs.define
class Slots:
    """What the tables say of the slots of a pool; times in ticks."""

    until: int
    word: list[int]
    previous: list[int]
    needed: list[int]

    def merge(self, members: Sequence[int], gone: frozenset[int], now: int, hold: int) -> Slots:
        """The slots after their members have become `members`; flows of members in `gone` are nobody's."""
        after = Slots(now + hold, list(members), self.previous.copy(), self.needed.copy())
        for slot, (old, new) in enumerate(zip(self.word, members, strict=True)):
            current, moving = old & MEMBER, bool(old & MOVING)
            holding = moving and bool(old & HOLDING) and now < self.until
            unknown = self.previous[slot] if holding else current
            if unknown in gone:
                unknown = 0
            if new == current:
                if moving:
                    after.word[slot] |= MOVING | (HOLDING if holding and unknown else 0)
                continue
            if not unknown and not moving:
                continue
            after.word[slot] |= MOVING
            after.needed[slot] = max(self.needed[slot], now + hold)
            if unknown not in {0, new}:
                after.word[slot] |= HOLDING
                after.previous[slot] = unknown
        return after

    def settle(self, now: int) -> Slots:
        """The slots after those that wait for nothing have settled."""
        after = attrs.evolve(self, word=self.word.copy())
        for slot, word in enumerate(self.word):
            holding = bool(word & HOLDING) and now < self.until
            if word & MOVING and not holding and self.needed[slot] < now:
                after.word[slot] = word & MEMBER
        return after

    def progress(self, now: int) -> dict[str, int]:
        """How many slots are moving, and how many of them holding."""
        moving = [word for word in self.word if word & MOVING]
        return {"moving": len(moving), "holding": sum(1 for word in moving if word & HOLDING and now < self.until)}
