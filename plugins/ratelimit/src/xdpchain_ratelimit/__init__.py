# SPDX-License-Identifier: Apache-2.0
"""A function for xdpchain: limits how many new TCP connections a node lets in, by port, at the driver."""

from collections.abc import Iterable
from typing import Any

from xdpchain import KernelFunction, hookimpl

from xdpchain_ratelimit.config import RatelimitConfig, Rule
from xdpchain_ratelimit.function import Ratelimit
from xdpchain_ratelimit.window import Window

__all__ = ["Ratelimit", "RatelimitConfig", "Rule", "Window", "xdpchain_functions"]


@hookimpl
def xdpchain_functions() -> Iterable[KernelFunction[Any]]:
    """The one function of this distribution."""
    return (Ratelimit(),)
