# SPDX-License-Identifier: Apache-2.0
"""Configs for tests: read as the core reads them, from keys or from lines of a file of services."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from xdpchain import ConfigError, Problem, TextFile
from xdpchain.config import key_path, loads
from xdpchain_dsr_agent import DsrAgent, DsrAgentConfig

FILE = "/etc/xdpchain/dsr.services"


def read(**table: Any) -> DsrAgentConfig:
    """The config in a table `[function.dsr_agent]`."""
    keys = {"accept_from": ["10.0.13.0/24"], **table}
    document = {"interface": {"tap*": {"chain": ["dsr_agent"]}}, "function": {"dsr_agent": keys}}
    config = loads(document, {"dsr_agent": DsrAgent()}).instances["dsr_agent"].config
    assert isinstance(config, DsrAgentConfig)
    return config


def refused(**table: Any) -> tuple[Problem, ...]:
    """What is wrong with a table."""
    with pytest.raises(ConfigError) as caught:
        read(**table)
    return caught.value.problems


def lines(text: str) -> TextFile:
    """A file of services."""
    return TextFile("dsr.services", Path(FILE), text)


def service(vip: str = "10.200.1.1", port: int = 443, workload: str = "10.1.0.5", **keys: Any) -> dict[str, Any]:
    """The table of a service."""
    return {"vip": vip, "port": port, "workload": workload, **keys}


def place(problem: Problem) -> str:
    """Where a problem stands: its key in the instance's table, or its line in the file of services."""
    return f"line {problem.line}" if problem.file == FILE else key_path(problem.path).removeprefix("function.dsr_agent.")
