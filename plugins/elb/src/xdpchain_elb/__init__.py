# SPDX-License-Identifier: Apache-2.0
"""A function for xdpchain: a layer-4 load balancer at the driver, flow-compatible with Katran."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from xdpchain import KernelFunction, hookimpl

from xdpchain_elb.config import Backend, ElbConfig, SourceRoute, Vip
from xdpchain_elb.function import Elb

if TYPE_CHECKING:
    import click

__all__ = ["Backend", "Elb", "ElbConfig", "SourceRoute", "Vip", "xdpchain_commands", "xdpchain_functions"]


@hookimpl
def xdpchain_functions() -> Iterable[KernelFunction[Any]]:
    """The one function of this distribution."""
    return (Elb(),)


@hookimpl
def xdpchain_commands() -> Iterable[click.Command]:
    """`xdpchain elb`."""
    from xdpchain_elb.commands import elb

    return (elb,)
