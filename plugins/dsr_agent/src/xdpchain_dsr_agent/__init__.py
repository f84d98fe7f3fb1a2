# SPDX-License-Identifier: Apache-2.0
"""A function for xdpchain: direct server return for workloads that know nothing of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from xdpchain import KernelFunction, hookimpl

from xdpchain_dsr_agent.config import DsrAgentConfig, Service
from xdpchain_dsr_agent.function import DsrAgent

if TYPE_CHECKING:
    import click
    from xdpchain.config import NodeConfig
    from xdpchain.hookspecs import Finding

__all__ = ["DsrAgent", "DsrAgentConfig", "Service", "xdpchain_commands", "xdpchain_doctor", "xdpchain_functions"]


@hookimpl
def xdpchain_functions() -> Iterable[KernelFunction[Any]]:
    """The one function of this distribution."""
    return (DsrAgent(),)


@hookimpl
def xdpchain_commands() -> Iterable[click.Command]:
    """`xdpchain dsr`."""
    from xdpchain_dsr_agent.commands import dsr

    return (dsr,)


@hookimpl
def xdpchain_doctor(config: NodeConfig | None) -> Iterable[Finding]:
    """What keeps an agent from its work."""
    from xdpchain_dsr_agent.checks import findings

    return findings(config)
