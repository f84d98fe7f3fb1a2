# SPDX-License-Identifier: Apache-2.0
"""
The daemon is killed at any moment, again and again, under millions of frames a second: the datapath does not notice, and the next start
finds everything.

Each frame carries the numbers of the instances that it passed, and `judge` counts it by them. At the end the account must be exact: every
frame that was sent is judged, none under a chain that was never configured, and what the instances remember in their state maps adds up.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import attrs
import pytest
from xdpchain.errors import XdpchainError
from xdpchain.function import MapReader

from core.tests.chain.conftest import Wire
from tests.distributions.trail.trail import Judge, JudgeConfig, Trail, TrailConfig
from tests.helpers.kernel import Objects, expected_pins, objects, order, pinned_map, pins
from tests.helpers.node import Node, node_file, until
from tests.helpers.traffic import Generator, generator, numbers_of, own_names, received, signature

KILLED_APPLIES = 50
KILLED_STARTS, KILLED_ROLLBACKS, KILLED_UNLOADS = 10, 6, 5
NUMBERS = {"a": 1, "b": 2, "c": 3, "d": 4}
OWN = own_names([*NUMBERS, "judge"])
STATE = {OWN[name]: ["trail_seen"] for name in NUMBERS} | {OWN["judge"]: ["judge_paths"]}
PATHS, SEEN = Judge().maps(JudgeConfig())[0], Trail().maps(TrailConfig())[1]


@attrs.define
class Bed:
    """A node whose chain on `near` changes, while `lo` has all instances, so that none ever goes."""

    node: Node
    wire: Wire
    lo: int
    configured: set[int] = attrs.field(factory=set)

    def write(self, chain: Sequence[str]) -> None:
        """Write the node's file with this chain on `near`."""
        tables = {OWN[name]: {"plugin": "trail", "number": number} for name, number in NUMBERS.items()}
        chains = {"near": [OWN[name] for name in (*chain, "judge")], "lo": [*OWN.values()]}
        self.node.configure(node_file(chains, {**tables, OWN["judge"]: {"plugin": "judge"}}))
        self.configured.add(signature(NUMBERS[name] for name in chain))

    def runs(self) -> tuple[str, ...]:
        """The chain that is in the kernel."""
        back = {own: name for name, own in OWN.items()}
        return tuple(back[name] for name in order(self.node.root, "near"))[:-1]

    def counted(self) -> dict[int, int]:
        """Frames by what they passed."""
        return {path: sum(counts) for path, counts in self.map("judge").items()}

    def map(self, name: str) -> MapReader:
        """The state map of an instance."""
        return pinned_map(self.node.root, OWN[name], PATHS if name == "judge" else SEEN)

    def passing(self) -> set[tuple[int, ...]]:
        """The numbers in the frames that are judged from now on, as soon as there are some."""
        before = self.counted()
        found: set[tuple[int, ...]] = set()
        while not found:
            time.sleep(0.005)
            found = {numbers_of(path) for path, count in self.counted().items() if count > before.get(path, 0)}
        return found

    def check_nothing_strays(self, chain: Sequence[str]) -> None:
        """What is in the kernel is what belongs to a chain on `near`, the one on `lo`, and the state; not one object more."""
        chains = {self.wire.index: [OWN[name] for name in (*chain, "judge")], self.lo: [*OWN.values()]}
        modes = expected_pins({self.wire.index: chains[self.wire.index]}, STATE) + expected_pins({self.lo: chains[self.lo]}, {}, "generic")

        assert sorted(modes) == pins(self.node.root)

        expected = Objects(Counter(chains[self.wire.index]) + Counter(chains[self.lo]), dispatchers=2, links=2)
        # the kernel takes its time to free what nobody holds any more
        until(lambda: objects(OWN.values()) == expected, lambda: f"{objects(OWN.values())}, not {expected}", patience_s=5)


@pytest.fixture
def bed(here: Node, wire: Wire) -> Bed:
    """A node with the chain a, b."""
    bed = Bed(here, wire, 1)
    bed.write("ab")
    return bed


@contextlib.contextmanager
def under_fire(bed: Bed) -> Iterator[Generator]:
    """Frames from now on; at the end the account is checked to the last frame."""
    before, counted, seen = received("near"), bed.counted(), {name: bed.map(name).get(0) or 0 for name in NUMBERS}
    with generator("far") as frames:
        yield frames
        sent = frames.stop()
    after = received("near")
    judged = Counter(bed.counted())
    judged.subtract(counted)
    strange = {numbers_of(path): count for path, count in judged.items() if count and path not in bed.configured}

    assert {} == strange
    assert (sent, 0) == (sum(judged.values()), after[1] - before[1])
    assert sent == after[0] - before[0]
    for name, number in NUMBERS.items():
        passed = sum(count for path, count in judged.items() if number in numbers_of(path))
        assert seen[name] + passed == (bed.map(name).get(0) or 0), f"what {name} remembers"
    print(f"\n{sent / 1e6:.0f} million frames, none lost, none in a chain that nobody configured", end="")


def other(choose: random.Random, chain: tuple[str, ...]) -> tuple[str, ...]:
    """Another chain than this one."""
    while (found := tuple(choose.sample(list(NUMBERS), choose.randint(1, 4)))) == chain:
        pass
    return found


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
