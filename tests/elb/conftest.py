# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the lab's network with servers and a client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.testing import Netns

from lab.balance import Balance
from lab.balance_driver import Driver, servers

BACKENDS = 4


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
