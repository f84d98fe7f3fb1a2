# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the chain's tests: a veth pair, an engine, frames that show what they passed."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.chain.engine import Engine
from xdpchain.chain.model import Interface
from xdpchain.config import NodeConfig, loads
from xdpchain.function import KernelFunction

from core.tests.chain.functions import functions

ETHERTYPE = 0x88B5
HEADER = bytes.fromhex("02000000000102000000000288b5")


@pytest.fixture(scope="session")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """One compiler with one cache for all tests."""
    return Compiler(tmp_path_factory.mktemp("cache"))


@attrs.define
class Wire:
    """A veth pair: chains hang on `near`, frames are sent from `far`."""

    near: str
    far: str
    index: int
    sender: socket.socket
    receiver: socket.socket

    @property
    def present(self) -> list[Interface]:
        return [Interface(self.index, self.near)]

    def path(self) -> list[int] | None:
        """Send one frame; the numbers of the functions that it passed, or None if it did not arrive."""
        self.sender.send(HEADER + bytes(50))
        try:
            frame = self.receiver.recv(2048)
        except TimeoutError:
            return None
        return list(frame[15 : 15 + frame[14]])


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A veth pair of this test."""
    subprocess.run(["ip", "link", "add", "near", "type", "veth", "peer", "name", "far"], check=True)
    for end in ("near", "far"):
        Path(f"/proc/sys/net/ipv6/conf/{end}/disable_ipv6").write_text("1")
        subprocess.run(["ip", "link", "set", end, "up"], check=True)
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
    out.bind(("far", 0))
    into = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
    into.bind(("near", ETHERTYPE))
    into.settimeout(0.3)
    with out, into:
        yield Wire("near", "far", socket.if_nametoindex("near"), out, into)
    subprocess.run(["ip", "link", "del", "near"], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def shelf(tmp_path: Path) -> Mapping[str, KernelFunction[Any]]:
    """The functions to choose from."""
    return functions(tmp_path)


Configure = Callable[..., NodeConfig]


@pytest.fixture
def config(shelf: Mapping[str, KernelFunction[Any]]) -> Configure:
    """Make a config: `config({"near": ["a", "b"]}, {"a": {"number": 1}, ...})`; an instance without a plugin is a `mark`."""

    def make(chains: Mapping[str, Any], instances: Mapping[str, Mapping[str, Any]] | None = None, **node: Any) -> NodeConfig:
        tables = {name: {"plugin": "mark", **table} for name, table in (instances or {}).items()}
        interfaces = {name: chain if isinstance(chain, dict) else {"chain": chain} for name, chain in chains.items()}
        document = {"node": node, "interface": interfaces, "function": tables}
        return loads(json.loads(json.dumps(document)), shelf)

    return make


@pytest.fixture
def engine(bpffs: Path, compiler: Compiler) -> Engine:
    """An engine with a bpffs of its own."""
    return Engine(bpffs / "xdpchain", compiler)
