# SPDX-License-Identifier: Apache-2.0
"""
Fixtures of what crosses distributions: real nodes, in namespaces of the test process's own.

The namespaces are entered when a test needs them, not at the start: tests in the folders beside may need the machine's network.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.tests.chain.conftest import Wire, wire
from core.tests.conftest import bpffs
from core.tests.isolation import leave_the_machine_alone
from tests.helpers.bed import Bed
from tests.helpers.distribution import install, trail_files
from tests.helpers.node import Node, node

__all__ = ["bpffs", "wire"]


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Leave the machine's network and mounts alone from now on."""
    leave_the_machine_alone()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of compiled functions for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A directory on the node's import path, with the plugin `trail` installed."""
    folder = tmp_path / "plugins"
    install(folder, "trail", trail_files())
    return folder


@pytest.fixture
def here(namespaces: None, tmp_path: Path, bpffs: Path, plugins: Path, cache: Path) -> Iterator[Node]:
    """A node; not started yet."""
    with node(tmp_path, bpffs, plugins, cache) as one:
        yield one


@pytest.fixture
def bed(here: Node, wire: Wire) -> Bed:
    """A node with the chain a, b between a generator of frames and the judge; not started yet."""
    bed = Bed(here, wire)
    bed.write("ab")
    return bed
