# SPDX-License-Identifier: Apache-2.0
"""
The node: which configuration runs, where it came from, and what went wrong since.

Synchronous and meant for one thread, which the service gives it; `status` may be called from any.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from xdpchain.chain.engine import Engine, unload
from xdpchain.chain.model import Interface, Plan
from xdpchain.config import NodeConfig, TextFile, load
from xdpchain.config.option import keys_of
from xdpchain.daemon import log as events
from xdpchain.daemon.exchange import Exchange
from xdpchain.daemon.failures import Failures
from xdpchain.daemon.found import Found
from xdpchain.daemon.hops import ANSWER_S, HopFollower
from xdpchain.daemon.problems import placed
from xdpchain.daemon.store import Record, Store, Texts, read_texts, then, with_text_files
from xdpchain.daemon.sweeping import sweep
from xdpchain.daemon.upkeep import keep_up
from xdpchain.daemon.wire import error_data, error_from
from xdpchain.errors import ConfigError, DaemonError, KernelError, PluginError, Problem, XdpchainError
from xdpchain.plugins import Plugins
from xdpchain.routes import News

_READ_TRIES = 3


ORIGINS = ("file", "other file", "rollback", "last good", "none")
"""Where what runs may come from: the node's file, another one, a rollback, the last good one when the file is bad at start, nowhere."""


@attrs.frozen
class Running:
    """What is applied. `origin` is one of `ORIGINS`, `since` a UNIX time."""

    origin: str = "none"
    source: str = ""
    since: float = 0.0
    texts: Texts | None = None
    warnings: tuple[Problem, ...] = ()


@attrs.define
class Applies:
    """How often an apply ended well ("applied"), was refused before it began ("refused"), or failed and was taken back ("failed")."""

    applied: int = 0
    refused: int = 0
    failed: int = 0
    last_applied: float = 0.0


class Node:
    """
    Applies configurations and remembers which.

    Args:
        file: the node's file.
        engine: carries applies out.
        store: keeps what was applied.
        plugins: bring the functions.
        present: lists the interfaces.
    """

    def __init__(self, file: Path, engine: Engine, store: Store, plugins: Plugins, present: Callable[[], list[Interface]]) -> None:
        self.file = file
        self.running = Running()
        self.applies = Applies()
        self.refused: XdpchainError | None = None
        """why the newest attempt to apply something did not end well"""
        self.astray: XdpchainError | None = None
        """why the chains could not follow the interfaces"""
        self.failures = Failures()
        self._hops = HopFollower(engine, self.failures)
        self._engine = engine
        self._store = store
        self._plugins = plugins
        self._present = present
        self._log = events.get_logger()
        self._told: tuple[tuple[str, ...], dict[str, str]] = ((), {})
        self._record = self._read_record()

    @property
    def config(self) -> NodeConfig | None:
        """What is applied."""
        return self._engine.config

    @property
    def blocked(self) -> Mapping[str, str]:
        """Interfaces whose chains cannot be attached, and why."""
        return self._told[1]

    @property
    def hop_news(self) -> News:
        """Where whoever watches next hops tells what is heard."""
        return self._hops.news

    @property
    def hops_due(self) -> bool:
        """Whether next hops are to be looked up though nothing was heard of a change."""
        return self._hops.due

    @property
    def file_differs(self) -> bool:
        """Whether the node's file is not what runs."""
        texts = self.running.texts
        return texts is not None and read_texts(self.file, texts) != texts

    def start(self) -> None:
        """
        The first apply: what a rollback chose, else the node's file, else what was applied last.

        Raises:
            XdpchainError: nothing of these can be applied. The chains that run go on.
        """
        if self._record and self._record.rolled_back:
            self._log.warning("rollback_kept", file=str(self.file), hint="`xdpchain apply` ends it")
            self._apply(self._store.good, "rollback", None, blocked_ok=True, routes_ok=True)
            return
        try:
            self._apply_file(None, blocked_ok=True, routes_ok=True)
        except XdpchainError as error:
            if self._record is None:
                raise
            try:
                self._apply(self._store.good, "last good", None, blocked_ok=True, routes_ok=True)
            except XdpchainError:
                raise error from None
            self.refused = _without_traceback(error)
            self._log.warning("last_good_used", file=str(self.file), **events.fields(error))

    def plan(self, file: Path | None) -> Plan:
        """What an apply would do."""
        config, _ = self._load(file or self.file)
        self._look_ahead(file or self.file, config, routes_ok=False)
        return self._engine.plan(config, self._present())

    def apply(self, file: Path | None, *, blocked_ok: bool) -> Plan:
        """
        Read a configuration and make it run, all or nothing.

        Raises:
            XdpchainError: what runs is what ran before.
        """
        return self._apply_file(file, blocked_ok=blocked_ok, routes_ok=False)

    def put(self, instance: str, key: str, data: bytes, *, blocked_ok: bool) -> Plan:
        """
        Put another text into the file that a key of a running instance names, and make it run, all or nothing.

        Raises:
            XdpchainError: what runs is what ran before, and the file, too.
        """
        named = self._named(instance, key)
        file, origin = Path(self.running.source), self.running.origin
        exchange = Exchange.of(file, ("function", instance, key), named.file, named.path, data, self.running.texts or {})
        plan = self._apply(
            file, origin, lambda texts: then(self._record, texts, str(file)), blocked_ok=blocked_ok, routes_ok=False, exchange=exchange
        )
        self._log.info("text_put", instance=instance, key=key, file=str(named.file), bytes=len(data))
        return plan

    def _named(self, instance: str, key: str) -> TextFile:
        """The file that a key of what runs names."""
        instances = self.config.instances if self.config else {}
        if instance not in instances:
            known = ", ".join(sorted(instances))
            raise DaemonError(f"no instance is called {instance!r}", hint=f"running are: {known}" if known else "nothing runs")
        if self.running.origin not in {"file", "other file"}:
            message = f"is not what runs ({self.running.origin}): a text put now would be lost with it"
            raise ConfigError((Problem((), message, "run `xdpchain apply` first", str(self.file)),))
        config = instances[instance].config
        texts = {one.name: value for one in keys_of(type(config)) if isinstance(value := getattr(config, one.name), TextFile)}
        if key not in texts:
            hint = (
                f"keys that do: {', '.join(texts)}" if texts else "write the path of a file there, and apply it, before a text can be put"
            )
            raise ConfigError((Problem(("function", instance, key), "names no file", hint, self.running.source),))
        return texts[key]

    def rollback(self) -> Plan:
        """
        Make the configuration before the current one run.

        Raises:
            XdpchainError: there is none, or it cannot be applied any more.
        """
        record = self._record or Record({})
        back = record.back(read_texts(self.file, record.previous or ()))
        origin = "rollback" if back.rolled_back else "file"
        plan = self._apply(self._store.previous, origin, lambda _: back, blocked_ok=True, routes_ok=True)
        self._log.warning("rolled_back", file=str(self.file), file_differs=back.rolled_back)
        return plan

    def follow(self) -> None:
        """Apply the current configuration to the interfaces that there are now. What fails is told, not raised."""
        if self.config is None:
            return
        try:
            plan = self._carry_out(self.config, Found(), blocked_ok=True)
        except XdpchainError as error:
            if self.astray is None or self.astray.message != error.message:
                self._log.warning("interface_failed", **events.fields(error))
            self.astray = _without_traceback(error)
            return
        self.astray = None
        self._tell(plan)
        if plan:
            self._log.info("applied", origin="interfaces", actions=_words(plan))
            self._after(self.config, plan)
            try:
                self.follow_next_hops()
            except XdpchainError as error:
                self._log.warning("watch_failed", **events.fields(error))

    def follow_next_hops(self) -> None:
        """
        Bring the running instances in line with the next hops that there are now.

        Raises:
            XdpchainError: they cannot be looked up.
        """
        if self.config is not None:
            self._hops.bring(self.config, self._hops.look(self.config))

    def keep_up(self) -> None:
        """Do the work that the functions have every second."""
        if self.config is not None:
            keep_up(self._engine, self.config, self.failures)

    def sweep(self) -> None:
        """
        Have the functions compare what they count with the sockets that there are.

        Raises:
            KernelError: the sockets cannot be read.
        """
        if self.config is not None:
            sweep(self._engine, self.config, self.failures)

    def unload(self) -> list[str]:
        """Remove everything from the kernel. Returns in words what went."""
        self._engine.close()
        gone = unload(self._engine.pins.root)
        self.running, self.astray, self._told = Running(), None, ((), {})
        self._hops.forget()
        self._log.warning("unloaded", removed=gone)
        return gone

    def _load(self, file: Path, kept: Mapping[str, str] | None = None) -> tuple[NodeConfig, Texts]:
        """A configuration and the very text that it was made of; `kept` are texts to take in place of those that its keys name."""
        kept = self._store.kept(file) if kept is None else kept
        for _ in range(_READ_TRIES):
            texts = read_texts(file)
            try:
                config = load(file, self._plugins.functions, kept)
            except ConfigError as error:
                raise self._plugins.explain(error) from None
            texts = with_text_files(texts, config)
            if kept is not None or read_texts(file, texts) == texts:
                return config, texts
        raise ConfigError((Problem((), "changes while it is read", "try again when it is written", str(file)),))

    def _look_ahead(self, file: Path, config: NodeConfig, *, routes_ok: bool) -> tuple[Found, list[Problem]]:
        """
        The next hops that a configuration wants to know, and what is wrong with it because of them.

        Raises:
            ConfigError: something is, and must not be. With `routes_ok` it may: at a start the routes may be still to come, and whoever goes
                back wants no advice.
        """
        found = self._hops.look(config, patience_s=ANSWER_S, trust=True)
        problems = placed(file, self._hops.problems(config, found))
        if problems and not routes_ok:
            raise ConfigError(tuple(problems))
        return found, problems

    def _apply_file(self, file: Path | None, *, blocked_ok: bool, routes_ok: bool) -> Plan:
        file = file or self.file
        origin = "file" if file == self.file else "other file"
        return self._apply(file, origin, lambda texts: then(self._record, texts, str(file)), blocked_ok=blocked_ok, routes_ok=routes_ok)

    def _apply(
        self,
        file: Path,
        origin: str,
        record: Callable[[Texts], Record] | None,
        *,
        blocked_ok: bool,
        routes_ok: bool,
        exchange: Exchange | None = None,
    ) -> Plan:
        """
        Load and apply.

        `record` says what to remember about the files then; None: it is what is remembered already. `exchange` is of a text file on this occasion.
        """
        try:
            config, texts = self._load(file, exchange.kept if exchange else None)
            found, problems = self._look_ahead(file, config, routes_ok=routes_ok)
        except XdpchainError as error:
            self.applies.refused += 1
            self._refuse("config_refused", file, error)
            raise
        try:
            with exchange or contextlib.nullcontext():
                plan = self._carry_out(config, found, blocked_ok=blocked_ok)
        except XdpchainError as error:
            self.applies.failed += 1
            self._refuse("apply_failed", file, error)
            raise
        self.applies.applied += 1
        self.applies.last_applied = time.time()
        self.refused = self.astray = None
        if record:
            self._remember(record(texts))
        self.running = Running(origin, str(file), time.time(), texts, config.warnings)
        self._log.info("applied", origin=origin, file=str(file), actions=_words(plan))
        for warning in (*config.warnings, *problems):
            self._log.warning("config_warning", file=warning.file, line=warning.line, problem=warning.message, hint=warning.hint)
        self._hops.bring(config, found)
        self._tell(plan)
        self._after(config, plan)
        return plan

    def _carry_out(self, config: NodeConfig, found: Found, *, blocked_ok: bool) -> Plan:
        """What the engine does. The file system of the pins may fail, too: full, read-only, gone."""
        try:
            return self._engine.apply(config, self._present(), blocked_ok=blocked_ok, hops=found.of)
        except OSError as error:
            text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise KernelError(text, errno=error.errno or 0, hint="xdpchain doctor looks at the file systems") from error

    def _refuse(self, event: str, file: Path, error: XdpchainError) -> None:
        self.refused = _without_traceback(error)
        self._log.error(event, file=str(file), **events.fields(error))
        events.config_problems(self._log, error)

    def _remember(self, record: Record) -> None:
        """Keep what was applied; where that fails, the datapath is right all the same."""
        if record == self._record:
            return
        self._record = record
        try:
            self._store.write(record)
        except OSError as error:
            self._log.error("state_unusable", error=str(error), hint=f"look at {self._store.state}")

    def _read_record(self) -> Record | None:
        try:
            return self._store.read()
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._log.error("state_unusable", error=str(error), hint=f"look at {self._store.state}")
            return None

    def _tell(self, plan: Plan) -> None:
        """Log which interfaces began to wait, and which are blocked since now."""
        waiting, blocked = self._told
        for name in plan.waiting:
            if name not in waiting:
                self._log.warning("interface_waiting", interface=name)
        for name, why in plan.blocked.items():
            if blocked.get(name) != why:
                self._log.error(
                    "interface_blocked",
                    interface=name,
                    by=why,
                    hint="mend it, or take the interface out of the config; it is looked at again by itself",
                )
        self._told = (plan.waiting, dict(plan.blocked))

    def _after(self, config: NodeConfig, plan: Plan) -> None:
        """Tell the plugins."""
        for name, answer in self._plugins.each("xdpchain_applied", config=config, plan=plan):
            if isinstance(answer, PluginError):
                self._log.error("plugin_failed", plugin=name, **events.fields(answer))


def _without_traceback(error: XdpchainError) -> XdpchainError:
    """A copy to keep. The error itself refers to the frames of the failed apply, and so to the maps and programs that it had made."""
    return error_from(error_data(error))


def _words(plan: Plan) -> list[str]:
    return [f"{action.kind.value} {action.subject}" for action in plan.actions]
