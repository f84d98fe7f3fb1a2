# SPDX-License-Identifier: Apache-2.0
"""Keeping the functions that ask for it in line with the sockets of this network namespace. Synchronous, for the engine's thread."""

from __future__ import annotations

from collections.abc import Callable

from xdpchain.chain.engine import Engine
from xdpchain.chain.instance import plugin_call
from xdpchain.config import NodeConfig
from xdpchain.daemon.failures import Failures, overrides
from xdpchain.errors import XdpchainError
from xdpchain.function import Sockets
from xdpchain.sockets import tcp_sockets

PERIOD_S = 3.0


def has_sweep(config: NodeConfig | None) -> bool:
    """Whether any function wants to know the sockets."""
    return config is not None and any(overrides(one.function, "sweep") for one in config.instances.values())


def sweep(engine: Engine, config: NodeConfig, failures: Failures, look: Callable[[], Sockets] = tcp_sockets) -> None:
    """
    Have all of it done, with one look at the sockets for each instance. What one instance's raises is told, and the others' goes on.

    Raises:
        KernelError: the sockets cannot be read.
    """
    for one in config.instances.values():
        if not overrides(one.function, "sweep"):
            continue
        try:
            maps = engine.maps(one.name)
        except KeyError:
            # in no chain now
            continue
        sockets = look()
        try:
            with plugin_call(one.function, "sweep"):
                writes = list(one.function.sweep(one.config, sockets, maps))
            if writes:
                engine.carry_out(one.name, writes, method="sweep")
        except XdpchainError as error:
            failures.tell(one.name, "sweep", error)
