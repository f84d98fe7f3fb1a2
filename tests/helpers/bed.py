# SPDX-License-Identifier: Apache-2.0
"""
A node under millions of frames a second, and the account of them.

Each frame carries the numbers of the instances that it passed, and `judge` counts it by them. At the end the account must be exact: every
frame that was sent is judged, none under a chain that was never configured, and what the instances remember in their state maps adds up.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import attrs
from xdpchain.function import MapReader

from core.tests.chain.conftest import Wire
from tests.distributions.trail.trail import Judge, JudgeConfig, Trail, TrailConfig
from tests.helpers.kernel import Objects, expected_pins, objects, order, pinned_map, pins
from tests.helpers.node import Node, node_file, until
from tests.helpers.traffic import Generator, generator, numbers_of, own_names, received, signature

LO = 1
"""the index of `lo` in every network"""
NUMBERS = {"a": 1, "b": 2, "c": 3, "d": 4}
"""what each instance writes into a frame; a test's variant of the plugin may add hundreds"""
OWN = own_names([*NUMBERS, "judge"])
STATE = {OWN[name]: ["trail_seen"] for name in NUMBERS} | {OWN["judge"]: ["judge_paths"]}
PATHS, SEEN = Judge().maps(JudgeConfig())[0], Trail().maps(TrailConfig())[1]


@attrs.define
class Bed:
    """A node whose chain on `near` changes, while `lo` has all instances, so that none ever goes."""

    node: Node
    wire: Wire
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
        chains = {self.wire.index: [OWN[name] for name in (*chain, "judge")], LO: [*OWN.values()]}
        modes = expected_pins({self.wire.index: chains[self.wire.index]}, STATE) + expected_pins({LO: chains[LO]}, {}, "generic")

        assert sorted(modes) == pins(self.node.root)

        expected = Objects(Counter(chains[self.wire.index]) + Counter(chains[LO]), dispatchers=2, links=2)
        # the kernel takes its time to free what nobody holds any more
        until(lambda: objects(OWN.values()) == expected, lambda: f"{objects(OWN.values())}, not {expected}", patience_s=5)


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
        passed = sum(count for path, count in judged.items() if number in {one % 100 for one in numbers_of(path)})
        assert seen[name] + passed == (bed.map(name).get(0) or 0), f"what {name} remembers"
    print(f"\n{sent / 1e6:.0f} million frames, none lost, none in a chain that nobody configured", end="")


def other(choose: random.Random, chain: tuple[str, ...]) -> tuple[str, ...]:
    """Another chain than this one."""
    while (found := tuple(choose.sample(list(NUMBERS), choose.randint(1, 4)))) == chain:
        pass
    return found
