# SPDX-License-Identifier: Apache-2.0
"""
The error tree: every failure a user can meet, with what to do about it.

Each error carries its fields, a `hint`, and the exit code of the command that it ends. Only `xdpchain.cli` renders errors.
"""

from __future__ import annotations

import enum
from typing import ClassVar

import attrs


class ExitCode(enum.IntEnum):
    """What the commands return; documented in `docs/operating.md`."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    CONFIG = 3
    PLUGIN = 4
    COMPILE = 5
    VERIFIER = 6
    KERNEL = 7
    INTERFACE = 8
    DAEMON = 9


class XdpchainError(Exception):
    """Root of the tree. `str()` is one sentence; `details` may be long (a compiler's output); `hint` says what to do next."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(self, message: str, *, hint: str = "", details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details


@attrs.frozen
class Problem:
    """
    One thing wrong in a config file.

    `path` is the key path (`("function", "ratelimit", "rule", 0, "rate")`), `file` and `line` (from 1) where it stands, if known.
    """

    path: tuple[str | int, ...]
    message: str
    hint: str = ""
    file: str = ""
    line: int | None = None


class ConfigError(XdpchainError):
    """Raised with all problems of a configuration at once."""

    exit_code = ExitCode.CONFIG

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(f"{len(problems)} error{'s' if len(problems) != 1 else ''} in the configuration")
        self.problems = problems


class PluginError(XdpchainError):
    """Raised when a plugin is broken: it fails to import, to announce itself, or one of its methods raises."""

    exit_code = ExitCode.PLUGIN

    def __init__(self, plugin: str, message: str, *, hint: str = "", details: str = "") -> None:
        super().__init__(f"plugin {plugin!r}: {message}", hint=hint, details=details)
        self.plugin = plugin


class SchemaError(PluginError):
    """Raised when a function's declared map schema and the layout that the compiler saw differ."""


class CompileError(PluginError):
    """Raised when clang refuses a function's source, or the compiler's worker dies or hangs over it."""

    exit_code = ExitCode.COMPILE


class VerifierError(PluginError):
    """Raised when the kernel's verifier refuses a program. `details` is its log."""

    exit_code = ExitCode.VERIFIER


class KernelError(XdpchainError):
    """Raised when a BPF or netlink call fails. `errno` is the kernel's."""

    exit_code = ExitCode.KERNEL

    def __init__(self, message: str, *, errno: int = 0, hint: str = "", details: str = "") -> None:
        super().__init__(message, hint=hint, details=details)
        self.errno = errno


class InterfaceError(XdpchainError):
    """Raised when a chain cannot be attached to its interface: a foreign program is there, or the driver cannot do the mode."""

    exit_code = ExitCode.INTERFACE


class DaemonError(XdpchainError):
    """Raised when the daemon cannot be reached, or another one owns this node."""

    exit_code = ExitCode.DAEMON
