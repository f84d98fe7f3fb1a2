# SPDX-License-Identifier: Apache-2.0
"""
The daemon is killed at any moment, again and again, under millions of frames a second: the datapath does not notice, and the next start
finds everything.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

from xdpchain.errors import XdpchainError

from tests.helpers.bed import NUMBERS, OWN, Bed, other, under_fire
from tests.helpers.kernel import objects
from tests.helpers.node import Node, until

KILLED_APPLIES = 50
KILLED_STARTS, KILLED_ROLLBACKS, KILLED_UNLOADS = 10, 6, 5


def asked(node: Node, word: str) -> Callable[[], None]:
    """Ask for something in a thread of its own; what is returned waits for the end of it, whatever the answer."""

    def ask() -> None:
        with contextlib.suppress(XdpchainError, OSError):
            node.ask(word)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread.join


def duration(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def moments(choose: random.Random, count: int, duration_s: float) -> list[float]:
    """Random moments, one in each of `count` equal parts of a duration, in random order."""
    found = [(number + choose.random()) * duration_s / count for number in range(count)]
    choose.shuffle(found)
    return found


def test_a_daemon_that_is_killed_while_it_applies_leaves_the_old_chain_or_the_new_one(bed: Bed) -> None:
    choose = random.Random(1)
    bed.node.start()
    old: tuple[str, ...] = ("a", "b")
    outcomes: Counter[str] = Counter()
    with under_fire(bed):
        took = []
        for chain in (("b", "c"), ("d",), ("c", "a", "b")):
            bed.write(chain)
            took.append(duration(lambda: bed.node.ask("apply")))
            old = chain
        longest = max(took)
        for moment in moments(choose, KILLED_APPLIES, longest * 1.2):
            new = other(choose, old)
            bed.write(new)
            wait = asked(bed.node, "apply")
            time.sleep(moment)
            bed.node.kill()
            wait()
            runs = bed.runs()
            assert runs in {old, new}
            assert bed.passing() == {tuple(NUMBERS[name] for name in runs)}
            outcomes["new" if runs == new else "old"] += 1
            if choose.random() < 0.3:
                bed.write(runs)  # somebody takes the change back before the next start
                new = runs
            bed.node.start()
            assert bed.runs() == new
            bed.check_nothing_strays(new)
            old = new
    print(f"\n{KILLED_APPLIES} applies of {longest * 1e3:.0f} ms were killed: {dict(outcomes)}", end="")
    assert outcomes["old"]
    assert outcomes["new"]


def test_a_daemon_that_is_killed_while_it_starts_is_no_loss(bed: Bed) -> None:
    choose = random.Random(2)
    bed.node.start()
    bed.node.end()
    longest = bed.node.start()
    bed.node.end()
    old: tuple[str, ...] = ("a", "b")
    with under_fire(bed):
        for moment in moments(choose, KILLED_STARTS, longest * 1.5):
            new = other(choose, old)
            bed.write(new)
            bed.node.spawn()
            time.sleep(moment)
            bed.node.kill()
            runs = bed.runs()
            assert runs in {old, new}
            assert bed.passing() == {tuple(NUMBERS[name] for name in runs)}
            old = runs
        bed.write("dcba")
        bed.node.start()
        assert bed.runs() == tuple("dcba")
        bed.check_nothing_strays("dcba")
    print(f"\n{KILLED_STARTS} starts of {longest * 1e3:.0f} ms were killed", end="")


def test_a_daemon_that_is_killed_while_it_rolls_back_leaves_one_of_the_two_chains(bed: Bed) -> None:
    choose = random.Random(3)
    bed.node.start()
    bed.write("cd")
    bed.node.ask("apply")
    longest = max(duration(lambda: bed.node.ask("rollback")) for _ in range(2))
    outcomes: Counter[str] = Counter()
    with under_fire(bed):
        for moment in moments(choose, KILLED_ROLLBACKS, longest * 1.2):
            before = bed.runs()
            wait = asked(bed.node, "rollback")
            time.sleep(moment)
            bed.node.kill()
            wait()
            assert bed.runs() in {tuple("ab"), tuple("cd")}
            bed.node.start()
            runs = bed.runs()
            assert runs in {tuple("ab"), tuple("cd")}
            bed.check_nothing_strays(runs)
            outcomes["rolled back" if runs != before else "not"] += 1
            status = bed.node.status()["config"]
            assert (status["origin"] == "rollback") == (runs == tuple("ab"))
    print(f"\n{KILLED_ROLLBACKS} rollbacks of {longest * 1e3:.0f} ms were killed: {dict(outcomes)}", end="")


def test_a_daemon_that_is_killed_while_it_unloads_leaves_nothing_that_the_next_start_cannot_mend(bed: Bed) -> None:
    choose = random.Random(4)
    bed.node.start()
    longest = duration(lambda: bed.node.ask("unload"))
    for moment in moments(choose, KILLED_UNLOADS, longest * 1.2):
        bed.node.ask("apply") if bed.node.running else bed.node.start()
        wait = asked(bed.node, "unload")
        time.sleep(moment)
        bed.node.kill()
        wait()
        bed.node.start()
        assert bed.runs() == tuple("ab")
        bed.check_nothing_strays("ab")
    bed.node.kill()

    bed.node.command("unload", "--yes")

    assert not bed.node.root.exists()
    until(lambda: not objects(OWN.values()).hops)
    assert (objects(OWN.values()).dispatchers, objects(OWN.values()).links) == (0, 0)
