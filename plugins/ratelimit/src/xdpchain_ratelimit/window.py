# SPDX-License-Identifier: Apache-2.0
"""
The two limits, as the BPF program computes them: one 64-bit word of state each, integer arithmetic, no rounding in anybody's favour.

`Window` is the sliding window of two buckets, `Arrival` the theoretical arrival time of GCRA, for rules with a burst and for bytes.
"""

from __future__ import annotations

import attrs

NUMBER_BITS = 20
"""Bits of the window's number. After exactly that many windows without a SYN (12 days of 1 s), old counts are taken for new ones, once."""
COUNT_BITS = 22

MAX_RATE = (1 << COUNT_BITS) - 1
"""The greatest rate: a window never counts beyond it."""
MAX_BUDGET = 1 << 62
"""The greatest rate * window_ns: the sum that is compared with it stays below 2^64."""

FINE_BITS = 14
"""GCRA counts time in 2^-14 ns."""
MAX_FINE_RATE = 10**11
"""The greatest rate of GCRA: what a unit costs of one second is rounded up by less than one percent."""
MAX_ROOM = 1 << 61
"""The greatest burst * cost, in 2^-14 ns: 39 hours."""
SKEW = 10**9 << FINE_BITS
"""How much further ahead than the burst reaches a word may be, before it is taken for an old one."""

_NUMBERS = 1 << NUMBER_BITS
_COUNTS = 1 << COUNT_BITS
_WORDS = 1 << 64


@attrs.frozen
class Window:
    """
    The state of one limit.

    `number` counts windows since the clock's zero, modulo 2^20; `previous` and `current` are the SYNs admitted in the window before it and in
    it.
    """

    number: int = 0
    previous: int = 0
    current: int = 0

    @classmethod
    def from_word(cls, word: int) -> Window:
        """The state in a word of the map `rl_windows`."""
        return cls(word >> 2 * COUNT_BITS, word >> COUNT_BITS & _COUNTS - 1, word & _COUNTS - 1)

    @property
    def word(self) -> int:
        """The state as one word."""
        return self.number << 2 * COUNT_BITS | self.previous << COUNT_BITS | self.current

    def admit(self, rate: int, window_ns: int, now_ns: int) -> Window | None:
        """The state after one more SYN, or None if there is no room for it; then the state stays as it is."""
        at, left_ns = self._at(window_ns, now_ns)
        if at.previous * left_ns + (at.current + 1) * window_ns > rate * window_ns:
            return None
        return attrs.evolve(at, current=at.current + 1)

    def refuse(self, rate: int, window_ns: int, now_ns: int) -> Window:
        """The state after one that was refused, where all that comes counts."""
        at, _ = self._at(window_ns, now_ns)
        return self if at.current >= rate else attrs.evolve(at, current=at.current + 1)

    def used(self, window_ns: int, now_ns: int) -> float:
        """How much of the rate is used now."""
        at, left_ns = self._at(window_ns, now_ns)
        return at.current + at.previous * left_ns / window_ns

    def _at(self, window_ns: int, now_ns: int) -> tuple[Window, int]:
        """The state seen at `now_ns`, and how much of the previous window the span of one window that ends now still covers."""
        number, elapsed_ns = divmod(now_ns, window_ns)
        number %= _NUMBERS
        match (number - self.number) % _NUMBERS:
            case 0:
                return self, window_ns - elapsed_ns
            case 1:
                return Window(number, self.current, 0), window_ns - elapsed_ns
            case age if age == _NUMBERS - 1:
                # another CPU's clock is a hair ahead, in the next window: so this is that one's first moment
                return self, window_ns
            case _:
                return Window(number, 0, 0), window_ns - elapsed_ns


@attrs.frozen
class Arrival:
    """The theoretical arrival time of one limit: when all that was admitted is paid off. `word` is in 2^-14 ns since the clock's zero, modulo 2^64."""

    word: int = 0

    def admit(self, cost: int, burst: int, amount: int, now_ns: int) -> Arrival | None:
        """The state after `amount` more, or None if the burst has no room for it; `cost` is what one unit costs in 2^-14 ns."""
        ahead, room = self._ahead(cost * burst, now_ns), cost * burst
        if ahead + amount * cost > room:
            return None
        return Arrival(((now_ns << FINE_BITS) + ahead + amount * cost) % _WORDS)

    def refuse(self, cost: int, burst: int, now_ns: int) -> Arrival:
        """The state after some that was refused, where all that comes counts: the burst is used up."""
        room = cost * burst
        return self if self._ahead(room, now_ns) >= room else Arrival(((now_ns << FINE_BITS) + room) % _WORDS)

    def used(self, cost: int, burst: int, now_ns: int) -> float:
        """How much of the burst is used now."""
        return self._ahead(cost * burst, now_ns) / cost

    def _ahead(self, room: int, now_ns: int) -> int:
        ahead = (self.word - (now_ns << FINE_BITS)) % _WORDS
        return ahead if ahead <= room + SKEW else 0


def cost_of(rate: int, window_ns: int) -> int:
    """What one unit costs of the time, in 2^-14 ns, rounded up: never more than the rate."""
    return -((-window_ns << FINE_BITS) // rate)
