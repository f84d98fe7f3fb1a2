# SPDX-License-Identifier: Apache-2.0
"""Checks of the interfaces that the node's file names: what their drivers can do, and who is there already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from xdpchain.daemon.paths import Paths
from xdpchain.function import Hook
from xdpchain.hookspecs import Finding, State

if TYPE_CHECKING:
    from xdpchain.chain.model import Interface
    from xdpchain.config import InterfaceConfig, NodeConfig

SINGLE_BUFFER_MTU = 3498
"""largest MTU at which a packet with XDP's headroom fits into one page of 4096 bytes"""


def findings(config: NodeConfig | None) -> Iterator[Finding]:
    """Everything about the configured interfaces."""
    if config is None:
        return
    from xdpchain.chain.observe import observe
    from xdpchain.netlink import list_interfaces, xdp_features

    features = xdp_features()
    ours = {place.place.interface for place in observe(Paths.choose().root).places if place.place.hook is Hook.XDP}
    found = set()
    for interface in list_interfaces():
        settings = config.interface_for(interface.name)
        if settings is None:
            continue
        found.add(settings.pattern)
        side = settings.side_of(interface.kind)
        used = (program for name in settings.chain for program in config.instances[name].function.programs if program.runs_on(side))
        programs = [program for program in used if program.hook is Hook.XDP]
        if programs:
            yield driver(interface, settings, features.get(interface.index))
            yield from _foreign(interface, interface.index in ours)
            yield from mtu(interface, features.get(interface.index), frags=all(program.frags for program in programs))
    for settings in config.interfaces:
        if settings.pattern not in found:
            yield Finding(settings.pattern, State.OK, "no such interface now: the chain waits for it")


def driver(interface: Interface, settings: InterfaceConfig, features: frozenset[str] | None) -> Finding:
    """Whether the driver runs XDP programs itself."""
    name = _driver_name(interface)
    if features is None or "basic" in features:
        able = "can run XDP programs itself" if features else "does not say what it can do with XDP (kernel before 6.3)"
        veth = "; TX and redirect out of it need GRO or an XDP program at its peer" if interface.kind == "veth" else ""
        return Finding(interface.name, State.OK, f"driver {name} {able}{veth}")
    text = f"driver {name} cannot run XDP programs itself"
    if settings.xdp_mode.value in {"native", "offload"}:
        return Finding(
            interface.name, State.FAIL, f"{text}, but xdp_mode is {settings.xdp_mode.value!r}", 'set xdp_mode = "auto" or "generic"'
        )
    return Finding(interface.name, State.WARN, f"{text}: the stack does it, several times slower", "choose a NIC whose driver has XDP")


def _driver_name(interface: Interface) -> str:
    try:
        return Path(f"/sys/class/net/{interface.name}/device/driver").resolve(strict=True).name
    except OSError:
        return interface.kind or "(none)"


def _foreign(interface: Interface, ours: bool) -> Iterator[Finding]:
    if interface.xdp_programs and not ours:
        who = ", ".join(f"id {number} ({mode})" for mode, number in interface.xdp_programs.items())
        hint = f"it is never replaced; see `bpftool net`, detach with `ip link set {interface.name} xdp off`"
        yield Finding(interface.name, State.FAIL, f"another XDP program is attached: {who}", hint)


def mtu(interface: Interface, features: frozenset[str] | None, *, frags: bool) -> Iterator[Finding]:
    """Whether the largest packets fit."""
    if interface.mtu <= SINGLE_BUFFER_MTU or interface.name == "lo":
        return
    if not frags:
        hint = f"ip link set {interface.name} mtu {SINGLE_BUFFER_MTU} or less, or use functions that can do frags"
        yield Finding(
            interface.name, State.WARN, f"MTU {interface.mtu}, but not all functions of its chain take packets in several buffers", hint
        )
    elif features is not None and "rx_sg" not in features:
        hint = f"ip link set {interface.name} mtu {SINGLE_BUFFER_MTU} or less"
        yield Finding(interface.name, State.WARN, f"MTU {interface.mtu}, but the driver gives no packets in several buffers", hint)
