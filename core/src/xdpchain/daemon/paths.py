# SPDX-License-Identifier: Apache-2.0
"""Where things are on a node: one table of paths, shared by the daemon and the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import attrs

DEFAULTS: Mapping[str, str] = {
    "config": "/etc/xdpchain/node.toml",
    "root": "/sys/fs/bpf/xdpchain",
    "state": "/var/lib/xdpchain",
    "cache": "/var/cache/xdpchain",
    "socket": "/run/xdpchain/control.sock",
}


@attrs.frozen(kw_only=True)
class Paths:
    """
    The node's file, the directory of pins on a bpffs, the directories of state and of compiled artifacts, and the control socket.

    Each has a default and an environment variable, `XDPCHAIN_CONFIG` to `XDPCHAIN_SOCKET`.
    """

    config: Path
    root: Path
    state: Path
    cache: Path
    socket: Path

    @classmethod
    def choose(cls, **given: str | Path | None) -> Paths:
        """What was given on the command line, else the environment's, else the default; always absolute."""
        return cls(**{name: Path(given.get(name) or default(name)).absolute() for name in DEFAULTS})


def variable(name: str) -> str:
    """The environment variable for a path."""
    return f"XDPCHAIN_{name.upper()}"


def default(name: str) -> str:
    """The path to take when the command line names none."""
    return os.environ.get(variable(name)) or DEFAULTS[name]
