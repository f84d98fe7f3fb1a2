# SPDX-License-Identifier: Apache-2.0
"""
How the benchmarks measure: every case as a multiple of a bare `return XDP_PASS` of the same round.

Times move by a factor of two with the neighbours of a machine; ratios of cases that take turns hold. Every round runs every case once, between
two runs of the reference whose mean it is compared with; what counts is the median over the rounds.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping

import attrs
from xdpchain.bpf.compiler.compile import Compiler, Unit
from xdpchain.bpf.handle import Handle
from xdpchain.bpf.libbpf import test_run
from xdpchain.bpf.loader import load_program
from xdpchain.function import Hook

REPEAT = 200_000
"""Runs of a program in one call: fewer, and the call itself shows."""


@attrs.frozen
class Result:
    """
    One line of the table.

    `value` is what the reach is about, in `unit`; `reach` is the most it may be, None for a figure that is only told. `detail` says it in
    nanoseconds or whatever was measured.
    """

    bench: str
    case: str
    value: float
    unit: str
    reach: float | None = None
    detail: str = ""

    @property
    def within(self) -> bool | None:
        return None if self.reach is None else self.value <= self.reach


@attrs.frozen
class Sample:
    """The medians of one case: nanoseconds, and multiples of the reference."""

    ns: float
    ratio: float


def pin() -> int:
    """Stay on one CPU, the last one that this process may use; its number."""
    cpu = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    return cpu


def bare(compiler: Compiler, *, frags: bool = False) -> Handle:
    """The reference: a program that only says XDP_PASS."""
    unit = Unit("bench", "int bare(struct xdp_md *ctx)\n{\n\treturn XDP_PASS;\n}\n", {"bare": Hook.XDP})
    return load_program(compiler.compile(unit), "bare", Hook.XDP, {}, {}, name="bare", frags=frags)


def program(fd: int, frame: bytes) -> Callable[[], float]:
    """A case: nanoseconds for one run of a program on a frame."""
    return lambda: test_run(fd, frame, repeat=REPEAT)[2]


def compare(reference: Callable[[], float], cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Sample]:
    """Measure cases in turns, each between two runs of the reference."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    ratios: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        before = reference()
        for name, case in cases.items():
            time = case()
            after = reference()
            times[name].append(time)
            ratios[name].append(2 * time / (before + after))
            before = after
    return {name: Sample(statistics.median(times[name]), statistics.median(ratios[name])) for name in cases}


@attrs.frozen
class Behind:
    """A case whose program has another one in front, and what that one takes by itself: with a bare `return XDP_PASS` behind it."""

    case: Callable[[], float]
    front: Callable[[], float]


def compare_net(reference: Callable[[], float], cases: Mapping[str, Behind], rounds: int) -> dict[str, Sample]:
    """Measure cases in turns without what stands in front of them, each between two runs of its front and of the reference."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    ratios: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, one in cases.items():
            reference_before, front_before = reference(), one.front()
            time = one.case()
            front_after, reference_after = one.front(), reference()
            net = time - (front_before + front_after) / 2
            times[name].append(net)
            ratios[name].append(2 * net / (reference_before + reference_after))
    return {name: Sample(statistics.median(times[name]), statistics.median(ratios[name])) for name in cases}
