# SPDX-License-Identifier: Apache-2.0
"""A function for xdpchain: limits how many TCP connections are open at a time on this node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from xdpchain import KernelFunction, hookimpl

from xdpchain_maxconn.config import Limit, MaxconnConfig
from xdpchain_maxconn.function import Maxconn

if TYPE_CHECKING:
    from xdpchain.config import NodeConfig
    from xdpchain.hookspecs import Finding

__all__ = ["Limit", "Maxconn", "MaxconnConfig", "xdpchain_doctor", "xdpchain_functions"]


@hookimpl
def xdpchain_functions() -> Iterable[KernelFunction[Any]]:
    """The one function of this distribution."""
    return (Maxconn(),)


@hookimpl
def xdpchain_doctor(config: NodeConfig | None) -> Iterable[Finding]:
    """Whether this kernel tells what maxconn has to know."""
    from xdpchain_maxconn.doctor import findings

    return findings(config)
