# SPDX-License-Identifier: Apache-2.0
"""Checks of this node's directories and daemon."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from xdpchain.cli.checks.kernel import capabilities
from xdpchain.cli.client import NotRunningError, call
from xdpchain.daemon.paths import Paths
from xdpchain.errors import XdpchainError
from xdpchain.hookspecs import Finding, State

if TYPE_CHECKING:
    from xdpchain.config import NodeConfig

_ANSWER_S = 10.0
_UNIT = "install its unit anew (xdpchaind --systemd-unit), then systemctl daemon-reload and restart"


def findings(_: NodeConfig | None) -> Iterator[Finding]:
    """Everything about the node."""
    paths = Paths.choose()
    for what, path in (("state directory", paths.state), ("cache directory", paths.cache), ("socket directory", paths.socket.parent)):
        yield _directory(what, path)
    yield from _daemon(paths.socket)


def _directory(what: str, path: Path) -> Finding:
    """No code, configuration or command comes from where others can write."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return Finding(what, State.OK, f"{path} is not there yet: the daemon makes it")
    except OSError as error:
        return Finding(what, State.FAIL, f"{path}: {error.strerror}", "run it as root")
    mode = f"mode {stat.S_IMODE(about.st_mode):04o}"
    if about.st_uid not in {0, os.geteuid()}:
        return Finding(what, State.FAIL, f"{path} belongs to user {about.st_uid}", f"chown root {path}")
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Finding(what, State.FAIL, f"{path} can be written by others ({mode})", f"chmod go-w {path}")
    return Finding(what, State.OK, f"{path} ({mode})")


def _daemon(socket: Path) -> Iterator[Finding]:
    try:
        answer = call("status", socket=socket, timeout_s=_ANSWER_S)
    except NotRunningError as error:
        yield Finding("daemon", State.WARN, error.message, error.hint)
        return
    except XdpchainError as error:
        yield Finding("daemon", State.FAIL, error.message, error.hint)
        return
    pid = answer["daemon"]["pid"]
    if answer["config"]["error"]:
        yield Finding("daemon", State.FAIL, f"it refused a configuration: {answer['config']['error']['message']}", "xdpchain status")
    else:
        yield Finding("daemon", State.OK, f"runs, pid {pid}")
    yield from _capabilities(pid)


def _capabilities(pid: int) -> Iterator[Finding]:
    """What the daemon may do: a unit of an older release may leave it too little."""
    with contextlib.suppress(OSError):  # it has just ended, or runs in a container
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        yield capabilities(status, "daemon's capabilities", _UNIT)
