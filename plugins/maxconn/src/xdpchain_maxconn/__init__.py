# SPDX-License-Identifier: Apache-2.0
"""A function for xdpchain: limits how many TCP connections are open at a time on this node."""

from collections.abc import Iterable
from typing import Any

from xdpchain import KernelFunction, hookimpl

from xdpchain_maxconn.config import Limit, MaxconnConfig
from xdpchain_maxconn.function import Maxconn

__all__ = ["Limit", "Maxconn", "MaxconnConfig", "xdpchain_functions"]


@hookimpl
def xdpchain_functions() -> Iterable[KernelFunction[Any]]:
    """The one function of this distribution."""
    return (Maxconn(),)
