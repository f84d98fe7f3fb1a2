# SPDX-License-Identifier: Apache-2.0
"""The core's own commands and checks, hooked in like a plugin's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING

import click

from xdpchain.hookspecs import Finding, hookimpl

if TYPE_CHECKING:
    from xdpchain.config import NodeConfig

COMMANDS = (
    "apply",
    "check",
    "completion",
    "doctor",
    "metrics",
    "new",
    "plan",
    "plugins",
    "put",
    "reload",
    "rollback",
    "schema",
    "show",
    "status",
    "trace",
    "unload",
)
"""each is the module `xdpchain.cli.NAME` with the command `NAME`"""

CHECKS = ("kernel", "toolchain", "node", "interfaces")
"""each is the module `xdpchain.cli.checks.NAME` with a function `findings`"""


@hookimpl
def xdpchain_commands() -> Iterable[click.Command]:
    """The commands. Their modules import nothing heavy before they run."""
    return [getattr(import_module(f"xdpchain.cli.{name}"), name) for name in COMMANDS]


@hookimpl
def xdpchain_doctor(config: NodeConfig | None) -> Iterator[Finding]:
    """The checks of the machine."""
    for name in CHECKS:
        yield from import_module(f"xdpchain.cli.checks.{name}").findings(config)
