# SPDX-License-Identifier: Apache-2.0
"""What the tests share: a limiter that is loaded but attached to nothing, and a window that does not end while a test looks at it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from xdpchain.testing import LoadChain, LoadedChain
from xdpchain_ratelimit import Ratelimit

Limiter = Callable[..., LoadedChain]


@pytest.fixture
def limiter(load_chain: LoadChain) -> Limiter:
    """Load a limiter with these rules: `limiter({"ports": [80], "rate": 3})`."""

    def load(*rules: Mapping[str, Any], **keys: Any) -> LoadedChain:
        document = {"interface": {"eth0": {"chain": ["ratelimit"]}}, "function": {"ratelimit": {**keys, "rule": list(rules)}}}
        return load_chain(document, functions=[Ratelimit()])

    return load


@pytest.fixture
def long_window() -> str:
    """A window of an hour or more whose first half it is: it has no end within this test, and nothing of the one before weighs."""
    now_ns = time.monotonic_ns()
    hour_ns = 3_600_000_000_000
    for hours in range(1, 25):
        if now_ns % (hours * hour_ns) < hours * hour_ns // 2:
            return f"{hours}h"
    raise AssertionError("this machine has been up for too long to find a calm window")
