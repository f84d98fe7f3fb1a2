# SPDX-License-Identifier: Apache-2.0
"""The check for `xdpchain doctor`: whether this kernel tells what maxconn has to know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from xdpchain.bpf.facts import facts
from xdpchain.errors import KernelError
from xdpchain.hookspecs import Finding, State

from xdpchain_maxconn.function import Maxconn

if TYPE_CHECKING:
    from xdpchain.config import NodeConfig


def findings(config: NodeConfig | None) -> Iterator[Finding]:
    """The tracepoint and the places in structs; that they are missing is an error where the node's file has a maxconn."""
    function = Maxconn()
    try:
        facts(function.name, function)
    except KernelError as error:
        used = config is not None and any(isinstance(one.function, Maxconn) for one in config.instances.values())
        yield Finding(function.name, State.FAIL if used else State.WARN, error.message, error.hint)
    else:
        yield Finding(function.name, State.OK, "the kernel tells of TCP connections, and of what network namespace they are")
