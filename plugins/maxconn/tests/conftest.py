# SPDX-License-Identifier: Apache-2.0
"""What the tests share: a loaded chain, and a node with a real server and real clients behind a cable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from xdpchain.testing import LoadChain, LoadedChain, RunNode
from xdpchain_maxconn import Maxconn

from plugins.maxconn.tests.helpers import Bed, Witness

Limiter = Callable[..., LoadedChain]
Serve = Callable[..., Bed]


def document(limits: tuple[Mapping[str, Any], ...], keys: Mapping[str, Any], *more: str) -> dict[str, Any]:
    return {"interface": {"eth0": {"chain": ["maxconn", *more]}}, "function": {"maxconn": {**keys, "limit": list(limits)}}}


@pytest.fixture
def limiter(load_chain: LoadChain) -> Limiter:
    """Load a chain with these limits: `limiter({"ports": [80], "max": 3})`."""

    def load(*limits: Mapping[str, Any], **keys: Any) -> LoadedChain:
        return load_chain(document(limits, keys), functions=[Maxconn()])

    return load


@pytest.fixture
def serve(node: RunNode, tmp_path: Path) -> Iterator[Serve]:
    """Run these limits on a node with a server on port 80: `serve({"ports": [80], "max": 3})`."""
    beds: list[Bed] = []

    def run(*limits: Mapping[str, Any], **keys: Any) -> Bed:
        beds.append(Bed(node(document(limits, keys, "witness"), functions=[Maxconn(), Witness(tmp_path)])))
        return beds[-1]

    yield run
    for bed in beds:
        bed.close()
