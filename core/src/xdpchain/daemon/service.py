# SPDX-License-Identifier: Apache-2.0
"""
The service: one event loop that serves clients, the watchdog and metrics, one thread that does the engine's work, a few that read.

A compile may take seconds; meanwhile the loop answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from xdpchain.chain.engine import Engine
from xdpchain.chain.model import Plan
from xdpchain.daemon import lock
from xdpchain.daemon import log as events
from xdpchain.daemon.asking import Asker
from xdpchain.daemon.exporter import Exporter
from xdpchain.daemon.hops import has_destinations
from xdpchain.daemon.metrics import NodeCollector
from xdpchain.daemon.node import Node
from xdpchain.daemon.notify import Notifier
from xdpchain.daemon.paths import Paths
from xdpchain.daemon.rates import with_rates
from xdpchain.daemon.sweeping import PERIOD_S as SWEEP_S
from xdpchain.daemon.sweeping import has_sweep
from xdpchain.daemon.upkeep import PERIOD_S, has_upkeep
from xdpchain.daemon.view import plugins_data, snapshot_data, tables_data
from xdpchain.daemon.wire import error_data, problem_data
from xdpchain.errors import XdpchainError
from xdpchain.netlink import watch
from xdpchain.plugins import Plugins
from xdpchain.routes import watch_next_hops
from xdpchain.version import version

T = TypeVar("T")

RETRY_S = 5.0
"""how often blocked interfaces and unknown next hops are looked at again: the kernel does not announce that a bpf_link went"""
LOOK_SHARE = 10
"""at most one part in so many of the time goes into looking next hops up, however fast routes change, and into sweeps"""
LONGEST_RATE_S = 60.0
"""over which a rate is taken; a client waits for it"""


class Service:
    """Everything that a daemon does after its start. Its coroutines may run at the same time; changes are made one after the other."""

    def __init__(self, paths: Paths, node: Node, engine: Engine, plugins: Plugins, notifier: Notifier) -> None:
        self.paths = paths
        self._asker = Asker(engine, node.failures)
        self.exporter = Exporter(NodeCollector(node, engine, plugins))
        self._node = node
        self._engine = engine
        self._plugins = plugins
        self._notifier = notifier
        self._log = events.get_logger()
        self._changes = asyncio.Lock()
        self._has_upkeep, self._has_destinations = asyncio.Event(), asyncio.Event()
        self._has_sweep, self._applied = asyncio.Event(), asyncio.Event()
        self._writer = ThreadPoolExecutor(1, "engine")
        self._readers = ThreadPoolExecutor(2, "reader")
        self._started = time.time()
        self._root_lock: int | None = None

    async def start(self) -> None:
        """Own the pins and apply for the first time. Raises `XdpchainError` where nothing can be applied."""
        self._own_root()
        await self._change(self._node.start)
        await self._settle()

    def ready(self) -> None:
        """Tell the service manager that clients are served."""
        self._notifier.ready(self._summary())

    async def stop(self) -> None:
        """Wait for a change that is under way, then let go. The chains go on."""
        self._notifier.stopping()
        async with self._changes:
            await self.exporter.close()
            self._writer.shutdown()
            self._readers.shutdown(cancel_futures=True)
            self._engine.close()

    async def apply(self, config: str | None = None, *, blocked_ok: bool = False) -> dict[str, Any]:
        """Read the node's file, or another one, and make it run."""
        plan: Plan = await self._change(lambda: self._node.apply(_path(config), blocked_ok=blocked_ok))
        await self._settle()
        return plan.as_data()

    async def reload(self) -> dict[str, Any]:
        """What SIGHUP does: apply the node's file; interfaces that are blocked are left out."""
        self._notifier.reloading()
        try:
            return await self.apply(blocked_ok=True)
        finally:
            self.ready()

    async def rollback(self) -> dict[str, Any]:
        """Make the configuration before the current one run."""
        plan: Plan = await self._change(self._node.rollback)
        await self._settle()
        return plan.as_data()

    async def put(self, instance: str, key: str, data: bytes, *, blocked_ok: bool = False) -> dict[str, Any]:
        """Put a text into the file that a key of a running instance names, and apply it."""
        plan: Plan = await self._change(lambda: self._node.put(instance, key, data, blocked_ok=blocked_ok))
        await self._settle()
        return plan.as_data()

    async def plan(self, config: str | None = None) -> dict[str, Any]:
        """What an apply would do."""
        plan: Plan = await self._change(lambda: self._node.plan(_path(config)))
        return plan.as_data()

    async def unload(self) -> dict[str, Any]:
        """Take everything out of the kernel."""
        gone = await self._change(self._unload)
        await self._settle()
        return {"removed": gone}

    async def status(self) -> dict[str, Any]:
        """What runs, where it came from, what it counted, and what is wrong."""
        snapshot = await self._read(self._engine.snapshot)
        warnings = await self._read(self._asker.warnings)
        node, running = self._node, self._node.running
        config = {
            "file": str(self.paths.config),
            "origin": running.origin,
            "source": running.source,
            "since": running.since,
            "file_differs": node.file_differs,
            "error": error_data(node.refused) if node.refused else None,
            "warnings": [problem_data(warning) for warning in running.warnings],
        }
        return {
            "daemon": {"pid": os.getpid(), "version": version(), "since": self._started},
            "config": config,
            "root": str(self.paths.root),
            "metrics": {"address": self.exporter.address, "problem": self.exporter.problem},
            "interfaces_error": error_data(node.astray) if node.astray else None,
            "plugins": plugins_data(self._plugins),
            **snapshot_data(snapshot, warnings),
        }

    async def show(self, instance: str, map: str | None = None, limit: int = 100, seconds: float = 1.0) -> dict[str, Any]:
        """What an instance says about itself, its counters with their rates over some seconds (0: without); or one of its maps."""
        if map is not None:
            return await self._read(lambda: self._asker.map(instance, map, limit))
        look = await self._read(lambda: self._asker.look(instance))
        tables = look.tables
        if look.counts and seconds > 0:
            await asyncio.sleep(min(seconds, LONGEST_RATE_S))
            later = await self._read(lambda: self._asker.look(instance))
            tables = with_rates(look.tables, later.tables, later.at - look.at)
        about = await self._read(lambda: self._asker.about(instance))
        return {**about, "tables": tables_data(tables)}

    async def ask(self, instance: str, question: Mapping[str, Any]) -> dict[str, Any]:
        """A running function's answer to a question of one of its plugin's commands."""
        return await self._read(lambda: self._asker.answer(instance, question))

    async def metrics(self) -> dict[str, Any]:
        """All metrics as text."""
        return {"text": (await self._read(lambda: self.exporter.text(""))).decode()}

    async def reload_whenever(self, asked: asyncio.Event) -> None:
        """Reload whenever the event is set, for ever. Failures are in the log and in `status`."""
        while True:
            await asked.wait()
            asked.clear()
            try:
                await self.reload()
            except XdpchainError:
                continue
            except Exception:  # noqa: BLE001 - the next reload may work
                self._log.exception("internal_error", during="a reload")

    async def follow(self) -> None:
        """Keep the chains where their interfaces are, for ever."""
        while True:
            try:
                async with contextlib.aclosing(watch()) as changes:
                    async for _ in changes:
                        await self._change(self._node.follow)
                        self._notifier.status(self._summary())
            except (OSError, XdpchainError) as error:
                self._log.warning("watch_failed", error=str(error))
            except Exception:  # noqa: BLE001 - the daemon goes on
                self._log.exception("internal_error", during="following interfaces")
            await asyncio.sleep(RETRY_S)

    async def follow_next_hops(self) -> None:
        """Keep the instances in line with the next hops that they asked for, for ever. Nobody listens while none asks."""
        while True:
            await self._has_destinations.wait()
            try:
                async with contextlib.aclosing(watch_next_hops(news=self._node.hop_news)) as changes:
                    async for _ in changes:
                        if not self._has_destinations.is_set():
                            break
                        began = time.monotonic()
                        await self._change(self._node.follow_next_hops)
                        await asyncio.sleep((time.monotonic() - began) * (LOOK_SHARE - 1))
                continue
            except (OSError, XdpchainError) as error:
                self._log.warning("watch_failed", error=str(error))
            except Exception:  # noqa: BLE001 - the daemon goes on
                self._log.exception("internal_error", during="following next hops")
            await asyncio.sleep(RETRY_S)

    async def keep_up(self) -> None:
        """Have the functions' work of every second done, for ever; not while an apply is under way. Nobody wakes while there is none."""
        while True:
            await self._has_upkeep.wait()
            await asyncio.sleep(PERIOD_S)
            if not self._changes.locked():
                try:
                    await self._change(self._node.keep_up)
                except Exception:  # noqa: BLE001 - the daemon goes on
                    self._log.exception("internal_error", during="upkeep")

    async def sweep(self) -> None:
        """Have the functions look at the sockets, after each apply and every few seconds, for ever. Nobody looks while none asks."""
        while True:
            await self._has_sweep.wait()
            self._applied.clear()
            began = time.monotonic()
            try:
                await self._change(self._node.sweep)
            except XdpchainError as error:
                self._log.warning("sweep_failed", **events.fields(error))
            except Exception:  # noqa: BLE001 - the daemon goes on
                self._log.exception("internal_error", during="a sweep")
            pause = max(SWEEP_S, (time.monotonic() - began) * (LOOK_SHARE - 1))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._applied.wait(), pause)

    async def retry(self) -> None:
        """Look at blocked interfaces and at next hops again, for ever."""
        while True:
            await asyncio.sleep(RETRY_S)
            try:
                if self._node.blocked:
                    await self._change(self._node.follow)
                if self._node.hops_due:
                    await self._change(self._node.follow_next_hops)
            except XdpchainError as error:
                self._log.warning("watch_failed", error=str(error))
            except Exception:  # noqa: BLE001 - the daemon goes on
                self._log.exception("internal_error", during="looking again")

    async def keep_alive(self) -> None:
        """Give the watchdog its signs of life, for ever."""
        while self._notifier.watchdog_s:
            self._notifier.alive()
            await asyncio.sleep(self._notifier.watchdog_s / 2)

    async def _change(self, action: Callable[[], T]) -> T:
        """Do something in the engine's thread. Once begun it is finished, whatever becomes of who asked for it."""
        async with self._changes:
            work = asyncio.get_running_loop().run_in_executor(self._writer, action)
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                with contextlib.suppress(Exception):
                    await work
                raise
            finally:
                # an exception in it refers to this frame, too: that circle would hold all that a failed apply had made in the kernel
                del work

    async def _read(self, action: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, action)

    async def _settle(self) -> None:
        """What follows a change of the configuration on the loop's side."""
        config = self._node.config
        _set(self._has_upkeep, to=has_upkeep(config))
        _set(self._has_destinations, to=has_destinations(config))
        _set(self._has_sweep, to=has_sweep(config))
        self._applied.set()
        await self.exporter.listen(config.node.metrics if config else "off")
        self._notifier.status(self._summary())

    def _own_root(self) -> None:
        self._root_lock = lock.own_root(self.paths.root)

    def _unload(self) -> list[str]:
        gone = self._node.unload()
        # the directory with our lock went, too
        if self._root_lock is not None:
            os.close(self._root_lock)
        self._own_root()
        return gone

    def _summary(self) -> str:
        """One line for the service manager."""
        node = self._node
        if node.refused:
            return f"the configuration was refused: {node.refused.message}"
        if node.config is None:
            return "nothing is applied"
        chains = sum(len(interface.chain) for interface in node.config.interfaces)
        return f"{len(node.config.instances)} instances in {len(node.config.interfaces)} chains ({chains} hops), from {node.running.origin}"


def _set(event: asyncio.Event, *, to: bool) -> None:
    if to:
        event.set()
    else:
        event.clear()


def _path(config: str | None) -> Path | None:
    return Path(config) if config else None
