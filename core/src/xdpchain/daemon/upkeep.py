# SPDX-License-Identifier: Apache-2.0
"""The work that functions have every second. Synchronous, for the engine's thread."""

from __future__ import annotations

from xdpchain.chain.engine import Engine
from xdpchain.config import NodeConfig
from xdpchain.daemon.failures import Failures
from xdpchain.daemon.rounds import any_overrides, go_round

PERIOD_S = 1.0


def has_upkeep(config: NodeConfig | None) -> bool:
    """Whether any function has work to do."""
    return any_overrides(config, "upkeep")


def keep_up(engine: Engine, config: NodeConfig, failures: Failures) -> None:
    """Have all of it done. What one instance's raises is told, and the others' goes on."""
    go_round(engine, config, failures, "upkeep")
