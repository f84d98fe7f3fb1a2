# SPDX-License-Identifier: Apache-2.0
"""What the tests of the config handler share: the tables of one load balancer, led from config to config."""

from __future__ import annotations

import pytest
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.testing import LoadedChain
from xdpchain_elb import Elb

from plugins.elb.tests.kept import Kept

DOCUMENT = {
    "interface": {"eth0": {"chain": ["elb"]}},
    "function": {"elb": {"max_vips": 8, "max_backends": 16, "max_members": 64, "flow_table": 1024}},
}


@pytest.fixture(scope="module")
def loaded(compiler: Compiler) -> LoadedChain:
    """A load balancer without VIPs, for all tests of a module."""
    return LoadedChain(DOCUMENT, "eth0", [Elb()], compiler)


@pytest.fixture
def kept(loaded: LoadedChain) -> Kept:
    """Its tables, with nothing in them."""
    tables = Kept(loaded)
    tables.empty()
    return tables
