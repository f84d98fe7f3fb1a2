# SPDX-License-Identifier: Apache-2.0
"""A round of all running instances whose functions have something to write again and again. Synchronous, for the engine's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xdpchain.chain.engine import Engine
from xdpchain.chain.instance import plugin_call
from xdpchain.config import NodeConfig
from xdpchain.daemon.failures import Failures, overrides
from xdpchain.errors import XdpchainError


def any_overrides(config: NodeConfig | None, method: str) -> bool:
    """Whether a round would ask any function."""
    return config is not None and any(overrides(one.function, method) for one in config.instances.values())


def go_round(engine: Engine, config: NodeConfig, failures: Failures, method: str, *looks: Callable[[], Any]) -> None:
    """
    Carry out what each instance's `method` answers with. What one instance's raises is told, and the others' goes on.

    Args:
        engine: what runs.
        config: whose instances.
        failures: is told.
        method: of the function; it gets the config, what `looks` give, each for this instance anew, and the maps.
        looks: what they raise is raised here.
    """
    for one in config.instances.values():
        if not overrides(one.function, method):
            continue
        try:
            maps = engine.maps(one.name)
        except KeyError:
            # in no chain now
            continue
        seen = [look() for look in looks]
        try:
            with plugin_call(one.function, method):
                writes = list(getattr(one.function, method)(one.config, *seen, maps))
            if writes:
                engine.carry_out(one.name, writes, method=method)
        except XdpchainError as error:
            failures.tell(one.name, method, error)
