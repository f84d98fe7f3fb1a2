# SPDX-License-Identifier: Apache-2.0
"""The work that functions have every second. Synchronous, for the engine's thread."""

from __future__ import annotations

from xdpchain.chain.engine import Engine
from xdpchain.chain.instance import plugin_call
from xdpchain.config import NodeConfig
from xdpchain.daemon.failures import Failures, overrides
from xdpchain.errors import XdpchainError

PERIOD_S = 1.0


def has_upkeep(config: NodeConfig | None) -> bool:
    """Whether any function has work to do."""
    return config is not None and any(overrides(one.function, "upkeep") for one in config.instances.values())


def keep_up(engine: Engine, config: NodeConfig, failures: Failures) -> None:
    """Have all of it done. What one instance's raises is told, and the others' goes on."""
    for one in config.instances.values():
        if not overrides(one.function, "upkeep"):
            continue
        try:
            maps = engine.maps(one.name)
        except KeyError:
            # in no chain now
            continue
        try:
            with plugin_call(one.function, "upkeep"):
                writes = list(one.function.upkeep(one.config, maps))
            if writes:
                engine.carry_out(one.name, writes)
        except XdpchainError as error:
            failures.tell(one.name, "upkeep", error)
