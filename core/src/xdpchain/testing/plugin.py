# SPDX-License-Identifier: Apache-2.0
"""
The pytest plugin: fixtures for the tests of functions. They load programs into the kernel, so they need root, and fail without it.

What they give is imported when it is asked for: this module is loaded by every run of pytest where xdpchain is installed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdpchain.bpf.compiler.compile import Compiler
    from xdpchain.testing.chain import Document, Functions, LoadChain, LoadedChain
    from xdpchain.testing.namespace import Netns
    from xdpchain.testing.node import Node, RunNode


@pytest.fixture(scope="session")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """The compiler, with a cache for this run, or for all runs in the directory that `XDPCHAIN_CACHE` names."""
    if os.geteuid() != 0:
        pytest.fail("functions are tested in the kernel: run pytest as root", pytrace=False)
    from xdpchain.bpf.compiler.compile import Compiler

    cache = os.environ.get("XDPCHAIN_CACHE")
    return Compiler(Path(cache) if cache else tmp_path_factory.mktemp("cache"))


@pytest.fixture
def load_chain(compiler: Compiler) -> LoadChain:
    """
    Load a chain that is attached to nothing: `load_chain({"interface": {"eth0": {"chain": ["NAME"]}}})`.

    Its arguments are a document (a dict, or TOML text), the interface whose chain is meant ("eth0"), and the functions that the document
    may use (those of the installed plugins). What it gives sends packets: `xdpchain.testing.LoadedChain`.
    """
    from xdpchain.testing.chain import LoadedChain

    def load(document: Document, interface: str = "eth0", functions: Functions | None = None) -> LoadedChain:
        return LoadedChain(document, interface, functions, compiler)

    return load


@pytest.fixture
def netns() -> Iterator[Netns]:
    """
    Make network namespaces, with a veth pair wherever two are connected.

    `client, server = netns("client"), netns("server")`, then `here, there = client.connect(server)`.

    They and what runs in them are gone after the test. See `xdpchain.testing.Namespace`.
    """
    if os.geteuid() != 0:
        pytest.fail("network namespaces are made by root: run pytest as root", pytrace=False)
    from xdpchain.testing.namespace import Netns

    with Netns() as factory:
        yield factory


@pytest.fixture
def node(compiler: Compiler, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunNode]:
    """
    Run a chain on a real interface: `node({"interface": {"eth0": {"chain": ["NAME"]}}})`.

    The interface is in a namespace of its own; `client` is the other end of its cable. See `xdpchain.testing.Node`.
    """
    from xdpchain.testing.node import Node

    with contextlib.ExitStack() as stack:

        def run(document: Document, functions: Functions | None = None) -> Node:
            one = Node(document, functions, compiler, tmp_path_factory.mktemp("bpffs"))
            stack.callback(one.close)
            return one

        yield run
