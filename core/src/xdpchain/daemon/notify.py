# SPDX-License-Identifier: Apache-2.0
"""Telling systemd: ready, reloading, stopping, alive (sd_notify(3), without its library)."""

from __future__ import annotations

import os
import socket
import time

import attrs

PATIENCE_S = 0.5
"""how long a manager with a full queue is waited for: the loop stands still meanwhile"""


@attrs.frozen
class Notifier:
    """
    Sends state to the service manager; does nothing where there is none.

    `address` is the manager's socket ("@name" is an abstract one), `watchdog_s` the seconds in which it wants a sign of life (0: never).
    """

    address: str = ""
    watchdog_s: float = 0.0

    @classmethod
    def from_environment(cls) -> Notifier:
        """What systemd says in the environment, taken out of it: the compiler's workers are not the service."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        microseconds = os.environ.pop("WATCHDOG_USEC", "0")
        pid = os.environ.pop("WATCHDOG_PID", "")
        ours = pid in {"", str(os.getpid())} and microseconds.isdecimal()
        return cls(address, int(microseconds) / 1e6 if ours else 0.0)

    def ready(self, status: str) -> None:
        """Started, or done with a reload."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; the manager compares the time with that of its signal."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The end begins."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """The sign of life for the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self.address:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
                manager.settimeout(PATIENCE_S)
                manager.connect(address)
                manager.send("\n".join(line.replace("\n", " ") for line in lines).encode())
        except OSError:
            # a manager that is gone, or too busy to listen, cannot be told, and the chains matter more
            return
