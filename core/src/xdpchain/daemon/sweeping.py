# SPDX-License-Identifier: Apache-2.0
"""Keeping the functions that ask for it in line with the sockets of this network namespace. Synchronous, for the engine's thread."""

from __future__ import annotations

from collections.abc import Callable

from xdpchain.chain.engine import Engine
from xdpchain.config import NodeConfig
from xdpchain.daemon.failures import Failures
from xdpchain.daemon.rounds import any_overrides, go_round
from xdpchain.function import Sockets
from xdpchain.sockets import tcp_sockets

PERIOD_S = 3.0


def has_sweep(config: NodeConfig | None) -> bool:
    """Whether any function wants to know the sockets."""
    return any_overrides(config, "sweep")


def sweep(engine: Engine, config: NodeConfig, failures: Failures, look: Callable[[], Sockets] = tcp_sockets) -> None:
    """
    Have all of it done, with one look at the sockets for each instance. What one instance's raises is told, and the others' goes on.

    Raises:
        KernelError: the sockets cannot be read.
    """
    go_round(engine, config, failures, "sweep", look)
