# SPDX-License-Identifier: Apache-2.0
"""Mutated packets through the real program, each judged, all of them counted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path

import attrs
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.function import Verdict
from xdpchain.testing.chain import LoadedChain
from xdpchain.testing.mutate import Mutator
from xdpchain_elb.function import Elb

from plugins.elb.tests.fuzz.checker import ENCAPSULATED, Checker, WrongError
from plugins.elb.tests.fuzz.seeds import (
    BACKENDS4,
    BACKENDS6,
    GUE_PORT,
    NETWORKS,
    NEXT_HOP,
    SOURCE4,
    SOURCE6,
    VIPS,
    document,
    seeds,
    table,
    without,
)
from plugins.elb.tests.shot import Shot

BATCH = 2000
"""Frames between two looks at the counters."""
CHANGE_EVERY = 50
"""Batches between two changes of the backends."""
_SHOWN = 20
_FAULTS = 20
_TELL_EVERY = 250_000


@attrs.frozen
class Fault:
    """A frame that was treated wrongly, in hex, and what is wrong."""

    what: str
    sent: str
    verdict: int
    got: str


@attrs.define
class Account:
    """What was sent, by verdict and reason, and what was wrong."""

    frames: int = 0
    reasons: Counter[str] = attrs.field(factory=Counter)
    faults: list[Fault] = attrs.field(factory=list)


class Fuzz:
    """
    A balancer under fire.

    Args:
        chain: loaded with `document(mtu)`.
        mtu: of the way to the backends.
        seed: the same one gives the same frames.
    """

    def __init__(self, chain: LoadedChain, mtu: int, seed: int) -> None:
        self._chain, self._shot, self._mtu = chain, Shot(chain), mtu
        self._frames = Mutator(seeds(), seed)
        self._checker = Checker(
            networks=NETWORKS,
            backends=frozenset(ip_address(one).packed for one in (*BACKENDS4, *BACKENDS6)),
            sources=frozenset(ip_address(one).packed for one in (SOURCE4, SOURCE6)),
            next_hop=NEXT_HOP,
            gue_port=GUE_PORT,
            mtu=mtu,
        )
        self.account = Account()

    def run(self, frames: int) -> Iterator[Account]:
        """Send `frames` frames, and give the account after each batch; ends early when there are too many faults."""
        for batch in range(frames // BATCH):
            if batch % CHANGE_EVERY == CHANGE_EVERY - 1:
                vips = without(VIPS, batch // CHANGE_EVERY) if batch // CHANGE_EVERY % 2 == 0 else VIPS
                self._chain.configure("elb", table(self._mtu, vips))
            self._batch()
            yield self.account
            if len(self.account.faults) >= _FAULTS:
                return

    def _batch(self) -> None:
        counts, members = self._chain.counts("elb"), self._packets()
        verdicts, encapsulated, faults = Counter[int](), 0, len(self.account.faults)
        for _ in range(BATCH):
            sent = self._frames.next()
            verdict, got = self._shot(sent)
            verdicts[verdict] += 1
            try:
                encapsulated += self._checker.check(sent, verdict, got) == ENCAPSULATED
            except (WrongError, IndexError) as error:
                self.account.faults.append(Fault(str(error) or repr(error), sent.hex(), verdict, got.hex()))
        now = self._chain.counts("elb")
        added = {key: number - counts.get(key, 0) for key, number in now.items() if number != counts.get(key, 0)}
        counted = Counter[int]()
        for (verdict, reason), number in added.items():
            counted[Verdict.PASS if verdict is Verdict.NEXT else verdict] += number
            self.account.reasons[f"{verdict.name} {reason}".strip()] += number
        if counted != verdicts:
            self._miscounted(f"{dict(verdicts)} frames were counted as {dict(counted)}")
        if faults == len(self.account.faults) and encapsulated != self._packets() - members:
            self._miscounted(f"{encapsulated} encapsulated frames were counted as {self._packets() - members} of backends")
        self.account.frames += BATCH

    def _miscounted(self, what: str) -> None:
        self.account.faults.append(Fault(what, "", 0, ""))

    def _packets(self) -> int:
        """What the members' counters say."""
        return sum(one["packets"] for _, each in self._chain.maps["elb"]["elb_stats"].items() for one in each)


def work(frames: int, seed: int, mtu: int, cache: str) -> Account:
    """One process's share."""
    fuzz = Fuzz(LoadedChain(document(mtu), "eth0", [Elb()], Compiler(Path(cache))), mtu, seed)
    began = time.monotonic()
    for account in fuzz.run(frames):
        if account.frames % _TELL_EVERY < BATCH:
            rate = account.frames / (time.monotonic() - began)
            print(f"MTU {mtu}: {account.frames} frames, {rate:.0f} a second, {len(account.faults)} faults", flush=True)
    return fuzz.account


def told(account: Account) -> str:
    """An account in words."""
    lines = [f"{account.frames} frames; {len(account.faults)} faults"]
    lines += [f"  {number:>10} {reason}" for reason, number in account.reasons.most_common()]
    lines += [f"  {fault.what}: {fault.sent} -> {fault.verdict} {fault.got}" for fault in account.faults[:_SHOWN]]
    return "\n".join(lines)


def not_reached(reasons: Mapping[str, int], wanted: Iterable[str]) -> set[str]:
    """Which of the wanted reasons no frame had."""
    return {reason for reason in wanted if not any(one.split()[-1] == reason for one in reasons)}
