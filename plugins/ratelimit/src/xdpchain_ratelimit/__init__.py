# SPDX-License-Identifier: Apache-2.0
"""A function for xdpchain: limits new TCP connections, UDP and ICMP, by destination and by source, at the driver."""

from collections.abc import Iterable
from typing import Any

from xdpchain import KernelFunction, hookimpl

from xdpchain_ratelimit.config import PerSource, RatelimitConfig, Rule
from xdpchain_ratelimit.function import Ratelimit
from xdpchain_ratelimit.window import Arrival, Window

__all__ = ["Arrival", "PerSource", "Ratelimit", "RatelimitConfig", "Rule", "Window", "xdpchain_functions"]


@hookimpl
def xdpchain_functions() -> Iterable[KernelFunction[Any]]:
    """The one function of this distribution."""
    return (Ratelimit(),)
