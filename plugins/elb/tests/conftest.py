# SPDX-License-Identifier: Apache-2.0
"""What tests share: the tables of one load balancer, led from config to config; chains for a whole module; one CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.testing import LoadChain, LoadedChain
from xdpchain.testing.chain import Document, Functions
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


@pytest.fixture(scope="module")
def load_for_all(compiler: Compiler) -> LoadChain:
    """As `load_chain`, for all tests of a module: the verifier takes its time."""

    def load(document: Document, interface: str = "eth0", functions: Functions | None = None) -> LoadedChain:
        return LoadedChain(document, interface, functions, compiler)

    return load


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """What a CPU remembers or counts for itself is asked of the same one."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)
