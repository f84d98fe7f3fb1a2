# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.tests.daemon.process import Daemon
from core.tests.plugins.build import importable, make_plugin

NODE = """\
[node]
metrics = "off"

[interface.t0]
chain = ["limiter"]

[function.limiter]
ports = [53]
"""


@pytest.fixture
def link() -> Iterator[str]:
    """A veth pair t0 and t1, up."""
    add_link("t0", "t1")
    yield "t0"
    subprocess.run(["ip", "link", "del", "t0"], check=False, stderr=subprocess.DEVNULL)


def add_link(name: str, peer: str) -> None:
    """A veth pair, both ends up."""
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", peer], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    subprocess.run(["ip", "link", "set", peer, "up"], check=True)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of compiled functions for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def daemon(tmp_path: Path, bpffs: Path, cache: Path) -> Iterator[Daemon]:
    """A daemon with the plugin `limiter` and a node's file; not started yet."""
    make_plugin(tmp_path / "plugins")
    one = Daemon(tmp_path, bpffs, tmp_path / "plugins", cache)
    one.configure(NODE)
    with importable(tmp_path / "plugins"):
        yield one
        one.end()
        one.cli("unload", "--yes")
