# SPDX-License-Identifier: Apache-2.0
"""What the tests share: an agent on a NIC or on a port of a workload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from xdpchain.testing import LoadChain, LoadedChain
from xdpchain_dsr_agent import DsrAgent

LoadAgent = Callable[..., LoadedChain]
BALANCERS = ["10.0.13.0/24", "fc00:2307::/32"]


@pytest.fixture
def agent(load_chain: LoadChain) -> LoadAgent:
    """
    Load an agent with these services: `agent("network", {"vip": ..., ...})`.

    On the network's side packets arrive by `send(p)` and leave by `send(p, egress=True)`; on a workload's it is the other way round.
    """

    def load(side: str, *services: Mapping[str, Any], **keys: Any) -> LoadedChain:
        table = {"accept_from": BALANCERS, **keys, "service": list(services)}
        document = {"interface": {"eth0": {"chain": ["dsr_agent"], "side": side}}, "function": {"dsr_agent": table}}
        return load_chain(document, functions=[DsrAgent()])

    return load
