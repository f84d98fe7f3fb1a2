# SPDX-License-Identifier: Apache-2.0
"""Configs for tests: read as the core reads them, from keys or from lines of a file of VIPs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from xdpchain import ConfigError, Problem, TextFile
from xdpchain.config import loads
from xdpchain_elb import Elb
from xdpchain_elb.config import ElbConfig

FILE = "/etc/xdpchain/vips.txt"
SOURCES = ["10.0.13.37", "fc00:2307::1337"]


def read(**table: Any) -> ElbConfig:
    """The config in a table `[function.elb]`, with outer addresses of both families unless it says otherwise."""
    document = {"interface": {"eth0": {"chain": ["elb"]}}, "function": {"elb": {"source": SOURCES, **table}}}
    config = loads(document, {"elb": Elb()}).instances["elb"].config
    assert isinstance(config, ElbConfig)
    return config


def refused(**table: Any) -> tuple[Problem, ...]:
    """What is wrong with a table."""
    with pytest.raises(ConfigError) as caught:
        read(**table)
    return caught.value.problems


def lines(text: str) -> TextFile:
    """A file of VIPs."""
    return TextFile("vips.txt", Path(FILE), text)


def vip(address: str = "10.200.1.1", port: int = 443, protocol: str = "tcp", **keys: Any) -> dict[str, Any]:
    """The table of a VIP with one backend, unless it says otherwise."""
    return {"address": address, "port": port, "protocol": protocol, "backend": [{"address": "10.0.0.1"}], **keys}


def backends(*addresses: str, **keys: Any) -> list[dict[str, Any]]:
    """The tables of backends that differ by their addresses alone."""
    return [{"address": address, **keys} for address in addresses]
