# SPDX-License-Identifier: Apache-2.0
"""
The public face for plugins' tests: real programs in the real kernel, packets made with scapy.

pytest finds the fixtures by itself where xdpchain is installed: `load_chain`, `netns`, `node` and `compiler`, described in
`xdpchain.testing.plugin`. They need root and say so. What is here are the types that they give, for annotations.
"""

from xdpchain.function import Hook, Verdict
from xdpchain.testing.chain import LoadChain, LoadedChain, Result
from xdpchain.testing.namespace import End, Namespace, Netns
from xdpchain.testing.node import Node, RunNode

__all__ = ["End", "Hook", "LoadChain", "LoadedChain", "Namespace", "Netns", "Node", "Result", "RunNode", "Verdict"]
