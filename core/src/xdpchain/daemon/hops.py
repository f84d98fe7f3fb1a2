# SPDX-License-Identifier: Apache-2.0
"""Keeping running instances in line with the next hops of their destinations. Synchronous, for the engine's thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs

from xdpchain.chain.engine import Engine
from xdpchain.chain.instance import plugin_call
from xdpchain.config import InstanceConfig, NodeConfig
from xdpchain.daemon import log as events
from xdpchain.daemon.failures import Failures, overrides
from xdpchain.daemon.found import Address, Asked, Found, put_together
from xdpchain.errors import Problem, XdpchainError
from xdpchain.function import NextHop, NextHops
from xdpchain.routes import News, next_hops

REFRESH_S = 30.0
"""after which neighbours are asked for again: the kernel forgets one that it has not used for a minute, and XDP does not count as use"""
ANSWER_S = 0.05
"""how long an apply waits for new neighbours to tell their hardware addresses: packets for them would be lost until then"""
_AGAIN_S = 0.01
MAX_EVENTS = 16
"""events of one look; thousands of servers may vanish in one moment"""


@attrs.frozen(eq=False)
class _Done:
    """What an instance was last brought in line with."""

    config: Any
    maps: Any
    hops: NextHops

    def still(self, config: Any, maps: Any, hops: NextHops) -> bool:
        return self.config is config and self.maps is maps and self.hops == hops


class HopFollower:
    """Looks next hops up, tells what became of them, and has the instances follow."""

    def __init__(self, engine: Engine, failures: Failures, look_up: Callable[[Iterable[Address]], NextHops] = next_hops) -> None:
        self._engine = engine
        self._failures = failures
        self._look_up = look_up
        self._log = events.get_logger()
        self.news = News()
        """what whoever listens has heard of changes"""
        self._asked: dict[str, tuple[Any, frozenset[Address]]] = {}
        self._done: dict[str, _Done] = {}
        self._last = Found()
        self._looked = 0.0
        self._behind = False

    @property
    def due(self) -> bool:
        """Whether it is time to look again without any news: something is not known, went wrong, or was not confirmed for a while."""
        if not self._asked:
            return False
        return self._behind or any(not hop.mac for hop in self._last.all.values()) or time.monotonic() >= self._looked + REFRESH_S

    def look(self, config: NodeConfig, *, patience_s: float = 0.0, trust: bool = False) -> Found:
        """
        The next hops that the instances of `config` want to know, each address looked up once for all of them.

        Args:
            config: what runs, or shall run.
            patience_s: how long to wait for neighbours that nobody asked for before.
            trust: leave out what is known already, if nothing was heard of a change since it was looked up. Thousands of addresses take the
                kernel a while, and an apply waits.

        Raises:
            XdpchainError: the kernel does not answer, or a plugin's `destinations` raised.
        """
        asked = self._destinations(config)
        if not asked:
            return Found()
        wanted = frozenset[Address]().union(*asked.values())
        news, before = self.news.heard, Found()
        if trust and self.news.listening and self._last.heard == news:
            before = self._last
            unsure = [address for address, hop in before.all.items() if not hop.mac]
            wanted = wanted.difference(before.all) | wanted.intersection(unsure)
        hops, until = self._look_up(wanted), time.monotonic() + patience_s
        while time.monotonic() < until and any(_unanswered(hops[address]) for address in wanted.difference(self._last.all)):
            time.sleep(_AGAIN_S)
            hops = self._look_up(wanted)
        if not before.all:
            self._looked = time.monotonic()
        return put_together(config, asked, before, hops, news)

    def _destinations(self, config: NodeConfig) -> Asked:
        asked = {}
        for one in _followers(config):
            known = self._asked.get(one.name)
            if known is None or known[0] is not one.config:
                with plugin_call(one.function, "destinations"):
                    known = one.config, frozenset(one.function.destinations(one.config))
            asked[one.name] = known
        self._asked = asked
        return {name: addresses for name, (_, addresses) in asked.items()}

    def problems(self, config: NodeConfig, found: Found) -> list[Problem]:
        """
        What the functions find wrong with a config in the light of its next hops.

        Raises:
            PluginError: one of them raised.
        """
        problems = []
        for one in _followers(config):
            with plugin_call(one.function, "check_next_hops"):
                wrong = list(one.function.check_next_hops(one.config, found.of[one.name]))
            problems += [attrs.evolve(problem, path=("function", one.name, *problem.path)) for problem in wrong]
        return problems

    def bring(self, config: NodeConfig, found: Found) -> None:
        """Have the running instances follow, those for which nothing changed left out. What fails is told, and tried again."""
        self._tell(found)
        done = {}
        self._behind = False
        for one in _followers(config):
            try:
                maps = self._engine.maps(one.name)
            except KeyError:
                # in no chain now
                continue
            last, hops = self._done.get(one.name), found.of[one.name]
            if last is None or not last.still(one.config, maps, hops):
                try:
                    with plugin_call(one.function, "follow"):
                        writes = list(one.function.follow(one.config, hops, maps))
                    self._engine.carry_out(one.name, writes, method="follow")
                except XdpchainError as error:
                    self._failures.tell(one.name, "next hops", error)
                    self._behind = True
                    continue
            done[one.name] = _Done(one.config, maps, hops)
        self._done = done

    def forget(self) -> None:
        """Nothing runs any more."""
        self._asked, self._done, self._last, self._behind = {}, {}, Found(), False

    def _tell(self, found: Found) -> None:
        """One event for all addresses that went the same way."""
        alike: dict[tuple[str, NextHop], list[Address]] = {}
        for address, hop in found.new.items():
            event = _event(self._last.all.get(address), hop)
            if event:
                alike.setdefault((event, hop), []).append(address)
        self._last = found
        for (event, hop), addresses in list(alike.items())[:MAX_EVENTS]:
            about = {"interface": hop.interface, "gateway": str(hop.gateway or ""), "mac": hop.mac.hex(":") if hop.mac else ""}
            fields: dict[str, Any] = {name: value for name, value in about.items() if value}
            fields |= {"address": str(addresses[0]), "addresses": len(addresses)}
            if event == "unknown":
                self._log.warning("next_hop_unknown", problem=hop.problem, **fields)
            elif event == "found":
                self._log.info("next_hop_found", mtu=hop.mtu, **fields)
            else:
                self._log.info("next_hop_changed", mtu=hop.mtu, **fields)
        if len(alike) > MAX_EVENTS:
            self._log.warning("next_hops_more", hops=len(alike) - MAX_EVENTS)


def has_destinations(config: NodeConfig | None) -> bool:
    """Whether any function wants to know next hops."""
    return config is not None and any(_followers(config))


def _followers(config: NodeConfig) -> Iterator[InstanceConfig]:
    return (one for one in config.instances.values() if overrides(one.function, "destinations"))


def _unanswered(hop: NextHop) -> bool:
    return bool(hop.interface) and hop.mac is None


def _event(before: NextHop | None, now: NextHop) -> str:
    if now.mac is None:
        return "unknown" if before is None or before.mac is not None or before.interface != now.interface else ""
    if before is None or before == now:
        return ""
    return "changed" if before.mac else "found"
