# SPDX-License-Identifier: Apache-2.0
"""What a node file says, as values: the node's settings, its interfaces with their chains, its instances."""

from __future__ import annotations

import enum
import fnmatch
import re
from collections.abc import Mapping
from typing import Any

import attrs

from xdpchain.config.misfit import MisfitError, quoted
from xdpchain.config.names import is_pattern, literal_prefix
from xdpchain.config.option import option
from xdpchain.config.textfile import TextFile
from xdpchain.config.values import MAX_PORT
from xdpchain.errors import Problem
from xdpchain.function import Hook, KernelFunction, Side

MAX_CHAIN = 32
"""Instances in one chain. The kernel ends a packet's walk at 33 tail calls, and the dispatcher's jump is one."""


_WORKLOAD_KINDS = {"tun", "veth", "macvtap", "ipvtap", "netkit"}


class OnError(enum.StrEnum):
    """What a chain does with a packet when a hop cannot be taken."""

    PASS = "pass"  # noqa: S105 - no password
    DROP = "drop"


class XdpMode(enum.StrEnum):
    """Where XDP programs run."""

    NATIVE = "native"
    GENERIC = "generic"
    AUTO = "auto"
    OFFLOAD = "offload"


class SideKey(enum.StrEnum):
    """What is at the other end of an interface."""

    AUTO = "auto"
    NETWORK = "network"
    WORKLOAD = "workload"


def _is_listen_address(_: Any, __: attrs.Attribute[str], value: str) -> None:
    if value == "off":
        return
    match = re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})", value)
    if match is None:
        hint = '"127.0.0.1:9977", "[::1]:9977", "0.0.0.0:9977" for all addresses, or "off"'
        raise MisfitError(f'must be an address and a port, or "off", not {quoted(value)}', hint=hint)
    if not 1 <= int(match[1]) <= MAX_PORT:
        raise MisfitError(f"must name a port from 1 to {MAX_PORT}, not {match[1]}", hint="the exporter's usual port is 9977")


@attrs.frozen(kw_only=True)
class NodeSettings:
    """`[node]`: what holds for the whole node."""

    on_error: OnError = option(default=OnError.PASS, help="What a chain does with a packet when a hop cannot be taken.")
    metrics: str = option(
        default="127.0.0.1:9977",
        validator=_is_listen_address,
        help='Address and port on which the metrics are served over HTTP, or "off".',
    )


@attrs.frozen(kw_only=True)
class InterfaceTable:
    """`[interface.NAME]` as it is written; the name may be a pattern such as "tap*"."""

    chain: tuple[str, ...] = option(help="The instances that packets pass, in this order.")
    xdp_mode: XdpMode = option(
        default=XdpMode.AUTO,
        help="Where XDP programs run: in the driver (native), in the stack (generic), native if the driver can (auto), in the NIC (offload).",
    )
    on_error: OnError | None = option(default=None, help="Overrides the node's on_error on this interface.")
    side: SideKey = option(
        default=SideKey.AUTO,
        help="What is at its other end: the network, or a workload of this machine. Taps and veths have a workload there (auto), others the network.",
    )


@attrs.frozen
class InterfaceConfig:
    """The chain of one interface, or of all whose name matches `pattern`; `on_error` is None where the node's holds."""

    pattern: str
    chain: tuple[str, ...]
    xdp_mode: XdpMode = XdpMode.AUTO
    on_error: OnError | None = None
    side: SideKey = SideKey.AUTO

    def side_of(self, kind: str) -> Side:
        """What is at the other end of an interface of this `kind` (as `ip -details link` names it; empty for a NIC)."""
        if self.side is not SideKey.AUTO:
            return Side(self.side.value)
        return Side.WORKLOAD if kind in _WORKLOAD_KINDS else Side.NETWORK

    def matches(self, name: str) -> bool:
        """Whether this is the config of an interface of that name, unless another one fits better."""
        return fnmatch.fnmatchcase(name, self.pattern) if is_pattern(self.pattern) else name == self.pattern


@attrs.frozen
class InstanceConfig:
    """A function with a config, under a name."""

    name: str
    function: KernelFunction[Any]
    config: Any

    @property
    def node_wide(self) -> bool:
        """Whether it has tracepoint programs only: it needs no chain to run."""
        return all(program.hook in {Hook.TRACEPOINT, Hook.ROUTINE} for program in self.function.programs)


@attrs.frozen
class NodeConfig:
    """A whole, valid node. `warnings` are what is allowed but looks like a mistake, `texts` the files that its keys name."""

    node: NodeSettings
    interfaces: tuple[InterfaceConfig, ...]
    instances: Mapping[str, InstanceConfig]
    warnings: tuple[Problem, ...] = ()
    texts: tuple[TextFile, ...] = ()

    def interface_for(self, name: str) -> InterfaceConfig | None:
        """
        The config of an interface, or None.

        Its own name wins over patterns; of several patterns the one with the longest text before its first wildcard, of equals the first
        in the files.
        """
        fitting = [interface for interface in self.interfaces if interface.matches(name)]
        return max(fitting, key=lambda interface: (interface.pattern == name, len(literal_prefix(interface.pattern))), default=None)
