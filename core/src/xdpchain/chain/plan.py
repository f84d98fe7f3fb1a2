# SPDX-License-Identifier: Apache-2.0
"""Planning: from what is wanted and what runs to the actions between them. Pure: no kernel, no files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from xdpchain.chain.model import Action, Interface, Kind, Place, Plan, Wiring
from xdpchain.config import InstanceConfig, InterfaceConfig, NodeConfig
from xdpchain.function import CHAIN_HOOKS, Hook, Program, Side


@attrs.frozen
class Wanted:
    """
    What a config asks of a node with these interfaces.

    `codes` are the fingerprints of the instances' code and schemas, `names` the interfaces' names by index.
    """

    instances: Mapping[str, InstanceConfig]
    codes: Mapping[str, str]
    wirings: Mapping[Place, Wiring]
    names: Mapping[int, str]
    waiting: tuple[str, ...]


@attrs.frozen
class Running:
    """
    What runs: the configs and codes of the instances, the wirings, and the modes that the places really have. A wiring of None is one that
    an earlier daemon left: it is there, but what is in it is not known.
    """

    configs: Mapping[str, Any] = attrs.field(factory=dict)
    codes: Mapping[str, str] = attrs.field(factory=dict)
    wirings: Mapping[Place, Wiring | None] = attrs.field(factory=dict)
    modes: Mapping[Place, str] = attrs.field(factory=dict)


def want(config: NodeConfig, present: Sequence[Interface], codes: Mapping[str, str]) -> Wanted:
    """What a config asks of a node whose interfaces are `present`."""
    wirings: dict[Place, Wiring] = {}
    matched: set[str] = set()
    for interface in present:
        settings = config.interface_for(interface.name)
        if settings is None:
            continue
        matched.add(settings.pattern)
        for hook in CHAIN_HOOKS:
            wiring = _wiring(config, settings, hook, settings.side_of(interface.kind), codes)
            if wiring.instances:
                wirings[Place(hook, interface.index)] = wiring
    used = {name for settings in config.interfaces for name in settings.chain}
    used |= {name for name, instance in config.instances.items() if instance.node_wide}
    for name in used:
        for program in config.instances[name].function.programs:
            if program.hook is Hook.TRACEPOINT:
                wirings[Place(Hook.TRACEPOINT, 0, f"{name}-{program.entry}")] = Wiring((name,), (program.entry,), (codes[name],))
    return Wanted(
        {name: instance for name, instance in config.instances.items() if name in used},
        codes,
        wirings,
        {interface.index: interface.name for interface in present},
        tuple(settings.pattern for settings in config.interfaces if settings.pattern not in matched),
    )


def _wiring(config: NodeConfig, settings: InterfaceConfig, hook: Hook, side: Side, codes: Mapping[str, str]) -> Wiring:
    programs: list[tuple[str, Program]] = []
    for name in settings.chain:
        found = (program for program in config.instances[name].function.programs if program.hook is hook and program.runs_on(side))
        programs.extend((name, program) for program in found)
    xdp = hook is Hook.XDP
    return Wiring(
        tuple(name for name, _ in programs),
        tuple(program.entry for _, program in programs),
        tuple(codes[name] for name, _ in programs),
        on_error=(settings.on_error or config.node.on_error).value,
        mode=settings.xdp_mode.value if xdp else "auto",
        frags=xdp and bool(programs) and all(program.frags for _, program in programs),
    )


def make_plan(wanted: Wanted, running: Running, blocked: Mapping[Place, str]) -> Plan:
    """
    The actions from what runs to what is wanted, in the order in which they are to be done.

    `blocked` names the places where a foreign program is, with words on who it is: nothing is attached there.
    """
    actions = [
        *_instances(wanted, running),
        *_places(wanted, running, blocked),
        *(Action(Kind.REMOVE, name, "no chain uses it", instance=name) for name in running.configs if name not in wanted.instances),
    ]
    return Plan(tuple(actions), wanted.waiting, {wanted.names[place.interface]: who for place, who in blocked.items()})


def _instances(wanted: Wanted, running: Running) -> Iterator[Action]:
    for name, instance in wanted.instances.items():
        if name not in running.configs:
            yield Action(Kind.MAKE, name, f"function {instance.function.name}", instance=name)
        elif running.codes[name] != wanted.codes[name]:
            yield Action(Kind.REPLACE, name, "its code or its map schema changed", instance=name)
        elif running.configs[name] != instance.config:
            yield Action(Kind.CONFIGURE, name, "its config changed", instance=name)


def _places(wanted: Wanted, running: Running, blocked: Mapping[Place, str]) -> Iterator[Action]:
    def words(place: Place) -> str:
        return place.program or f"{wanted.names.get(place.interface, place.interface)} {place.hook.value}"

    for place in sorted(running.wirings):
        if place not in wanted.wirings:
            why = "its interface is gone" if place.interface and place.interface not in wanted.names else "no chain is configured for it"
            yield Action(Kind.DETACH, words(place), why, place=place)
    for place, wiring in sorted(wanted.wirings.items(), key=lambda item: item[0]):
        if place in blocked:
            continue
        arrow = " -> ".join(wiring.instances)
        if place not in running.wirings:
            yield Action(Kind.ATTACH, words(place), arrow, place=place, wiring=wiring)
            continue
        old = running.wirings[place]
        if old != wiring:
            yield Action(Kind.REWIRE, words(place), _difference(old, wiring, running.modes.get(place, "")), place=place, wiring=wiring)


def needs_reattach(old: Wiring | None, new: Wiring, mode: str) -> bool:
    """
    Whether a place that runs in `mode` must be detached for its next wiring.

    A link cannot change its mode; and in hardware there is no dispatcher whose jump could be changed.
    """
    if mode not in {"native", "generic", "offload"}:
        return False
    if new.mode == "auto":
        return mode == "offload" or bool(old and old.mode == "generic")
    return mode != new.mode or mode == "offload"


def _difference(old: Wiring | None, new: Wiring, mode: str) -> str:
    arrow = " -> ".join(new.instances)
    gap = "; packets pass without the chain for a moment" if needs_reattach(old, new, mode) else ""
    if old is None:
        return f"taken over from an earlier daemon: {arrow}{gap}"
    changes = []
    if old.instances != new.instances:
        changes.append(f"{' -> '.join(old.instances)} becomes {arrow}")
    elif old.entries != new.entries:
        changes.append(f"runs {', '.join(new.entries)} in place of {', '.join(old.entries)}")
    elif old.code != new.code:
        changed = (name for name, a, b in zip(new.instances, old.code, new.code, strict=True) if a != b)
        changes.append(f"new code or schema of {', '.join(changed)}")
    if old.on_error != new.on_error:
        changes.append(f"on_error {old.on_error} becomes {new.on_error}")
    if old.mode != new.mode:
        changes.append(f"xdp_mode {old.mode} becomes {new.mode}{gap}")
    if old.frags != new.frags:
        changes.append("packets in several buffers are " + ("accepted now" if new.frags else "no longer accepted"))
    return "; ".join(changes)
