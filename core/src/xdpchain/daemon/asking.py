# SPDX-License-Identifier: Apache-2.0
"""What running functions say when somebody asks them. Reads only, so any thread may ask."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from xdpchain.bpf.maps import KernelMap
from xdpchain.chain.engine import Engine
from xdpchain.chain.instance import plugin_call
from xdpchain.config import InstanceConfig
from xdpchain.daemon.failures import Failures, overrides
from xdpchain.daemon.view import map_data
from xdpchain.daemon.wire import encode
from xdpchain.errors import DaemonError, XdpchainError
from xdpchain.function import Table


@attrs.frozen
class Look:
    """What an instance's `status` said, and when, on the monotonic clock."""

    at: float
    tables: Sequence[Table]

    @property
    def counts(self) -> bool:
        """Whether there is anything in it that has a rate."""
        return any(table.counters for table in self.tables)


class Asker:
    """Finds instances by name and asks their functions."""

    def __init__(self, engine: Engine, failures: Failures) -> None:
        self._engine = engine
        self._failures = failures

    def look(self, instance: str) -> Look:
        """
        What an instance says of itself.

        Raises:
            DaemonError: it does not run.
            PluginError: its `status` raised.
        """
        one, maps = self._running(instance)
        at = time.monotonic()
        with plugin_call(one.function, "status"):
            return Look(at, tuple(one.function.status(one.config, maps)))

    def about(self, instance: str) -> dict[str, Any]:
        """Its function and its maps. Raises `DaemonError` where it does not run."""
        one, maps = self._running(instance)
        summary = {name: {"entries": len(one), "capacity": one.schema.capacity, "help": one.schema.help} for name, one in maps.items()}
        return {"instance": instance, "function": one.function.name, "summary": one.function.summary, "maps": summary}

    def map(self, instance: str, name: str, limit: int) -> dict[str, Any]:
        """The first elements of one of its maps. Raises `DaemonError` where there is no such instance or map."""
        _, maps = self._running(instance)
        if name not in maps:
            raise DaemonError(f"instance {instance!r} has no map {name!r}", hint=f"its maps: {', '.join(maps) or 'none'}")
        return map_data(maps[name], max(limit, 0))

    def answer(self, instance: str, question: Mapping[str, Any]) -> dict[str, Any]:
        """
        The function's answer to a question, as plain data.

        Raises:
            DaemonError: the instance does not run, or answers no questions.
            XdpchainError: what the function says to the question.
            PluginError: it raised anything else.
        """
        one, maps = self._running(instance)
        if not overrides(one.function, "answer"):
            raise DaemonError(f"instance {instance!r} ({one.function.name}) answers no questions", hint=f"try: xdpchain show {instance}")
        with plugin_call(one.function, "answer"):
            plain: dict[str, Any] = json.loads(encode(one.function.answer(one.config, maps, question)))
            return plain

    def warnings(self) -> dict[str, list[str]]:
        """What each running instance warns of; one whose code fails is left out, and that is logged."""
        found = {}
        for one, maps in self._all():
            try:
                with plugin_call(one.function, "warnings"):
                    found[one.name] = [str(text) for text in one.function.warnings(one.config, maps)]
            except XdpchainError as error:
                self._failures.tell(one.name, "warnings", error)
        return found

    def _all(self) -> Iterator[tuple[InstanceConfig, Mapping[str, KernelMap]]]:
        config = self._engine.config
        for name in config.instances if config else ():
            try:
                yield self._running(name)
            except DaemonError:
                # in no chain now
                continue

    def _running(self, name: str) -> tuple[InstanceConfig, Mapping[str, KernelMap]]:
        config = self._engine.config
        try:
            maps = self._engine.maps(name)
        except KeyError:
            known = ", ".join(sorted(config.instances)) if config else ""
            text = f"running are: {known}" if known else "nothing runs"
            raise DaemonError(f"no instance is called {name!r}", hint=text) from None
        if config is None or name not in config.instances:
            raise DaemonError(f"instance {name!r} is being removed", hint="ask again")
        return config.instances[name], maps
