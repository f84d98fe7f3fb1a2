# SPDX-License-Identifier: Apache-2.0
"""
More than a thousand changes of a running node under millions of frames a second: none is lost, and nothing grows.

`tox -e soak` runs it; it takes some minutes.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.helpers.bed import NUMBERS, OWN, Bed, other, under_fire
from tests.helpers.kernel import held_by, resident_bytes
from tests.helpers.node import until

CHANGES, WARM_UP, LOOK_EVERY = 1600, 800, 100
MAPS = 2 * len(NUMBERS) + 1
"""of all instances"""
GROWTH_BYTES = 1 << 20
"""
What a daemon's memory may grow by between WARM_UP and CHANGES. Before, Python's table of names of files grows to the size that it keeps: pins
of each generation have new names.
"""


def step(bed: Bed, choose: random.Random, chain: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """One thing that an operator does: what it was, and the chain that runs then."""
    what = choose.choices(["apply", "SIGHUP", "rollback", "nothing new", "bad file", "fewer and back"], [40, 30, 10, 8, 8, 4])[0]
    new = chain if what in {"nothing new", "bad file"} else other(choose, chain)
    bed.write(new)
    match what:
        case "SIGHUP":
            bed.node.hang_up()
        case "bad file":
            bed.node.configure("[node]\nno_key = 1\n")
            bed.node.hang_up()
            bed.write(chain)
        case "rollback":
            bed.node.ask("apply")
            bed.node.ask("rollback")
            return what, chain
        case "fewer and back":
            bed.node.ask("apply")
            bed.write(chain)
            bed.node.ask("apply")
            return what, chain
        case _:
            bed.node.ask("apply")
    return what, new


def check_only_this_is_held(bed: Bed, hops: int) -> None:
    """The daemon holds two maps and a program for each hop and each of two dispatchers, two links, and the maps of the instances."""
    expected = {"prog": hops + 2, "link": 2, "map": 2 * (hops + 2) + MAPS}
    until(lambda: held_by(bed.node.pid) == expected, lambda: f"{held_by(bed.node.pid)}, not {expected}", patience_s=5)


@pytest.mark.soak
def test_a_thousand_changes_lose_no_frame_and_leave_nothing_behind(bed: Bed) -> None:
    choose = random.Random(7)
    bed.node.start()
    chain: tuple[str, ...] = ("a", "b")
    done: Counter[str] = Counter()
    memory: list[int] = []
    with under_fire(bed):
        for number in range(1, CHANGES + 1):
            what, chain = step(bed, choose, chain)
            done[what] += 1
            assert bed.runs() == chain, what
            if number % LOOK_EVERY == 0:
                bed.check_nothing_strays(chain)
                check_only_this_is_held(bed, hops=len(chain) + 1 + len(OWN))
                memory.append(resident_bytes(bed.node.pid))
    warm, end = memory[WARM_UP // LOOK_EVERY - 1], memory[-1]
    print(f"\n{dict(done)}; memory in MB every {LOOK_EVERY} changes: {' '.join(f'{one / 1e6:.1f}' for one in memory)}", end="")

    assert end - warm < GROWTH_BYTES


@pytest.mark.soak
def test_a_hundred_restarts_leave_nothing_behind(bed: Bed) -> None:
    choose = random.Random(8)
    bed.node.start()
    chain: tuple[str, ...] = ("a", "b")
    with under_fire(bed):
        for _ in range(100):
            chain = other(choose, chain)
            bed.write(chain)
            bed.node.kill() if choose.random() < 0.5 else bed.node.end()
            bed.node.start()
            bed.check_nothing_strays(chain)
