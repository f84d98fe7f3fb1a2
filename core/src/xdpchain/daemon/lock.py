# SPDX-License-Identifier: Apache-2.0
"""One daemon for each directory of state and of pins: locks that the kernel drops with their process, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from xdpchain.errors import DaemonError

_FILE = "lock"


def own_state(state: Path) -> int:
    """
    Take a directory of state for this process.

    Returns:
        The descriptor that holds the lock; keep it open.

    Raises:
        DaemonError: another daemon has it.
    """
    descriptor = os.open(state / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    _lock(descriptor, "this node is owned by another xdpchaind")
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def own_root(root: Path) -> int:
    """Take a directory of pins, which is made when it is missing; otherwise like `own_state`."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _lock(descriptor, f"{root} is owned by another xdpchaind")
    return descriptor


def is_owned(root: Path) -> bool:
    """Whether a daemon runs that owns this directory of pins."""
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int, taken: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = _pid(descriptor)
        os.close(descriptor)
        hint = "stop it first (systemctl stop xdpchaind), or give this one its own --state, --root and --socket"
        raise DaemonError(f"{taken}{pid}", hint=hint) from error


def _pid(descriptor: int) -> str:
    """Who wrote a lock file; nothing can be written into a directory of pins."""
    try:
        pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    except IsADirectoryError:
        return ""
    return f" (pid {pid})" if pid else ""
