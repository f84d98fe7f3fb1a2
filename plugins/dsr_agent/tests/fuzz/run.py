# SPDX-License-Identifier: Apache-2.0
"""Mutated packets through one of the agent's programs, each judged, all of them counted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.function import Hook
from xdpchain.testing.chain import LoadedChain
from xdpchain.testing.shot import Shot
from xdpchain_dsr_agent import DsrAgent

from plugins.dsr_agent.tests.conftest import BALANCERS
from plugins.dsr_agent.tests.fuzz.checker import Judge, WrongError, arrived, left
from plugins.dsr_agent.tests.fuzz.seeds import Frames
from plugins.dsr_agent.tests.packets import SERVICES

BATCH = 2000
_FAULTS, _SHOWN, _TELL_EVERY = 20, 20, 250_000
_XDP = {1: "drop", 2: "pass", 3: "tx", 4: "redirect"}
_TC = {0xFFFFFFFF: "pass", 2: "drop", 7: "redirect"}


@attrs.frozen
class Way:
    """One of the four programs: on which side, on which hook, in which direction, and what its answers are called."""

    side: str
    hook: Hook
    inward: bool

    @property
    def name(self) -> str:
        return f"{self.side}, {'arriving' if self.inward else 'leaving'}"


WAYS = (
    Way("network", Hook.XDP, inward=True),
    Way("network", Hook.TC_EGRESS, inward=False),
    Way("workload", Hook.TC_EGRESS, inward=True),
    Way("workload", Hook.TC_INGRESS, inward=False),
)
REACHED = {
    True: {"delivered", "strange_source", "no_service", "bad_outer", "bad_inner", "outer_fragment", "congested", "early_fragment"},
    False: {"answered", "guessed"},
}
"""The reasons that mutated frames must come to, inward and outward."""


def document(side: str) -> dict[str, object]:
    """A node with an agent."""
    table = {"accept_from": BALANCERS, "service": SERVICES, "flow_table": 65536}
    return {"interface": {"eth0": {"chain": ["dsr_agent"], "side": side}}, "function": {"dsr_agent": table}}


@attrs.define
class Account:
    """What was sent, by verdict and reason, and what was wrong."""

    frames: int = 0
    changed: int = 0
    reasons: Counter[str] = attrs.field(factory=Counter)
    faults: list[str] = attrs.field(factory=list)


class Fuzz:
    """An agent under fire."""

    def __init__(self, chain: LoadedChain, way: Way, seed: int) -> None:
        self._chain, self._way = chain, way
        self._shot = Shot(chain.program_of(way.hook))
        self._answers = _XDP if way.hook is Hook.XDP else _TC
        self._frames = Frames(seed, inward=way.inward)
        self._judge: Judge = arrived if way.inward else left
        self.account = Account()

    def run(self, frames: int) -> Iterator[Account]:
        """Send frames, and give the account after each batch; ends early when there are too many faults."""
        for _ in range(frames // BATCH):
            self._batch()
            yield self.account
            if len(self.account.faults) >= _FAULTS:
                return

    def _as_seen(self, sent: bytes) -> bytes:
        """At TC the first VLAN tag stands beside a packet that room was taken from, not in it."""
        tagged = self._way.hook is Hook.TC_EGRESS and self._way.inward and sent[12:14] in {b"\x81\0", b"\x88\xa8"}
        return sent[:12] + sent[16:] if tagged else sent

    def _batch(self) -> None:
        before, account = self._chain.counts("dsr_agent"), self.account
        for _ in range(BATCH):
            sent = self._frames.next()
            try:
                verdict, got = self._shot(sent)
            except OSError:
                continue  # too short for an skb
            answer = self._answers.get(verdict)
            try:
                if answer is None:
                    raise WrongError(f"the verdict {verdict}")
                if answer in {"pass", "redirect"}:
                    account.changed += got != sent and bool(self._judge(self._as_seen(sent), got))
            except (WrongError, IndexError, KeyError) as error:
                account.faults.append(f"{error!r}: {sent.hex()} -> {answer} {got.hex()}")
        for (one, reason), number in self._chain.counts("dsr_agent").items():
            if more := number - before.get((one, reason), 0):
                account.reasons[f"{one.name} {reason}".strip()] += more
        account.frames += BATCH


def work(frames: int, seed: int, number: int, cache: str) -> Account:
    """One program's share."""
    way = WAYS[number]
    fuzz = Fuzz(LoadedChain(document(way.side), "eth0", [DsrAgent()], Compiler(Path(cache))), way, seed)
    began = time.monotonic()
    for account in fuzz.run(frames):
        if account.frames % _TELL_EVERY < BATCH:
            rate = account.frames / (time.monotonic() - began)
            print(f"{way.name}: {account.frames} frames, {rate:.0f} a second, {len(account.faults)} faults", flush=True)
    return fuzz.account


def missing(account: Account, way: Way) -> set[str]:
    """Which of the wanted reasons no frame had."""
    return {reason for reason in REACHED[way.inward] if not any(one.split()[-1] == reason for one in account.reasons)}


def told(account: Account, way: Way) -> str:
    """An account in words."""
    lines = [f"{way.name}: {account.frames} frames, {account.changed} changed; {len(account.faults)} faults"]
    lines += [f"  {number:>10} {reason}" for reason, number in account.reasons.most_common()]
    return "\n".join([*lines, *account.faults[:_SHOWN]])
