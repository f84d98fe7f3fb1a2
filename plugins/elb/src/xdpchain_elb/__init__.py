# SPDX-License-Identifier: Apache-2.0
"""A function for xdpchain: a layer-4 load balancer at the driver, flow-compatible with Katran."""

from collections.abc import Iterable
from typing import Any

from xdpchain import KernelFunction, hookimpl

from xdpchain_elb.function import Elb

__all__ = ["Elb", "xdpchain_functions"]


@hookimpl
def xdpchain_functions() -> Iterable[KernelFunction[Any]]:
    """The one function of this distribution."""
    return (Elb(),)
