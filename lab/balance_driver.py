# SPDX-License-Identifier: Apache-2.0
"""The two ends of the lab's connections as processes in their namespaces: servers on backends, and a client that does as it is told."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs
from xdpchain.testing.namespace import Namespace

from lab.balance import CLIENTS, Balance

REPOSITORY = Path(__file__).resolve().parent.parent
PORT = 8080
_TRAFFIC = (sys.executable, "-m", "lab.balance_traffic")


@attrs.frozen
class Report:
    """
    What became of the connections that were kept.

    `holds` counts those that still ask and are answered, by server; `broken` the others, by the last server that answered and why; `answers`
    is how many answers there were in all.
    """

    holds: dict[str, int]
    broken: dict[str, int]
    answers: int


@contextlib.contextmanager
def servers(balance: Balance, port: int = PORT) -> Iterator[None]:
    """A server on each backend, all of them listening."""
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(_running(one.namespace, "serve", one.name, str(port))) for one in balance.backends]
        for server in started:
            assert server.stdout is not None
            if server.stdout.readline() != "ready\n":
                raise RuntimeError("a server did not start")
        yield


class Driver:
    """
    The client's process, as a context.

    Args:
        namespace: where it is.
        sources: its addresses, from which connections come in turn.
    """

    def __init__(self, namespace: Namespace, sources: Sequence[str] = CLIENTS) -> None:
        self._sources = sources
        self._running = _running(namespace, "drive")

    def __enter__(self) -> Self:
        self._process = self._running.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._running.__exit__(kind, error, trace)

    def open(self, number: int, targets: Sequence[str], *, port: int = PORT, up: int = 0, down: int = 0) -> dict[str, int]:
        """
        Open connections, from all addresses of the client in turn, and keep them: they ask again and again.

        Args:
            number: how many.
            targets: the addresses to connect to, in turn.
            port: their port.
            up: bytes that go with each question.
            down: bytes that are wanted with each answer.

        Returns:
            How many connections each server has; those that failed under why.
        """
        return self._count("open", number=number, targets=targets, sources=self._sources, port=port, up=up, down=down)

    def probe(self, number: int, targets: Sequence[str], *, port: int = PORT, up: int = 0, down: int = 0) -> dict[str, int]:
        """As `open`, but each connection asks once and is closed."""
        return self._count("probe", number=number, targets=targets, sources=self._sources, port=port, up=up, down=down)

    def report(self) -> Report:
        """What has become of the connections, each of which has asked since this call, and was answered if it still holds."""
        answer = self._do("report")
        return Report(answer["holds"], answer["broken"], answer["answers"]["all"])

    def close(self) -> None:
        """Close all connections that are kept."""
        self._do("close")

    def _count(self, what: str, **how: Any) -> dict[str, int]:
        return dict(self._do(what, **how))

    def _do(self, what: str, **how: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **how}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the client has ended")
        return json.loads(line)


@contextlib.contextmanager
def _running(namespace: Namespace, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with namespace.start(*_TRAFFIC, *arguments, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()
