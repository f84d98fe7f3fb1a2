# SPDX-License-Identifier: Apache-2.0
"""
A spoofed flood of SYNs against what keeps it off, and well-behaved clients beside it.

Two floods: of 65,536 sources by chance, each of them far over its own rate, and of half a billion sources, few of which come twice. Against them
stand ratelimit (with `drop`; for the second flood with `syn-cookie`, and that is a thousand times over the shared limit), iptables with hashlimit,
and nftables with a limit for each source in a dynamic set. A bare XDP_DROP shows what the flood itself costs. The second flood fills the tables of
the other two: then hashlimit refuses everybody, and nftables lets everybody in. So their speed is compared for the first one.

*Handled* are the frames that the node's device took; those that were lost before it are counted, too. Flood and node share one CPU: the million
packets a second are of one CPU's time, and the making of the packets is in it. Before each measurement the flood uses up what its sources have
left. Then it goes on while a hundred clients, each with an address of its own, open connections below the rate of a source. A connection has failed
if its answer is not there within 5 seconds.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
from xdpchain.bpf.compiler.compile import Compiler

from bench.flood_guards import KNOWN, Guard, Kind, guards
from bench.flood_lab import PERIOD_S
from bench.measure import Result

REACH = 0.2
"""What the kernel's own may handle at most, as a share of what ratelimit does."""
_VISIT_S = 3 * PERIOD_S
_WARM, _FRAMES, _PIECE = 500_000, 250_000, 200_000
_TRIES = 10


@attrs.define
class Figures:
    """Of one guard: nanoseconds for a frame, each time it was measured; how many were sent in all, let in to the node's TCP, or lost."""

    ns: list[float] = attrs.field(factory=list)
    frames: int = 0
    let_in: int = 0
    lost: int = 0

    def add(self, guard: Guard, frames: int) -> bool:
        """Send so many and look what becomes of them. False: some were lost before the guard, and the time is that of the others."""
        before = guard.lab.tcp("InSegs")
        sent = guard.lab.send(frames)
        self.let_in += guard.lab.tcp("InSegs") - before
        self.frames += sent.frames
        self.lost += sent.lost
        if not sent.lost:
            self.ns.append(sent.seconds / sent.frames * 1e9)
        return not sent.lost


def measure(compiler: Compiler, rounds: int) -> Iterator[Result]:
    """Packets a second of each guard, as shares of ratelimit's; then the clients."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xdpchain-bench-")))
        these = list(guards(stack, compiler, folder))
        figures = {guard.case: Figures() for guard in these}
        for _ in range(rounds):
            for guard in these:
                _measure(guard, figures[guard.case])
        yield from _handled(these, figures)
        yield from (_clients(guard) for guard in these if guard.kind is not Kind.BARE)


def _measure(guard: Guard, figures: Figures) -> None:
    for _ in range(_TRIES):
        guard.lab.send(_WARM)
        if figures.add(guard, _FRAMES):
            return
    sys.exit(f"{guard.case}: frames are lost before it, again and again: does something else send to this network from another CPU?")


def _handled(these: Sequence[Guard], figures: Mapping[str, Figures]) -> Iterator[Result]:
    (bare,) = (figures[guard.case].ns for guard in these if guard.kind is Kind.BARE)
    ours = {guard.flood: figures[guard.case].ns for guard in these if guard.kind is Kind.OURS}
    for guard in these:
        seen = figures[guard.case]
        more = statistics.median(one - alone for one, alone in zip(seen.ns, bare, strict=True))
        detail = f"{statistics.median(seen.ns):.0f} ns, {more:.0f} more than bare; {100 * seen.let_in / seen.frames:.1f} % let in; {seen.lost} lost before it"
        yield Result("flood", guard.case, 1e3 / statistics.median(seen.ns), "million/s", None, detail)
        if guard.kind is Kind.THEIRS:
            share = statistics.median(our / their for their, our in zip(seen.ns, ours[guard.flood], strict=True))
            reach = REACH if guard.flood == KNOWN else None
            yield Result("flood", guard.case, share, "of ratelimit's", reach, f"ratelimit handles {1 / share:.1f} times as many")


def _clients(guard: Guard) -> Result:
    """The clients, while the flood goes on."""
    figures = Figures()
    guard.lab.send(_WARM)
    seen = guard.lab.visit(_VISIT_S, lambda: figures.add(guard, _PIECE))
    if errors := guard.lab.tcp("InCsumErrors"):
        sys.exit(f"{guard.case}: the kernel found {errors} wrong checksums: these are no SYNs")
    detail = f"of {seen.opened}; {seen.again} others needed a second SYN; {figures.frames / 1e6:.1f} million SYNs of the flood, {figures.lost} lost before it"
    return Result("flood", guard.case, seen.failed, "clients failed", 0 if guard.kind is Kind.OURS else None, detail)
