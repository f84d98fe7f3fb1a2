# SPDX-License-Identifier: Apache-2.0
"""What the routines of ring.h are told: values of `elb_plan`, packed as in tables.h."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable
from itertools import chain

from xdpchain_elb.hashing import Address, backend_hash, offset_and_skip
from xdpchain_elb.tables import LAST_SLOTS, PLAN, POOL_MEMBERS, RING_SIZE

_FILL_STEPS = 64
_MERGE_STEPS = 32
_HEAD = struct.Struct("=2Q14I")
_FIELDS_OF_TURN = 7
_NEXT_TURN, _MERGE = 0, 4
_LONGEST_SKIP = RING_SIZE - 3
"""with which all places, `offset + j * skip` for `j` up to the size of the ring, are below 2^32"""

SETTLE_RUNS = RING_SIZE // _MERGE_STEPS + 1
"""The most runs of `elb_settle` for one pool."""
BUILD_RUNS = 2 * RING_SIZE * POOL_MEMBERS // _FILL_STEPS + LAST_SLOTS * POOL_MEMBERS + 2 * SETTLE_RUNS + 1
"""
The most runs of `elb_build`: every turn is asked whether it is due once in each of as many rounds as there are slots, and tries each slot once; and for
each of the last slots a run asks one turn.

A ring of 100 equal weights takes about 3,000.
"""


def plan(pool: int, backends: Iterable[tuple[int, Address, int]], *, version: int, track: bool, hold: int, into: int = 0) -> bytes:
    """
    The plan for `elb_build`.

    Args:
        pool: whose ring it is.
        backends: member, address and weight of each; those of weight 0 get no slots.
        version: 1 or 2 of Maglev.
        track: whether slots may move; else the new ring holds at once.
        hold: in ticks.
        into: where in `elb_rings` the ring is made: 0, or the pool itself, if it has none that packets see.

    Raises:
        ValueError: more than `POOL_MEMBERS` backends have weight.
    """
    turns = sorted((_turn_of(address), member, weight) for member, address, weight in backends if weight > 0)
    if len(turns) > POOL_MEMBERS:
        raise ValueError(f"{len(turns)} backends in one pool; there is room for {POOL_MEMBERS}")
    heaviest = max((weight for *_, weight in turns), default=0)
    # one backend fills the ring, and none leaves it empty: then no turn takes anything, and the rest is all
    few = len(turns) < 2
    rest = turns[0][1] if few and turns else 0
    # skips so large let places wrap around at 2^32, and then a place cannot be told from the skip
    listed = 1 if any(places[1] > _LONGEST_SKIP for (*_, places), *_ in turns) else LAST_SLOTS
    stage = _MERGE if few else _NEXT_TURN
    head = _HEAD.pack(0, 0, pool, len(turns), track, hold, heaviest, stage, 0, rest, 0, 0, into, listed, 0, 0)
    words = chain.from_iterable(
        # in version 1 all are due in each round, and a weight is for the first round only
        (member, *places, *((heaviest, 0, weight - 1) if version == 1 else (weight, 0, 0)))
        for (*_, places), member, weight in turns
    )
    return (head + struct.pack(f"={_FIELDS_OF_TURN * len(turns)}I", *words)).ljust(PLAN.size, b"\0")


def settle_plan(pool: int) -> bytes:
    """The plan for `elb_settle`."""
    return _HEAD.pack(0, 0, pool, *(0,) * 13).ljust(PLAN.size, b"\0")


@functools.lru_cache(maxsize=1 << 15)
def _turn_of(address: Address) -> tuple[int, bytes, tuple[int, int, int]]:
    """What the order of turns depends on, then where a turn begins, its skip, and the inverse of this."""
    key = backend_hash(address)
    offset, skip = offset_and_skip(key)
    return key, address.packed, (offset, skip, pow(skip, -1, RING_SIZE))
