# SPDX-License-Identifier: Apache-2.0
"""
The public face for plugins' tests: real programs in the real kernel, packets made with scapy.

pytest finds the fixtures by itself where xdpchain is installed: `load_chain`, `netns`, `node` and `compiler`, described in
`xdpchain.testing.plugin`. They need root and say so. What is here are the types that they give, for annotations.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from xdpchain.function import Hook, Verdict

if TYPE_CHECKING:
    from xdpchain.testing.chain import LoadChain, LoadedChain, Result
    from xdpchain.testing.namespace import End, Namespace, Netns
    from xdpchain.testing.node import Node, RunNode

__all__ = ["End", "Hook", "LoadChain", "LoadedChain", "Namespace", "Netns", "Node", "Result", "RunNode", "Verdict"]

_MODULES = {"chain": ("LoadChain", "LoadedChain", "Result"), "namespace": ("End", "Namespace", "Netns"), "node": ("Node", "RunNode")}


def __getattr__(name: str) -> Any:
    """Import a type when it is asked for: every run of pytest imports this package to find the fixtures."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"xdpchain.testing.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
