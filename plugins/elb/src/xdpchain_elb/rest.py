# SPDX-License-Identifier: Apache-2.0
"""What is due without any change: moving slots come to rest, and pools that have none give their memory back."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

from xdpchain import Delete, Maps, Put, Run, Write

from xdpchain_elb.ring import SETTLE_RUNS, settle_plan

POOLS_AT_A_TIME = 32
"""How many pools are looked through each time; after a change of more it takes some times until it is a pool's turn."""


def writes(maps: Maps) -> Iterator[Write]:
    """The writes that bring pools to rest. Where nothing moves there are none."""
    moving = [count for count, _ in struct.iter_unpack("=2I", maps["elb_progress"].blob())]
    pools = list(struct.iter_unpack("=3Q", maps["elb_pools"].blob()))
    due = [number for number, count in enumerate(moving) if count]
    start = int(time.monotonic()) * POOLS_AT_A_TIME % max(len(due), 1)
    for number in (due[start:] + due[:start])[:POOLS_AT_A_TIME]:
        yield Put("elb_plan", 0, settle_plan(number))
        yield Run("elb_settle", most=SETTLE_RUNS)
    for number, (name, ring, moves) in enumerate(pools):
        if moves and not moving[number]:
            yield Delete("elb_moves", number)
            yield Put("elb_pools", number, {"name": name, "ring": ring, "moves": 0})
