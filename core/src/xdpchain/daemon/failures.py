# SPDX-License-Identifier: Apache-2.0
"""What plugins' code raises where that must not be in anybody's way: each thing is logged once."""

from __future__ import annotations

from xdpchain.daemon import log as events
from xdpchain.errors import XdpchainError
from xdpchain.function import KernelFunction

MOST = 100
"""things of one instance that are logged; a text that is another one each time must not fill the disk"""


class Failures:
    """Remembers what was logged. Any thread may tell it something."""

    def __init__(self) -> None:
        self._told: dict[str, set[str]] = {}
        self._log = events.get_logger()

    def tell(self, instance: str, what: str, error: BaseException) -> None:
        """Log what an instance's `what` (its "metrics", its "upkeep") raised, if that is new."""
        text = error.message if isinstance(error, XdpchainError) else f"{type(error).__name__}: {error}"
        told = self._told.setdefault(instance, set())
        line = f"its {what}: {text}"
        if line in told or len(told) >= MOST:
            return
        told.add(line)
        extra = {"hint": error.hint} if isinstance(error, XdpchainError) and error.hint else {}
        self._log.error("plugin_failed", instance=instance, error=line, **extra)


def overrides(function: KernelFunction[object], method: str) -> bool:
    """Whether a function has a method of its own in place of one that does nothing."""
    return getattr(type(function), method) is not getattr(KernelFunction, method)
