# SPDX-License-Identifier: Apache-2.0
"""A transaction: what was done, to be undone in reverse when a later step fails."""

from __future__ import annotations

from collections.abc import Callable

from xdpchain.errors import XdpchainError


class Transaction:
    """Collects, for each step done, how to undo it. Not committed, it undoes everything, last step first."""

    def __init__(self) -> None:
        self._undo: list[tuple[str, Callable[[], object]]] = []

    def undo(self, what: str, how: Callable[[], object]) -> None:
        """Register how to take back the step just done."""
        self._undo.append((what, how))

    def roll_back(self) -> list[str]:
        """Take everything back; a step that cannot be taken back is named in the result and does not stop the others."""
        failed = []
        for what, how in reversed(self._undo):
            try:
                how()
            except (XdpchainError, OSError) as error:
                failed.append(f"{what}: {error}")
        self._undo.clear()
        return failed

    def absorb(self, other: Transaction) -> None:
        """Take over the steps of another transaction that succeeded."""
        self._undo.extend(other._undo)
        other._undo.clear()
