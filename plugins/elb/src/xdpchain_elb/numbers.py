# SPDX-License-Identifier: Apache-2.0
"""Numbers for VIPs, pools, members and backends: which are free, and which of those is taken next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from xdpchain import XdpchainError


class Numbers:
    """
    Free numbers of one kind. What became free last is taken last: a packet may still be reading there.

    Args:
        free: those that are free, best first; asked only for as many as are taken.
        what: the kind, for the error.
        setting: the key of the config that says how many there are.
    """

    def __init__(self, free: Iterator[int], what: str, setting: str) -> None:
        self._free = free
        self._freed: deque[int] = deque()
        self._what = what
        self._setting = setting

    def take(self) -> int:
        """
        One that is free.

        Raises:
            XdpchainError: there is none.
        """
        number = next(self._free, None)
        if number is not None:
            return number
        if self._freed:
            return self._freed.popleft()
        raise XdpchainError(f"there is no room for another {self._what}", hint=f"raise {self._setting}, or change less at a time")

    def give_back(self, number: int) -> None:
        """It is not needed any more."""
        self._freed.append(number)


def unused(used: Callable[[], set[int]], end: int) -> Iterator[int]:
    """Numbers from 1 to below `end` that are not among the used ones: first those above all of them."""
    taken = used()
    top = max(taken, default=0)
    yield from range(top + 1, end)
    yield from (number for number in range(1, top) if number not in taken)


def unused_above(mark: int, used: Callable[[], set[int]], end: int) -> Iterator[int]:
    """As `unused`, where it is known that no number above `mark` ever was; who is used is asked only when these have run out."""
    yield from range(mark + 1, end)
    taken = used()
    yield from (number for number in range(1, mark + 1) if number not in taken)
