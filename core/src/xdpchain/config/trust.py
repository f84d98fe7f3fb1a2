# SPDX-License-Identifier: Apache-2.0
"""Reading config files, and refusing those that others than root could have written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from xdpchain.errors import Problem

MAX_BYTES = 64 << 20
"""Of one file: what a daemon reads by mistake must not fill its memory."""


def read_text(path: Path) -> str | Problem:
    """The text of a config file, or why it is not read."""
    try:
        # O_NONBLOCK: opening a named pipe must not hang the daemon
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                return Problem((), "is not a regular file", "name a file of text", str(path))
            if about.st_size > MAX_BYTES:
                return Problem((), f"is too large: {about.st_size} bytes", f"a file may have {MAX_BYTES} bytes", str(path))
            return distrust(path, about) or file.read().decode()
    except OSError as error:
        return unreadable(path, error)
    except UnicodeDecodeError as error:
        return Problem((), f"is not UTF-8 text (byte {error.start})", "save the file in the UTF-8 encoding", str(path))


def unreadable(path: Path, error: OSError) -> Problem:
    """The problem that an operating system error is."""
    reason = (error.strerror or str(error)).lower()
    hint = "write it, or name another file" if isinstance(error, FileNotFoundError) else "check the path and its permissions"
    return Problem((), f"cannot be read: {reason}", hint, str(path))


def distrust(path: Path, about: os.stat_result) -> Problem | None:
    """
    Why root must not act on this file or directory: somebody else can write to it.

    Only root is held to this: its daemon would lend its rights to whoever owns the file. Other users read what they like.
    """
    if os.geteuid() != 0:
        return None
    if about.st_uid != 0:
        return Problem((), f"belongs to user {about.st_uid}, not to root", f"chown root {path}", str(path))
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.filemode(about.st_mode)
        return Problem((), f"can be written by others than root ({mode})", f"chmod go-w {path}", str(path))
    return None
