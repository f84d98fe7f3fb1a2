# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the lab's network with servers and a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.testing import Netns

from lab.balance import Balance
from lab.balance_driver import Driver, servers
from tests.elb.site import Site, States
from tests.helpers.node import Node

BACKENDS = 4
MakeSite = Callable[..., Site]


@pytest.fixture
def balance(namespaces: None, netns: Netns, cache: Path) -> Iterator[Balance]:
    """The network, with a server on each of its backends."""
    one = Balance(netns, Compiler(cache), BACKENDS)
    with servers(one):
        yield one
    one.close()


@pytest.fixture
def driver(balance: Balance) -> Iterator[Driver]:
    """The client."""
    with Driver(balance.client) as one:
        yield one


@pytest.fixture
def site(balance: Balance, here: Node) -> MakeSite:
    """Start a balancer: `site("gue", {"b1": UP})`."""

    def make(encapsulation: str, states: States, *, crossed: bool = False) -> Site:
        one = Site(balance, here, encapsulation, crossed=crossed)
        one.write(states)
        one.start()
        return one

    return make
