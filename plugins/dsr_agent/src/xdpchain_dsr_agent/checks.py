# SPDX-License-Identifier: Apache-2.0
"""What keeps an agent from its work on this machine, for `xdpchain doctor`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from xdpchain import Side
from xdpchain.hookspecs import Finding, State

from xdpchain_dsr_agent import ethtool
from xdpchain_dsr_agent.config import DsrAgentConfig

if TYPE_CHECKING:
    from xdpchain.config import NodeConfig

GRO_LISTS = ("rx-gro-list", "rx-udp-gro-forwarding")
"""with these GRO makes one of several UDP packets, whatever is in them: also of encapsulated ones"""
_STRICT = 1
_SYS, _CLASS = Path("/proc/sys/net"), Path("/sys/class/net")


def findings(config: NodeConfig | None) -> Iterator[Finding]:
    """Everything about the interfaces of agents, and those that encapsulated packets may come in by."""
    agents = _agents(config)
    if config is None or not agents:
        return
    from xdpchain.netlink import list_interfaces

    routed = [agent for agent in agents.values() if agent.answers == "stack"]
    workloads = False
    for interface in list_interfaces():
        settings = config.interface_for(interface.name)
        its = [agents[name] for name in settings.chain if name in agents] if settings else []
        if its or interface.name != "lo":
            yield from merging(interface.name, _active(interface.name), has_agent=bool(its))
        if settings and its and settings.side_of(interface.kind) is Side.WORKLOAD and not (_CLASS / interface.name / "brport").exists():
            workloads = True
            if any(agent in routed for agent in its):
                strictness = max(_setting(f"ipv4/conf/{name}/rp_filter", 0) for name in ("all", interface.name))
                yield from reverse_path(interface.name, strictness)
    if workloads:
        yield from forwarding(_families(agents.values()), {4: _setting("ipv4/ip_forward", 1), 6: _setting("ipv6/conf/all/forwarding", 1)})


def merging(interface: str, active: Collection[str], *, has_agent: bool) -> Iterator[Finding]:
    """Whether GRO merges encapsulated packets of an interface."""
    on = [name for name in GRO_LISTS if name in active]
    if on:
        state = State.FAIL if has_agent else State.WARN
        text = f"{' and '.join(on)} {'are' if len(on) > 1 else 'is'} on: encapsulated packets are merged into what no agent can take apart"
        yield Finding(interface, state, text, f"ethtool -K {interface} {' '.join(f'{name} off' for name in on)}")
    elif has_agent:
        yield Finding(interface, State.OK, "GRO does not merge encapsulated packets")


def reverse_path(interface: str, strictness: int) -> Iterator[Finding]:
    """Whether the host drops answers that come from a workload's port with the VIP as source."""
    if strictness == _STRICT:
        text = 'rp_filter is strict and answers = "stack": answers have the VIP as source, which no route leads to by this interface, and are dropped'
        hint = f'answers = "direct", or sysctl net.ipv4.conf.{interface}.rp_filter=2'
        yield Finding(interface, State.FAIL, text, hint)


def forwarding(families: Collection[int], on: dict[int, int]) -> Iterator[Finding]:
    """Whether the host forwards between workloads and the network."""
    for family, setting in ((4, "net.ipv4.ip_forward"), (6, "net.ipv6.conf.all.forwarding")):
        if family in families and not on[family]:
            text = f"{setting} is 0: IPv{family} packets come neither to workloads nor from them, unless a bridge carries them"
            yield Finding("forwarding", State.WARN, text, f"sysctl {setting}=1")


def _agents(config: NodeConfig | None) -> dict[str, DsrAgentConfig]:
    """The agents of a node by the names of their instances."""
    instances = config.instances if config else {}
    return {name: one.config for name, one in instances.items() if isinstance(one.config, DsrAgentConfig)}


def _families(agents: Collection[DsrAgentConfig]) -> set[int]:
    """The families of services; both where there is none yet."""
    return {service.vip.version for agent in agents for service in agent.all_services} or {4, 6}


def _active(interface: str) -> frozenset[str]:
    try:
        return ethtool.active(interface)
    except OSError:  # it has just gone, or has nothing to say
        return frozenset()


def _setting(name: str, otherwise: int) -> int:
    try:
        return int((_SYS / name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return otherwise
