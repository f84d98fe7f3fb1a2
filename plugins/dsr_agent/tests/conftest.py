# SPDX-License-Identifier: Apache-2.0
"""What the tests share: an agent on a NIC or on a port of a workload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from xdpchain import Delete
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.testing import LoadChain, LoadedChain
from xdpchain.testing.chain import Document, Functions
from xdpchain_dsr_agent import DsrAgent
from xdpchain_dsr_agent.handler import places

from plugins.dsr_agent.tests.arriving import SIDES
from plugins.dsr_agent.tests.packets import SERVICES

LoadAgent = Callable[..., LoadedChain]
BALANCERS = ["10.0.13.0/24", "fc00:2307::/32"]


def _loads(load_chain: LoadChain) -> LoadAgent:
    def load(side: str, *services: Mapping[str, Any], **keys: Any) -> LoadedChain:
        table = {"accept_from": BALANCERS, "flow_table": 1024, **keys, "service": list(services)}
        document = {"interface": {"eth0": {"chain": ["dsr_agent"], "side": side}}, "function": {"dsr_agent": table}}
        return load_chain(document, functions=[DsrAgent()])

    return load


@pytest.fixture
def agent(load_chain: LoadChain) -> LoadAgent:
    """
    Load an agent with these services: `agent("network", {"vip": ..., ...})`.

    On the network's side packets arrive by `send(p)` and leave by `send(p, egress=True)`; on a workload's it is the other way round.
    """
    return _loads(load_chain)


@pytest.fixture(scope="module")
def agent_for_all(compiler: Compiler) -> LoadAgent:
    """As `agent`, for all tests of a module: the verifier takes its time. `forget` its flows in between."""

    def load_chain(document: Document, interface: str = "eth0", functions: Functions | None = None) -> LoadedChain:
        return LoadedChain(document, interface, functions, compiler)

    return _loads(load_chain)


@pytest.fixture(scope="module", params=SIDES)
def side(request: pytest.FixtureRequest) -> str:
    """What is at the other end of the agent's interface."""
    return str(request.param)


@pytest.fixture(scope="module")
def loaded(agent_for_all: LoadAgent, side: str) -> LoadedChain:
    """An agent of either side with a service of each family and protocol. No route leads anywhere."""
    return agent_for_all(side, *SERVICES)


@pytest.fixture
def chain(loaded: LoadedChain) -> LoadedChain:
    """The same, knowing nothing."""
    forget(loaded)
    return loaded


def forget(chain: LoadedChain) -> None:
    """Let an agent forget all flows, datagrams and numbers."""
    maps = chain.maps["dsr_agent"]
    for name in ("dsr_flows", "dsr_opening", "dsr_rests"):
        for key in [key for key, _ in maps[name].items()]:
            maps[name].delete(key)
    chain.carry_out("dsr_agent", [Delete("dsr_stats", place) for place in places(maps).values()])
