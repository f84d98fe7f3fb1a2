# SPDX-License-Identifier: Apache-2.0
"""
The hooks: what a plugin may answer, with types.

A plugin is a module (or any object) behind an entry point of the group `xdpchain`. It implements the hooks that it needs as functions of the
same name, marked with `hookimpl`; an implementation may leave out arguments that it does not use.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import attrs
import pluggy

if TYPE_CHECKING:
    import click

    from xdpchain.chain.model import Plan
    from xdpchain.config import NodeConfig
    from xdpchain.function import KernelFunction

PROJECT = "xdpchain"
"""pluggy's project, the entry-point group and the prefix of every hook"""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""marks a plugin's implementation of a hook"""


class State(enum.Enum):
    """How a check of `xdpchain doctor` ended."""

    OK = "ok"
    WARN = "warn"
    """works, but slower or with less than there could be"""
    FAIL = "fail"
    """does not work: the command ends with an error"""


@attrs.frozen
class Finding:
    """One line of `xdpchain doctor`: what was looked at, how it is, and (unless it is fine) what to do."""

    subject: str
    state: State
    text: str
    hint: str = ""


@hookspec
def xdpchain_functions() -> Iterable[KernelFunction[Any]]:
    """
    The kernel functions of the plugin, as objects.

    Called once when plugins are loaded. An exception, or a function that does not fit the API, makes the plugin a broken one.
    """
    return ()


@hookspec
def xdpchain_commands() -> Iterable[click.Command]:
    """
    Commands that the plugin adds to `xdpchain`. A command with the name of one that is there already is left out and reported.

    `xdpchain.cli.client.call` reaches the daemon.
    """
    return ()


@hookspec
def xdpchain_doctor(config: NodeConfig | None) -> Iterable[Finding]:  # noqa: ARG001 - what implementations get
    """
    Checks of this machine for `xdpchain doctor`.

    Args:
        config: the node's configuration, None where it cannot be read.
    """
    return ()


@hookspec
def xdpchain_applied(config: NodeConfig, plan: Plan) -> None:
    """
    Called in the daemon after an apply, with what is configured now and what was done.

    It runs in the daemon's working thread: be quick. An exception is logged as `plugin_failed` and changes nothing.
    """
