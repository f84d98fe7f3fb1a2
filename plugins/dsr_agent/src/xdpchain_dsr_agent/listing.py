# SPDX-License-Identifier: Apache-2.0
"""
The file of services: thousands of lines that a node file need not hold, and that a control plane writes.

    vip 10.200.1.1:443 tcp 10.1.0.5:8443                     # the workload's own port, if it is another one
    vip [2001:db8::1]:53 udp 2001:db8:1::5 endpoint=10.1.0.5,10.1.0.6 unknown=learn

A line for each; what follows a `#` is a comment. What a line said is remembered: a service that did not change is the very object that it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import attrs
from xdpchain import Problem, TextFile
from xdpchain.config import MisfitError

from xdpchain_dsr_agent import words
from xdpchain_dsr_agent.service import Service

_REMEMBERED = 32_768
"""Lines: all of the largest file, and of another one."""


@attrs.frozen
class Fault:
    """What is wrong in a line."""

    message: str
    hint: str


@attrs.frozen(eq=False)
class Listing:
    """A whole file: its services with their lines, from 1, and what is wrong."""

    file: str = ""
    services: tuple[Service, ...] = ()
    lines: tuple[int, ...] = ()
    wrong: tuple[tuple[int, Fault], ...] = ()

    @classmethod
    def of(cls, file: TextFile | None) -> Listing:
        """What a file says; nothing where there is none."""
        if file is None:
            return cls()
        said = [(number, one) for number, line in enumerate(file.text.split("\n"), 1) if (one := _line(line)) is not None]
        right = [(number, one) for number, one in said if isinstance(one, Service)]
        wrong = [(number, one) for number, one in said if isinstance(one, Fault)] if len(right) < len(said) else []
        return cls(str(file.file), tuple(one for _, one in right), tuple(number for number, _ in right), tuple(wrong))

    def faults(self) -> Iterator[Problem]:
        """What is wrong with the lines."""
        for line, fault in self.wrong:
            yield Problem(("services",), fault.message, fault.hint, self.file, line)


@lru_cache(maxsize=_REMEMBERED)
def _line(line: str) -> Service | Fault | None:
    parts = line.partition("#")[0].split()
    if not parts:
        return None
    try:
        return words.service(parts)
    except MisfitError as misfit:
        return Fault(misfit.message, misfit.hint or f"for example: {misfit.example}")
