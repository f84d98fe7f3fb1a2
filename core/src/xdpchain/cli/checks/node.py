# SPDX-License-Identifier: Apache-2.0
"""Checks of this node's directories and daemon."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from xdpchain.cli.client import NotRunningError, call
from xdpchain.daemon.paths import Paths
from xdpchain.errors import XdpchainError
from xdpchain.hookspecs import Finding, State

if TYPE_CHECKING:
    from xdpchain.config import NodeConfig

_ANSWER_S = 10.0


def findings(_: NodeConfig | None) -> Iterator[Finding]:
    """Everything about the node."""
    paths = Paths.choose()
    for what, path in (("state directory", paths.state), ("cache directory", paths.cache), ("socket directory", paths.socket.parent)):
        yield _directory(what, path)
    yield _daemon(paths.socket)


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


def _daemon(socket: Path) -> Finding:
    try:
        answer = call("status", socket=socket, timeout_s=_ANSWER_S)
    except NotRunningError as error:
        return Finding("daemon", State.WARN, error.message, error.hint)
    except XdpchainError as error:
        return Finding("daemon", State.FAIL, error.message, error.hint)
    if answer["config"]["error"]:
        return Finding("daemon", State.FAIL, f"it refused a configuration: {answer['config']['error']['message']}", "xdpchain status")
    return Finding("daemon", State.OK, f"runs, pid {answer['daemon']['pid']}")
