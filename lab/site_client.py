# SPDX-License-Identifier: Apache-2.0
"""The clients of a site as processes in a namespace: what they are asked to do, and what they saw."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping

import attrs
from xdpchain.testing.namespace import Namespace

from lab.workload import REPOSITORY

TIMEOUT_S = 280.0


@attrs.frozen
class Seen:
    """How many of what a client did ended how, how many datagrams it sent again, and how long all of it took."""

    counts: Mapping[str, int]
    again: int
    seconds: float


class Running:
    """A client that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def seen(self) -> Seen:
        """What it saw, when it has ended; one that does the same again and again ends now."""
        said = json.loads(self._process.communicate(timeout=TIMEOUT_S)[0])
        return Seen(said["seen"], said.get("again", 0), said["seconds"])

    def end(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self._process.communicate()


class Client:
    """Starts clients in a namespace; see `lab.site_traffic` for what there is and its options."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._started: list[Running] = []

    def start(self, what: str, *addresses: str, port: int, again: bool = False, **options: float) -> Running:
        """Begin, beside what happens next: `start("short", VIP, port=80, number=1000)`."""
        words = [word for name, value in {"port": port, **options}.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        command = (sys.executable, "-m", "lab.site_traffic", what, *words, *(["--again"] if again else []), *addresses)
        pipe = subprocess.PIPE
        running = Running(self._namespace.start(*command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, start_new_session=True))
        self._started.append(running)
        return running

    def run(self, what: str, *addresses: str, port: int, **options: float) -> Seen:
        """The same, to its end."""
        return self.start(what, *addresses, port=port, again=False, **options).seen()

    def close(self) -> None:
        """End all that still run."""
        for one in self._started:
            one.end()
